"""What runs and what has happened: sweeps, events, alerts, the status."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from custody.api.schemas.treasury import TierOut
from custody.web.schemas import DecimalText, Money, Out


class SweepOut(Out):
    """Money that moves between addresses of ours."""

    id: UUID
    chain: str
    keyset: str
    kind: Literal["sweep", "consolidation", "rotation"] = Field(
        description="Forwarders emptied into the treasury, small coins gathered into one, or what a key-set that is"
        " no longer active held, moved to the one that follows it."
    )
    state: str = Field(examples=["broadcast"])
    reason: str = Field(description="Why it was planned, or why it was abandoned.")
    addresses: int = Field(description="How many it empties.")
    amounts: list[Money] = Field(description="Expected; what is there when it is mined is moved.")
    transaction: UUID | None
    txid: str | None = Field(description="Of the confirmed version, else of the newest signed one.")
    network_fee: Money | None = Field(description="Paid; until it is mined, what it may cost at most.")
    created_at: datetime
    updated_at: datetime


class FindingOut(Out):
    """Something that speaks against a deposit or a destination."""

    provider: str
    listed: str = Field(description="The address, transaction or output that it is about.")
    reason: str
    source: str = Field(description="Whose word it is, such as the name of a list.")
    version: str = Field(description="Of the provider's list.")


class CaseOut(Out):
    """What screening found about one deposit or withdrawal. It waits until somebody has decided."""

    id: UUID
    kind: Literal["deposit", "withdrawal"]
    subject: UUID = Field(description="Id of the deposit or withdrawal.")
    chain: str
    address: str = Field(description="The destination, or our address that was paid.")
    findings: list[FindingOut]
    state: Literal["open", "released", "refused"]
    resolution: str = Field(description="Why it was decided so; empty while it is open.")
    resolved_by: str
    opened_at: datetime
    resolved_at: datetime | None


class VerdictOut(Out):
    """What one provider said."""

    provider: str
    verdict: Literal["clear", "hit", "unavailable"]
    version: str | None = Field(default=None, description="Of the provider's list; null: it did not answer.")
    findings: list[FindingOut] = Field(default=[], description="What speaks against it.")
    why: str | None = Field(default=None, description="Why it did not answer.")


class ScreeningOut(Out):
    """What all providers said about a deposit or a withdrawal, from then on until the next one."""

    kind: Literal["deposit", "withdrawal"]
    subject: UUID = Field(description="Id of the deposit or withdrawal.")
    at: datetime
    verdicts: list[VerdictOut]


class ActionOut(Out):
    """What an operator did, was refused, or asked for: one row of a record in which nothing is ever changed."""

    number: int = Field(description="1, 2, 3 ... without gaps.")
    at: datetime
    operator: str = Field(description="Who says so, by the signature with this key.")
    key: str = Field(description="Ed25519 public key, hex.")
    via: Literal["host", "api"]
    origin: str = Field(description="User and host, or the address of the connection.")
    action: str
    parameters: dict[str, str]
    outcome: Literal["done", "asked", "refused", "failed"]
    reason: str = Field(description="Why it was not done, or what it waits for.")
    decision: dict[str, Any] | None = Field(description="Of the policy; null: it was not asked.")
    bundle_version: int | None
    asked_in: int | None = Field(description="The row that asked for it, or that this one approves.")
    hash: str = Field(description="Of this row and of all before it, hex.")


class PartOut(Out):
    """One part of the service."""

    name: str = Field(examples=["monitor bitcoin-regtest"])
    ok: bool
    detail: str


class ChainStatusOut(Out):
    """How far a chain is followed."""

    chain: str
    family: Literal["btc", "evm"]
    height: int | None = Field(description="Last block committed; null: no monitor has begun.")
    node_tip: int | None = Field(description="Height of the node's best block; null: not known now.")
    behind_blocks: int | None = Field(description="How far we are behind the node.")
    final_height: int | None = Field(
        description="From where confirmations count: the tip on BTC, the newest finalised block on EVM."
    )
    heard_seconds: int | None = Field(description="Since the monitor was last heard of.")
    trouble: str | None = Field(description="Why the node cannot be read, if it cannot.")
    halted: str | None = Field(description="Why nothing is paid on this chain, if so.")


class ReasonOut(Out):
    """Why some wait."""

    reason: str = Field(description="Of one of them; what stands before the colon is the same for all.")
    count: int


class WaitingOut(Out):
    """Deposits or withdrawals of one asset in one state."""

    asset: str
    state: str
    count: int
    amount: DecimalText = Field(description="All of them together.")
    oldest_at: datetime
    reasons: list[ReasonOut] = Field(description="The commonest ones.")


class UnderWayOut(Out):
    """Sweeps or transactions of one chain and kind in one state."""

    chain: str
    kind: str = Field(examples=["payment"])
    state: str = Field(examples=["broadcast"])
    count: int
    oldest_at: datetime


class HaltOut(Out):
    """Paying is stopped."""

    scope: str = Field(description="`all`, the id of a chain, or `asset:` and the id of an asset.")
    reason: str
    at: datetime


class EventOut(Out):
    """A change."""

    type: str = Field(examples=["deposit.credited"])
    subject: str = Field(description="Id of what changed.")
    data: dict[str, Any]
    at: datetime


class AlertOut(Out):
    """A trouble that somebody should look at."""

    id: int
    severity: Literal["info", "warning", "critical"]
    type: str
    subject: str
    message: str
    data: dict[str, Any]
    at: datetime
    resolved_at: datetime | None


class StatusOut(Out):
    """What runs, how far it is, what waits and why."""

    at: datetime
    ready: bool = Field(description="Every part is there.")
    attention: bool = Field(description="Paying is halted somewhere, or a critical alert is open.")
    parts: list[PartOut]
    chains: list[ChainStatusOut]
    deposits: list[WaitingOut] = Field(description="Not credited yet.")
    withdrawals: list[WaitingOut] = Field(description="Not ended yet.")
    sweeps: list[UnderWayOut] = Field(description="Not final yet.")
    transactions: list[UnderWayOut] = Field(description="Ours, not final yet.")
    tiers: list[TierOut]
    halts: list[HaltOut]
    alerts: list[AlertOut] = Field(description="Open ones, oldest first; at most 50.")
