"""Uncrossing: one price for all orders that an auction has collected."""

from __future__ import annotations

from custody.trading.book import Book, Ladder
from custody.trading.events import Event, Filled, Uncrossed
from custody.trading.matching import buy_held, count_volume, make, sell_held
from custody.trading.orders import Order


def clearing_price(book: Book) -> tuple[int, int]:
    """The price at which most can trade, and how many base units; (0, 0) if nothing crosses.

    Among prices with equal volume the one with the smallest surplus on either side, then the nearest to the reference
    price, then the lowest. Candidates are the limit prices of the orders themselves.
    """
    bids, asks = book.bids, book.asks
    if not book.crossed():
        return 0, 0
    high, low = bids.ranks[-1], -asks.ranks[-1]
    demand = _depth(bids, low)
    supply = _depth(asks, -high)
    best: tuple[int, int, int, int] | None = None
    wanted, offered = sum(demand.values()), 0
    for price in sorted({*demand, *(-rank for rank in supply)}):
        offered += supply.get(-price, 0)
        volume, surplus = min(wanted, offered), abs(wanted - offered)
        distance = abs(price - book.guard.reference) if book.guard.reference else 0
        found = (-volume, surplus, distance, price)
        if best is None or found < best:
            best = found
        wanted -= demand.get(price, 0)
    assert best is not None
    return best[3], -best[0]


def uncross(book: Book, events: list[Event]) -> int:
    """Trades all that crosses, at one price; returns it, or 0. Of each pair the older order counts as the maker.

    Two orders of one customer never cross here: that is refused when they enter an auction.
    """
    price, volume = clearing_price(book)
    events.append(Uncrossed(book.market.id, price, volume))
    while volume:
        bid, ask = _first(book.bids), _first(book.asks)
        units = min(bid.left, ask.left, volume)
        volume -= units
        _trade(bid, ask, units, price, events)
        for ladder, order in ((book.bids, bid), (book.asks, ask)):
            level = ladder.levels[order.rank]
            level.units -= units
            if not order.left:
                level.queue.popleft()
                level.live -= 1
                order.customer.close(order)
                if not level.live:
                    ladder.drop(order.rank)
    return price


def _depth(ladder: Ladder, worst: int) -> dict[int, int]:
    """Base units by rank, of ranks not below `worst`."""
    return {rank: ladder.levels[rank].units for rank in ladder.ranks if rank >= worst}


def _first(ladder: Ladder) -> Order:
    queue = ladder.levels[ladder.ranks[-1]].queue
    while not queue[0].left:
        queue.popleft()
    return queue[0]


def _trade(bid: Order, ask: Order, units: int, price: int, events: list[Event]) -> None:
    book = bid.book
    quote_units = units * price // book.scale
    maker, taker = (bid, ask) if bid.entered < ask.entered else (ask, bid)
    taker_fee = taker.charge(quote_units, taker.taker_rate)
    maker_fee = make(maker, quote_units, taker_fee)
    book.earned += taker_fee + maker_fee
    bid_fee, ask_fee = (maker_fee, taker_fee) if maker is bid else (taker_fee, maker_fee)
    buy_held(bid, units, quote_units + bid_fee)
    sell_held(ask, units, quote_units - ask_fee)
    events.append(
        Filled(
            book.market.id, price, units, quote_units, taker.side,
            maker.id, maker.customer.id, maker.client_id, maker_fee, maker.left,
            taker.id, taker.customer.id, taker.client_id, taker_fee, taker.left,
        )
    )  # fmt: skip
    value = quote_units * book.value[0] // book.value[1]
    count_volume(taker, value, events)
    count_volume(maker, value, events)
