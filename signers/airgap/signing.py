"""The verbs `show` and `sign`: look at a request, say everything, ask, sign, write."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chains.bbqr import FileType
from signers.airgap.errors import Declined, Refused
from signers.airgap.handing import Handing, hand_over
from signers.airgap.opening import Opened, opened
from signers.airgap.past import Signed, remembered, signed_before
from signers.airgap.requests import Request, read_request
from signers.airgap.store import Home, write_whole
from signers.airgap.terminal import Screen

_ENDINGS: Final = {"payment": ".psbt", "safe": ".json"}
_TYPES: Final = {"payment": FileType.PSBT, "safe": FileType.JSON}


@dataclass(frozen=True, slots=True)
class Looked:
    """A request that was looked at, of whichever kind."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    objections: tuple[str, ...]
    amount: str
    """What leaves, as it stands on the screen; empty: nothing does."""
    request: Signed
    """How it is remembered once it is signed."""
    sign: Callable[[], bytes]
    """Gives the signed file."""
    typed: str = ""
    """What the holder must type instead of an amount; empty: nothing like it."""


def show(home: Home, screen: Screen, *, paths: Sequence[Path], wanted: str | None) -> None:
    """Say what a request would do. Signs nothing.

    Raises:
        InvalidValue, WrongPassphrase, Unsafe: like `read_request` and `opened`; or the file is malformed.
        Refused: there are reasons not to sign it; they have been shown.
    """
    request = read_request(paths, lambda words: screen.show([words]))
    with opened(home, wanted, screen) as key:
        looked = look_at(request, key)
        _tell(screen, looked)


def sign(
    home: Home,
    screen: Screen,
    *,
    paths: Sequence[Path],
    wanted: str | None,
    to: Path | None,
    handing: Handing,
) -> None:
    """Say what a request would do, and sign it if the holder types so.

    Args:
        home: where the key is.
        screen: where it is shown and asked.
        paths: of the request.
        wanted: which key; None: the only one.
        to: where the signed file goes; None: `FILE-signed-KEY` beside the request.
        handing: whether the signed file is shown as QR codes, too.

    Raises:
        InvalidValue, WrongPassphrase, Unsafe: like `show`; the file can't be written.
        Refused: there are reasons not to sign it; they have been shown.
        Declined: the holder typed something else.
        WrongSignature: the key's library fails; nothing was written.
    """
    request = read_request(paths, lambda words: screen.show([words]))
    with opened(home, wanted, screen) as key:
        looked = look_at(request, key)
        _tell(screen, looked)
        _confirm(screen, looked)
        # Before there is a signature: what was signed is known, whatever becomes of this process.
        past = remembered(key.kept.past, looked.request)
        home.keep(key.name, msgspec.structs.replace(key.kept, past=past), key.entropy)
        signed = looked.sign()
    ending = _ENDINGS[request.kind]
    path = to or request.folder / f"{request.name}-signed-{key.name}{ending}"
    write_whole(path, base64.b64encode(signed) + b"\n" if request.base64 == "base64" else signed)
    screen.show(["", f"Signed. Carry this file back: {path}"])
    hand_over(screen, signed, _TYPES[request.kind], path.stem, handing)


def look_at(request: Request, key: Opened) -> Looked:
    """Look at a request of either kind.

    Raises:
        InvalidValue: it is malformed.
        DecodersDisagree: two readers read two things.
        DerivationDisagreement: two implementations derive different addresses.
    """
    return _payment(request.data, key) if request.kind == "payment" else _safe(request.data, key)


def _payment(raw: bytes, key: Opened) -> Looked:
    from signers.airgap.btc_file import read_payment, with_signatures
    from signers.airgap.btc_review import review_payment, sign_payment
    from signers.airgap.figures import btc

    file, source = read_payment(raw), key.kept.registered.source
    found = review_payment(file, key.kept.registered, key.key)
    said = list(found.warnings)
    if source is not None and source.expires_at <= time.time():
        said.append("The registered bundle has ended: register a new one.")
    if found.signed:
        said.append("You have signed this already. Signing again gives the same file.")
    tx = file.psbt.tx
    request = Signed(
        at=int(time.time()), content=tx.txid.hex, uses=tuple(sorted(tx.resources)), pays=found.pays
    )
    return Looked(
        found.lines,
        (*said, *signed_before(key.kept.past, request)),
        found.objections,
        btc(found.leaves_sats) if found.leaves_sats else "",
        request,
        lambda: with_signatures(file, sign_payment(file, found, key.key)),
    )


def _safe(raw: bytes, key: Opened) -> Looked:
    from chains.eth.address import checksummed
    from signers.airgap import evm
    from signers.airgap.evm_factory import acceptance_warnings
    from signers.airgap.evm_review import review_request

    now = int(time.time())
    found = review_request(raw, key.kept.registered, key.key.evm_address, now)
    message, money, change = found.message, found.money, found.change
    request = Signed(
        at=now,
        content=found.safe_tx_hash.hex(),
        uses=(f"{message.chain_id}:{message.resource}",),
        pays=(f"{money.amount} {money.symbol} to {checksummed(money.to)}",) if money else (),
        proposes=change.proposes if change else "",
    )
    before = acceptance_warnings(change, key.kept.past) if change else []
    return Looked(
        found.lines,
        (*found.warnings, *signed_before(key.kept.past, request), *before),
        tuple(map(str, found.objections)),
        money.amount if money else "",
        request,
        lambda: evm.sign(found, key.key),
        change.typed if change else "",
    )


def _tell(screen: Screen, looked: Looked) -> None:
    """Show everything; raise Refused if anything speaks against it."""
    screen.show(["", *looked.lines, ""])
    screen.show([f"! {warning}" for warning in looked.warnings])
    if looked.objections:
        screen.show(["", "NOT SIGNED, because:", *(f"X {objection}" for objection in looked.objections)])
        raise Refused(looked.objections)


def _confirm(screen: Screen, looked: Looked) -> None:
    """What leaves must be typed from the screen, so that it was read; nothing leaves: `yes`."""
    if looked.typed:
        typed = screen.ask("To sign, type the last six characters of whom deposits will pay:")
        if typed.replace(" ", "").lower() != looked.typed.lower():
            raise Declined(f"not signed: {looked.typed} was expected")
        return
    if not looked.amount:
        if screen.ask("Nothing is paid to anybody. Type  yes  to sign:") != "yes":
            raise Declined("not signed")
        return
    typed = screen.ask("To sign, type what is paid in all (the first digits will do):")
    digits = typed.replace(" ", "")
    enough = any(digit in "123456789" for digit in digits)
    if not (enough and looked.amount.startswith(digits)):
        raise Declined(f"not signed: {looked.amount} was expected")
