"""`strongroom key draft`, `compromise` and `sign`: the next bundle is drafted, read and signed by officers.

Both work on files and need neither a signer nor the online service. What is signed is handed over by
`strongroom key bundle`, and published wherever the online service reads its bundle.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from chains.errors import InvalidValue
from policies.bundle import Bundle, GasPayer, KeysetEntry, KeyState, SignedBundle, Vault, WalletEntry
from policies.bundle.changes import retired, successor_of
from policies.bundle.checks import check_consistent
from policies.bundle.differences import differences
from policies.bundle.document import BundleSignature
from policies.canonical import BadSignature, verify_ed25519
from policies.keys import SigningKey

_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR
_LONGEST_DAYS: Final = 3_660
_STATES: Final = tuple(state for state in get_args(KeyState) if state not in ("pre-active", "active"))


def main(verb: str, arguments: list[str]) -> int:
    """Run a verb; returns its exit code.

    Raises:
        InvalidValue: a file is not what it should be, or the draft would be inconsistent.
        UnusableKey: an officer's key file can't be used.
    """
    return {"draft": _draft, "compromise": _compromise, "sign": _sign}[verb](arguments)


def _draft(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="strongroom key draft",
        description="Draft the next bundle: what is in force, under the next version and until a later time. Signers"
        " that adopt it lift all freezes made under a lower one. Whatever else is to change is edited in the file"
        " before anybody signs.",
    )
    _add_files(parser)
    parser.add_argument(
        "--waits-hours",
        type=_hours,
        help="in force so many hours from now (default: the time for vetoes and an hour to sign and hand over); where"
        " it is handed over late, it waits longer",
    )
    options = parser.parse_args(arguments)
    present, now = _read(options.bundle).bundle, int(time.time())
    waits = present.veto_seconds + _HOUR if present.veto_seconds else 0
    if options.waits_hours is not None:
        waits = options.waits_hours * _HOUR
    draft = successor_of(
        present, now=now, lasts=options.days * _DAY, in_force_from=now + waits if waits else 0
    )
    return _drafted(present, draft, options)


def _compromise(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="strongroom key compromise",
        description="Draft the bundle in which a key-set or vault signs nothing any more but what moves all it has to"
        " the one that follows, and a gas payer nothing at all. Freeze it first: strongroom key freeze.",
    )
    parser.add_argument("keyset", help="the key-set, vault or gas payer, by its id in the bundle")
    parser.add_argument("--successor", type=Path, help="JSON entry of the new one, from its ceremony")
    parser.add_argument("--state", choices=_STATES, default="compromised", help="what it becomes")
    _add_files(parser)
    options = parser.parse_args(arguments)
    present = _read(options.bundle).bundle
    successor: WalletEntry | None = None
    if options.successor is not None:
        try:
            payer = isinstance(present.wallet(options.keyset), GasPayer)
            kind: Any = GasPayer if payer else KeysetEntry | Vault
            successor = msgspec.json.decode(_bytes(options.successor), type=kind)
        except msgspec.MsgspecError as error:
            raise InvalidValue(
                f"{options.successor}: {error}; expected an entry as in the bundle, of the same sort"
            ) from None
    draft = retired(
        present,
        options.keyset,
        options.state,
        successor,
        now=int(time.time()),
        lasts=options.days * _DAY,
    )
    return _drafted(present, draft, options)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True, help="the signed bundle in force")
    parser.add_argument("--days", type=_days, default=30, help="until the draft expires (default 30)")
    parser.add_argument("--out", type=Path, required=True, help="the draft; it must not exist")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"expected 1 to {_LONGEST_DAYS} days")
    return int(text)


def _hours(text: str) -> int:
    if not text.isdecimal() or int(text) > _LONGEST_DAYS * 24:
        raise argparse.ArgumentTypeError(f"expected up to {_LONGEST_DAYS * 24} hours")
    return int(text)


def _drafted(present: Bundle, draft: Bundle, options: argparse.Namespace) -> int:
    _write(options.out, SignedBundle(bundle=draft, signatures=()))
    print(f"{options.out}: version {draft.version}, to be signed by the quorum.")
    _show_changes(present, draft)
    print(
        f"Each officer reads and signs it:  strongroom key sign {options.out} --present {options.bundle}"
        " --officer NAME --key FILE"
    )
    print(f"Then hand it to every signer:     strongroom key bundle {options.out} --signer ADDRESS")
    print("and put it where the online service and the verifier read their bundle.")
    print(_when(present, draft))
    return 0


def _when(present: Bundle, draft: Bundle) -> str:
    """From when on it acts, and how it acts sooner."""
    if not present.veto_seconds and not draft.in_force_from:
        return "It acts as soon as it is there."
    least = (
        f"{present.veto_seconds // _HOUR} h {present.veto_seconds % _HOUR // 60} min after it was first seen"
    )
    chosen = (
        f", and not before {datetime.fromtimestamp(draft.in_force_from, UTC):%Y-%m-%d %H:%M} UTC"
        if draft.in_force_from
        else ""
    )
    return f"It acts {least}{chosen}, unless an officer vetoes it (strongroom key veto); at once if all officers sign."


def _show_changes(present: Bundle, draft: Bundle) -> None:
    print(f"Version {draft.version} lifts all freezes made under a lower one, and changes:")
    for line in differences(present, draft):
        print(f"  {line}")


def _sign(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="strongroom key sign", description="Show what a bundle changes, and sign it as an officer."
    )
    parser.add_argument("bundle", type=Path, help="the draft; gets the signature")
    parser.add_argument("--present", type=Path, required=True, help="the signed bundle in force")
    parser.add_argument("--officer", required=True, help="name of the officer in the pinned root")
    parser.add_argument("--key", type=Path, required=True, help="the officer's key, PKCS#8 PEM of mode 0600")
    parser.add_argument("--yes", action="store_true", help="sign without being asked")
    options = parser.parse_args(arguments)
    present, signed = _read(options.present).bundle, _read(options.bundle)
    check_consistent(signed.bundle)
    if signed.bundle.version <= present.version:
        raise InvalidValue(
            f"{options.bundle} is version {signed.bundle.version}; {present.version} is in force, and versions"
            " only rise"
        )
    key = SigningKey.load(options.key)
    listed = present.officer(options.officer)
    if listed.key != key.public_hex:
        raise InvalidValue(f"{options.key} is not the key of {options.officer} in the bundle in force")
    _show_changes(present, signed.bundle)
    print(f"digest {signed.bundle.digest_hex()}")
    if not options.yes and not _confirmed(options.officer, signed.bundle.version):
        print("\nnot signed", file=sys.stderr)
        return 1
    others = tuple(entry for entry in signed.signatures if entry.key != options.officer)
    for entry in others:
        _check(present.officer(entry.key).key, signed, entry)
    mine = BundleSignature(key=options.officer, signature=key.sign(signed.bundle))
    _replace(options.bundle, SignedBundle(bundle=signed.bundle, signatures=(*others, mine)))
    print(f"signed by {', '.join(entry.key for entry in (*others, mine))}")
    return 0


def _confirmed(officer: str, version: int) -> bool:
    try:
        return input(f"Type the version to sign as {officer}: ").strip() == str(version)
    except (EOFError, KeyboardInterrupt):
        return False


def _check(public_key: str, signed: SignedBundle, entry: BundleSignature) -> None:
    try:
        verify_ed25519(public_key, signed.bundle.digest(), entry.signature)
    except BadSignature:
        raise InvalidValue(
            f"the signature of {entry.key} is not over this bundle: begin with a new draft"
        ) from None


def _read(path: Path) -> SignedBundle:
    try:
        return msgspec.json.decode(_bytes(path), type=SignedBundle)
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"{path}: {error}; expected a bundle with its signatures") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None


def _write(path: Path, signed: SignedBundle) -> None:
    try:
        with path.open("xb") as file:
            file.write(signed.encode())
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}; name a file that is not there yet") from None


def _replace(path: Path, signed: SignedBundle) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(signed.encode())
    fresh.replace(path)
