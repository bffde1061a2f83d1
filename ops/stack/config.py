"""The configuration files of a trial installation, each with what its process needs and no more."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from custody.config import FILE_VARIABLE
from custody.console.clock import VARIABLE as CLOCK_VARIABLE
from custody.console.settings import FILE_VARIABLE as CLIENT_VARIABLE
from custody.storage.sealing import add_key
from ops.devnet.files import write_private
from ops.devnet.softhsm import SoftHsmToken
from ops.devnet.tools import CHECKOUT, TOOLS, bitcoind_program
from ops.stack.keys import private_directory
from ops.stack.keyset import mark_directory, signer_directory
from ops.stack.listing import CHAIN
from ops.stack.members import MEMBERS, Member
from ops.stack.trading import RECONCILER, TRADING_AUDIENCE, trading_core
from policies.bundle import BitcoinKeyset, BitcoinVault, Bundle, Vault, WalletEntry

if TYPE_CHECKING:
    from ops.stack.stack import Stack
    from ops.stack.trust import Trust

AUDIENCE: Final = "strongroom-trial"
ROLES: Final = {
    "api": "strongroom_api",
    "monitor": "strongroom_monitor",
    "worker": "strongroom_worker",
    "reconcile": "strongroom_read",
    "verifier": "strongroom_read",
}
"""Database role of each process that has one."""
MEMBER_SIGNERS: Final = tuple(f"signer-{name}" for name, _ in MEMBERS)
NAMES: Final = (
    "signer",
    *MEMBER_SIGNERS,
    "api",
    "monitor",
    "worker",
    "trading",
    "beat",
    "reconcile",
    "verifier",
)

__all__ = ["AUDIENCE", "FILE_VARIABLE", "NAMES", "client_file", "commands", "files", "write"]


def files(directory: Path) -> dict[str, Path]:
    """The configuration file of each process."""
    return {name: directory / "config" / f"{name}.toml" for name in NAMES}


def client_file(directory: Path, caller: str) -> Path:
    """What `STRONGROOM_CLIENT` names for one of the callers."""
    return directory / "clients" / f"{caller}.toml"


def commands(paths: Mapping[str, Path]) -> dict[str, list[str]]:
    """How each process is started."""
    strongroom = [sys.executable, "-m", "ops.cli"]
    found = {name: [*strongroom, name] for name in ("api", "monitor", "worker", "trading", "beat")}
    modules = dict.fromkeys(("signer", *MEMBER_SIGNERS), "signers.daemon")
    for name, module in (*modules.items(), ("verifier", "signers.verifier.process")):
        found[name] = [sys.executable, "-m", module, "--config", str(paths[name])]
    return found


def write(stack: Stack, trust: Trust, passwords: Mapping[str, str]) -> dict[str, Path]:
    """Writes all of them (0600), with the ports and passwords of this start; returns where."""
    paths = files(stack.directory)
    private_directory(stack.directory / "config")
    private_directory(stack.directory / "clients")
    contents = {"signer": _signer(stack, trust)}
    contents |= {member.process: _member(member, stack, trust) for member in stack.members}
    if stack.trades:
        contents["trading"] = trading_core(stack, trust, audience=AUDIENCE)
    for name in NAMES:
        if name == "trading" and not stack.trades:
            continue
        content = contents.get(name) or _process(name, stack, trust, passwords)
        if name == "verifier":
            content = _verifier(stack, trust, content["database_url"])
        write_private(paths[name], to_toml(content))
    for caller in trust.callers.values():
        content = {
            "api_url": stack.api_url,
            "caller": caller.id,
            "caller_key": str(caller.key_file),
            "audience": AUDIENCE,
        }
        write_private(client_file(stack.directory, caller.id), to_toml(content))
    _for_people(stack)
    return paths


def _process(name: str, stack: Stack, trust: Trust, passwords: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if name in ROLES:
        role = ROLES[name]
        found["database_url"] = stack.postgres.dsn_of(role, passwords[role])
        found["bundle_path"] = str(trust.bundle_path)
        found["trust_root_path"] = str(trust.trust_root_path)
        found["demo_clock_path"] = str(clock_file(stack.directory))
    if name in ("api", "worker", "beat"):
        found["redis_url"] = stack.redis.url
    if name == "api":
        found |= {"audience": AUDIENCE, "api_host": "127.0.0.1", "api_port": stack.api_port}
    if name in ("monitor", "worker", "reconcile"):
        node = stack.node
        urls = {"rpc_url": node.rpc_url, "rest_url": node.rest_url, "zmq_url": node.zmq_url}
        evm = {network.chain: {"rpc_url": anvil.rpc_url} for network, anvil in stack.chains.items()}
        found["nodes"] = {CHAIN: urls, **evm}
    if name in ("worker", "reconcile") and stack.trades:
        reconciler = trust.callers[RECONCILER]
        found["trading"] = {
            "url": stack.trading_url,
            "audience": TRADING_AUDIENCE,
            "caller": reconciler.id,
            "key_path": str(reconciler.key_file),
        }
    if name in ("api", "worker"):
        found["sealing_keys_path"] = str(_sealing_keys(stack.directory))
    if name == "worker":
        found["travel_rule_outbox"] = str(private_directory(stack.directory / "outbox"))
    if name in ("monitor", "worker"):
        found["screening"] = {"lists": [str(_lists(stack.directory))], "lists_valid_days": 366}
    if name == "worker":
        found["gather_seconds"] = 2  # enough for orders that come together; a tour should not wait for more
    if name in ("api", "worker"):
        hot = (*trust.bundle.keysets, *trust.bundle.gas_payers)
        found["signers"] = {wallet.id: {"socket": str(stack.signer_socket)} for wallet in hot} | {
            f"{vault.id}/{member.name}": {"socket": str(member.socket)}
            for member in stack.members
            for vault in vaults_of(trust.bundle, member.name)
        }
        found["verifiers"] = {trust.verifier.id: {"socket": str(stack.verifier_socket)}}
    return found


def _member(member: Member, stack: Stack, trust: Trust) -> dict[str, Any]:
    """A signer of warm vaults: of those whose members it is among."""
    warm = vaults_of(trust.bundle, member.name)
    return {
        "environment": "trial",
        "directory": str(member.directory),
        "mark_directory": str(member.mark_directory),
        "bundle_path": str(trust.bundle_path),
        "tokens": {"main": token_section(member.token)},
        "keys": {vault.id: key_section(vault) for vault in warm},
        "listen": {"unix": str(member.socket)},
        "demo_clock": str(clock_file(stack.directory)),
    }


def vaults_of(bundle: Bundle, member: str) -> list[Vault]:
    """The warm vaults that the bundle names a signer a member of, by its name."""
    return [
        vault
        for vault in bundle.vaults
        if vault.tier == "warm"
        and any(
            each.id == member
            for each in (vault.cosigners if isinstance(vault, BitcoinVault) else vault.owners)
        )
    ]


def _signer(stack: Stack, trust: Trust) -> dict[str, Any]:
    return {
        "environment": "trial",
        "directory": str(signer_directory(stack.directory)),
        "mark_directory": str(mark_directory(stack.directory)),
        "bundle_path": str(trust.bundle_path),
        "tokens": {"main": token_section(stack.token)},
        "keys": {
            wallet.id: key_section(wallet) for wallet in (*trust.bundle.keysets, *trust.bundle.gas_payers)
        },
        "listen": {"unix": str(stack.signer_socket)},
        "demo_clock": str(clock_file(stack.directory)),
    }


def clock_file(directory: Path) -> Path:
    """By how many seconds a demonstration has set the trial's clock forward (`policies.democlock`)."""
    path = directory / "demo-clock"
    if not path.exists():
        write_private(path, "0")
    return path


