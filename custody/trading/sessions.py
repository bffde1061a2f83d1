"""The states of a market and how they change: by an operator, by its own protections, by time."""

from __future__ import annotations

from custody.trading.auction import uncross
from custody.trading.book import Book
from custody.trading.desk import trigger_stops
from custody.trading.events import Event, MarketStateChanged, StateReason
from custody.trading.market import MarketState


def change_state(
    book: Book, state: MarketState, reason: StateReason, events: list[Event], until: int = 0
) -> None:
    """Brings a market into a state. Opening uncrosses what has collected, and lets stops see where the price is."""
    before, book.state, book.until = book.state, state, until
    if until:
        book.clock.due = min(book.clock.due, until)
    events.append(MarketStateChanged(book.market.id, state, reason, until))
    if state == "open":
        _open(book, before, events)


def next_due(book: Book) -> int:
    """When time has something to do in this market next."""
    due = book.guard.due()
    return min(due, book.until) if book.until else due


def pass_time(book: Book, at: int, events: list[Event]) -> None:
    """Does what time does: ends a halt in an auction, an auction in an open market; moves the guard's windows."""
    while book.until and at >= book.until:
        if book.state == "halted":
            change_state(book, "auction", "halt_over", events, book.until + book.market.auction_micros)
        else:
            change_state(book, "open", "auction_over", events)
    book.guard.advance(book.market, at, book.last)


def _open(book: Book, before: MarketState, events: list[Event]) -> None:
    price = uncross(book, events) if before == "auction" or book.crossed() else 0
    if price:
        book.last = price
        book.guard.lay(book.market, price)
    elif before == "auction" and book.bids.ranks and book.asks.ranks:
        # Without a trade the market's own middle is the best guess; else a band could keep it from ever trading again.
        book.guard.lay(book.market, book.middle())
    if book.last:
        book.guard.start(book.last)
        book.low = book.high = book.last
        trigger_stops(book, events)
