"""The whole state of an engine as bytes and back: canonical, so equal states give equal bytes.

JSON, in a fixed order: markets as configured, orders by price and time, customers and ids sorted. Whatever follows from
the rest (tiers, the depth of a price, holds in balances' sums) is not written but found anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chains.errors import InvalidValue
from custody.trading.accounts import Customer
from custody.trading.book import Book, Clock
from custody.trading.commands import OrderType, SelfTrade, Side, TimeInForce
from custody.trading.fees import FeeSchedule
from custody.trading.market import Market, MarketState
from custody.trading.orders import Order
from custody.trading.protection import Guard
from custody.trading.transfers import Kind, Transfers

VERSION: Final = 1


class _Order(msgspec.Struct, array_like=True, frozen=True):
    id: int
    customer: str
    client_id: str
    side: Side
    type: OrderType
    tif: TimeInForce
    price: int
    left: int
    maker_rate: int
    taker_rate: int
    self_trade: SelfTrade
    entered: int
    stop_price: int
    budget: int
    by_quote: bool
    filled: int
    fee_parts: int
    fees: int
    hold: int


class _Book(msgspec.Struct, array_like=True, frozen=True):
    market: Market
    state: MarketState
    until: int
    last: int
    earned: int
    guard: Guard
    bids: list[_Order]
    asks: list[_Order]
    stops: list[_Order]


class _Customer(msgspec.Struct, array_like=True, frozen=True):
    id: str
    balances: list[tuple[str, int, int]]
    closed: list[str]
    killed: bool
    days: list[tuple[int, int]]
    day: int


class State(msgspec.Struct, array_like=True, frozen=True):
    """What an engine is made of."""

    version: int
    clock: Clock
    fees: FeeSchedule
    books: list[_Book]
    customers: list[_Customer]
    transfers: list[tuple[Kind, str, str, str, int]]


_DECODER: Final = msgspec.json.Decoder(State)
encode_state: Final = msgspec.json.Encoder().encode


def decode_state(data: bytes) -> State:
    """The state in these bytes.

    Raises:
        InvalidValue: they are no state, or one of another version.
    """
    try:
        state = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidValue(f"engine state: {error}") from None
    if state.version != VERSION:
        raise InvalidValue(f"engine state: version {state.version}, expected {VERSION}")
    return state


def take(
    clock: Clock,
    fees: FeeSchedule,
    books: dict[str, Book],
    customers: dict[str, Customer],
    transfers: Transfers,
) -> State:
    """The state of an engine's parts."""
    return State(
        VERSION,
        clock,
        fees,
        [_book(book) for book in books.values()],
        [_customer(customers[name]) for name in sorted(customers)],
        sorted(
            (kind, id_, *content) for day in transfers.days.values() for (kind, id_), content in day.items()
        ),
    )


def restore_customers(state: State) -> dict[str, Customer]:
    """Customers without their open orders."""
    customers = {}
    for told in state.customers:
        customer = customers[told.id] = Customer(
            told.id, killed=told.killed, days=dict(told.days), day=told.day
        )
        customer.volume = sum(customer.days.values())
        customer.find_tier(state.fees)
        for asset, free, held in told.balances:
            balance = customer.balance(asset)
            balance.free, balance.held = free, held
        for client_id in told.closed:
            customer.closed.append(client_id)
            customer.orders[client_id] = None
    return customers


def restore_books(state: State, customers: dict[str, Customer], clock: Clock) -> dict[str, Book]:
    """Books with their orders, which are the customers' too."""
    books: dict[str, Book] = {}
    orders: list[Order] = []
    for told in state.books:
        book = books[told.market.id] = Book(told.market, state.fees, clock)
        book.state, book.until, book.last, book.earned = told.state, told.until, told.last, told.earned
        book.guard = told.guard
        for resting in (*told.bids, *told.asks):
            orders.append(_order(resting, customers[resting.customer], book))
            book.side(orders[-1]).add(orders[-1])
        for waiting in told.stops:
            orders.append(_order(waiting, customers[waiting.customer], book))
            book.stops.add(orders[-1])
    for order in sorted(orders, key=lambda order: order.id):
        order.customer.orders[order.client_id] = order
    return books


def restore_transfers(state: State) -> Transfers:
    """The ids that are remembered."""
    transfers = Transfers()
    for kind, transfer_id, customer, asset, units in state.transfers:
        transfers.remember(kind, transfer_id, (customer, asset, units))
    return transfers


def _book(book: Book) -> _Book:
    return _Book(
        book.market,
        book.state,
        book.until,
        book.last,
        book.earned,
        book.guard,
        [_told(order) for order in book.bids.orders()],
        [_told(order) for order in book.asks.orders()],
        [_told(order) for order in book.stops],
    )


def _customer(customer: Customer) -> _Customer:
    return _Customer(
        customer.id,
        [
            (asset, balance.free, balance.held)
            for asset, balance in sorted(customer.balances.items())
            if balance.free or balance.held
        ],
        list(customer.closed),
        customer.killed,
        sorted((day, value) for day, value in customer.days.items() if value),
        customer.day,
    )


def _told(order: Order) -> _Order:
    return _Order(
        order.id, order.customer.id, order.client_id, order.side, order.type, order.tif, order.price, order.left,
        order.maker_rate, order.taker_rate, order.self_trade, order.entered, order.stop_price, order.budget,
        order.by_quote, order.filled, order.fee_parts, order.fees, order.hold,
    )  # fmt: skip


def _order(told: _Order, customer: Customer, book: Book) -> Order:
    return Order(
        told.id, customer, told.client_id, book, customer.balance(book.market.base),
        customer.balance(book.market.quote), told.side, told.type, told.tif, told.price,
        told.price if told.side == "buy" else -told.price, told.left, told.maker_rate, told.taker_rate,
        told.self_trade, told.entered, told.stop_price, told.budget, told.by_quote, told.filled, told.fee_parts,
        told.fees, told.hold,
    )  # fmt: skip
