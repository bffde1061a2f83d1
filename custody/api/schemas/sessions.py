"""Signing sessions: who has signed a version of a vault's transaction."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from custody.web.schemas import DecimalText, Out


class SessionDoesOut(Out):
    """One thing that the transaction does."""

    kind: str = Field(examples=["payment"])
    asset: str
    amount: DecimalText | None = Field(description="Null: it pays nobody.")
    destination: str


class SessionMemberOut(Out):
    """What one member was asked, and has said."""

    member: str = Field(description="Its id in the vault.")
    asked_by: str = Field(description="daemon: a signer of ours; file: a holder who signs offline.")
    asked_at: datetime = Field(description="It may have signed since, whatever became of the answer.")
    signed: bool = Field(description="Its signatures are here, and verified.")
    refused: str = Field(
        description="Why it has not signed, by its own word; empty: it has said nothing of it."
    )


class SessionOut(Out):
    """Who has signed one version of a vault's transaction. It holds no signature."""

    id: UUID
    wallet: str
    chain: str
    transaction: UUID
    version: int
    kind: str = Field(description="Of the transaction.", examples=["payment"])
    transaction_state: str
    state: str = Field(description="open, collecting, complete, expired or refused.")
    does: list[SessionDoesOut]
    fee: DecimalText
    threshold: int = Field(description="So many members must sign.")
    members: int = Field(description="So many the vault has.")
    signed: list[str] = Field(description="Members whose verified signatures are here.")
    missing: int = Field(description="So many more must sign; 0 once it is complete.")
    asked: list[SessionMemberOut]
    may_confirm: bool = Field(
        description="Enough may have signed for a block to hold it, known to us or not."
    )
    expires_at: datetime = Field(
        description="Nobody is asked afterwards; a holder's signature may still come."
    )
    created_at: datetime
