"""Withdrawals, and the orders that ask for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from custody.web.schemas import DecimalText, In, Money, NameText, Out, UnitsText, UnixSeconds, UuidText


class ContextIn(In):
    """What you know of the customer and the session, for rules that ask for it. Leave out what you don't know."""

    kyc_level: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="How well the customer is identified, by your own scale."
    )
    new_device: bool | None = None
    new_ip: bool | None = None
    password_changed_at: UnixSeconds | None = None
    mfa_changed_at: UnixSeconds | None = None
    mfa_methods: Annotated[list[NameText], Field(max_length=8)] | None = Field(
        default=None, description="Second factors that were passed, such as `totp` or `passkey`."
    )


class OrderIn(In):
    """The signed document (RFC 8785; domain `order`, version 1); amounts in base units."""

    v: Literal[1]
    id: UuidText = Field(description="Chosen by you, never reused; the withdrawal's id.")
    caller: NameText
    customer: NameText
    chain: NameText
    asset: NameText
    destination: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="In its canonical form: lower case for bech32, mixed case (EIP-55) on EVM."
    )
    amount: UnitsText = Field(description="What arrives, in base units.")
    fee_ceiling: UnitsText = Field(
        description="Most network fee this may cause, in base units of the chain's native asset (satoshi, wei)."
    )
    expires_at: UnixSeconds
    context: ContextIn | None = Field(
        default=None, description="Signed with the rest. Leave out if you say nothing."
    )


class NewWithdrawal(In):
    """An order with its caller's signature."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order": {
                        "v": 1,
                        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e",
                        "caller": "exchange",
                        "customer": "alice",
                        "chain": "bitcoin-regtest",
                        "asset": "BTC",
                        "destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
                        "amount": "1000000",
                        "fee_ceiling": "50000",
                        "expires_at": 1893456000,
                    },
                    "signature": "A" * 86 + "==",
                },
                {
                    "order": {
                        "v": 1,
                        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f",
                        "caller": "exchange",
                        "customer": "alice",
                        "chain": "ethereum-devnet",
                        "asset": "USDX",
                        "destination": "0x52908400098527886E0F7030069857D2E4169EE7",
                        "amount": "25000000",
                        "fee_ceiling": "3000000000000000",
                        "expires_at": 1893456000,
                    },
                    "signature": "A" * 86 + "==",
                },
            ]
        }
    )

    order: OrderIn
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(
        description="Ed25519 over the order's digest, base64."
    )


class VersionOut(Out):
    """One version of the transaction that pays; all versions conflict, so at most one can confirm."""

    version: int
    txid: str | None = Field(description="Null until it is signed.")
    state: str
    network_fee: Money = Field(description="Of the whole transaction, which may serve more withdrawals.")
    feerate: int = Field(description="BTC: sat/kvB; EVM: wei per gas at most.")


class WithdrawalOut(Out):
    """A withdrawal and how far it is."""

    id: UUID
    caller: str
    customer: str
    chain: str
    asset: str
    amount: DecimalText = Field(description="What arrives at the destination.")
    fee: DecimalText = Field(description="What the customer pays besides, of the same asset.")
    fee_ceiling: Money
    destination: str
    state: str = Field(examples=["broadcast"])
    reason: str = Field(description="Why it waits, or why it ended.")
    tier: str | None
    settlement: str | None = Field(description="`chain` or `internal`.")
    transaction: UUID | None
    versions: list[VersionOut]
    txids: list[str] = Field(description="Of all signed versions, oldest first.")
    confirmed_txid: str | None
    network_fee: Money | None = Field(
        description="What the confirmed transaction paid, for all that it serves; null while it is in no block."
    )
    confirmations: int
    warnings: list[str] = Field(
        default=[],
        description="Answer to the request only: known destinations of the customer that this one could be taken for.",
    )
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


class NewBump(In):
    """A wish to replace an unconfirmed transaction by one with a higher fee."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"feerate": 25000}, {}]})

    feerate: Annotated[int, Field(gt=0, le=2**53 - 1)] | None = Field(
        default=None,
        description="BTC: sat/kvB. EVM: wei per gas at most, tips included (`maxFeePerGas`; 1 gwei is 1000000000)."
        " Raised to the least that a replacement needs; omit for the present estimate.",
    )


class NewTravelRule(In):
    """Who pays and who is paid, for the travel rule."""

    ivms101: dict[str, Any] = Field(
        description="IVMS101 (2020, camelCase): `originator`, `beneficiary`, `originatingVASP` and, where a service is"
        " on the other side, `beneficiaryVASP`. The beneficiary's `accountNumber` names the destination."
    )


class TravelRuleOut(Out):
    """That data is attached, and how far it is."""

    withdrawal: UUID
    state: Literal["kept", "pending", "delivered", "refused"] = Field(
        description="`kept`: nobody is on the other side; `pending` until the other side has it."
    )
    attached_at: datetime
    delivered_at: datetime | None


class BumpOut(Out):
    """A recorded request; the outcome shows as a new version of the withdrawal."""

    id: UUID
    withdrawal: UUID
    transaction: UUID
    feerate: int | None = Field(description="As asked for; null: the present estimate.")
