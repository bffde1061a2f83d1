"""A place for a ceremony: two SoftHSM tokens, two operators, holders with memory sticks, plan and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops.devnet.files import write_private
from ops.devnet.softhsm import SoftHsmToken
from ops.stack.config import to_toml, token_section
from signers.ceremony.operators import create_operator_key
from signers.ceremony.record import ProvenCeremony, SignedCeremony, ceremony_path, proven_path
from signers.process.files import read_kept

OPERATORS: Final = ("olga", "otto")
HOLDERS: Final = ("anna", "ben", "carl")
STEPS: Final = ("plan", "entropy", "keys", "shares", "record", "proof", "activation", "remove", "restore")
DICE: Final = "4 1 6 6 2 3 canary-of-the-dice"
PASSPHRASES: Final = {name: f"canary passphrase of {name}" for name in OPERATORS}

WALLET: Final = {"kind": "btc-hd", "id": "btc-hot", "network": "regtest"}
TAPROOT: Final = {**WALLET, "id": "btc-taproot", "script": "p2tr"}
COSIGNER: Final = {
    "kind": "btc-cosigner",
    "id": "btc-warm",
    "network": "regtest",
    "organisation": "house",
    "member": "warm-a",
}
EVM_KEY: Final = {"kind": "evm-key", "id": "eth-hot", "chain_id": 31337}
SAFE_OWNER: Final = {
    "kind": "safe-owner",
    "id": "eth-warm",
    "chain_id": 31337,
    "organisation": "house",
    "member": "owner-a",
}


class Site:
    """Where a ceremony is held. Everything is below one directory."""

    def __init__(
        self,
        root: Path,
        keyset: Mapping[str, Any],
        *,
        environment: str = "trial",
        threshold: int = 2,
        holders: Sequence[str] = HOLDERS,
    ) -> None:
        self.root, self.keyset, self.id = root, dict(keyset), str(keyset["id"])
        self.environment, self.threshold, self.holders = environment, threshold, tuple(holders)
        self.token = SoftHsmToken(root / "token", "main")
        self.proof_token = SoftHsmToken(root / "proof-token", "proof")
        self.directory, self.backup = root / "signer", root / "backup"
        self.plan, self.answers = root / "plan.toml", root / "answers.toml"
        root.mkdir(parents=True, exist_ok=True)
        for token in (self.token, self.proof_token):
            token.create()
        for name in OPERATORS:
            create_operator_key(self.key_file(name), PASSPHRASES[name])
        for name in self.holders:
            (root / name).mkdir()
        self.write_plan()
        self.write_answers()

    def key_file(self, operator: str) -> Path:
        return self.root / f"{operator}.pem"

    def share_file(self, holder: str) -> Path:
        return self.root / holder / f"{self.id}.share"

    def plan_object(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "directory": str(self.directory),
            "backup_directory": str(self.backup),
            "threshold": self.threshold,
            "keyset": self.keyset,
            "token": token_section(self.token),
            "proof_token": {**token_section(self.proof_token), "settings": self.proof_token.env},
            "operators": [{"name": name, "key_file": str(self.key_file(name))} for name in OPERATORS],
            "holders": [{"name": name, "file": str(self.share_file(name))} for name in self.holders],
        }

    def write_plan(self, **changes: Any) -> None:
        write_private(self.plan, to_toml({**self.plan_object(), **changes}))

    def write_answers(self, **changes: Any) -> None:
        answers = {
            "confirm": {name: list(STEPS) for name in OPERATORS},
            "passphrases": PASSPHRASES,
            "typed": DICE,
            "shares": {name: str(self.share_file(name)) for name in self.holders},
        }
        write_private(self.answers, to_toml({**answers, **changes}))

    def arguments(self, command: str = "run") -> list[str]:
        """Of `strongroom key`."""
        return ["ceremony", command, str(self.plan), "--answers", str(self.answers)]

    def held(self, command: str = "run", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Hold the ceremony through the command, in a process of its own."""
        return run_key_command(self.arguments(command), self.token.env, check=check)

    def held_until(self, step: str) -> None:
        """Hold the ceremony until nobody confirms a step."""
        self.write_answers(confirm={name: [one for one in STEPS if one != step] for name in OPERATORS})
        assert f"did not confirm the step {step!r}" in self.held(check=False).stderr
        self.write_answers()

    def record(self) -> SignedCeremony:
        return read_kept(ceremony_path(self.directory, self.id), SignedCeremony)

    def proven(self) -> ProvenCeremony:
        return read_kept(proven_path(self.directory, self.id), ProvenCeremony)

    def words(self, holder: str) -> str:
        (line,) = (
            line for line in self.share_file(holder).read_text().splitlines() if line.startswith("SHARE:")
        )
        return line.removeprefix("SHARE:").strip()


