"""Orders from arrival to rest: placing, cancelling, replacing, and stops that come to life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custody.trading.admission import MAX_UNITS, bound, check_limit, check_open, check_shape
from custody.trading.errors import Refused
from custody.trading.events import (
    Accepted,
    CancelReason,
    Event,
    MarketStateChanged,
    Replaced,
    Rested,
    Triggered,
)
from custody.trading.matching import Stop, cancel, fillable, match, roll
from custody.trading.orders import Order

if TYPE_CHECKING:
    from custody.trading.accounts import Customer
    from custody.trading.book import Book
    from custody.trading.commands import Place, Replace
    from custody.trading.events import StateReason


def place(command: Place, customer: Customer, book: Book, events: list[Event]) -> None:
    """Checks a new order and its money, then matches it, lets it rest or lets it wait for its stop price.

    Raises:
        Refused: it may not enter; nothing is changed.
    """
    client_id, clock, market = command.client_order_id, book.clock, book.market
    if client_id in customer.orders:
        raise Refused("duplicate_client_order_id")
    if customer.killed:
        raise Refused("killed")
    check_open(book)
    check_shape(command, book)
    if len(customer.orders) - len(customer.closed) >= market.open_orders:
        raise Refused("too_many_orders", most=market.open_orders)
    if customer.day != clock.day:
        roll(customer, book, events)
    side, type_, base_units, stop_price = command.side, command.type, command.base_units, command.stop_price
    if type_ == "limit":
        price = command.price
        check_limit(book, side, price, base_units)
    else:
        price = _price(command, book)
    maker_rate, taker_rate = book.rates[command.channel][customer.tier]
    sequence, balances = clock.sequence, customer.balances
    order = Order(
        sequence, customer, client_id, book, balances.get(market.base) or customer.balance(market.base),
        balances.get(market.quote) or customer.balance(market.quote), side, type_, command.tif, price,
        price if side == "buy" else -price, base_units, maker_rate, taker_rate, command.self_trade, sequence,
        stop_price,
    )  # fmt: skip
    crossing = _check_entry(order)
    need = _check_money(order, command.quote_units)
    customer.orders[client_id] = order
    events.append(
        Accepted(
            sequence, customer.id, client_id, market.id, side, type_, command.price, base_units,
            command.quote_units, stop_price,
        )
    )  # fmt: skip
    if stop_price:
        order.set_hold(need)
        book.stops.add(order)
    elif crossing:
        execute(order, events)
        trigger_stops(book, events)
    elif type_ == "limit" and order.tif != "ioc":
        _rest(order, need, events)
    else:
        cancel(order, "incoming", "unfilled", events)


def replace(command: Replace, order: Order, events: list[Event]) -> None:
    """Changes a resting order, in its place if it only shrinks, else as if it had come now.

    Raises:
        Refused: the change may not be; the order is as it was.
    """
    book = order.book
    check_open(book)
    if order.stop_price:
        raise Refused("not_replaceable")
    price, left = command.price, command.base_units - order.filled
    check_limit(book, order.side, price, command.base_units)
    if left <= 0:
        raise Refused("already_filled", base_units=command.base_units, filled=order.filled)
    kept = price == order.price and left <= order.left
    told = Replaced(
        order.id, order.customer.id, order.client_id, book.market.id, order.side, order.price, order.left,
        price, left, "kept" if kept else "lost",
    )  # fmt: skip
    if kept:
        events.append(told)
        book.side(order).shrink(order, left)
        order.set_hold(order.need(price, left))
        return
    need = order.need(price, left)
    if need > order.funds().free + order.hold:
        raise Refused("insufficient_funds", needed=need, free=order.funds().free + order.hold)
    # A new object, for the old one stays in its queue until swept.
    anew = _moved(order, price, left)
    crossing = _check_entry(anew)
    events.append(told)
    book.side(order).remove(order)
    order.set_hold(0)
    order.customer.orders[order.client_id] = anew
    if crossing:
        execute(anew, events)
        trigger_stops(book, events)
    else:
        _rest(anew, need, events)


def execute(order: Order, events: list[Event]) -> None:
    """Matches an order, rests or cancels what is left, and halts the market if a protection says so."""
    book = order.book
    book.first = 0
    stop = match(order, events)
    if stop == "filled" and not order.by_quote:
        order.customer.close(order)
    elif stop == "unfilled" and _may_rest(order):
        _rest(order, order.need(order.price, order.left), events)
    else:
        cancel(order, "incoming", _reason(order, stop), events)
    if book.first:
        first, last = book.first, book.last
        book.low = min(book.low or first, first, last)
        book.high = max(book.high, first, last)
        if book.guard.moved_too_fast(book.market, first, last):
            halt(book, "circuit_breaker", events)
            return
    if stop == "price_band":
        halt(book, "price_band", events)


def trigger_stops(book: Book, events: list[Event]) -> None:
    """Brings to life, one by one, the stops that trades of this command have reached; their trades may reach more."""
    while book.high and book.state == "open":
        order = book.stops.next(book.low, book.high)
        if order is None:
            break
        events.append(
            Triggered(order.id, order.customer.id, order.client_id, book.market.id, order.stop_price)
        )
        order.stop_price = 0
        order.entered = book.clock.sequence
        order.set_hold(0)
        if order.tif == "fok" and not fillable(order):
            cancel(order, "incoming", "not_fillable", events)
        else:
            execute(order, events)
    book.low = book.high = 0


def halt(book: Book, reason: StateReason, events: list[Event]) -> None:
    """Halts a market for its time; an auction follows by itself."""
    book.state = "halted"
    book.until = book.clock.at + book.market.halt_micros
    book.clock.due = min(book.clock.due, book.until)
    events.append(MarketStateChanged(book.market.id, "halted", reason, book.until))


def _price(command: Place, book: Book) -> int:
    """The worst price that a market order or a stop may trade at.

    Raises:
        Refused: price, size or value is not what the market takes.
    """
    if command.type == "stop_limit":
        check_limit(book, command.side, command.price, command.base_units)
        price = command.price
    else:
        price = command.stop_price or book.best("sell" if command.side == "buy" else "buy")
        if not price:
            raise Refused("no_price")
        value = command.quote_units or book.market.quote_units(command.base_units, price)
        if value < book.market.minimum_notional:
            raise Refused("below_minimum_notional", minimum=book.market.minimum_notional)
        price = bound(book, command.side, price, command.slippage_bps)
    if command.stop_price and book.last:
        reached = (
            book.last >= command.stop_price if command.side == "buy" else book.last <= command.stop_price
        )
        if reached:
            raise Refused("stop_would_trigger", stop_price=command.stop_price, last=book.last)
    return price


def _check_entry(order: Order) -> bool:
    """Whether an order trades at once.

    Raises:
        Refused: an auction cannot take it, or it may not trade, or not all of it can be filled.
    """
    if order.stop_price:
        return False
    book, tif = order.book, order.tif
    ranks = book.asks.ranks if order.side == "buy" else book.bids.ranks
    crossing = bool(ranks) and ranks[-1] >= -order.rank
    if book.state == "auction":
        if order.type == "market" or tif != "gtc":
            raise Refused("not_in_auction")
        if crossing and _meets_itself(order):
            raise Refused("self_trade_in_auction")
        return False
    if tif == "post_only" and crossing:
        raise Refused("post_only_would_take", price=order.price)
    if tif == "fok" and not fillable(order):
        raise Refused("not_fillable")
    return crossing


def _meets_itself(order: Order) -> bool:
    """Whether an order could trade with another of the same customer."""
    return any(
        other.book is order.book and other.rank >= -order.rank and not other.stop_price
        for other in order.customer.open_orders()
        if other.side != order.side
    )


def _check_money(order: Order, quote_units: int) -> int:
    """What an order needs at the most; sets the budget of market orders.

    Raises:
        Refused: the customer has less free.
    """
    funds = order.quote if order.side == "buy" else order.base
    if quote_units:
        order.by_quote, order.budget = True, quote_units
        if order.side == "buy":
            order.left = MAX_UNITS
            need = quote_units
        else:
            lot = order.book.market.lot
            order.left = funds.free // lot * lot
            need = lot
    else:
        need = order.need(order.price, order.left)
        if need > funds.free and order.type == "market" and order.side == "buy":
            # It may not get as far as its bound: then the free money is what bounds it.
            order.budget = funds.free
            need = order.need(order.book.best("sell"), order.book.market.lot)
    if need > funds.free:
        raise Refused("insufficient_funds", needed=need, free=funds.free)
    return need


def _moved(order: Order, price: int, left: int) -> Order:
    return Order(
        order.id, order.customer, order.client_id, order.book, order.base, order.quote, order.side, order.type,
        order.tif, price, price if order.side == "buy" else -price, left, order.maker_rate, order.taker_rate,
        order.self_trade, order.book.clock.sequence, 0, -1, False, order.filled, order.fee_parts, order.fees,
    )  # fmt: skip


def _may_rest(order: Order) -> bool:
    return order.tif in ("gtc", "post_only") and order.type in ("limit", "stop_limit")


def _rest(order: Order, need: int, events: list[Event]) -> None:
    book, side = order.book, order.side
    order.set_hold(need)
    (book.bids if side == "buy" else book.asks).add(order)
    events.append(
        Rested(order.id, order.customer.id, order.client_id, book.market.id, side, order.price, order.left)
    )


def _reason(order: Order, stop: Stop) -> CancelReason:
    if stop == "filled":
        return "insufficient_funds" if order.budget else "spent"
    if stop == "spent":
        return "spent" if order.by_quote else "insufficient_funds"
    return stop
