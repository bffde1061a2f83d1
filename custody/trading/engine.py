"""The matching engine: a pure, deterministic state machine. Command in, events out; no I/O, no clock, no chance.

Equal engines that apply equal commands stay equal and answer equal events, byte for byte: so the journal of commands is
all there is to keep, and a snapshot of `state()` only saves time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from chains.errors import InvalidValue
from custody.trading import commands as c
from custody.trading import events as e
from custody.trading.accounts import DAY_MICROS, Customer
from custody.trading.admission import MAX_UNITS
from custody.trading.book import Book, Clock
from custody.trading.desk import place, replace
from custody.trading.errors import Refused
from custody.trading.fees import FeeSchedule
from custody.trading.market import Market
from custody.trading.matching import cancel
from custody.trading.orders import Order
from custody.trading.sessions import change_state, next_due, pass_time
from custody.trading.state import (
    decode_state,
    encode_state,
    restore_books,
    restore_customers,
    restore_transfers,
    take,
)
from custody.trading.transfers import Content, Transfers

_FIXED: Final = ("base", "quote", "base_decimals", "tick", "lot")
"""What a market keeps for good: orders and prices were made for it."""


class Engine:
    """All markets, customers and balances of one trading core.

    Markets start `halted`; an operator opens them by `SetMarketState`.

    Raises:
        InvalidValue: markets share an id, or fees and a market do not fit together.
    """

    def __init__(self, markets: tuple[Market, ...], fees: FeeSchedule) -> None:
        self.clock = Clock()
        self.fees = fees
        self.books: dict[str, Book] = {}
        self.customers: dict[str, Customer] = {}
        self.transfers = Transfers()
        self._assets: set[str] = set()
        self._handlers: Final[dict[type, Callable[[Any, list[e.Event]], None]]] = {
            c.Place: self._place,
            c.Cancel: self._cancel,
            c.CancelAll: self._cancel_all,
            c.Replace: self._replace,
            c.Deposit: self._deposit,
            c.Withdraw: self._withdraw,
            c.SetMarketState: self._set_state,
            c.Kill: self._kill,
            c.Configure: self._configure,
            c.Tick: self._tick,
        }
        self._add(markets)

    @property
    def sequence(self) -> int:
        """Number of commands applied so far, so the sequence number of the last one."""
        return self.clock.sequence

    def apply(self, command: c.AnyCommand) -> list[e.Event]:
        """Applies one command; each counts, even a rejected one. Never raises on bad input.

        Returns:
            What changed, in order; a single `Rejected` (after what time alone has changed) if nothing did.
        """
        events: list[e.Event] = []
        clock = self.clock
        clock.sequence += 1
        at = command.at
        if at < clock.at:
            return [_rejected(command, Refused("time_went_back", at=at, last=clock.at))]
        clock.at = at
        if at >= clock.due:
            self._pass_time(events)
        try:
            self._handlers[type(command)](command, events)
        except Refused as refused:
            events.append(_rejected(command, refused))
        return events

    def state(self) -> bytes:
        """Everything, canonically: equal engines give equal bytes (see `state`)."""
        return encode_state(take(self.clock, self.fees, self.books, self.customers, self.transfers))

    @classmethod
    def from_state(cls, data: bytes) -> Engine:
        """The engine that `state()` told of.

        Raises:
            InvalidValue: these bytes are no state of this version.
        """
        told = decode_state(data)
        engine = cls((), told.fees)
        engine.clock = told.clock
        engine.customers = restore_customers(told)
        try:
            engine.books = restore_books(told, engine.customers, told.clock)
        except KeyError as missing:
            raise InvalidValue(f"engine state: an order of a customer it does not have, {missing}") from None
        engine.transfers = restore_transfers(told)
        engine._assets = {
            asset for book in engine.books.values() for asset in (book.market.base, book.market.quote)
        }
        return engine

    def digest(self) -> bytes:
        """SHA-256 of `state()`, 32 bytes."""
        return hashlib.sha256(self.state()).digest()

    def book(self, market: str) -> Book:
        """The book of a market.

        Raises:
            Refused: there is no such market.
        """
        book = self.books.get(market)
        if book is None:
            raise Refused("unknown_market")
        return book

    def customer(self, customer: str) -> Customer:
        """A customer who has ever had a deposit.

        Raises:
            Refused: there is none.
        """
        known = self.customers.get(customer)
        if known is None:
            raise Refused("unknown_customer")
        return known

    def _place(self, command: c.Place, events: list[e.Event]) -> None:
        customer, book = self.customers.get(command.customer), self.books.get(command.market)
        if customer is None:
            raise Refused("unknown_customer")
        if book is None:
            raise Refused("unknown_market")
        place(command, customer, book, events)

    def _cancel(self, command: c.Cancel, events: list[e.Event]) -> None:
        order = self._order(command.customer, command.client_order_id)
        if order.book.state == "halted":
            raise Refused("market_halted")
        cancel(order, "stops" if order.stop_price else "book", "asked", events)

    def _cancel_all(self, command: c.CancelAll, events: list[e.Event]) -> None:
        customer = self.customer(command.customer)
        if command.market and self.book(command.market).state == "halted":
            raise Refused("market_halted")
        for order in customer.open_orders():
            if order.book.state != "halted" and command.market in ("", order.book.market.id):
                cancel(order, "stops" if order.stop_price else "book", "asked", events)

    def _replace(self, command: c.Replace, events: list[e.Event]) -> None:
        replace(command, self._order(command.customer, command.client_order_id), events)

    def _deposit(self, command: c.Deposit, events: list[e.Event]) -> None:
        content = self._transfer(command)
        if self.transfers.seen("deposit", command.id, content, command.at):
            events.append(e.AlreadyApplied(command.id, command.customer))
            return
        customer = self.customers.get(command.customer)
        if customer is None:
            customer = self.customers[command.customer] = Customer(command.customer)
            customer.roll(self.clock.day, self.fees)
        customer.balance(command.asset).free += command.units
        self.transfers.remember("deposit", command.id, content)
        events.append(e.Credited(command.id, *content))

    def _withdraw(self, command: c.Withdraw, events: list[e.Event]) -> None:
        content = self._transfer(command)
        if self.transfers.seen("withdraw", command.id, content, command.at):
            events.append(e.AlreadyApplied(command.id, command.customer))
            return
        balance = self.customer(command.customer).balance(command.asset)
        if command.units > balance.free:
            raise Refused("insufficient_funds", needed=command.units, free=balance.free)
        balance.free -= command.units
        self.transfers.remember("withdraw", command.id, content)
        events.append(e.Debited(command.id, *content))

    def _set_state(self, command: c.SetMarketState, events: list[e.Event]) -> None:
        book = self.book(command.market)
        if book.state == command.state and not book.until:
            raise Refused("already_in_state")
        change_state(book, command.state, "operator", events)

    def _kill(self, command: c.Kill, events: list[e.Event]) -> None:
        customer = self.customer(command.customer)
        customer.killed = command.switch == "on"
        events.append(e.KillSwitched(customer.id, command.switch))
        if customer.killed:
            for order in customer.open_orders():
                cancel(order, "stops" if order.stop_price else "book", "kill_switch", events)

    def _configure(self, command: c.Configure, events: list[e.Event]) -> None:
        added = self._check(command.markets, command.fees)
        self.fees = command.fees
        self._add(command.markets)
        for customer in self.customers.values():
            customer.find_tier(self.fees)
        events.append(e.Configured(added))

    def _tick(self, command: c.Tick, events: list[e.Event]) -> None:
        """Time has passed already."""

    def _order(self, customer: str, client_order_id: str) -> Order:
        known = self.customers.get(customer)
        if known is None:
            raise Refused("unknown_customer")
        order = known.orders.get(client_order_id)
        if order is None:
            raise Refused("unknown_order")
        return order

    def _transfer(self, command: c.Deposit | c.Withdraw) -> Content:
        if command.asset not in self._assets:
            raise Refused("unknown_asset")
        if not 0 < command.units <= MAX_UNITS:
            raise Refused("bad_units", units=command.units)
        return command.customer, command.asset, command.units

    def _pass_time(self, events: list[e.Event]) -> None:
        clock = self.clock
        day = clock.at // DAY_MICROS
        if day != clock.day:
            clock.day = day
            self.transfers.forget(day)
        # Halts during this set `due` earlier, so it is set before.
        clock.due = (day + 1) * DAY_MICROS
        for book in self.books.values():
            pass_time(book, clock.at, events)
        clock.due = min([clock.due, *(next_due(book) for book in self.books.values())])

    def _check(self, markets: tuple[Market, ...], fees: FeeSchedule) -> tuple[str, ...]:
        """Ids of the markets that are new.

        Raises:
            Refused: a market is gone or changed in what its orders were made for, or fees do not fit.
        """
        by_id = {market.id: market for market in markets}
        if len(by_id) != len(markets):
            raise Refused("bad_configuration")
        for book in self.books.values():
            old, new = book.market, by_id.get(book.market.id)
            if new is None or any(getattr(old, name) != getattr(new, name) for name in _FIXED):
                raise Refused("bad_configuration")
        try:
            for market in markets:
                fees.rates(market)
        except InvalidValue:
            raise Refused("bad_configuration") from None
        return tuple(market.id for market in markets if market.id not in self.books)

    def _add(self, markets: tuple[Market, ...]) -> None:
        for market in markets:
            if market.id in self.books:
                self.books[market.id].configure(market, self.fees)
            else:
                self.books[market.id] = Book(market, self.fees, self.clock)
            self._assets |= {market.base, market.quote}
        self.clock.due = 0


def _rejected(command: c.AnyCommand, refused: Refused) -> e.Rejected:
    """The event for a command that may not be."""
    names = ("client_order_id", "id", "market")
    subject = next((str(getattr(command, name)) for name in names if hasattr(command, name)), "")
    tag = str(command.__struct_config__.tag)
    return e.Rejected(tag, str(getattr(command, "customer", "")), subject, refused.code, refused.numbers)
