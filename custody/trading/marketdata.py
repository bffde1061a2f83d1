"""Public market data, folded from the engine's events: depth by price, the last trades, and 24 hours as a ticker.

Depth is told as a snapshot and increments. Each increment names the engine's sequence number it brings the depth
to, and the one it starts from: who has a snapshot applies what follows it, and sees at once if something is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from custody.trading.candles import INTERVALS, Candle
from custody.trading.core import Applied
from custody.trading.engine import Engine
from custody.trading.events import Cancelled, Configured, Filled, MarketStateChanged, Replaced, Rested
from custody.trading.history import FillRecord, fill_record
from custody.trading.market import MarketState

RECENT_TRADES: Final = 500
_MINUTE: Final = INTERVALS["1m"]
_DAY_MINUTES: Final = 1_440

Level = tuple[int, int]
"""Price and base units."""


@dataclass(frozen=True, slots=True)
class Increment:
    """What changed in a market's depth between two moments; units are the new totals, 0: the level is gone."""

    previous: int
    """The sequence number that this follows: of the increment before, or within a snapshot."""
    sequence: int
    bids: list[Level]
    asks: list[Level]


@dataclass(frozen=True, slots=True)
class Ticker:
    """The last 24 hours, to the minute; all 0 if nothing was traded."""

    last: int
    open: int
    high: int
    low: int
    base_units: int
    quote_units: int
    bid: int
    ask: int


@dataclass(slots=True)
class _Minute:
    start: int
    open: int
    high: int
    low: int
    close: int
    base_units: int
    quote_units: int


@dataclass(slots=True)
class MarketView:
    """One market as everybody may see it."""

    state: MarketState
    until: int = 0
    """When time changes the state again, microseconds; 0: not by itself."""
    bids: dict[int, int] = field(default_factory=dict)
    """Base units by price."""
    asks: dict[int, int] = field(default_factory=dict)
    sequence: int = 0
    """Of the last command that changed the depth and was told of."""
    trades: deque[FillRecord] = field(default_factory=lambda: deque(maxlen=RECENT_TRADES))
    """The last ones, oldest first."""
    last: int = 0
    """Price of the last trade."""
    minutes: deque[_Minute] = field(default_factory=deque)
    touched: dict[tuple[str, int], None] = field(default_factory=dict)
    """Side and price of levels that changed since the last increment."""

    def change(self, side: str, price: int, units: int) -> None:
        """Add units (or take some, below 0) at a price."""
        levels = self.bids if side == "buy" else self.asks
        left = levels.get(price, 0) + units
        if left:
            levels[price] = left
        else:
            levels.pop(price, None)
        self.touched[side, price] = None

    def trade(self, fill: FillRecord) -> None:
        """Count one trade."""
        self.trades.append(fill)
        self.last = price = fill.price
        start = fill.at - fill.at % _MINUTE
        minute = self.minutes[-1] if self.minutes else None
        if minute is None or minute.start < start:
            minute = _Minute(start, price, price, price, price, 0, 0)
            self.minutes.append(minute)
        minute.high, minute.low = max(minute.high, price), min(minute.low, price)
        minute.close = price
        minute.base_units += fill.base_units
        minute.quote_units += fill.quote_units

    def depth(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best levels of both sides: bids from the highest, asks from the lowest price."""
        return (
            [(price, self.bids[price]) for price in sorted(self.bids, reverse=True)[:levels]],
            [(price, self.asks[price]) for price in sorted(self.asks)[:levels]],
        )

    def ticker(self, now: int) -> Ticker:
        """The 24 hours before `now`, microseconds."""
        since = now - _DAY_MINUTES * _MINUTE
        while self.minutes and self.minutes[0].start < since:
            self.minutes.popleft()
        day = self.minutes
        return Ticker(
            last=self.last,
            open=day[0].open if day else 0,
            high=max((minute.high for minute in day), default=0),
            low=min((minute.low for minute in day), default=0),
            base_units=sum(minute.base_units for minute in day),
            quote_units=sum(minute.quote_units for minute in day),
            bid=max(self.bids, default=0),
            ask=min(self.asks, default=0),
        )


class MarketData:
    """Follows the core from the state of an engine on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.markets: dict[str, MarketView] = {}
        self._resting: dict[int, tuple[MarketView, str, int]] = {}
        """Of orders in books: market, side, price."""
        for name in engine.books:
            self._add(name)
        for customer in engine.customers.values():
            for order in customer.open_orders():
                if not order.stop_price:
                    self._rest(order.id, order.book.market.id, order.side, order.price, order.left)
        for view in self.markets.values():
            view.touched.clear()
            view.sequence = engine.sequence

    def load(self, market: str, trades: Iterable[FillRecord], minutes: Iterable[Candle]) -> None:
        """Begin with the last trades and the candles of the last day's minutes, both oldest first."""
        view = self.markets[market]
        view.trades.extend(trades)
        view.minutes.extend(
            _Minute(c.start, c.open, c.high, c.low, c.close, c.base_units, c.quote_units) for c in minutes
        )
        view.last = view.trades[-1].price if view.trades else 0

    def take(self, one: Applied) -> None:
        """Follow the core."""
        for number, event in enumerate(one.events):
            if isinstance(event, Rested):
                self._rest(event.order, event.market, event.side, event.price, event.base_left)
            elif isinstance(event, Filled):
                self._filled(event, one, number)
            elif isinstance(event, Cancelled):
                resting = self._resting.pop(event.order, None)
                if resting is not None:
                    view, side, price = resting
                    view.change(side, price, -event.base_left)
            elif isinstance(event, Replaced):
                view, side, price = self._resting.pop(event.order)
                view.change(side, price, -event.old_left)
                if event.priority == "kept":
                    self._rest(event.order, event.market, event.side, event.price, event.base_left)
            elif isinstance(event, MarketStateChanged):
                view = self.markets[event.market]
                view.state, view.until = event.state, event.until
            elif isinstance(event, Configured):
                for name in event.added:
                    self._add(name)

    def flush(self) -> None:
        """Nothing to do: whoever tells others asks for increments."""

    def increment(self, market: str, sequence: int) -> Increment | None:
        """What changed since the last call, up to command `sequence`; None if nothing did."""
        view = self.markets[market]
        if not view.touched:
            return None
        bids = [(price, view.bids.get(price, 0)) for side, price in view.touched if side == "buy"]
        asks = [(price, view.asks.get(price, 0)) for side, price in view.touched if side == "sell"]
        view.touched.clear()
        previous, view.sequence = view.sequence, sequence
        return Increment(previous, sequence, bids, asks)

    def _add(self, name: str) -> None:
        book = self._engine.books[name]
        self.markets[name] = MarketView(book.state, book.until)

    def _rest(self, order: int, market: str, side: str, price: int, units: int) -> None:
        view = self.markets[market]
        view.change(side, price, units)
        self._resting[order] = (view, side, price)

    def _filled(self, event: Filled, one: Applied, number: int) -> None:
        # Out of an auction both orders come from the book, each from the price where it rested.
        for order, left in ((event.maker_order, event.maker_left), (event.taker_order, event.taker_left)):
            resting = self._resting.get(order)
            if resting is None:
                continue
            view, side, price = resting
            view.change(side, price, -event.base_units)
            if left == 0:
                del self._resting[order]
        self.markets[event.market].trade(fill_record(event, one, number))
