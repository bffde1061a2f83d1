"""What the policy is told about one operation at one moment. A fact that could not be found out is None.

Numbers are base units, the bundle's unit of account, or UNIX seconds. Facts are gathered by the caller at the moment of
decision, in one database transaction; deciding reads nothing else. A signer tells only what it knows itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import msgspec

from chains.errors import InvalidValue
from policies.canonical import decoder_for
from policies.rules import HOUSE, Operation


class AccountState(StrEnum):
    """Whether a customer may withdraw."""

    ACTIVE = "active"
    FROZEN = "frozen"


class Ownership(StrEnum):
    """Whose the destination is."""

    EXTERNAL = "external"
    CUSTOMER = "customer"
    """An address of ours that belongs to a customer: settled in the ledger."""
    HOUSE = "house"
    """An address of ours that belongs to nobody, such as change: nothing is paid there on a customer's order."""


class Whitelist(StrEnum):
    """Whether the one who pays has listed the destination."""

    ABSENT = "absent"
    COOLING = "cooling"
    """Listed, and not long enough."""
    USABLE = "usable"


class Screening(StrEnum):
    """What screening says of the destination."""

    CLEAR = "clear"
    HIT = "hit"


GENUINE = "genuine"
"""The value of `Facts.order` that does not deny."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about one operation; None where one is not known, which denies where a rule asks for it."""

    operation: Operation
    now: int
    id: str = ""
    """Of the order, or of what is done; for records only, no rule sees it."""
    action: str | None = None
    chain: str | None = None
    asset: str | None = None
    units: int | None = None
    """The amount, without fees."""
    value: tuple[int, int] | None = None
    """Worth at least and at most this; both are the same where the price is known."""
    source: str | None = None
    destination: str | None = None
    """Canonical address text."""
    ownership: Ownership | None = None
    whitelist: Whitelist | None = None
    destination_age_seconds: int | None = None
    """Since whoever decides has known it; 0 if it is new."""
    lookalike: bool | None = None
    """Whether it begins and ends like a destination that the payer has known for longer; False for whitelisted ones."""
    contract: bool | None = None
    """Whether the destination has code."""
    customer: str | None = None
    """Whose money; `house` for the house's own operations."""
    kyc_level: int | None = None
    initiator: str | None = None
    """The caller who signed the order, or the operator."""
    screening: Screening | None = None
    travel_rule: bool | None = None
    """Whether originator and beneficiary data are attached."""
    ownership_proof: bool | None = None
    """Whether the destination's owner has signed that it is theirs."""
    new_device: bool | None = None
    new_ip: bool | None = None
    password_age_seconds: int | None = None
    mfa_age_seconds: int | None = None
    mfa_methods: frozenset[str] | None = None
    order: str | None = None
    """Withdrawals: `genuine` if the stored row says what the order says and the order's signature verifies, else what
    is wrong."""
    expires_at: int | None = None
    """Withdrawals: end of the order."""
    account: AccountState | None = None
    """Withdrawals: the customer's."""
    halts: tuple[str, ...] | None = None
    """Scopes that are halted or frozen."""
    reverts: int | None = None
    """Withdrawals: transactions on this chain that paid this customer's withdrawals only, and were mined within a day,
    but failed (EVM): they cost their fee and paid nothing."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 0):
                raise InvalidValue(f"fact {name} is {value!r}: expected an integer from 0")
        if self.value is not None and not 0 <= self.value[0] <= self.value[1]:
            raise InvalidValue(f"fact value is {self.value!r}: expected from and to")


_COUNTS = (
    "now",
    "units",
    "destination_age_seconds",
    "kyc_level",
    "password_age_seconds",
    "mfa_age_seconds",
    "expires_at",
    "reverts",
)
_AMOUNTS = frozenset({"units", "value"})


def describe(facts: Facts) -> dict[str, Any]:
    """The facts as plain JSON values, as they are stored: amounts are strings, unknown ones are left out."""
    described: dict[str, Any] = {}
    for field in fields(Facts):
        value = getattr(facts, field.name)
        if value is None:
            continue
        if field.name in _AMOUNTS:
            value = str(value) if isinstance(value, int) else [str(part) for part in value]
        elif isinstance(value, frozenset):
            value = sorted(value)
        described[field.name] = list(value) if isinstance(value, tuple) else value
    return described


def read(described: dict[str, Any]) -> Facts:
    """The facts of a record, as `describe` gave them.

    Raises:
        InvalidValue: not such a record.
    """
    told = dict(described)
    try:
        if "units" in told:
            told["units"] = int(told["units"])
        if "value" in told:
            told["value"] = [int(part) for part in told["value"]]
        return msgspec.convert(told, Facts)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InvalidValue(f"facts: {error}") from None


decoder_for(Facts)
__all__ = [
    "GENUINE",
    "HOUSE",
    "AccountState",
    "Facts",
    "Operation",
    "Ownership",
    "Screening",
    "Whitelist",
    "describe",
    "read",
]
