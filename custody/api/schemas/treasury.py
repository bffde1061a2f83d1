"""Tiers, and money that moves between them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from custody.web.schemas import DecimalText, Out


class HeldOut(Out):
    """What a tier held at the end of a day (UTC)."""

    day: date
    holds: DecimalText


class TierOut(Out):
    """What a tier may pay of an asset, and what it holds."""

    tier: str = Field(examples=["hot"])
    asset: str
    chain: str
    keyset: str | None = Field(description="Its active key-set or vault; null: there is none.")
    payment_below: DecimalText | None = Field(description="Null: it pays nothing of it.")
    window_cap: DecimalText | None
    window_seconds: int | None
    holds: DecimalText = Field(description="What the ledger says of its wallet.")
    share: str | None = Field(description="Of all that is held of the asset, percent.", examples=["0.97"])
    holding_cap: DecimalText | None = Field(description="What it should hold at most; null: no limit.")
    target: DecimalText | None = Field(description="To which it is filled and drained.")
    refill_below: DecimalText | None = Field(
        description="Below this it is filled; null: never for its own sake."
    )
    excess: DecimalText = Field(description="What it holds beyond the cap.")
    waited_for: DecimalText = Field(description="What payments that wait in it ask for, fees included.")
    coming: DecimalText = Field(description="On its way by open refills.")
    free: DecimalText = Field(description="What could be moved now.")
    outflow_per_hour: DecimalText | None = Field(
        description="Hot: by the last week, the last day, or 6 hours."
    )
    dry_in_seconds: int | None = Field(
        description="Hot: when it is empty if that goes on; null: it does not flow."
    )
    proven: bool | None = Field(
        description="Cold: whether its vault was tried out, in and out (strongroom cold prove): until then only small"
        " amounts go to it. Null: it need not be."
    )
    history: list[HeldOut] = Field(description="At the end of each of the last days, oldest first.")


class TogetherOut(Out):
    """What several tiers may hold of an asset together."""

    tiers: list[str]
    asset: str
    holds: DecimalText
    holding_cap: DecimalText


class RefillOut(Out):
    """Money that moves between two wallets of ours."""

    id: UUID
    chain: str
    asset: str
    amount: DecimalText = Field(description="What arrives.")
    source: str
    tier: str = Field(description="Of the source.")
    target: str
    destination: str = Field(description="The target's address.")
    why: str = Field(description="need, low, excess, gas, or asked.")
    about: str = Field(description="Why, in a sentence.")
    proposed_by: str = Field(description="`house`: the treasury by itself; else an operator.")
    state: str = Field(examples=["proposed"])
    reason: str = Field(description="Why it waits, or why it ended.")
    policy_version: int
    transaction: UUID | None
    created_at: datetime
    updated_at: datetime


class RefillEventOut(Out):
    """Something that happened to a refill."""

    event: str
    state: str = Field(description="From then on.")
    detail: dict[str, Any]
    at: datetime


class RefillDetail(RefillOut):
    """A refill with its history, oldest first."""

    history: list[RefillEventOut]


class Tiers(Out):
    """What the tiers may pay and hold, and what moves between them."""

    bundle_version: int
    items: list[TierOut]
    together: list[TogetherOut]
    refills: list[RefillOut] = Field(description="Open ones.")
