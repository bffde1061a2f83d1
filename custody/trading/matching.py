"""An incoming order against the book: price-time priority, money and fees of each fill, self-trade prevention."""

from __future__ import annotations

from typing import Literal

from custody.trading.accounts import Customer
from custody.trading.book import Book
from custody.trading.events import Cancelled, CancelReason, Event, Filled, TierChanged
from custody.trading.events import Place as Where
from custody.trading.fees import RATE_SCALE
from custody.trading.orders import Order

Stop = Literal["filled", "unfilled", "self_trade", "price_band", "spent"]
"""Why it ended: nothing left; no more orders within the limit; an own order; the band; a budget for no further lot."""


def cancel(order: Order, where: Where, reason: CancelReason, events: list[Event]) -> None:
    """Takes an order out of wherever it is, gives back what it holds, and says so."""
    book, left, side, customer = order.book, order.left, order.side, order.customer
    if where == "book":
        (book.bids if side == "buy" else book.asks).remove(order)
    elif where == "stops":
        book.stops.remove(order)
    order.set_hold(0)
    order.left = 0
    customer.close(order)
    events.append(
        Cancelled(
            order.id, customer.id, order.client_id, book.market.id, side, order.price,
            0 if order.by_quote else left, where, reason,
        )
    )  # fmt: skip


def fillable(taker: Order) -> bool:
    """Whether all of an order could be filled at once, within its price and the band."""
    book = taker.book
    worst, best = _reach(taker)
    left = taker.left
    for maker in book.against(taker).orders():
        if not worst <= maker.rank <= best:
            return False
        if maker.customer is taker.customer:
            if taker.self_trade != "cancel_oldest":
                return False
            continue
        left -= maker.left
        if left <= 0:
            return True
    return False


def match(taker: Order, events: list[Event]) -> Stop:
    """Fills an order as far as it goes, from free money; cancels what self-trade prevention says.

    The caller has checked that the money is there, and deals with what is left.
    """
    book = taker.book
    ladder = book.against(taker)
    ranks = ladder.ranks
    worst, best = _reach(taker)
    while ranks:
        rank = ranks[-1]
        if rank < worst or rank > best:
            return "price_band" if rank >= -taker.rank else "unfilled"
        level = ladder.levels[rank]
        while level.live:
            maker = level.queue[0]
            units = maker.left
            if not units:
                level.queue.popleft()
                continue
            if maker.customer is taker.customer:
                if taker.self_trade != "cancel_newest":
                    cancel(maker, "book", "self_trade", events)
                if taker.self_trade != "cancel_oldest":
                    return "self_trade"
                continue
            if units > taker.left:
                units = taker.left
            if taker.budget >= 0:
                units = min(units, _affordable(taker, abs(rank)))
                if not units:
                    return "spent"
            _fill(taker, maker, units, abs(rank), events)
            level.units -= units
            if not maker.left:
                level.queue.popleft()
                level.live -= 1
                maker.customer.close(maker)
            if not taker.left:
                if not level.live:
                    ladder.drop(rank)
                return "filled"
        if rank in ladder.levels:
            ladder.drop(rank)
    return "unfilled"


def _reach(taker: Order) -> tuple[int, int]:
    """The worst and the best rank of the other side that an order may trade with: its limit, and the band's edges."""
    guard = taker.book.guard
    if taker.side == "buy":
        return max(-taker.rank, -guard.high), -guard.low
    return max(-taker.rank, guard.low), guard.high


def _affordable(taker: Order, price: int) -> int:
    """Base units, whole lots, that the budget still allows at a price, fee included for buys."""
    lot = taker.book.market.lot
    lot_price = lot * price // taker.book.scale
    if taker.side == "sell":
        return taker.budget // lot_price * lot
    parts = (taker.budget + taker.fees) * RATE_SCALE - taker.fee_parts
    return parts // (lot_price * (RATE_SCALE + taker.taker_rate)) * lot


def _fill(taker: Order, maker: Order, units: int, price: int, events: list[Event]) -> None:
    """One trade: the taker pays from free money, the maker from what is held for its order."""
    book = taker.book
    quote_units = units * price // book.scale
    taker_fee = taker.charge(quote_units, taker.taker_rate)
    maker_fee = make(maker, quote_units, taker_fee)
    book.earned += taker_fee + maker_fee
    book.last = price
    if not book.first:
        book.first = price
    taker.left -= units
    taker.filled += units
    if taker.side == "buy":
        paid = quote_units + taker_fee
        taker.quote.free -= paid
        taker.base.free += units
        sell_held(maker, units, quote_units - maker_fee)
    else:
        paid = quote_units
        taker.base.free -= units
        taker.quote.free += quote_units - taker_fee
        buy_held(maker, units, quote_units + maker_fee)
    if taker.budget >= 0:
        taker.budget -= paid
    events.append(
        Filled(
            book.market.id, price, units, quote_units, taker.side,
            maker.id, maker.customer.id, maker.client_id, maker_fee, maker.left,
            taker.id, taker.customer.id, taker.client_id, taker_fee, 0 if taker.by_quote else taker.left,
        )
    )  # fmt: skip
    value = quote_units * book.value[0] // book.value[1]
    count_volume(taker, value, events)
    count_volume(maker, value, events)


def make(maker: Order, quote_units: int, taker_fee: int) -> int:
    """The fee of the resting side of a trade; below 0 a rebate, never above what the taker pays for it."""
    rate = maker.maker_rate
    if rate < 0:
        # The schedule may have changed since one of the two was accepted.
        return -min(quote_units * -rate // RATE_SCALE, taker_fee)
    return maker.charge(quote_units, rate)


def sell_held(order: Order, units: int, proceeds: int) -> None:
    """Money of a fill of a resting sell."""
    order.base.held -= units
    order.hold -= units
    order.quote.free += proceeds
    order.left -= units
    order.filled += units


def buy_held(order: Order, units: int, cost: int) -> None:
    """Money of a fill of a resting buy: what it needs no longer, for fees or for its limit, becomes free."""
    order.left -= units
    order.filled += units
    hold = order.need(order.price, order.left)
    order.quote.held -= order.hold - hold
    order.quote.free += order.hold - hold - cost
    order.hold = hold
    order.base.free += units


def count_volume(order: Order, value: int, events: list[Event]) -> None:
    """Counts a fill towards the customer's thirty days, and says when that changes the tier."""
    customer, book = order.customer, order.book
    day = book.clock.day
    if customer.day != day:
        roll(customer, book, events)
    customer.volume += value
    customer.days[day] = customer.days.get(day, 0) + value
    if 0 < customer.next_tier <= customer.volume:
        customer.find_tier(book.fees)
        events.append(TierChanged(customer.id, customer.tier))


def roll(customer: Customer, book: Book, events: list[Event]) -> None:
    """Moves a customer's volume on to the present day, and says when that changes the tier."""
    before = customer.tier
    customer.roll(book.clock.day, book.fees)
    if customer.tier != before:
        events.append(TierChanged(customer.id, customer.tier))
