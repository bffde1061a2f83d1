"""Customers, their addresses, balances, statements and deposits."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from custody.web.schemas import DecimalText, In, NameText, Out


class NewCustomer(In):
    """A customer to be created."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "alice"}]})

    id: NameText = Field(description="Chosen by you: 1 to 64 of `A-Za-z0-9._-`.")


class CustomerOut(Out):
    """A customer."""

    id: str = Field(examples=["alice"])
    state: Literal["active", "frozen"]
    reason: str = Field(description="Why it is frozen.")
    created_at: datetime


class NewAddress(In):
    """An address to be made for a customer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"asset": "BTC"}]})

    asset: NameText


class AddressOut(Out):
    """A deposit address with the signer's word for it."""

    address: str = Field(examples=["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"])
    chain: str = Field(examples=["bitcoin-regtest"])
    asset: str = Field(examples=["BTC"])
    customer: str = Field(examples=["alice"])
    attestation: dict[str, Any] = Field(
        description="`{attestation, signature}` by the key-set's attestation key: verify before showing."
    )
    created_at: datetime


class BalanceOut(Out):
    """What a customer has of one asset."""

    asset: str = Field(examples=["BTC"])
    available: DecimalText
    frozen: DecimalText = Field(description="Held for withdrawals under way.")
    trading: DecimalText = Field(description="Handed to the matching engine.")


class Balances(Out):
    """All balances of a customer."""

    customer: str
    balances: list[BalanceOut]


class LineOut(Out):
    """One line of a statement: the balance after it is the balance before it plus the amount."""

    seq: int = Field(description="1, 2, 3 ... within the account, no gaps.")
    account: str = Field(examples=["available"])
    type: str = Field(examples=["deposit"])
    asset: str
    amount: DecimalText = Field(description="Signed.")
    balance_before: DecimalText
    balance_after: DecimalText
    reference: str = Field(examples=["deposit:0b0e7d4d-0f5a-5e21-9a3b-6d1f2c1e8a3b"])
    transfer: UUID
    at: datetime


class PeriodOut(Out):
    """All lines of one asset in a period; the closing balances are the opening ones plus the lines."""

    customer: str
    asset: str
    since: datetime
    until: datetime
    opening: BalanceOut
    closing: BalanceOut
    lines: list[LineOut]


class DepositOut(Out):
    """Value that arrived at an address of ours."""

    id: UUID
    customer: str | None = Field(description="Null: paid to a change address of the house.")
    asset: str
    amount: DecimalText
    chain: str
    address: str
    txid: str = Field(description="64 hex digits, on EVM without `0x`.")
    resource: str = Field(
        description="The deposit's one identity on its chain: BTC `txid:vout`; tokens `txid:log:n`; native EVM money by"
        " its place in the trace, or by block and address where a node has no traces."
    )
    state: str = Field(examples=["confirming"])
    height: int | None
    confirmations: int
    confirmations_needed: int
    created_at: datetime
    updated_at: datetime
