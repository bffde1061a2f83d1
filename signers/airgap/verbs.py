"""The command's verbs and what they are told. Imported after the network was given up (`cli`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue, StrongroomError
from signers.airgap.errors import Declined, Refused
from signers.airgap.protect import networks_up, protect_process, swap_in_use
from signers.airgap.store import DEFAULT_HOME, Home
from signers.airgap.terminal import Screen, Terminal

DONE, REFUSED, WRONG = 0, 1, 2

_INTRODUCTION: Final = """\
The signer for a machine that is never online. Keys are made, kept and used here;
requests and signatures come and go as files or QR codes.

  strongroom-airgap key create alice --organisation acme    make a key
  strongroom-airgap key record                              what others must know of it
  strongroom-airgap register bundle.json --root root.json   what you believe in
  strongroom-airgap show payment.psbt                       what a request would do
  strongroom-airgap sign payment.psbt                       sign it, if you want to
  strongroom-airgap verify-address bc1q...                  is it ours?
"""


def run(arguments: list[str]) -> int:
    """Run a verb; returns its exit code: 0 done, 1 refused or declined, 2 wrong input."""
    given = _parser().parse_args(arguments)
    try:
        protect_process()
        screen = Terminal()
        if given.verb != "verify-address":
            _warn_of_machine(screen)
        return _run(given, Home(Path(given.home).expanduser()), screen)
    except Refused:
        # The reasons are on the screen.
        print("\nstrongroom-airgap: nothing was signed", file=sys.stderr)
        return REFUSED
    except StrongroomError as error:
        print(f"\nstrongroom-airgap: {error}", file=sys.stderr)
        return WRONG if isinstance(error, InvalidValue) else REFUSED
    except KeyboardInterrupt:
        print("\nstrongroom-airgap: stopped; nothing was done", file=sys.stderr)
        return REFUSED


def _run(given: argparse.Namespace, home: Home, screen: Screen) -> int:
    match given.verb:
        case "key":
            _run_key(given, home, screen)
        case "register":
            from signers.airgap.taking import register

            register(home, screen, path=given.file, root=given.root, name=given.name, wanted=given.key)
        case "show":
            from signers.airgap.signing import show

            show(home, screen, paths=given.file, wanted=given.key)
        case "sign":
            from signers.airgap.handing import Handing
            from signers.airgap.signing import sign

            handing = Handing(given.qr, given.png)
            sign(home, screen, paths=given.file, wanted=given.key, to=given.to, handing=handing)
        case "verify-address":
            from signers.airgap.taking import verify_address

            yours = verify_address(home, screen, text=given.address, reach=given.reach, wanted=given.key)
            return DONE if yours else REFUSED
    return DONE


def _run_key(given: argparse.Namespace, home: Home, screen: Screen) -> None:
    from signers.airgap import making

    match given.key_verb:
        case "create":
            making.create(
                home, screen, name=given.name, organisation=given.organisation, network=given.network
            )
        case "restore":
            making.restore(
                home,
                screen,
                name=given.name,
                organisation=given.organisation,
                network=given.network,
                backup="shares" if given.shares else "words",
            )
        case "backup":
            making.show_backup(home, screen, wanted=given.key, shares=given.shares)
        case "record":
            making.record(home, screen, wanted=given.key, to=given.to)


def _warn_of_machine(screen: Screen) -> None:
    """A machine that is online is not for keys; only whoever says that he knows goes on."""
    if swap_in_use():
        screen.show(["! This machine may write memory to its disk: swapoff -a turns that off."])
    up = networks_up()
    if up:
        screen.show(
            [
                f"! THIS MACHINE IS ONLINE, or could be: {', '.join(up)}. Pull the cable, turn the",
                "! radio off, and begin again. A key that was on an online machine is not cold.",
            ]
        )
        if screen.ask("For a rehearsal with keys of no value, type  rehearsal  to go on:") != "rehearsal":
            raise Declined("the machine is online")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strongroom-airgap",
        description=_INTRODUCTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--home", default=DEFAULT_HOME, help=f"folder of your keys ({DEFAULT_HOME})")
    parser.add_argument("--key", metavar="NAME", help="which key, if there are several")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _key_parsers(verbs.add_parser("key", help="create, restore, backup, record"))

    register = verbs.add_parser("register", help="take in a signed bundle, or a bare descriptor")
    register.add_argument("file", type=Path, help="signed bundle (JSON), or a text file with a descriptor")
    register.add_argument("--root", type=Path, help="the quorum's file; the first time only")
    register.add_argument("--name", help="of the wallet, for a bare descriptor")

    _add_request(verbs.add_parser("show", help="say what a request would do"))
    sign = verbs.add_parser("sign", help="say it, ask, and sign")
    _add_request(sign)
    sign.add_argument("--to", type=Path, metavar="FILE", help="the signed file (FILE-signed-KEY beside it)")
    sign.add_argument("--qr", action="store_true", help="show the signed file as QR codes, too")
    sign.add_argument("--png", type=Path, metavar="FOLDER", help="write those codes as pictures")

    address = verbs.add_parser("verify-address", help="is an address of a registered wallet?")
    address.add_argument("address")
    address.add_argument("--reach", type=int, default=1000, help="how many places to look at (1000)")
    return parser


def _key_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="key_verb", required=True, metavar="VERB")
    _add_names(verbs.add_parser("create", help="make a key, with dice"))
    restore = verbs.add_parser("restore", help="make a key again from its backup")
    _add_names(restore)
    restore.add_argument("--shares", action="store_true", help="from SLIP-39 shares instead of words")
    backup = verbs.add_parser("backup", help="show the words or shares; the only verb that does")
    backup.add_argument("--shares", type=_shares, metavar="M/N", help="N SLIP-39 shares, any M of which do")
    record = verbs.add_parser("record", help="write the public record for the bundle")
    record.add_argument("--to", type=Path, metavar="FILE", help="the file (NAME.record.json)")


def _add_names(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", help="of the key, such as your own name")
    verb.add_argument("--organisation", required=True, help="yours")
    verb.add_argument("--network", choices=("main", "test", "signet", "regtest"), default="main")


def _add_request(verb: argparse.ArgumentParser) -> None:
    told = "PSBT, Safe request, or pictures of QR codes (or their folder)"
    verb.add_argument("file", type=Path, nargs="+", help=told)


def _shares(text: str) -> tuple[int, int]:
    needed, _, made = text.partition("/")
    if not (needed.isdecimal() and made.isdecimal()):
        raise argparse.ArgumentTypeError("expected M/N, such as 2/3")
    return int(needed), int(made)
