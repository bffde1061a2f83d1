"""Batches of fills and moves between funding and trading, and the ledger commands that they are. Pure.

What exists is valid: a fill takes from two customers' trading accounts and gives to them, per asset it sums to zero,
and the house only takes. So no batch can name another account, mint, or pay anybody out of fees.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from chains.errors import InvalidValue
from chains.types import MAX_UNITS
from custody.ids import derived_id
from custody.ledger.model import AccountKind, Leg, LineType, Transfer, available, house, trading

MAX_FILLS: Final = 2_000
"""Of one batch: one request, one transaction."""
MAX_SEQUENCE: Final = 2**53 - 1
"""What every JSON reader reads exactly."""

Target = Literal["trading", "funding"]


def trade_id(core: UUID, sequence: int, index: int) -> UUID:
    """Id of the ledger transfer of a fill."""
    return derived_id("trade", core, sequence, index)


def trade_reference(core: UUID, sequence: int, index: int) -> str:
    """What the ledger transfer of a fill has as reference."""
    return f"trade:{core}:{sequence}:{index}"


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade: the buyer pays `quote_units` and gets `base_units`; fees are in the quote asset.

    Raises:
        InvalidValue: amounts that are not positive, one customer or one asset on both sides, fees above what was
            paid, or rebates above the charges.
    """

    sequence: int
    """Of the command that caused it, in the engine's journal; from 1."""
    index: int
    """Of the fill among the events of its command."""
    base: str
    quote: str
    buyer: str
    seller: str
    base_units: int
    quote_units: int
    buyer_fee: int
    """Positive: a charge; negative: a rebate."""
    seller_fee: int

    def __post_init__(self) -> None:
        if self.base == self.quote:
            raise InvalidValue(f"{self}: base and quote are both {self.base}")
        if self.buyer == self.seller:
            raise InvalidValue(f"{self}: {self.buyer} trades with himself")
        for name in ("base_units", "quote_units"):
            if not 0 < getattr(self, name) <= MAX_UNITS:
                raise InvalidValue(f"{self}: {name} is {getattr(self, name)}, expected a positive number")
        if max(abs(self.buyer_fee), abs(self.seller_fee)) > self.quote_units:
            raise InvalidValue(f"{self}: a fee is more than the {self.quote_units} {self.quote} of the trade")
        if self.buyer_fee + self.seller_fee < 0:
            raise InvalidValue(
                f"{self}: the house would give {-self.buyer_fee - self.seller_fee} {self.quote}"
            )

    def __str__(self) -> str:
        return f"fill {self.sequence}:{self.index}"

    def transfer(self, core: UUID) -> Transfer:
        """The ledger transfer that settles it.

        What is paid comes first, fees last, so that no balance dips below zero on the way to where the engine has it.
        """
        base, quote = self.base_units, self.quote_units
        buyer_base, buyer_quote = trading(self.buyer, self.base), trading(self.buyer, self.quote)
        seller_base, seller_quote = trading(self.seller, self.base), trading(self.seller, self.quote)
        legs = [
            Leg(buyer_quote, -quote, LineType.TRADE_SELL),
            Leg(seller_quote, quote, LineType.TRADE_BUY),
            Leg(seller_base, -base, LineType.TRADE_SELL),
            Leg(buyer_base, base, LineType.TRADE_BUY),
        ]
        fees = [(buyer_quote, -self.buyer_fee), (seller_quote, -self.seller_fee)]
        fees.append((house(AccountKind.FEES_EARNED, self.quote), self.buyer_fee + self.seller_fee))
        legs += [Leg(account, units, LineType.FEE) for account, units in fees if units]
        reference = trade_reference(core, self.sequence, self.index)
        return Transfer(trade_id(core, self.sequence, self.index), tuple(legs), reference)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a core's fills are settled."""

    batches: int = 0
    last: int = 0
    """Engine sequence up to which they are."""
    complete: bool = True
    """False: `last` has fills that are not settled yet."""
    fill: tuple[int, int] = (0, 0)
    """Sequence and index of the last one settled; (0, 0): none."""

    @property
    def expected(self) -> int:
        """First engine sequence of the batch that follows."""
        return self.last + 1 if self.complete else self.last


@dataclass(frozen=True, slots=True)
class Batch:
    """The fills of the engine's sequences `first` to `last`, all of them, in their order.

    Raises:
        InvalidValue: an empty or too large range, too many fills, one outside of the range or out of order.
    """

    core: UUID
    """Of the journal: a core that begins with an empty one takes a new id."""
    first: int
    last: int
    complete: bool
    """False: `last` has more fills, in the next batch."""
    fills: tuple[Fill, ...]

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last <= MAX_SEQUENCE:
            raise InvalidValue(f"sequences {self.first} to {self.last}: expected 1 or more, and a last one")
        if len(self.fills) > MAX_FILLS:
            raise InvalidValue(f"{len(self.fills)} fills, at most {MAX_FILLS}")
        if not self.complete and not self.fills:
            raise InvalidValue("a batch that is not complete has at least one fill")
        place = (0, 0)
        for fill in self.fills:
            if not self.first <= fill.sequence <= self.last:
                raise InvalidValue(f"{fill}: its sequence is not among {self.first} to {self.last}")
            if (fill.sequence, fill.index) <= place and place != (0, 0):
                raise InvalidValue(f"{fill} comes after fill {place[0]}:{place[1]}")
            place = (fill.sequence, fill.index)

    @property
    def assets(self) -> tuple[str, ...]:
        """What is traded in it."""
        return tuple(sorted({asset for fill in self.fills for asset in (fill.base, fill.quote)}))

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor behind this batch."""
        fill = (self.fills[-1].sequence, self.fills[-1].index) if self.fills else cursor.fill
        return Cursor(cursor.batches + 1, self.last, self.complete, fill)

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        fills = [
            [f.sequence, f.index, f.base, f.quote, f.buyer, f.seller]
            + [str(n) for n in (f.base_units, f.quote_units, f.buyer_fee, f.seller_fee)]
            for f in self.fills
        ]
        content = [str(self.core), self.first, self.last, self.complete, fills]
        text = json.dumps(content, separators=(",", ":"))
        return hashlib.sha256(b"strongroom:settlement:v1\n" + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Move:
    """A customer's own money from funding to trading, or back.

    Raises:
        InvalidValue: no positive number of base units.
    """

    id: UUID
    """Chosen by the trading core; of the ledger transfer, too."""
    customer: str
    asset: str
    units: int
    target: Target

    def __post_init__(self) -> None:
        if not 0 < self.units <= MAX_UNITS:
            raise InvalidValue(f"a move of {self.units} base units, expected a positive number")

    def transfer(self) -> Transfer:
        """The ledger transfer that does it."""
        source, target = available(self.customer, self.asset), trading(self.customer, self.asset)
        if self.target == "funding":
            source, target = target, source
        legs = (Leg(source, -self.units, LineType.TRANSFER), Leg(target, self.units, LineType.TRANSFER))
        return Transfer(self.id, legs, f"move:{self.id}")


@dataclass(frozen=True, slots=True, repr=False)
class Evidence:
    """The request that asked for it, as its caller signed it. Kept verbatim, and not printed."""

    caller: str
    document: str
    """Body of the request."""
    token: str
    """Canonical JSON; names the SHA-256 of the body."""
    signature: str
    """Of the token by the caller's key, base64."""
