"""`strongroom key log`: check a signer's own log, `log.jsonl`, without the signer."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue, StrongroomError
from policies.bundle import Bundle, SignedBundle, TrustRoot, read_bundle
from policies.canonical import decoder_for
from signers.journal.logchain import LogBroken
from signers.ports import LogHead
from signers.process.log import Checked, check_log, parted

WRONG_INPUT: Final = 2


def main(verb: str, arguments: list[str]) -> int:
    """Check a log; returns 0 if it is whole, 1 if not, 2 for wrong input."""
    options = _parser(verb).parse_args(arguments)
    try:
        bundle = None if options.key else _bundle(options.bundle, options.root)

        def key_of(head: LogHead) -> str:
            return options.key or _attestation_key(bundle, head)

        with options.file.open("rb") as lines:
            checked = check_log(lines, key_of, options.seen)
        if options.against is not None:
            _compare(options.file, options.against)
    except LogBroken as error:
        print(f"strongroom key log: {options.file}: {error}", file=sys.stderr)
        return 1
    except (OSError, InvalidValue) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"strongroom key log: {said}", file=sys.stderr)
        return WRONG_INPUT
    print(msgspec.json.encode(checked).decode() if options.json else _told(options.file, checked))
    return 0


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"strongroom key {verb}",
        description="Check a signer's own log: that no entry is missing, edited or moved, and who signed for it.",
        epilog="What ends early looks whole: give --seen with what an earlier check has printed, or --against "
        "another copy, to see that nothing was cut off at the end.",
    )
    parser.add_argument("file", type=Path, help="log.jsonl of the signer")
    parser.add_argument("--bundle", type=Path, help="the signed bundle, which names the attestation keys")
    parser.add_argument("--root", type=Path, help="the trust root (pinned.json) of the bundle's quorum")
    parser.add_argument(
        "--key",
        type=_hex_key,
        help="instead of both: the attestation key, 64 hex digits, from the ceremony's record",
    )
    parser.add_argument("--seen", type=_seen, metavar="NUMBER:HEAD", help="an entry that must be in it")
    parser.add_argument("--against", type=Path, metavar="FILE", help="another copy, which must not differ")
    parser.add_argument("--json", action="store_true", help="say what was found as JSON")
    return parser


def _bundle(path: Path | None, root: Path | None) -> Bundle:
    if path is None or root is None:
        raise InvalidValue("write --bundle and --root, or --key")
    raw = path.read_bytes()
    try:
        pinned = decoder_for(TrustRoot).decode(root.read_bytes())
        issued_at = decoder_for(SignedBundle).decode(raw).bundle.issued_at
        # An expired one still says whose key it was.
        return read_bundle(raw, pinned, now=issued_at)
    except (msgspec.MsgspecError, UnicodeDecodeError, StrongroomError) as error:
        raise InvalidValue(f"{path} with {root}: {error}") from None


def _attestation_key(bundle: Bundle | None, head: LogHead) -> str:
    for keyset in (*bundle.keysets, *bundle.gas_payers) if bundle is not None else ():
        if keyset.id == head.keyset:
            return keyset.attestation_key
    raise InvalidValue(
        f"the bundle has no attestation key of {head.keyset!r}, which signs this log: give it with --key"
    )


def _compare(file: Path, other: Path) -> None:
    with file.open("rb") as lines, other.open("rb") as others:
        number = parted(lines, others)
    if number is not None:
        raise LogBroken(f"forked: from entry {number} on it is another log than {other}")


def _told(file: Path, checked: Checked) -> str:
    place = checked.place
    said = f"{file}: whole; {place.number} entries, {checked.heads} signed heads, journal {place.journal or 'unknown'}"
    if checked.uncovered:
        said += (
            f"\nno head covers the last {checked.uncovered} entries: the signer runs, or the end is missing"
        )
    return f"{said}\nto check it again later: --seen {place.number}:{place.head}"


def _hex_key(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 lower-case hex digits")
    return text


def _seen(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([0-9]{1,15}):([0-9a-f]{64})", text)
    if found is None:
        raise argparse.ArgumentTypeError("expected NUMBER:HEAD, as a check prints it")
    return int(found[1]), found[2]