def _verifier(stack: Stack, trust: Trust, database_url: str) -> dict[str, Any]:
    """In a trial its nodes are those of the online side; really they are others."""
    node = stack.node
    evm = {network.chain: {"rpc_url": anvil.rpc_url} for network, anvil in stack.chains.items()}
    return {
        "name": trust.verifier.id,
        "directory": str(private_directory(stack.directory / "verifier")),
        "mark_path": str(private_directory(stack.directory / "verifier-mark") / "verdicts.mark"),
        "bundle_path": str(trust.bundle_path),
        "trust_root_path": str(trust.trust_root_path),
        "key_file": str(trust.verifier.key_file),
        "database_url": database_url,
        "round_seconds": 30,
        "demo_clock": str(clock_file(stack.directory)),
        "nodes": {CHAIN: {"rpc_url": node.rpc_url, "rest_url": node.rest_url}, **evm},
        "signers": {"hot": {"socket": str(stack.signer_socket)}}
        | {
            each.member.name: {
                "socket": str(each.member.socket),
                "log_key": each.log_key,
                "member_of": [vault.id for vault in vaults_of(trust.bundle, each.member.name)],
            }
            for each in trust.keys.members
        },
        "listen": {"unix": str(stack.verifier_socket)},
    }


def token_section(token: SoftHsmToken) -> dict[str, Any]:
    """`[tokens.NAME]` of a signer's configuration."""
    return {"module": str(token.module_path), "label": token.label, "pin_file": str(token.pin_path)}


