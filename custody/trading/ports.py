"""What the trading core needs of custody: three calls of its REST API behind one port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

Target = Literal["trading", "funding"]


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade as the ledger is told of it; both fees are in the quote asset, negative: a rebate."""

    sequence: int
    index: int
    base: str
    quote: str
    buyer: str
    seller: str
    base_units: int
    quote_units: int
    buyer_fee: int
    seller_fee: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The fills of commands `first` to `last`, all of them, in order."""

    first: int
    last: int
    complete: bool
    """False: `last` has more, in the next batch."""
    fills: tuple[Fill, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A customer's own money, from funding to trading or back."""

    id: str
    """UUIDv7."""
    customer: str
    asset: str
    units: int
    to: Target


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far custody says that a core is settled."""

    last: int = 0
    complete: bool = True
    """False: command `last` has fills that are not settled yet."""
    fill_sequence: int = 0
    fill_index: int = -1

    @property
    def expected(self) -> int:
        """First sequence of the next batch."""
        return self.last + 1 if self.complete else self.last

    def covers(self, sequence: int, index: int) -> bool:
        """Whether this fill is settled."""
        if sequence < self.last or (sequence == self.last and self.complete):
            return True
        return (sequence, index) <= (self.fill_sequence, self.fill_index)


class Custody(Protocol):
    """Custody's side. Each call is a request; all are safe to repeat.

    Raises, all of them:
        CustodyUnavailable: no answer, or not for good.
        CustodyRefused: no, for good.
    """

    def settle(self, core: UUID, batch: Batch) -> None:
        """Settle a batch that begins where the one before it ended; the same again changes nothing."""

    def move(self, transfer: Transfer) -> None:
        """Make a transfer; the same again changes nothing."""

    def cursor(self, core: UUID) -> Cursor:
        """How far this core is settled."""
