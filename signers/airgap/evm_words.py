"""The words, figures and dates of a Safe request, as the holder reads them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import wrap
from typing import Final, NamedTuple

from chains.eth.address import checksummed
from chains.eth.safe import SafeMessage
from chains.eth.safe_files import SafeRequest
from signers.airgap.figures import big
from signers.airgap.registered import Registered, RegisteredNetwork, RegisteredSafe

_LAST_DATE_SECONDS: Final = 253_402_300_799
"""The last second of the year 9999, which is as far as dates are written."""
_BIG_COLUMNS: Final = 72
_NOTE_COLUMNS: Final = 66
_MOST_CALLDATA_SHOWN_BYTES: Final = 68
_LEAST_PLACES: Final = 2


class Money(NamedTuple):
    """What leaves the Safe."""

    units: int
    decimals: int
    symbol: str
    to: bytes
    """Who gets it, 20 bytes."""
    contract: bytes | None
    """Of the token; None: money of the chain itself."""

    @property
    def amount(self) -> str:
        """All digits: `5.000000000000000000`."""
        return decimal(self.units, self.decimals)


def decimal(units: int, decimals: int) -> str:
    """An amount with all its digits: `5.000000`; without a point where there are no decimals."""
    if decimals == 0:
        return str(units)
    base: int = 10**decimals
    return f"{units // base}.{units % base:0{decimals}d}"


def grouped_address(address: bytes) -> str:
    """20 bytes with EIP-55's checksum, in groups of four: `0x 5aAe b605 ...`."""
    return "0x " + _in_fours(checksummed(address)[2:])


def head_lines(
    message: SafeMessage, safe: RegisteredSafe | None, network: RegisteredNetwork | None
) -> list[str]:
    """Which Safe is to act, where."""
    name = f"{safe.id} ({safe.tier}, {safe.threshold} of {len(safe.owners)})" if safe else "an UNKNOWN SAFE"
    chain = f"{network.chain} (chain id {message.chain_id})" if network else f"chain id {message.chain_id}"
    return [f"SAFE REQUEST of {name} on {chain}", f"  Safe  {grouped_address(message.safe)}", ""]


def money_lines(money: Money, chain_id: int, registered: Registered) -> list[str]:
    """How much goes to whom."""
    lines = [f"PAYS  {money.amount} {money.symbol}"]
    lines += [f"    {row}" for row in _big(money.amount)]
    lines.append(f"  to  {grouped_address(money.to)}")
    name = _name_of(money.to, chain_id, registered)
    lines.append(f"      of your bundle: {name}" if name else "      not of your bundle: an address outside")
    if money.contract is not None:
        lines.append(f"  by  {grouped_address(money.contract)}")
        lines.append(f"      the registered contract of {money.symbol}")
    return [*lines, ""]


def other_lines(message: SafeMessage) -> list[str]:
    """A cancellation, or what cannot be signed."""
    tx = message.tx
    if (tx.to, tx.value_wei, tx.data) == (message.safe, 0, b""):
        return [
            "CANCELLATION: pays nobody. Once it is carried out,",
            f"  no other request with nonce {tx.nonce} of this Safe ever can be.",
            "",
        ]
    shown = tx.data[:_MOST_CALLDATA_SHOWN_BYTES].hex()
    more = f"... {len(tx.data)} bytes" if len(tx.data) > _MOST_CALLDATA_SHOWN_BYTES else ""
    return [
        "NOT A PAYMENT",
        f"  calls {grouped_address(tx.to)}",
        f"  with  {decimal(tx.value_wei, 18)} of the chain's coin and calldata",
        f"        {shown or 'none'}{more}",
        "",
    ]


def tail_lines(request: SafeRequest, now: int) -> list[str]:
    """Nonce, expiry, the sender's note, and what is signed."""
    tx, digest = request.message.tx, _in_fours(request.message.signing_hash.hex())
    left = request.expires_at - now
    hours, minutes = left // 3600, left % 3600 // 60
    ends = f", in {hours} h {minutes} min by this machine's clock" if left > 0 else ""
    lines = [
        f"NONCE    {tx.nonce}: of all requests with it, at most one can ever happen",
        f"EXPIRES  {date(request.expires_at)}{ends}",
        "FEE      paid by whoever sends it, not by the Safe"
        if not tx.refunds
        else "FEE      REFUNDED by the Safe",
    ]
    if request.note:
        lines.append("NOTE     words of the sender, which nothing checks:")
        # Each line is marked, or a note could be made to look like lines of ours.
        lines += [f"         | {row}" for row in wrap(request.note, _NOTE_COLUMNS)]
    return [
        *lines,
        "HASH TO SIGN (safeTxHash); two readers have computed the same:",
        f"    0x {digest[:39]}",
        f"       {digest[40:]}",
    ]


def _name_of(address: bytes, chain_id: int, registered: Registered) -> str | None:
    """What an address is called, if it is ours."""
    text = checksummed(address)
    safe = registered.safe(chain_id, text)
    return f"{safe.id} ({safe.tier} Safe)" if safe else registered.name_of(chain_id, text)


def _big(amount: str) -> tuple[str, ...]:
    """An amount in letters of three lines, without the zeros at its end; nothing where it is too wide."""
    whole, point, places = amount.partition(".")
    short = places.rstrip("0").ljust(min(_LEAST_PLACES, len(places)), "0")
    rows = big(whole + (point + short if short else ""))
    return rows if max(map(len, rows)) <= _BIG_COLUMNS else ()


def _in_fours(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def date(seconds: int) -> str:
    """UNIX seconds as a date and a time of day."""
    if seconds > _LAST_DATE_SECONDS:
        return "the year 10000 or later"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
