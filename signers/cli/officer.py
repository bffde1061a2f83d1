"""`strongroom key status|freeze|lower|veto|bundle|clock`: officers speak with signers directly, without the online
service."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue
from policies.bundle import SignedBundle
from policies.canonical import MAX_DOCUMENT_BYTES, decoder_for
from policies.keys import SigningKey, UnusableKey, sign_clock, sign_freeze, sign_lowering, sign_veto
from policies.statements import ClockConfirmation, Freeze, Lowering, Veto
from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.errors import BadConfiguration
from signers.ports import Reason, Refused, SignerStatus, SignerUnavailable

_SCOPES: Final = (
    "all, tier:hot|warm|cold, chain:ID, wallet:ID (of a key-set or vault), asset:ID (as in the bundle), "
    "or customer:ID"
)
_TARGETS: Final = (
    "cap:TIER:ASSET:payment_below|window_cap, breaker:ID:value_cap, "
    "network:CHAIN:feerate_cap|fee_cap|fee_window_cap, rule:ID:at_most, caller|approver|verifier:ID:not_after, "
    "or longest_order_seconds"
)
REFUSED: Final = 1
WRONG_INPUT: Final = 2
UNAVAILABLE: Final = 3

Act = Callable[[SignerClient], SignerStatus]
"""What is done with each signer."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one signer has answered; exactly one of the latter three is set."""

    signer: str
    """As it was given on the command line."""
    status: SignerStatus | None = None
    refused: tuple[Reason, ...] | None = None
    error: str | None = None
    """Nothing is known: it may have done it or not. The same again is safe."""

    @property
    def code(self) -> int:
        """Exit code that it stands for."""
        if self.refused is not None:
            return REFUSED
        return 0 if self.error is None else UNAVAILABLE


def main(verb: str, arguments: list[str]) -> int:
    """Do it with every signer that is named, whatever the others answer.

    Returns:
        0 if all have done it, 1 if one refused, 3 if one did not answer (and none refused), 2 for wrong input.
    """
    options = _parser(verb).parse_args(arguments)
    try:
        act = _ACTS[verb](options)
        clients = [(name, SignerClient(_address(name, options))) for name in options.signer]
    except (InvalidValue, UnusableKey, BadConfiguration) as error:
        print(f"strongroom key {verb}: {error}", file=sys.stderr)
        return WRONG_INPUT
    outcomes = []
    for name, client in clients:
        outcomes.append(_outcome(name, client, act))
        if not options.json:
            print(_told(verb, outcomes[-1]), flush=True)
    if options.json:
        print(msgspec.json.encode(outcomes).decode())
    codes = {outcome.code for outcome in outcomes}
    return REFUSED if REFUSED in codes else max(codes)


def _outcome(name: str, client: SignerClient, act: Act) -> Outcome:
    try:
        return Outcome(signer=name, status=act(client))
    except Refused as refused:
        return Outcome(signer=name, refused=refused.reasons)
    except SignerUnavailable as error:
        return Outcome(signer=name, error=str(error))
    finally:
        client.close()


def _status(options: argparse.Namespace) -> Act:
    return lambda client: client.status()


def _freeze(options: argparse.Namespace) -> Act:
    key, now = SigningKey.load(options.key), int(time.time())

    def told(version: int) -> Freeze:
        return Freeze.from_object(
            {
                "v": 1,
                "officer": options.officer,
                "scope": options.scope,
                "bundle_version": version,
                "reason": options.reason,
                "issued_at": now,
            }
        )

    def act(client: SignerClient) -> SignerStatus:
        freeze = told(options.bundle_version or client.status().bundle_version)
        return client.freeze(sign_freeze(freeze, key))

    # What can't be a freeze, such as one of an unknown kind of scope, is found before anybody is asked.
    try:
        told(options.bundle_version or 1)
    except InvalidValue as error:
        raise InvalidValue(f"{error}; a scope is {_SCOPES}") from None
    return act


def _lower(options: argparse.Namespace) -> Act:
    key, now = SigningKey.load(options.key), int(time.time())

    def told(version: int) -> Lowering:
        return Lowering.from_object(
            {
                "v": 1,
                "officer": options.officer,
                "target": options.target,
                "value": options.value,
                "bundle_version": version,
                "reason": options.reason,
                "issued_at": now,
            }
        )

    try:
        told(1)
    except InvalidValue as error:
        raise InvalidValue(f"{error}; a target is {_TARGETS}, its value a whole number") from None
    return lambda client: client.lower(sign_lowering(told(client.status().bundle_version), key))


def _veto(options: argparse.Namespace) -> Act:
    key = SigningKey.load(options.key)
    digest = options.bundle
    if not re.fullmatch("[0-9a-f]{64}", digest):
        digest = _signed_bundle(Path(options.bundle)).bundle.digest_hex()
    veto = Veto.from_object(
        {
            "v": 1,
            "officer": options.officer,
            "bundle": digest,
            "reason": options.reason,
            "issued_at": int(time.time()),
        }
    )
    return lambda client: client.veto(sign_veto(veto, key))


def _bundle(options: argparse.Namespace) -> Act:
    bundle = _signed_bundle(options.file)
    return lambda client: client.deliver(bundle)


def _signed_bundle(path: Path) -> SignedBundle:
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"{path}: {len(raw)} bytes; a bundle has at most {MAX_DOCUMENT_BYTES}")
        return decoder_for(SignedBundle).decode(raw)
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: {error}; expected a signed bundle") from None


