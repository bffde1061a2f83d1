"""What the policy is told about a withdrawal. A fact that could not be found out is None, and denies.

Numbers are base units of the withdrawal's asset, or UNIX seconds. Facts are gathered by the caller at the
moment of decision, in one database transaction; deciding reads nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


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
    """An address of ours that belongs to nobody, such as change: nothing is paid there on a customer's
    order."""


class Screening(StrEnum):
    """What screening says of the destination."""

    CLEAR = "clear"
    HIT = "hit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about one withdrawal at one moment; None where one is not known."""

    asset: str | None
    units: int | None
    """The amount, without fees."""
    destination_kind: str | None
    """`p2wpkh` and so on."""
    ownership: Ownership | None
    screening: Screening | None
    customer: str | None
    account: AccountState | None
    initiator: str | None
    """The caller who signed the order."""
    order: str | None
    """`genuine` if the stored row says what the order says and the order's signature verifies, else what is
    wrong."""
    halts: tuple[str, ...] | None
    """Scopes that are halted: `all`, a chain, an asset."""
    now: int | None
    expires_at: int | None
    """End of the order."""
    customer_window_units: int | None
    """Let through for this customer within the rules' window, without this one."""
    hot_window_units: int | None
    """Let through to the hot tier, all customers, within the rules' window, without this one."""
    customer_reverts: int | None
    """Transactions on this chain that paid this customer's withdrawals only, and were mined within the rules' window,
    but failed (EVM): they cost their fee and paid nothing."""


GENUINE = "genuine"
"""The value of `Facts.order` that does not deny."""


def missing(facts: Facts) -> tuple[str, ...]:
    """Names of the facts that are unknown, or not of their type: both deny."""
    return tuple(field.name for field in fields(Facts) if not _usable(field.name, getattr(facts, field.name)))


_COUNTS = frozenset(
    ("units", "now", "expires_at", "customer_window_units", "hot_window_units", "customer_reverts")
)
_ENUMS: dict[str, type[StrEnum]] = {"ownership": Ownership, "screening": Screening, "account": AccountState}


def _usable(name: str, value: Any) -> bool:
    if name in _COUNTS:
        return type(value) is int and value >= 0
    if name in _ENUMS:
        return isinstance(value, _ENUMS[name])
    if name == "halts":
        return type(value) is tuple and all(isinstance(scope, str) for scope in value)
    return isinstance(value, str) and bool(value)


def describe(facts: Facts) -> dict[str, Any]:
    """The facts as plain JSON values, as they are stored; amounts are strings."""
    described: dict[str, Any] = {}
    for field in fields(Facts):
        value = getattr(facts, field.name)
        if name_is_amount(field.name) and value is not None:
            value = str(value)
        described[field.name] = list(value) if isinstance(value, tuple) else value
    return described


def name_is_amount(name: str) -> bool:
    """Whether a fact is a number of base units."""
    return name.endswith("units")