class RestoreSite:
    """Where a key-set is restored: a new token and a new machine, the holders and the backup of the ceremony."""

    def __init__(self, root: Path, origin: Site) -> None:
        self.root, self.origin, self.id = root, origin, origin.id
        self.token = SoftHsmToken(root / "token", "new")
        self.directory = root / "signer"
        self.plan, self.answers = root / "restore.toml", root / "answers.toml"
        root.mkdir(parents=True, exist_ok=True)
        self.token.create()
        self.write_plan()
        self.write_answers()

    def write_plan(self) -> None:
        plan = self.origin.plan_object()
        write_private(
            self.plan,
            to_toml(
                {
                    "environment": "trial",
                    "keyset": self.id,
                    "directory": str(self.directory),
                    "backup_directory": plan["backup_directory"],
                    "token": token_section(self.token),
                    "operators": plan["operators"],
                },
            ),
        )

    def write_answers(self, **changes: Any) -> None:
        self.origin.write_answers()
        answers = {
            "confirm": {name: list(STEPS) for name in OPERATORS},
            "passphrases": PASSPHRASES,
            "shares": {name: str(self.origin.share_file(name)) for name in self.origin.holders},
        }
        write_private(self.answers, to_toml({**answers, **changes}))

    def arguments(self, command: str = "run") -> list[str]:
        """Of `strongroom key`."""
        return ["restore", command, str(self.plan), "--answers", str(self.answers)]

    def held(self, command: str = "run", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Restore through the command, in a process of its own."""
        return run_key_command(self.arguments(command), self.token.env, check=check)


OPENED: Final = """
import json, sys
from pathlib import Path
import msgspec
from signers.config import read_config
from signers.keys.opening import open_keys
config = read_config(Path(sys.argv[1]))
opened = open_keys(config, print)
(wallet,) = opened.wallets.values()
keys, digest = wallet.keys, bytes(range(32))
place = (1, 0) if hasattr(keys, "pubkey") else (0, 0)
public_key, signature = keys.sign(*place, digest)
account = getattr(keys, "account", None)
addresses = [account.pubkey(b, i).hex() for b in (0, 1) for i in range(3)] if account else [keys.record.address]
print(json.dumps({
    "record": msgspec.to_builtins(keys.record), "public_key": public_key.hex(), "signature": signature.hex(),
    "attestation": keys.attest(digest).hex(), "addresses": addresses,
}))
opened.close()
"""


def signer_config(site: Site | RestoreSite, environment: str = "trial") -> Path:
    """Writes the configuration of a signer with these keys."""
    evm = (site.directory / f"{site.id}.key.json").exists()
    config = site.root / "signer.toml"
    write_private(
        config,
        to_toml(
            {
                "environment": environment,
                # Opening keys becomes nobody; production asks for the names only.
                **({"user": "daemon", "mark_user": "nobody"} if environment == "production" else {}),
                "directory": str(site.directory),
                "mark_directory": str(site.root / "mark"),
                "bundle_path": str(site.root / "bundle.json"),
                "tokens": {"main": token_section(site.token)},
                "keys": {site.id: {"uri": f"{'pkcs11' if evm else 'sealed'}:token=main"}},
                "listen": {"unix": str(site.root / "signer.sock")},
            },
        ),
    )
    return config


def opening(site: Site | RestoreSite, environment: str = "trial") -> subprocess.CompletedProcess[str]:
    """Opens the keys as a signer does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", OPENED, str(signer_config(site, environment))],
        env={**os.environ, **site.token.env},
        capture_output=True,
        text=True,
        check=False,
    )


def opened(site: Site | RestoreSite, environment: str = "trial") -> dict[str, Any]:
    """The keys as a signer opens them: what they are, sign and attest."""
    done = opening(site, environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_key_command(
    arguments: Sequence[str], env: Mapping[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """`strongroom key ...` as where the online service is not installed."""
    done = subprocess.run(
        [sys.executable, "-m", "signers.cli", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def recovered(shares: Sequence[str]) -> bytes:
    """What the shares are of, by the library alone."""
    from shamir_mnemonic import combine_mnemonics

    return bytes(combine_mnemonics(shares))


def labels(token: SoftHsmToken) -> list[str]:
    """Labels of the keys in a token, seen by a process of its own."""
    program = (
        "import sys; from pathlib import Path; from signers.hsm.pkcs11 import Token\n"
        "from signers.ceremony.hsm import key_names\n"
        "token = Token(Path(sys.argv[1]), sys.argv[2], lambda: Path(sys.argv[3]).read_text().strip())\n"
        "print('\\n'.join(key_names(token)))"
    )
    arguments = [str(token.module_path), token.label, str(token.pin_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()
