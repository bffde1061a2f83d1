"""What may be asked of the engine. A journal of these, in order, is the whole truth about a trading core.

Every command carries `at`: microseconds since 1970 (UTC), set by the service, never less than in the command before.
Amounts are integers in base units of their asset, prices are quote units for one whole base (see `market`); 0 stands
for "none". On the wire a command is a JSON array whose first element is its tag (see `codec`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from custody.trading.fees import FeeSchedule
from custody.trading.market import Market, MarketState

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market", "stop_limit", "stop_market"]
TimeInForce = Literal["gtc", "ioc", "fok", "post_only"]
"""Rest what is left; cancel what is left; all at once or nothing; only ever rest (refused if it would take)."""
SelfTrade = Literal["cancel_newest", "cancel_oldest", "cancel_both"]
"""What happens when an order meets one of the same customer: the incoming, the resting, or both are cancelled."""
Channel = Literal["api", "web"]
Switch = Literal["on", "off"]


class Command(msgspec.Struct, frozen=True, array_like=True, tag_field="tag", gc=False):
    """What all commands have."""

    at: int
    """Microseconds since 1970-01-01 UTC."""


class Deposit(Command, frozen=True, array_like=True, tag="deposit", gc=False):
    """Money has come into `trading`: the customer may trade with it. The same id again changes nothing."""

    id: str
    """UUIDv7 in its usual text form; its own time bounds how long the engine must remember it."""
    customer: str
    asset: str
    units: int


class Withdraw(Command, frozen=True, array_like=True, tag="withdraw", gc=False):
    """Take free money out of the engine. Ids are remembered apart from those of deposits."""

    id: str
    customer: str
    asset: str
    units: int


class Place(Command, frozen=True, array_like=True, tag="place", gc=False):
    """A new order. Its order id is the sequence number of this command."""

    customer: str
    client_order_id: str
    """1 to 64 characters, unique among the customer's open and lately closed orders."""
    market: str
    side: Side
    type: OrderType = "limit"
    tif: TimeInForce = "gtc"
    """Market orders take `ioc` only."""
    price: int = 0
    """Limit price; 0 for market orders."""
    base_units: int = 0
    """How much of the base to trade; a market order has either this or `quote_units`."""
    quote_units: int = 0
    """Market buy: the most to spend, fee included. Market sell: the proceeds wanted, before the fee."""
    stop_price: int = 0
    """Trades at or beyond this price (above for buys, below for sells) bring a stop order to life."""
    slippage_bps: int = 0
    """Market orders go no further than this from the best price on arrival; 0: the market's own bound."""
    self_trade: SelfTrade = "cancel_newest"
    channel: Channel = "web"


class Cancel(Command, frozen=True, array_like=True, tag="cancel", gc=False):
    """Take one open order out of its book."""

    customer: str
    client_order_id: str


class CancelAll(Command, frozen=True, array_like=True, tag="cancel_all", gc=False):
    """Take all of a customer's open orders out, in the order of their ids."""

    customer: str
    market: str = ""
    """Empty: of all markets."""


class Replace(Command, frozen=True, array_like=True, tag="replace", gc=False):
    """Change a resting limit order. It keeps its place only when the price stays and the size does not grow."""

    customer: str
    client_order_id: str
    price: int
    base_units: int
    """The new total, what has been filled included."""


class SetMarketState(Command, frozen=True, array_like=True, tag="market_state", gc=False):
    """An operator opens, halts, ... a market. From auction to open, the book uncrosses at one price."""

    market: str
    state: MarketState


class Kill(Command, frozen=True, array_like=True, tag="kill", gc=False):
    """The kill switch: `on` cancels all of a customer's orders and refuses new ones until `off`."""

    customer: str
    switch: Switch


class Configure(Command, frozen=True, array_like=True, tag="configure", gc=False):
    """New configuration: adds markets, or changes what may change in one that exists (see `Engine`)."""

    markets: tuple[Market, ...]
    fees: FeeSchedule


class Tick(Command, frozen=True, array_like=True, tag="tick", gc=False):
    """Time passes: ends halts and auctions whose time has come. Every other command does so as well."""


AnyCommand = (
    Deposit | Withdraw | Place | Cancel | CancelAll | Replace | SetMarketState | Kill | Configure | Tick
)
