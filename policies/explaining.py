"""Why the policy answers as it does: each rule that fits, or not and why, and what is left in each window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from policies import decision as decisions
from policies import words
from policies.bundle import Bundle
from policies.deciding import decide
from policies.decision import Decision, Routed
from policies.engine import Spent, amount_of, bucket_of, possible
from policies.facts import Facts
from policies.matching import Scope
from policies.notation import listed, told_duration
from policies.rules import COLDER, Route, Rule

Fit = Literal["fits", "excepted", "no", "unknown"]

_APART: Final = frozenset({"operation", "chain", "asset"})
"""What tells rules apart that nobody asks about here."""
_FACTS: Final = {
    "units": "amount",
    "now": "time",
    "mfa_methods": "second factor",
    "kyc_level": "KYC level",
    "lookalike": "look of the destination",
}
"""Facts under names for people, where they have others."""


@dataclass(frozen=True, slots=True)
class Looked:
    """One rule and whether it is about the operation."""

    rule: Rule
    fit: Fit
    facts: tuple[str, ...]
    """Why not: facts that its scope doesn't fit, or that nobody knows."""
    sentence: str

    def describe(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rule": self.rule.id,
            "fits": self.fit,
            "facts": list(self.facts),
            "says": self.sentence,
            "about": self.rule.about,
        }


@dataclass(frozen=True, slots=True)
class Window:
    """One window that the operation falls into."""

    rule: str
    bucket: str
    at_most: int
    spent: int | None
    """Without the operation; None: not known."""
    adds: int
    measure: str
    told: str
    """In words, with what is left."""

    def describe(self) -> dict[str, Any]:
        """As plain JSON values; amounts are strings."""
        left = None if self.spent is None else str(max(0, self.at_most - self.spent))
        return {
            "rule": self.rule,
            "bucket": self.bucket,
            "measure": self.measure,
            "at_most": str(self.at_most),
            "spent": None if self.spent is None else str(self.spent),
            "adds": str(self.adds),
            "left": left,
            "says": self.told,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and how it came about."""

    decision: Decision
    rules: tuple[Looked, ...]
    windows: tuple[Window, ...]

    def describe(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "decision": decisions.describe(self.decision),
            "rules": [each.describe() for each in self.rules],
            "windows": [each.describe() for each in self.windows],
        }

    def lines(self) -> list[str]:
        """For people: the answer, its reasons, rules that fit, windows, and why the other rules don't fit."""
        told = [_answer(self.decision)]
        told += [f"  {reason}" for reason in self.decision.reasons]
        told += ["Windows"] if self.windows else []
        told += [f"  {window.rule}: {window.told}" for window in self.windows]
        others = [each for each in self.rules if each.fit == "no" and _APART & set(each.facts)]
        for heading, fits in (
            ("Rules that fit", ("fits",)),
            ("Rules that nobody can judge", ("unknown",)),
            ("Rules that don't fit", ("no", "excepted")),
        ):
            found = [each for each in self.rules if each.fit in fits and each not in others]
            told += [heading] if found else []
            told += [f"  {each.rule.id}: {each.sentence}{_why(each)}" for each in found]
        count = f"{len(others)} rule{'' if len(others) == 1 else 's'}"
        return told + ([f"And {count} about other operations, chains and assets."] if others else [])


def explain(bundle: Bundle, facts: Facts, spent: Spent) -> Explanation:
    """Decide, and say why.

    Args:
        bundle: whose policy it is.
        facts: of the operation.
        spent: what windows hold already.
    """
    decision = decide(bundle, facts, spent)
    groups = {group.id: frozenset(group.addresses) for group in bundle.policy.addresses}
    scopes = [(rule, Scope(rule, groups)) for rule in bundle.policy.rules]
    tier = decision.tier if isinstance(decision, Routed) else _tier(scopes, facts)
    looked = tuple(_look(rule, scope, facts, tier, bundle) for rule, scope in scopes)
    windows = tuple(
        window
        for each in looked
        if each.fit == "fits" and (window := _window(each.rule, facts, tier, spent, bundle)) is not None
    )
    return Explanation(decision, looked, windows)


def _tier(scopes: list[tuple[Rule, Scope]], facts: Facts) -> Route | None:
    """Where it would be paid from, if nothing else stood against it."""
    routes = [
        rule.route
        for rule, scope in scopes
        if rule.route is not None and scope.fits(facts, None) and possible(facts, rule.route)
    ]
    return max(routes, key=COLDER.index, default=None)


def _look(rule: Rule, scope: Scope, facts: Facts, tier: Route | None, bundle: Bundle) -> Looked:
    sentence = words.rule(rule, bundle.told, bundle.unit)
    fits = scope.fits(facts, None if rule.route is not None else tier)
    if fits:
        return Looked(rule, "fits", (), sentence)
    if fits is None:
        return Looked(rule, "unknown", scope.unknown(facts, tier), sentence)
    against = scope.against(facts, tier)
    return Looked(rule, "no" if against else "excepted", against, sentence)


def _why(each: Looked) -> str:
    facts = listed(
        [_FACTS.get(name, name.removesuffix("_seconds").replace("_", " ")) for name in each.facts] or ["-"]
    )
    match each.fit:
        case "fits":
            return ""
        case "unknown":
            return f" Nobody knows the {facts}."
        case "excepted":
            return " The exception holds."
        case "no":
            return f" It is another {facts}."


def _window(rule: Rule, facts: Facts, tier: Route | None, spent: Spent, bundle: Bundle) -> Window | None:
    limit = rule.limit
    if limit is None:
        return None
    bucket, adds = bucket_of(limit, facts, tier), amount_of(limit, facts)
    if bucket is None or adds is None:
        return None
    held, most = spent(decisions.LimitKey(rule.id, bucket), limit), int(limit.at_most)

    def told(units: int) -> str:
        return words.measured(limit, facts.asset, units, bundle.told, bundle.unit)

    whose = f" of {bucket}" if bucket else ""
    if held is None:
        text = f"what the window{whose} holds is not known; at most {told(most)}"
    else:
        left = max(0, most - held)
        fit = "fits" if adds <= left else "is too much"
        text = f"{told(held)} of {told(most)}{whose} are used, {told(left)} are left; {told(adds)} {fit}"
    return Window(rule.id, bucket, most, held, adds, limit.measure, text)


def _answer(decision: Decision) -> str:
    if not isinstance(decision, Routed):
        return "Denied:" if isinstance(decision, decisions.Deny) else "Waits:"
    parts = [f"Paid from {decision.tier}" if decision.tier != "ledger" else "Settled in the ledger"]
    asked = words.needed(decision.approvals)
    parts += [f"with the approval of {asked}"] if asked != "nobody" else ["approved by nobody"]
    if decision.delay_seconds:
        parts.append(f"after {told_duration(decision.delay_seconds)}")
    if decision.verdict:
        parts.append("with a verifier's word that it is covered")
    return ", ".join(parts) + ":"
