"""What the engine answers: everything that changed, in order.

An event is known by (sequence of its command, its index in the list that `Engine.apply` returned). A fold over events
is enough for depth, trades and settlement: a `Filled` names every change of a balance in it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from custody.trading.commands import OrderType, Side, Switch
from custody.trading.market import MarketState

CancelReason = Literal[
    "asked",  # by cancel or cancel-all
    "kill_switch",
    "unfilled",  # ioc or market: no (more) orders within its price
    "spent",  # market by quote: what is left of the amount buys or sells no further lot
    "insufficient_funds",  # market by base: the customer's free money ended before the order did
    "self_trade",
    "price_band",  # would have traded outside the band; the market halts
    "not_fillable",  # fill-or-kill after a stop: not all of it could be filled
    "market_not_open",  # a stop came to life while the market no longer trades
]
Place = Literal["book", "stops", "incoming"]
"""Where an order was when it was cancelled: resting, waiting for its stop price, or just arriving."""
StateReason = Literal["operator", "price_band", "circuit_breaker", "halt_over", "auction_over"]


RejectCode = Literal[
    # any command
    "time_went_back",
    "unknown_market",
    "unknown_customer",
    # orders
    "bad_client_order_id",
    "duplicate_client_order_id",
    "bad_price",  # not a positive multiple of the tick
    "bad_size",  # not a positive multiple of the lot, or both or none of base and quote units
    "bad_stop_price",
    "bad_slippage",
    "bad_tif",  # this time in force is not for this type of order
    "below_minimum_notional",
    "outside_band",
    "insufficient_funds",
    "too_many_orders",
    "killed",  # the customer's kill switch is on
    "market_halted",
    "market_cancel_only",
    "not_in_auction",  # this kind of order cannot wait for an auction
    "post_only_would_take",
    "not_fillable",  # fill-or-kill: not all of it can be filled now
    "no_price",  # a market order finds nothing to be measured against
    "stop_would_trigger",
    "self_trade_in_auction",
    # cancel, replace
    "unknown_order",
    "not_replaceable",  # a stop order
    "already_filled",  # the new total is no more than what has been filled
    # transfers
    "unknown_asset",  # of no market
    "bad_id",  # no UUIDv7
    "id_too_old",  # older than ids are remembered
    "id_from_the_future",
    "id_reused",  # same id, other content
    "bad_units",
    # operators
    "already_in_state",
    "bad_configuration",
]


class Event(msgspec.Struct, frozen=True, array_like=True, tag_field="tag", gc=False):
    """The base of all events."""


class Accepted(Event, frozen=True, array_like=True, tag="accepted", gc=False):
    """An order passed all checks. `Filled`, `Rested` or `Cancelled` say what became of it."""

    order: int
    """Order id: the sequence number of its `Place`."""
    customer: str
    client_order_id: str
    market: str
    side: Side
    type: OrderType
    price: int
    base_units: int
    quote_units: int
    stop_price: int


class Rejected(Event, frozen=True, array_like=True, tag="rejected", gc=False):
    """A command had no effect at all."""

    command: str
    """Its tag."""
    customer: str
    subject: str
    """The client order id, transfer id or market it was about."""
    code: RejectCode
    numbers: dict[str, int]
    """The numbers involved, by name."""


class Rested(Event, frozen=True, array_like=True, tag="rested", gc=False):
    """An order joined the end of the queue at its price."""

    order: int
    customer: str
    client_order_id: str
    market: str
    side: Side
    price: int
    base_left: int


class Filled(Event, frozen=True, array_like=True, tag="filled", gc=False):
    """One trade. The buyer pays `quote_units` and gets `base_units`; each side pays its fee in the quote asset.

    Order is price-time: the maker's order was there first, and its price is the price.
    """

    market: str
    price: int
    base_units: int
    quote_units: int
    taker_side: Side
    maker_order: int
    maker: str
    maker_client_order_id: str
    maker_fee: int
    """In quote units; negative: a rebate, paid out of the taker's fee."""
    maker_left: int
    """Base units of the maker's order that stay in the book; 0: it is done."""
    taker_order: int
    taker: str
    taker_client_order_id: str
    taker_fee: int
    taker_left: int
    """Base units that the taker still wants; 0: done, or an order by quote amount."""


class Cancelled(Event, frozen=True, array_like=True, tag="cancelled", gc=False):
    """An order is over before it was filled."""

    order: int
    customer: str
    client_order_id: str
    market: str
    side: Side
    price: int
    base_left: int
    """Base units that were open; 0 for orders by quote amount. Depth shrinks by this where `place` is `book`."""
    place: Place
    reason: CancelReason


class Replaced(Event, frozen=True, array_like=True, tag="replaced", gc=False):
    """A resting order was changed. With priority `lost` it left its place, and what follows is as for a new order."""

    order: int
    customer: str
    client_order_id: str
    market: str
    side: Side
    old_price: int
    old_left: int
    price: int
    base_left: int
    priority: Literal["kept", "lost"]


class Triggered(Event, frozen=True, array_like=True, tag="triggered", gc=False):
    """A stop order came to life and now acts as the limit or market order it stood for."""

    order: int
    customer: str
    client_order_id: str
    market: str
    stop_price: int


class Credited(Event, frozen=True, array_like=True, tag="credited", gc=False):
    """A deposit is free to trade with."""

    id: str
    customer: str
    asset: str
    units: int


class Debited(Event, frozen=True, array_like=True, tag="debited", gc=False):
    """A withdrawal has left the engine; it is for the ledger to move it now."""

    id: str
    customer: str
    asset: str
    units: int


class AlreadyApplied(Event, frozen=True, array_like=True, tag="already_applied", gc=False):
    """A deposit or withdrawal with this id and content had been applied before: nothing changed."""

    id: str
    customer: str


class MarketStateChanged(Event, frozen=True, array_like=True, tag="market_state", gc=False):
    """A market is now in another state."""

    market: str
    state: MarketState
    reason: StateReason
    until: int
    """When time will change it again (microseconds, as `at`); 0: not by itself."""


class Uncrossed(Event, frozen=True, array_like=True, tag="uncrossed", gc=False):
    """An auction found its price; `Filled` events at that price follow. Both 0: nothing crossed."""

    market: str
    price: int
    base_units: int


class KillSwitched(Event, frozen=True, array_like=True, tag="kill", gc=False):
    """The kill switch of a customer was turned."""

    customer: str
    switch: Switch


class TierChanged(Event, frozen=True, array_like=True, tag="tier", gc=False):
    """The thirty-day volume of a customer reached another tier; orders accepted from now on get its fees."""

    customer: str
    tier: int
    """Index into `FeeSchedule.tiers`."""


class Configured(Event, frozen=True, array_like=True, tag="configured", gc=False):
    """New configuration is in force; markets it added are halted."""

    added: tuple[str, ...]


AnyEvent = (
    Accepted
    | Rejected
    | Rested
    | Filled
    | Cancelled
    | Replaced
    | Triggered
    | Credited
    | Debited
    | AlreadyApplied
    | MarketStateChanged
    | Uncrossed
    | KillSwitched
    | TierChanged
    | Configured
)
