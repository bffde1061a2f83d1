"""Facts in, decision out. Pure and total: whatever the facts, there is exactly one answer and no
exception."""

from __future__ import annotations

from dataclasses import fields

from policies.decision import Decision, Deny, Reason, Route
from policies.facts import Facts, missing
from policies.rules import RULES, Allow, KnownFacts, RuleSet


def decide(facts: Facts, rules: RuleSet) -> Decision:
    """Decide about one withdrawal.

    A missing or malformed fact denies. A denial by any rule wins. With no rule that allows, the answer is no;
    with rules that allow different tiers too, as then they contradict each other.
    """
    unknown = missing(facts)
    if unknown:
        return Deny(tuple(Reason("missing-fact", f"{name} is not known") for name in unknown))
    known = KnownFacts(**{field.name: getattr(facts, field.name) for field in fields(KnownFacts)})
    findings = [finding for rule in RULES for finding in rule(known, rules)]
    allowed = [finding for finding in findings if isinstance(finding, Allow)]
    denied = [finding.reason for finding in findings if not isinstance(finding, Allow)]
    if denied:
        return Deny(tuple(denied))
    tiers = {finding.tier for finding in allowed}
    if len(tiers) != 1:
        return Deny((Reason("no-rule-allows", f"{len(tiers)} tiers are allowed, exactly one is needed"),))
    return Route(allowed[0].tier, (), 0, tuple(finding.reason for finding in allowed))