def key_section(wallet: WalletEntry) -> dict[str, Any]:
    """`[keys.ID]` of a signer's configuration: where its set-up has made the keys of a wallet."""
    scheme = "sealed" if isinstance(wallet, BitcoinKeyset | BitcoinVault) else "pkcs11"
    return {"uri": f"{scheme}:token=main"}


def _for_people(stack: Stack) -> None:
    """A file for a shell to read, after which `strongroom`, `bitcoin-cli` and `eth` speak to this stack."""
    beside = bitcoind_program().with_name("bitcoin-cli")
    program = beside if beside.exists() else shutil.which("bitcoin-cli") or TOOLS / "bin/bitcoin-cli"
    scripts = private_directory(stack.directory / "bin")
    nodes = " ".join(f'--node "{network.chain}={anvil.rpc_url}"' for network, anvil in stack.chains.items())
    outside = f'"{sys.executable}" -m ops.stack.outside --bundle "{stack.directory}/bundle.json" {nodes}'
    for name, command in (
        ("bitcoin-cli", f'"{program}" -datadir="{stack.node.data_directory}"'),
        ("eth", f'env PYTHONPATH="{CHECKOUT}" {outside}'),
    ):
        (scripts / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (scripts / name).chmod(0o700)
    content = "".join(f'export {name}="{value}"\n' for name, value in variables(stack).items())
    write_private(shell_file(stack.directory), content)


def variables(stack: Stack) -> dict[str, str]:
    """What the shell of a person at the host has set."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{stack.directory}/bin:$PATH",
        CLIENT_VARIABLE: str(client_file(stack.directory, "exchange")),
        "STRONGROOM_OPERATOR": str(client_file(stack.directory, "operator")),
        FILE_VARIABLE: str(files(stack.directory)["reconcile"]),
        "STRONGROOM_OPERATOR_CONFIG": str(files(stack.directory)["worker"]),
        "STRONGROOM_SIGNER": str(stack.signer_socket),
        "STRONGROOM_BUNDLE_PATH": f"{stack.directory}/bundle.json",
        "STRONGROOM_TRUST_ROOT_PATH": f"{stack.directory}/trust-root.json",
        CLOCK_VARIABLE: str(clock_file(stack.directory)),
        "STRONGROOM_TRADING_URL": stack.trading_url,
        "STRONGROOM_TRADING_AUDIENCE": TRADING_AUDIENCE,
        **stack.token.env,
    }


def shell_file(directory: Path) -> Path:
    """What a shell reads to speak to the stack in `directory`."""
    return directory / "env"


def to_toml(table: Mapping[str, Any]) -> str:
    """A table of texts, numbers, lists and tables of the same, as TOML; tables in lists are written in place."""
    lines = [
        f"{_value(name)} = {_value(value)}" for name, value in table.items() if not isinstance(value, dict)
    ]
    return "\n".join([*lines, *_sections(table, "")]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # Strings and lists of them are written alike in JSON and TOML, but for surrogates and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _sections(table: Mapping[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    for name, value in table.items():
        if isinstance(value, dict):
            path = f"{prefix}{json.dumps(name)}"
            plain = [
                f"{_value(key)} = {_value(entry)}"
                for key, entry in value.items()
                if not isinstance(entry, dict)
            ]
            if plain:
                lines += ["", f"[{path}]", *plain]
            lines += _sections(value, path + ".")
    return lines


def _sealing_keys(directory: Path) -> Path:
    """The key ring of a trial's personal data. In a real installation each process has a copy of its own."""
    ring = private_directory(directory / "sealing") / "keys"
    if not ring.exists():
        add_key(ring, "first")
    return ring


def _lists(directory: Path) -> Path:
    """Where a trial's screening lists are. The first one is empty: write lines into it and watch a case open."""
    lists = directory / "lists"
    lists.mkdir(mode=0o755, exist_ok=True)
    example = lists / "own.csv"
    if not example.exists():
        today = datetime.now(UTC).date()
        example.write_text(f"# date: {today}\n# source: this trial\naddress,chain,reason,source\n# end\n")
    return lists
