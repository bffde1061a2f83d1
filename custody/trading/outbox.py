"""What the ledger has not been told yet, in order: fills, and money that has left the engine.

It is no store of its own: it follows from the journal and from how far custody says that it is settled. After a
crash the same commands give the same fills with the same ids, and what custody has already is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from custody.trading.core import Applied
from custody.trading.events import Debited, Filled
from custody.trading.market import Market
from custody.trading.ports import Batch, Cursor, Fill, Transfer


@dataclass(slots=True)
class _Entry:
    sequence: int
    at: int
    fills: list[Fill] = field(default_factory=list)
    transfer: Transfer | None = None


class Outbox:
    """Fills and withdrawals behind the cursor.

    Args:
        market: the engine's market of an id.
        cursor: what custody has settled.
    """

    def __init__(self, market: Callable[[str], Market], cursor: Cursor) -> None:
        self._market = market
        self.cursor = cursor
        self._entries: deque[_Entry] = deque()
        self.fills = 0
        """How many fills wait."""
        self.seen = cursor.last
        """The last command that was taken in."""

    def take(self, one: Applied) -> None:
        """Follow the core, from the first command that may not be settled on."""
        self.seen = one.sequence
        fills: list[Fill] = []
        for index, event in enumerate(one.events):
            if type(event) is Filled:
                if not self.cursor.covers(one.sequence, index):
                    fills.append(self._fill(one.sequence, index, event))
            elif type(event) is Debited:
                moved = Transfer(event.id, event.customer, event.asset, event.units, "funding")
                self._entries.append(_Entry(one.sequence, one.command.at, transfer=moved))
        if fills:
            self._entries.append(_Entry(one.sequence, one.command.at, fills))
            self.fills += len(fills)

    def flush(self) -> None:
        """Nothing to do."""

    @property
    def oldest_at(self) -> int | None:
        """When the command was taken whose fills wait the longest, microseconds; None: none waits."""
        return next((entry.at for entry in self._entries if entry.fills), None)

    def next(self, limit: int) -> Batch | Transfer | None:
        """What is due: a batch of at most `limit` fills, a withdrawal whose fills are all settled, or nothing."""
        if not self._entries:
            return None
        head = self._entries[0]
        if head.transfer is not None:
            return head.transfer
        if len(head.fills) > limit:
            return Batch(self.cursor.expected, head.sequence, False, tuple(head.fills[:limit]))
        fills: list[Fill] = []
        last = head.sequence
        for entry in self._entries:
            if entry.transfer is not None or len(fills) + len(entry.fills) > limit:
                break
            fills += entry.fills
            last = entry.sequence
        return Batch(self.cursor.expected, last, True, tuple(fills))

    def idle(self) -> Batch | None:
        """A batch without fills that tells custody how far nothing happened; None if there is something, or
        nothing new."""
        if self._entries or self.seen <= self.cursor.last or not self.cursor.complete:
            return None
        return Batch(self.cursor.expected, self.seen, True, ())

    def settled(self, batch: Batch) -> None:
        """Custody has this batch, which `next` or `idle` gave."""
        fill = batch.fills[-1] if batch.fills else None
        at = (
            (self.cursor.fill_sequence, self.cursor.fill_index)
            if fill is None
            else (fill.sequence, fill.index)
        )
        self.settled_until(Cursor(batch.last, batch.complete, *at))

    def settled_until(self, cursor: Cursor) -> None:
        """Custody is settled until here; never further than what was taken in."""
        self.cursor = cursor
        left: deque[_Entry] = deque()
        for entry in self._entries:
            if entry.sequence > cursor.last:
                break
            if entry.transfer is not None:
                left.append(entry)
                continue
            waiting = [fill for fill in entry.fills if not cursor.covers(fill.sequence, fill.index)]
            self.fills -= len(entry.fills) - len(waiting)
            entry.fills = waiting
            if waiting:
                left.append(entry)
        while self._entries and self._entries[0].sequence <= cursor.last:
            self._entries.popleft()
        self._entries.extendleft(reversed(left))

    def handed_over(self, transfer: Transfer) -> None:
        """This withdrawal, which `next` gave, is written down elsewhere."""
        if self._entries and self._entries[0].transfer == transfer:
            self._entries.popleft()

    def unsettled(self) -> dict[tuple[str, str], int]:
        """By customer and asset: what settling all that waits would change in the ledger."""
        changes: dict[tuple[str, str], int] = {}

        def add(customer: str, asset: str, units: int) -> None:
            changes[customer, asset] = changes.get((customer, asset), 0) + units

        for entry in self._entries:
            if entry.transfer is not None:
                add(entry.transfer.customer, entry.transfer.asset, -entry.transfer.units)
            for fill in entry.fills:
                add(fill.buyer, fill.base, fill.base_units)
                add(fill.buyer, fill.quote, -fill.quote_units - fill.buyer_fee)
                add(fill.seller, fill.base, -fill.base_units)
                add(fill.seller, fill.quote, fill.quote_units - fill.seller_fee)
        return changes

    def _fill(self, sequence: int, index: int, event: Filled) -> Fill:
        market = self._market(event.market)
        buys = event.taker_side == "buy"
        return Fill(
            sequence=sequence,
            index=index,
            base=market.base,
            quote=market.quote,
            buyer=event.taker if buys else event.maker,
            seller=event.maker if buys else event.taker,
            base_units=event.base_units,
            quote_units=event.quote_units,
            buyer_fee=event.taker_fee if buys else event.maker_fee,
            seller_fee=event.maker_fee if buys else event.taker_fee,
        )
