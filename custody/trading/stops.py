"""Stop orders that wait for their price."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from custody.trading.orders import Order


class Stops:
    """Stop orders of one market: buys by rising, sells by falling stop price, at one price by order id."""

    __slots__ = ("buys", "sells")

    def __init__(self) -> None:
        self.buys: list[tuple[int, int, Order]] = []
        """(stop price, order id, order), the next one to trigger first."""
        self.sells: list[tuple[int, int, Order]] = []
        """(-stop price, order id, order)."""

    def __iter__(self) -> Iterator[Order]:
        for _, _, order in self.buys:
            yield order
        for _, _, order in self.sells:
            yield order

    def add(self, order: Order) -> None:
        """Lets an order wait."""
        insort(self._queue(order), _key(order))

    def remove(self, order: Order) -> None:
        """An order waits no longer."""
        queue = self._queue(order)
        del queue[bisect_left(queue, _key(order))]

    def next(self, low: int, high: int) -> Order | None:
        """Takes out what prices from `low` to `high` trigger first: of both sides' nearest the older; or None."""
        buy = self.buys[0] if self.buys and self.buys[0][0] <= high else None
        sell = self.sells[0] if self.sells and -self.sells[0][0] >= low else None
        if buy is None and sell is None:
            return None
        if sell is None or (buy is not None and buy[1] < sell[1]):
            return self.buys.pop(0)[2]
        return self.sells.pop(0)[2]

    def _queue(self, order: Order) -> list[tuple[int, int, Order]]:
        return self.buys if order.side == "buy" else self.sells


def _key(order: Order) -> tuple[int, int, Order]:
    # Ids differ, so orders are never compared.
    return (order.stop_price if order.side == "buy" else -order.stop_price, order.id, order)
