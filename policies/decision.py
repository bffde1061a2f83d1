"""What the policy answers: a denial with its reasons, a wait, or a route to a tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from chains.errors import InvalidValue
from policies.rules import COLDER, NOBODY, Approvals
from policies.rules import Route as Tier


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One reason, for programs and for people."""

    code: str
    """Stable: of a fixed check (`order-expired`), or `denied`, `limit`, `missing-fact`, `no-rule-allows`..."""
    detail: str
    """A sentence with the numbers."""
    rule: str = ""
    """Id of the rule that says it; empty for what holds whatever the rules say."""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" + (f" (rule {self.rule})" if self.rule else "")


class LimitKey(NamedTuple):
    """One window of one rule."""

    rule: str
    bucket: str
    """The customer, destination and so on that is counted for itself; empty for all together."""


@dataclass(frozen=True, slots=True)
class Deny:
    """It is not done. There is always at least one reason."""

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise InvalidValue("a denial without a reason")


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: a window of the house is full. Asked again later, the answer may be another."""

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise InvalidValue("a wait without a reason")


@dataclass(frozen=True, slots=True)
class Routed:
    """It is done from `tier`, after `approvals`, after `delay_seconds`."""

    tier: Tier
    reasons: tuple[Reason, ...]
    """Which rules allowed it, and which asked for what."""
    approvals: Approvals = NOBODY
    delay_seconds: int = 0
    verdict: bool = False
    """Whether a verifier must have found it covered."""
    counts: tuple[tuple[LimitKey, int], ...] = ()
    """What it adds to which windows, once it is let through."""

    def __post_init__(self) -> None:
        if self.tier not in COLDER or type(self.delay_seconds) is not int or self.delay_seconds < 0:
            raise InvalidValue(f"route to {self.tier!r} after {self.delay_seconds!r} s")
        if not self.reasons:
            raise InvalidValue("a route that no rule allowed")


Decision = Deny | Wait | Routed


def describe(decision: Decision) -> dict[str, Any]:
    """The decision as plain JSON values, as it is stored."""
    reasons = [{"code": r.code, "detail": r.detail, "rule": r.rule} for r in decision.reasons]
    if isinstance(decision, Deny):
        return {"outcome": "deny", "reasons": reasons}
    if isinstance(decision, Wait):
        return {"outcome": "wait", "reasons": reasons}
    return {
        "outcome": "route",
        "tier": decision.tier,
        "approvals": msgspec.to_builtins(decision.approvals),
        "delay_seconds": decision.delay_seconds,
        "verdict": decision.verdict,
        "counts": [[key.rule, key.bucket, str(amount)] for key, amount in decision.counts],
        "reasons": reasons,
    }
