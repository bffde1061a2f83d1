"""What the policy answers: a denial with its reasons, or a route to a tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from chains.errors import InvalidValue

Destination = Literal["hot", "warm", "cold", "ledger"]
"""Where a withdrawal is paid from; `ledger` for one to an address of ours, which needs no transaction."""

DESTINATIONS: Final = ("hot", "warm", "cold", "ledger")


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One reason, for programs and for people."""

    code: str
    """Stable, e.g. `customer-window`."""
    detail: str
    """A sentence with the numbers."""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Approvals:
    """How many approvers of which group must agree."""

    group: str
    count: int

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise InvalidValue(f"approvals {self.count!r}: expected at least 1")


@dataclass(frozen=True, slots=True)
class Deny:
    """It is not paid. There is always at least one reason."""

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise InvalidValue("a denial without a reason")


@dataclass(frozen=True, slots=True)
class Route:
    """It is paid from `tier`, after `approvals`, after `delay_seconds`."""

    tier: Destination
    approvals: tuple[Approvals, ...]
    delay_seconds: int
    reasons: tuple[Reason, ...]
    """Which rules allowed it."""

    def __post_init__(self) -> None:
        if self.tier not in DESTINATIONS or type(self.delay_seconds) is not int or self.delay_seconds < 0:
            raise InvalidValue(f"route to {self.tier!r} after {self.delay_seconds!r} s")
        if not self.reasons:
            raise InvalidValue("a route that no rule allowed")


Decision = Deny | Route


def describe(decision: Decision) -> dict[str, Any]:
    """The decision as plain JSON values, as it is stored."""
    reasons = [{"code": reason.code, "detail": reason.detail} for reason in decision.reasons]
    if isinstance(decision, Deny):
        return {"outcome": "deny", "reasons": reasons}
    return {
        "outcome": "route",
        "tier": decision.tier,
        "approvals": [{"group": need.group, "count": need.count} for need in decision.approvals],
        "delay_seconds": decision.delay_seconds,
        "reasons": reasons,
    }
