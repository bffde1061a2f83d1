"""Bodies of requests to the trading core. Answers are made by `views`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from custody.trading.commands import OrderType, SelfTrade, Side, Switch, TimeInForce
from custody.trading.market import MarketState
from custody.web.schemas import In, NameText, UuidText

DecimalIn = Annotated[str, StringConstraints(min_length=1, max_length=100), Field(examples=["0.25"])]
"""Exact decimal in whole units."""
ClientOrderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
"""Chosen by the caller; unique among a customer's open orders and the last thousand closed ones."""


class NewOrder(In):
    """A new order. Which of the amounts it needs depends on its type."""

    client_order_id: ClientOrderId
    market: NameText
    side: Side
    type: OrderType = "limit"
    tif: TimeInForce | None = Field(
        default=None, description="`gtc`, or `ioc` for market orders, unless said."
    )
    price: DecimalIn | None = Field(default=None, description="In the quote asset, for one whole base.")
    base_amount: DecimalIn | None = None
    quote_amount: DecimalIn | None = Field(
        default=None,
        description="Market buy: the most to spend, fee included. Market sell: proceeds before the fee.",
    )
    stop_price: DecimalIn | None = None
    slippage_bps: Annotated[int, Field(ge=0, le=9_999)] = Field(
        default=0, description="Market orders go no further from the best price; 0: the market's own bound."
    )
    self_trade: SelfTrade = "cancel_newest"


class NewTerms(In):
    """What an open order is to be instead."""

    price: DecimalIn
    base_amount: DecimalIn = Field(description="The new total, what has been filled included.")


class CancelMany(In):
    """Which open orders to cancel."""

    market: NameText | None = Field(default=None, description="Null: of all markets.")


class NewTransfer(In):
    """A customer's own money into trading, or back to funding."""

    id: UuidText = Field(description="A UUIDv7 of yours, not older than a week: it happens once.")
    asset: NameText
    amount: DecimalIn
    to: Literal["trading", "funding"]


class NewState(In):
    """The state that a market is to have."""

    state: MarketState


class NewSwitch(In):
    """Whether a customer's kill switch is to be on."""

    switch: Switch
