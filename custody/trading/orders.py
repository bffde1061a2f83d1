"""An order inside the engine, and the balances that it draws on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from custody.trading.commands import OrderType, SelfTrade, Side, TimeInForce
from custody.trading.fees import RATE_SCALE

if TYPE_CHECKING:
    from custody.trading.accounts import Customer
    from custody.trading.book import Book


class Balance(msgspec.Struct, gc=False):
    """A customer's units of one asset; neither is ever below 0."""

    free: int = 0
    held: int = 0
    """What open orders need."""


class Order(msgspec.Struct, eq=False):
    """An accepted order; it stands for itself, so two are equal only if they are one."""

    id: int
    customer: Customer
    client_id: str
    book: Book
    base: Balance
    """The customer's balance of the base asset."""
    quote: Balance
    side: Side
    type: OrderType
    """What was asked for; a stop that came to life is told by `stop_price` 0."""
    tif: TimeInForce
    price: int
    """Limit price; for market orders the bound that slippage sets."""
    rank: int
    """`price` for buys, `-price` for sells: higher comes first on both sides."""
    left: int
    """Base units still wanted; 0 marks an order that is over."""
    maker_rate: int
    """Over RATE_SCALE, fixed at acceptance; negative: a rebate."""
    taker_rate: int
    self_trade: SelfTrade
    entered: int
    """Sequence of the command that put it where it is: its time priority."""
    stop_price: int = 0
    budget: int = -1
    """Quote units a market order may still spend or earn; -1: not limited by that."""
    by_quote: bool = False
    """A market order by quote amount: only `budget` bounds it (and for sells the customer's base)."""
    filled: int = 0
    fee_parts: int = 0
    """Charges so far, exact, times RATE_SCALE."""
    fees: int = 0
    """Charges so far, as taken: `fee_parts` rounded up."""
    hold: int = 0
    """Of `quote.held` (buys) or `base.held` (sells), what is held for this order."""

    def charge(self, quote_units: int, rate: int) -> int:
        """Counts the fee of one more fill; returns what is due for it now, rounded up over all fills so far."""
        self.fee_parts += quote_units * rate
        due = -(-self.fee_parts // RATE_SCALE)
        fee = due - self.fees
        self.fees = due
        return fee

    def need(self, price: int, left: int) -> int:
        """Units that `left` more base units can cost at the most: quote with the taker's fee, or base for a sell."""
        if self.side == "sell":
            return left
        quote_units = left * price // self.book.scale
        return quote_units - (-(self.fee_parts + quote_units * self.taker_rate) // RATE_SCALE) - self.fees

    def funds(self) -> Balance:
        """The balance that pays for the order."""
        return self.quote if self.side == "buy" else self.base

    def set_hold(self, units: int) -> None:
        """Holds so much for this order from now on; the difference moves between free and held."""
        funds = self.quote if self.side == "buy" else self.base
        change = units - self.hold
        funds.free -= change
        funds.held += change
        self.hold = units
