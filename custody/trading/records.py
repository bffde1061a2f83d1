"""Orders and fills as customers see them: open ones and the last closed ones in memory, fills in the history."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from custody.trading.candles import Candles
from custody.trading.commands import Place
from custody.trading.core import Applied
from custody.trading.engine import Engine
from custody.trading.events import Accepted, Cancelled, Filled, Replaced, Triggered
from custody.trading.history import Chapter, OrderRecord, fill_record

CLOSED_KEPT: Final = 100_000
"""So many closed orders can be looked up without the history, which has only those with fills."""


class Records:
    """Follows the core.

    Args:
        candles: to go on with.
        until: the last command whose effects the history has.
    """

    def __init__(self, candles: Candles, until: int) -> None:
        self.candles = candles
        self._open: dict[int, OrderRecord] = {}
        self._closed: OrderedDict[tuple[str, str], OrderRecord] = OrderedDict()
        self._by_client_id: dict[tuple[str, str], OrderRecord] = {}
        self._chapter = Chapter(until)

    def load(self, engine: Engine, filled: Callable[[int, str], tuple[int, int, int]]) -> None:
        """Begin with the engine's open orders.

        Args:
            engine: in the state that the history reaches.
            filled: what an order's fills were, by order id and customer: base units, quote units, fees.
        """
        for customer in engine.customers.values():
            for order in customer.open_orders():
                base, quote, fees = filled(order.id, customer.id)
                record = OrderRecord(
                    id=order.id,
                    customer=customer.id,
                    client_order_id=order.client_id,
                    market=order.book.market.id,
                    side=order.side,
                    type=order.type,
                    tif=order.tif,
                    price=order.price if order.type in ("limit", "stop_limit") else 0,
                    base_units=order.left + order.filled,
                    quote_units=0,
                    stop_price=order.stop_price,
                    at=0,
                    status="waiting" if order.stop_price else "open",
                    filled_base=base,
                    filled_quote=quote,
                    fees=fees,
                )
                self._open[order.id] = record
                self._by_client_id[customer.id, order.client_id] = record

    def take(self, one: Applied) -> None:
        """Follow the core."""
        at = one.command.at
        for number, event in enumerate(one.events):
            kind = type(event)
            if kind is Accepted:
                self._accepted(event, one)  # type: ignore[arg-type]
            elif kind is Filled:
                self._filled(event, one, number)  # type: ignore[arg-type]
            elif kind is Cancelled:
                record = self._open.get(event.order)  # type: ignore[attr-defined]
                if record is not None:
                    self._close(record, event.reason, at)  # type: ignore[attr-defined]
            elif kind is Replaced:
                record = self._open[event.order]  # type: ignore[attr-defined]
                record.price = event.price  # type: ignore[attr-defined]
                record.base_units = event.base_left + record.filled_base  # type: ignore[attr-defined]
                record.updated_at = at
            elif kind is Triggered:
                self._open[event.order].status = "open"  # type: ignore[attr-defined]
        self._chapter.until = one.sequence
        self._chapter.at = at

    def flush(self) -> None:
        """Nothing to do: the history is written from time to time."""

    def take_chapter(self) -> Chapter | None:
        """What the history does not have yet; None if that is nothing. Whoever takes it writes it."""
        chapter = self._chapter
        chapter.candles = self.candles.take_changed()
        self._chapter = Chapter(chapter.until, at=chapter.at)
        return chapter

    def order(self, customer: str, client_order_id: str) -> OrderRecord | None:
        """An open order, or one of the last closed ones."""
        return self._by_client_id.get((customer, client_order_id))

    def open_orders(self, customer: str, market: str | None) -> Iterator[OrderRecord]:
        """A customer's open orders, oldest first."""
        for record in self._open.values():
            if record.customer == customer and market in (None, record.market):
                yield record

    def _accepted(self, event: Accepted, one: Applied) -> None:
        command = one.command
        assert isinstance(command, Place)
        record = OrderRecord(
            id=event.order,
            customer=event.customer,
            client_order_id=event.client_order_id,
            market=event.market,
            side=event.side,
            type=event.type,
            tif=command.tif,
            price=event.price,
            base_units=event.base_units,
            quote_units=event.quote_units,
            stop_price=event.stop_price,
            at=command.at,
            status="waiting" if event.stop_price else "open",
            updated_at=command.at,
        )
        self._open[event.order] = record
        self._by_client_id[event.customer, event.client_order_id] = record

    def _filled(self, event: Filled, one: Applied, number: int) -> None:
        at = one.command.at
        self._chapter.fills.append(fill_record(event, one, number))
        self.candles.trade(event.market, at, event.price, event.base_units, event.quote_units)
        for order, fee, left in (
            (event.maker_order, event.maker_fee, event.maker_left),
            (event.taker_order, event.taker_fee, event.taker_left),
        ):
            record = self._open.get(order)
            if record is None:
                continue
            record.filled_base += event.base_units
            record.filled_quote += event.quote_units
            record.fees += fee
            record.updated_at = at
            if left == 0 and not record.quote_units:
                self._close(record, "filled", at)

    def _close(self, record: OrderRecord, status: str, at: int) -> None:
        record.status = status
        record.updated_at = at
        self._open.pop(record.id, None)
        key = (record.customer, record.client_order_id)
        self._closed[key] = record
        self._closed.move_to_end(key)
        if record.filled_base:
            self._chapter.orders.append(record)
        if len(self._closed) > CLOSED_KEPT:
            old, forgotten = self._closed.popitem(last=False)
            if self._by_client_id.get(old) is forgotten:
                del self._by_client_id[old]
