"""A few words in which example tests of the engine speak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from custody.trading.commands import AnyCommand, Cancel, Place, Replace, Side
from custody.trading.engine import Engine
from custody.trading.events import Accepted, Event, Filled, Rejected
from tests.unit.custody.trading.scenes import AT


class Desk:
    """An engine and a clock; orders get client ids o1, o2, ... in turn."""

    def __init__(self, engine: Engine, market: str = "X-Q") -> None:
        self.engine = engine
        self.market = market
        self.at = AT
        self.placed = 0

    def do(self, command: AnyCommand) -> list[Event]:
        """All events of a command."""
        return self.engine.apply(command)

    def place(self, customer: str, side: Side, price: int = 0, size: int = 0, **other: Any) -> list[Event]:
        """Events of an order, without its acceptance; or its rejection."""
        self.placed += 1
        fields: dict[str, Any] = {"client_order_id": f"o{self.placed}", "market": self.market, **other}
        if fields.get("type") in ("market", "stop_market"):
            fields["tif"] = "ioc"
        events = self.do(Place(self.at, customer, side=side, price=price, base_units=size, **fields))
        return [one for one in events if not isinstance(one, Accepted)]

    def cancel(self, customer: str, client_id: str) -> list[Event]:
        """Events of a cancel."""
        return self.do(Cancel(self.at, customer, client_id))

    def replace(self, customer: str, client_id: str, price: int, size: int) -> list[Event]:
        """Events of a replace."""
        return self.do(Replace(self.at, customer, client_id, price, size))

    def free(self, customer: str, asset: str) -> int:
        """Free units."""
        return self.engine.customers[customer].balance(asset).free

    def held(self, customer: str, asset: str) -> int:
        """Held units."""
        return self.engine.customers[customer].balance(asset).held

    def depth(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Bids and asks as (price, units), best first."""
        book = self.engine.books[self.market]
        bids, asks = (
            [(abs(rank), ladder.levels[rank].units) for rank in reversed(ladder.ranks)]
            for ladder in (book.bids, book.asks)
        )
        return bids, asks


def fills(events: list[Event]) -> list[tuple[int, int, str]]:
    """Price, size and maker of each fill."""
    return [(one.price, one.base_units, one.maker) for one in _of(Filled, events)]


def code(events: list[Event]) -> str:
    """Why a command was rejected; empty if it was not."""
    return next((one.code for one in _of(Rejected, events)), "")


def kinds(events: list[Event]) -> list[str]:
    """The names of events, with the reason where there is one."""
    return [type(one).__name__ + (f":{one.reason}" if hasattr(one, "reason") else "") for one in events]


def _of(kind: type[Any], events: list[Event]) -> Iterator[Any]:
    return (one for one in events if isinstance(one, kind))
