"""`strongroom key ceremony`: two operators make a key-set, hand out its backup, and prove it by a restore.

    ceremony operator FILE              make an operator's own key, under a passphrase
    ceremony run PLAN [--answers FILE]  hold the ceremony, or go on where it stopped
    ceremony remove PLAN [--answers FILE]  take away what an interrupted ceremony has left
    ceremony quorum FILE                who signs bundles, and the fingerprint that holders of offline keys compare
    ceremony show DIRECTORY KEYSET      check a record and print it
    ceremony entry DIRECTORY KEYSET ... the key-set as the bundle lists it
    ceremony vault KEYSET DIRECTORY ... the vault that several members' records make together

For an offline machine: it needs no service and no network. See `signers.ceremony.plan` for the plan.
"""

from __future__ import annotations

import argparse
import sys
from getpass import getpass
from pathlib import Path

import msgspec

from signers.errors import BadConfiguration, CeremonyStopped


def main(verb: str, arguments: list[str]) -> int:
    """Run `strongroom key ceremony`; returns 0."""
    given = _parser(verb).parse_args(arguments)
    if given.command == "operator":
        return _operator(Path(given.file))
    if given.command == "quorum":
        return _quorum(Path(given.file))
    if given.command == "show":
        return _show(Path(given.directory), given.keyset)
    if given.command == "entry":
        return _entry(given)
    if given.command == "vault":
        return _vault(given)
    return _held(given)


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"strongroom key {verb}", description="Make a key-set: two operators, backup, proof."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    operator = commands.add_parser("operator", help="make an operator's key, under a passphrase")
    operator.add_argument("file")
    quorum = commands.add_parser("quorum", help="show who signs bundles, and their fingerprint to compare")
    quorum.add_argument("file", help="the root of trust (JSON)")
    for name, text in (
        ("run", "hold the ceremony, or go on where it stopped"),
        ("remove", "take away what an interrupted ceremony has left"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("plan", type=Path, help="TOML file; see signers/ceremony/plan.py")
        command.add_argument("--answers", type=Path, help="file that answers for the people; rehearsals only")
    for name, text in (
        ("show", "check a record and print it"),
        ("entry", "the key-set as the bundle lists it (JSON)"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "directory", help="with KEYSET.ceremony.json, and KEYSET.proven.json if there is one"
        )
        command.add_argument("keyset")
        if name == "entry":
            command.add_argument("--chain", help="of a wallet or gas payer: its chain in the bundle")
            command.add_argument("--holding-cap", help="of a gas payer, in base units of the native asset")
            command.add_argument("--tier", choices=("hot", "warm", "cold"), default="hot")
            for contract in ("factory", "forwarder", "payout", "admin"):
                command.add_argument(f"--{contract}", help="of an EVM key, as the bundle has it")
    vault = commands.add_parser("vault", help="a vault of several members as the bundle lists it (JSON)")
    vault.add_argument("keyset", help="the vault's id")
    vault.add_argument(
        "directories", nargs="+", help="one for each member's record, in the descriptor's order"
    )
    vault.add_argument("--chain", required=True, help="id of its chain in the bundle")
    vault.add_argument("--tier", choices=("warm", "cold"), required=True)
    vault.add_argument("--threshold", type=int, required=True, help="how many members sign")
    vault.add_argument("--address", help="of a Safe")
    return parser


def _held(given: argparse.Namespace) -> int:
    """Hold a ceremony, or take an interrupted one away."""
    from signers.ceremony.plan import read_plan
    from signers.ceremony.room import gathered
    from signers.ceremony.session import hold, take_away

    plan = read_plan(given.plan)
    with gathered(plan.environment, plan.operators, plan.token, given.answers) as (people, operators, token):
        (take_away if given.command == "remove" else hold)(plan, people, operators, token)
    return 0


def _operator(path: Path) -> int:
    from signers.ceremony.operators import create_operator_key
    from signers.ceremony.people import unless_interrupted

    if not sys.stdin.isatty():
        raise BadConfiguration("the passphrase is typed at a terminal, and here is none")
    with unless_interrupted():
        passphrase = getpass("passphrase (not shown): ")
        if getpass("once more: ") != passphrase:
            raise CeremonyStopped("the passphrases differ")
    print(f"public key {create_operator_key(path, passphrase)}")
    return 0


def _quorum(path: Path) -> int:
    from policies.bundle.root import read_root, root_lines

    try:
        print("\n".join(root_lines(read_root(path.read_bytes()))))
    except OSError as error:
        raise BadConfiguration(f"{path}: {error.strerror}") from None
    return 0


def _show(directory: Path, keyset: str) -> int:
    from signers.ceremony.session import read_ceremony
    from signers.ceremony.text import proof_text, record_text

    signed, proven = read_ceremony(directory, keyset)
    print(record_text(signed.record, signed))
    print("NOT PROVEN: production signers refuse this key-set" if proven is None else proof_text(proven))
    return 0


def _entry(given: argparse.Namespace) -> int:
    from signers.ceremony.entries import Contracts, gas_payer_entry, member_entry, wallet_entry
    from signers.ceremony.session import read_ceremony

    signed, proven = read_ceremony(Path(given.directory), given.keyset)
    entry: object
    if signed.record.purpose == "gas":
        if given.chain is None or given.holding_cap is None:
            raise BadConfiguration("a gas payer's entry needs --chain and --holding-cap")
        entry = gas_payer_entry(signed, proven, chain=given.chain, holding_cap=given.holding_cap)
    elif signed.record.purpose == "wallet":
        if given.chain is None:
            raise BadConfiguration("a wallet's entry needs --chain")
        contracts = None
        if given.factory is not None and given.forwarder is not None:
            contracts = Contracts(given.factory, given.forwarder, given.payout, given.admin)
        entry = wallet_entry(signed, proven, chain=given.chain, tier=given.tier, contracts=contracts)
    else:
        entry = member_entry(signed)
    print(msgspec.json.format(msgspec.json.encode(entry), indent=2).decode())
    return 0


def _vault(given: argparse.Namespace) -> int:
    from signers.ceremony.entries import bitcoin_vault_entry, safe_entry
    from signers.ceremony.session import read_ceremony

    members = [read_ceremony(Path(directory), given.keyset)[0] for directory in given.directories]
    where = {"chain": given.chain, "tier": given.tier, "threshold": given.threshold}
    entry: object
    if given.address is not None:
        entry = safe_entry(members, address=given.address, **where)
    else:
        entry, first = bitcoin_vault_entry(members, **where)
        for one in first:
            print(f"{one.branch}/{one.index} {one.address}", file=sys.stderr)
    print(msgspec.json.format(msgspec.json.encode(entry), indent=2).decode())
    return 0
