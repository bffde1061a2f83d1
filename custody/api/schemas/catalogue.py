"""What the bundle says of networks, assets and tiers, and what fees to expect."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from custody.web.schemas import DecimalText, Money, Out


class ConfirmationsOut(Out):
    """Deposits of at least `from_amount` need `blocks` confirmations."""

    from_amount: DecimalText
    blocks: int


class NetworkOut(Out):
    """A chain and how careful we are on it."""

    chain: str = Field(examples=["ethereum-devnet"])
    family: Literal["btc", "evm"]
    chain_id: int | None = Field(description="EVM: EIP-155; null on BTC.")
    native_asset: str = Field(description="In which its fees are paid.")
    settle_blocks: int = Field(
        description="Confirmations after which a payment is settled; they count from the tip on BTC, from the newest"
        " finalised block on EVM."
    )
    fee_cap: Money = Field(description="Most that one transaction of ours may cost.")


class Networks(Out):
    """All networks of the bundle."""

    bundle_version: int
    items: list[NetworkOut]


class AssetOut(Out):
    """An asset and its terms."""

    id: str = Field(examples=["BTC"])
    chain: str
    family: Literal["btc", "evm"]
    contract: str | None = Field(description="Of a token (EIP-55); null for a chain's native asset.")
    decimals: int
    traits: list[str] = Field(
        description="How a token departs from ERC-20, e.g. `no-return`; `fee-on-transfer` ones cannot be withdrawn."
    )
    native_asset: str = Field(description="In which the chain's fees are paid.")
    minimum_deposit: DecimalText
    withdrawal_fee: DecimalText
    confirmations: list[ConfirmationsOut]
    settle_blocks: int = Field(description="See `/v1/networks`.")


class Assets(Out):
    """All assets of the bundle."""

    bundle_version: int
    items: list[AssetOut]


class SuggestedFee(Money):
    """An amount of one asset, in base units too."""

    units: str = Field(description="Base units, as `order.fee_ceiling` wants them.", examples=["40000"])


class FeeOut(Out):
    """What an order of one asset should allow for its network fee."""

    asset: str = Field(examples=["USDX"])
    chain: str
    fee_ceiling: SuggestedFee | None = Field(
        description="For `order.fee_ceiling`: what a large payment costs at twice the present price, within the"
        " bundle's caps. Null while the price is not known, see `reason`."
    )
    feerate: int | None = Field(
        description="The last price that a worker saw. BTC: sat/kvB; EVM: wei per gas, tip included."
    )
    at: datetime | None = Field(description="When it did.")
    reason: str = Field(description="Why nothing is suggested; empty otherwise.")


class Fees(Out):
    """For all assets of the bundle, or of one chain."""

    bundle_version: int
    items: list[FeeOut]