def _clock(options: argparse.Namespace) -> Act:
    key = SigningKey.load(options.key)

    def told(journal: str) -> ClockConfirmation:
        return ClockConfirmation.from_object(
            {"v": 1, "officer": options.officer, "journal": journal, "at": int(time.time())}
        )

    def act(client: SignerClient) -> SignerStatus:
        return client.confirm_clock(sign_clock(told(client.status().journal), key))

    told("00" * 32)
    return act


_ACTS: Final[dict[str, Callable[[argparse.Namespace], Act]]] = {
    "status": _status,
    "freeze": _freeze,
    "lower": _lower,
    "veto": _veto,
    "bundle": _bundle,
    "clock": _clock,
}


def _address(name: str, options: argparse.Namespace) -> UnixAddress | TlsAddress:
    """Where a signer listens: a path has a slash, everything else is HOST:PORT."""
    if "/" in name:
        return UnixAddress(Path(name))
    host, _, port = name.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidValue(f"--signer {name}: expected the path of a socket (with a slash) or HOST:PORT")
    files = (options.certificate, options.private_key, options.signer_certificate)
    if None in files:
        raise InvalidValue(
            f"--signer {name}: TLS needs --certificate, --private-key (yours) and --signer-certificate (the signer's)"
        )
    return TlsAddress(host, int(port), *files)


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"strongroom key {verb}", description=_DESCRIPTIONS[verb])
    if verb == "freeze":
        parser.add_argument("scope", help=_SCOPES)
        parser.add_argument(
            "--bundle-version",
            type=int,
            help="the freeze lasts until a bundle above this one; else above the one that each signer has now",
        )
    if verb == "lower":
        parser.add_argument("target", help=_TARGETS)
        parser.add_argument(
            "value", help="what it is from now on: base units, unit of account or UNIX seconds"
        )
    if verb == "veto":
        parser.add_argument(
            "bundle", help="its file, or its digest (64 hex digits, see strongroom key status)"
        )
    if verb in ("freeze", "lower", "veto"):
        parser.add_argument("--reason", default="", help="for whoever reads the signers' logs")
    if verb == "bundle":
        parser.add_argument("file", type=Path, help="JSON of the signed bundle")
    parser.add_argument(
        "--signer",
        action="append",
        required=True,
        metavar="SOCKET|HOST:PORT",
        help="where a signer listens; may be given again, each is asked",
    )
    if verb in ("freeze", "lower", "veto", "clock"):
        parser.add_argument("--officer", required=True, help="your id in the bundle")
        parser.add_argument(
            "--key", type=Path, required=True, help="your key: PKCS#8 PEM, readable by you only"
        )
    tls = parser.add_argument_group("for HOST:PORT")
    tls.add_argument("--certificate", type=Path, help="your TLS certificate, PEM")
    tls.add_argument("--private-key", type=Path, help="its key, PEM")
    tls.add_argument(
        "--signer-certificate", type=Path, help="the signer's certificate, PEM; no other is believed"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array, an object for each signer")
    return parser


_DESCRIPTIONS: Final = {
    "status": "Ask signers what they say of themselves.",
    "freeze": "Have signers sign nothing in a scope until the quorum has signed a higher bundle. One officer suffices.",
    "lower": "Have signers go by a lower number until the quorum has signed a higher bundle. One officer suffices.",
    "veto": "Have signers never adopt a bundle, though the quorum has signed it. One officer suffices, while it waits.",
    "bundle": "Hand a bundle to signers. It comes into force, or waits, if the quorum has signed a higher version.",
    "clock": "Confirm that signers' clocks are right, after a jump or a long stop. Compare yours with another first.",
}


def _told(verb: str, outcome: Outcome) -> str:
    if outcome.status is not None:
        lines = _lines(outcome.status)
        if verb == "status":  # who freezes is in a hurry
            lines += [*_counted(outcome.status), *(f"weakness   {note}" for note in outcome.status.notes)]
        return f"{outcome.signer}\n" + "\n".join(f"  {line}" for line in lines)
    reasons: Sequence[str] = [f"{reason.code}: {reason.detail}" for reason in outcome.refused or ()]
    said = "; ".join(reasons) if reasons else f"not available: {outcome.error}"
    return f"{outcome.signer}\n  {'refused: ' if reasons else ''}{said}"


def _lines(status: SignerStatus) -> list[str]:
    return [
        f"bundle     version {status.bundle_version}",
        f"key-sets   {', '.join(status.keysets)}",
        f"signed     {status.signed} transactions",
        *_following(status),
        f"frozen     {', '.join(status.frozen) or 'nothing'}",
        *(f"lowered    {each}" for each in status.lowered),
        f"time       {status.suspended or 'runs'}",
        f"journal    {status.journal}",
    ]


def _following(status: SignerStatus) -> list[str]:
    waiting = status.waiting
    if waiting is None:
        return []
    when = datetime.fromtimestamp(waiting.acts_from, UTC)
    return [
        f"waiting    version {waiting.version}, in force from {when:%Y-%m-%d %H:%M} UTC: {waiting.digest}"
    ]


def _counted(status: SignerStatus) -> list[str]:
    """What still counts against the caps, and who could end that."""
    lines = [f"verifier   last asked {status.unasked_seconds} s ago, or before the signer started"]
    for each in status.unresolved:
        since = "" if each.oldest_at is None else f", the oldest for {status.at - each.oldest_at} s"
        heard = "never" if each.resolved_at is None else f"{status.at - each.resolved_at} s ago"
        lines.append(f"waits      {each.keyset}: {each.count} transactions{since}; last word {heard}")
    return lines + [
        f"window     {use.kind} of {use.scope}: {use.units} of {use.cap} {use.unit}, base units"
        for use in status.windows
    ]
