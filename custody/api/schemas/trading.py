"""What the trading core sends and reads. Amounts are in base units, as it counts them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from custody.trades.model import MAX_FILLS, MAX_SEQUENCE
from custody.web.schemas import In, NameText, Out, UnitsText, UuidText

SignedUnitsText = Annotated[str, StringConstraints(pattern=r"^(0|-?[1-9][0-9]{0,77})$", max_length=79)]
Sequence = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]

_CORE = "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f"


class FillIn(In):
    """One trade: the buyer pays `quote_units` and gets `base_units`."""

    sequence: Sequence = Field(description="Of the command that caused it, in the engine's journal.")
    index: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        description="Of the fill among the command's events."
    )
    base: NameText
    quote: NameText
    buyer: NameText
    seller: NameText
    base_units: UnitsText
    quote_units: UnitsText
    buyer_fee: SignedUnitsText = Field(description="In quote units; negative: a rebate.")
    seller_fee: SignedUnitsText = Field(description="As `buyer_fee`; both together are not negative.")


class NewSettlement(In):
    """The fills of the engine's sequences `first` to `last`, in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "core": _CORE,
                    "first": 1,
                    "last": 12,
                    "fills": [
                        {
                            "sequence": 12,
                            "index": 1,
                            "base": "BTC",
                            "quote": "USDX",
                            "buyer": "alice",
                            "seller": "bob",
                            "base_units": "80000000",
                            "quote_units": "48240000000",
                            "buyer_fee": "48240000",
                            "seller_fee": "-9648000",
                        }
                    ],
                }
            ]
        }
    )

    core: UuidText = Field(description="Id of the core's journal; with an empty journal it takes a new one.")
    first: Sequence
    last: Sequence
    complete: bool = Field(
        default=True, description="False: fills of `last` go on in the next batch, which begins with it."
    )
    fills: Annotated[list[FillIn], Field(max_length=MAX_FILLS)]


class SettlementOut(Out):
    """A settled batch."""

    core: UUID
    first: int
    last: int
    complete: bool
    fills: int
    settled: Literal["now", "before"] = Field(description="Whether it was this request that settled it.")


class NewTradingTransfer(In):
    """A customer's own money is to go into trading, or back."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d9a",
                    "customer": "alice",
                    "asset": "BTC",
                    "units": "100000000",
                    "to": "trading",
                }
            ]
        }
    )

    id: UuidText = Field(description="Chosen by you, never reused.")
    customer: NameText
    asset: NameText
    units: UnitsText
    to: Literal["trading", "funding"]


class TradingTransferOut(Out):
    """A move between funding and trading that was made."""

    id: UUID
    customer: str
    asset: str
    units: str
    to: Literal["trading", "funding"]
    at: datetime


class TradingBalanceOut(Out):
    """What a customer has in trading, as the ledger says."""

    customer: str
    asset: str
    units: str


class SettledOut(Out):
    """How far a core is settled."""

    last: int = Field(description="Engine sequence; 0: nothing is.")
    complete: bool = Field(description="False: `last` has fills that are not settled yet.")
    fill_sequence: int = Field(description="Of the last fill that is settled; 0: there was none.")
    fill_index: int


class TradingBalances(Out):
    """Trading accounts that are not empty, by customer and asset."""

    core: UUID
    settled: SettledOut
    items: list[TradingBalanceOut]
    next: str | None = Field(description="Pass it as `after` for what follows; null at the end of a list.")
