"""Approvals: what people are asked about, and what they sign."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from custody.web.schemas import In, NameText, Out, UnixSeconds

Hex32Text = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_BASE64URL = r"^[A-Za-z0-9_-]+$"


class ApprovalIn(In):
    """The signed document (RFC 8785; domain `approval`, version 1)."""

    v: Literal[1]
    intent: Hex32Text = Field(description="Digest of the intent, which names amount, destination and order.")
    decision: Literal["approve", "reject"]
    approver: NameText
    group: NameText = Field(description="Of the policy, for which it counts.")
    policy_version: Annotated[int, Field(ge=1, le=2**53 - 1)]
    expires_at: UnixSeconds = Field(description="At most 24 hours ahead.")
    reason: Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\u0000-\u001f\u007f-\u009f]*$")] = (
        Field(default="", description="For those who read the withdrawal's history.")
    )


class AssertionIn(In):
    """What a passkey has signed (WebAuthn), each part base64url without padding; the challenge is the digest."""

    authenticator_data: Annotated[str, StringConstraints(max_length=700, pattern=_BASE64URL)]
    client_data: Annotated[str, StringConstraints(max_length=1400, pattern=_BASE64URL)]
    signature: Annotated[str, StringConstraints(max_length=120, pattern=_BASE64URL)]


class NewApproval(In):
    """An approval or rejection with its approver's signature. Who hands it in does not matter."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "approval": {
                        "v": 1,
                        "intent": "5f" * 32,
                        "decision": "approve",
                        "approver": "ada",
                        "group": "operators",
                        "policy_version": 3,
                        "expires_at": 1893456000,
                        "reason": "",
                    },
                    "signature": "A" * 86 + "==",
                }
            ]
        }
    )

    approval: ApprovalIn
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] | AssertionIn = Field(
        description="Ed25519 over the approval's digest, base64; or a passkey's assertion."
    )


class ApprovalOut(Out):
    """An answer that was taken. Workers count it: `state` may be another in a moment."""

    digest: str = Field(description="Of the approval; the same again gives the same.")
    withdrawal: UUID | None = Field(description="What it is about; null: a refill.")
    refill: UUID | None = Field(description="What it is about; null: a withdrawal.")
    state: str = Field(description="Of what it is about.", examples=["awaiting_approval"])
    reason: str = Field(description="Why it waits, or why it ended.")


class GivenOut(Out):
    """One approval that counts now."""

    approver: str
    group: str
    expires_at: datetime


class QuestionOut(Out):
    """A withdrawal or a refill that waits for people. Nothing of it need be believed: a withdrawal's order and its
    signature are the caller's own, where a refill goes follows from the bundle, what is to be signed from these."""

    withdrawal: UUID | None = Field(description="Null: it is a refill.")
    refill: UUID | None = Field(
        description="Money that moves between wallets of ours. Null: it is a withdrawal."
    )
    customer: str | None = Field(description="Null for refills.")
    order: dict[str, Any] | None = Field(description="As its caller signed it; null for refills.")
    order_signature: str | None
    target: str | None = Field(description="Refills: the wallet of the bundle that gets the money.")
    place: int | None = Field(
        description="Refills of BTC: index of the destination on the target's branch 1."
    )
    about: str = Field(description="Refills: why, in a sentence. The service's word.")
    intent: dict[str, Any] = Field(description="What will be signed; approvals name its digest.")
    intent_digest: str
    asked: str = Field(description="Who must approve, in words.", examples=["2 of operators"])
    groups: list[str] = Field(description="For which an approval can count.")
    given: list[GivenOut]
    lacking: str = Field(description="What is missing, in words.", examples=["1 of 2 of operators"])
    created_at: datetime
    expires_at: datetime | None = Field(description="When the order ends; null for refills.")
