"""The book of one market: orders by price, and at one price by time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from custody.trading.commands import Side
from custody.trading.fees import FeeSchedule
from custody.trading.market import Market, MarketState
from custody.trading.orders import Order
from custody.trading.protection import Guard
from custody.trading.stops import Stops

_DEAD_AT_MOST: Final = 16
"""Cancelled orders that a queue may keep beyond as many as it has live ones."""


class Clock(msgspec.Struct, eq=False):
    """Where the engine is; one for all books."""

    sequence: int = 0
    """Commands applied so far; during one, its own number."""
    at: int = 0
    """Time of the last command, microseconds since 1970."""
    day: int = 0
    """Its day since 1970."""
    due: int = 0
    """When time has something to do next."""


class Level(msgspec.Struct, eq=False):
    """All orders at one price. Cancelled ones stay in the queue, with nothing left, until their turn or a sweep."""

    queue: deque[Order]
    units: int = 0
    """Base units of all live orders."""
    live: int = 0
    """Number of live orders."""


class Ladder:
    """One side of a book. `ranks` rise, so the best price is last and the busiest end is the cheap one to change."""

    __slots__ = ("levels", "ranks")

    def __init__(self) -> None:
        self.ranks: list[int] = []
        self.levels: dict[int, Level] = {}

    def add(self, order: Order) -> None:
        """Puts an order at the end of the queue of its price."""
        rank = order.rank
        level = self.levels.get(rank)
        if level is None:
            level = self.levels[rank] = Level(deque())
            ranks = self.ranks
            if not ranks or rank > ranks[-1]:
                ranks.append(rank)
            else:
                ranks.insert(bisect_left(ranks, rank), rank)
        level.queue.append(order)
        level.units += order.left
        level.live += 1

    def remove(self, order: Order) -> None:
        """Takes an order out, which is over with this: its `left` becomes 0."""
        level = self.levels[order.rank]
        level.units -= order.left
        level.live -= 1
        order.left = 0
        if not level.live:
            self.drop(order.rank)
        elif len(level.queue) > 2 * level.live + _DEAD_AT_MOST:
            # Each sweep is paid for by as many removals, so a removal costs the same however long the queue is.
            level.queue = deque(alive for alive in level.queue if alive.left)

    def shrink(self, order: Order, left: int) -> None:
        """Makes an order smaller where it stands."""
        self.levels[order.rank].units -= order.left - left
        order.left = left

    def drop(self, rank: int) -> None:
        """Forgets a price at which nothing is left."""
        del self.levels[rank]
        ranks = self.ranks
        if ranks[-1] == rank:
            ranks.pop()
        else:
            del ranks[bisect_left(ranks, rank)]

    def orders(self) -> Iterator[Order]:
        """All orders, best price first, at one price by time."""
        for rank in reversed(self.ranks):
            for order in self.levels[rank].queue:
                if order.left:
                    yield order


class Book:
    """A market's two ladders, its stop orders, its state and what protects it."""

    __slots__ = (
        "asks", "bids", "clock", "earned", "fees", "first", "guard", "high", "last", "low", "market", "rates", "scale",
        "state", "stops", "until", "value",
    )  # fmt: skip

    def __init__(self, market: Market, fees: FeeSchedule, clock: Clock) -> None:
        self.configure(market, fees)
        self.clock = clock
        self.guard = Guard()
        self.guard.lay(market, market.reference_price)
        self.bids = Ladder()
        self.asks = Ladder()
        self.stops = Stops()
        self.state: MarketState = "halted"
        self.until = 0
        """When time changes the state; 0: only an operator does."""
        self.last = 0
        """Price of the last trade; 0: none yet."""
        self.first = 0
        """Price of the first trade of the order at work; 0 between orders."""
        self.low = self.high = 0
        """Range of the trades of the command at work; 0 between commands."""
        self.earned = 0
        """All fees less all rebates, in quote units."""

    def configure(self, market: Market, fees: FeeSchedule) -> None:
        """Puts a market's configuration in force; orders keep the rates they were accepted with.

        Raises:
            InvalidValue: fees and market do not fit together.
        """
        self.rates = fees.rates(market)
        """Per channel and tier: maker and taker rate."""
        self.value = fees.value_of(market.quote)
        """What a quote unit counts for in volumes."""
        self.market = market
        self.fees = fees
        self.scale = market.scale

    def side(self, order: Order) -> Ladder:
        """The ladder that an order rests in."""
        return self.bids if order.side == "buy" else self.asks

    def against(self, order: Order) -> Ladder:
        """The ladder that an order trades with."""
        return self.asks if order.side == "buy" else self.bids

    def best(self, side: Side) -> int:
        """Best price of buyers or sellers; 0: none."""
        ranks = self.bids.ranks if side == "buy" else self.asks.ranks
        return abs(ranks[-1]) if ranks else 0

    def crossed(self) -> bool:
        """Whether the best buyer pays what the best seller asks, which an open market never shows."""
        return bool(self.bids.ranks and self.asks.ranks) and self.bids.ranks[-1] >= -self.asks.ranks[-1]

    def middle(self) -> int:
        """Half way between the best prices, on the tick; both sides must have one."""
        return (self.best("buy") + self.best("sell")) // 2 // self.market.tick * self.market.tick
