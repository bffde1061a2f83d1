"""How much can leave within a time at most, by the policy's windows.

`policies.prover` says why the bound holds. Which limits count every payment in question is found step by step: take
the cheapest set of limits so far, ask z3 for a payment that none of them counts, and demand one more that does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import z3

from policies.facts import Facts
from policies.mentioned import Names
from policies.organisations import fewest
from policies.prover import Outflow, Prover, among, may_be
from policies.rules import Policy, Rule
from policies.symbols import Verdict

Bound = tuple[int, tuple[str, ...]]
"""The most, and the ids of the limits that say so."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A limit that may count every payment, and the most that it lets through in the time asked about."""

    rule: Rule
    most: int


class Payments:
    """The payments that a question about an outflow is about."""

    def __init__(self, prover: Prover, question: Outflow) -> None:
        self.prover, self.question = prover, question
        self.policy: Policy = prover.policy
        self.names: Names = prover.names(question.when)
        if question.asset is not None:
            self.names.number("asset", question.asset)
        self.limits = [rule for rule in self.policy.rules if rule.limit is not None]
        self.any = self.verdict("w")

    def verdict(self, name: str) -> Verdict:
        """One more withdrawal."""
        return self.prover.verdict(name, self.names)

    def asked(self, verdict: Verdict) -> list[Any]:
        """It is one of the payments that the question is about, and it is paid."""
        question = self.question
        asked = [verdict.paid, among(verdict, question.tiers), may_be(verdict, question.when)]
        if question.asset is not None:
            asked.append(verdict.of.is_named("asset", question.asset))
        else:
            asked.append(verdict.of.known("value"))
        if question.approved == "nobody":
            asked += [
                z3.Not(verdict.fits[rule.id])
                for rule in self.policy.rules
                if rule.approvals is not None and fewest([rule], "people") > 0
            ]
        return asked

    def amount(self, verdict: Verdict) -> Any:
        """What a payment adds to what the question sums up."""
        return verdict.of.number["units"] if self.question.asset is not None else verdict.of.high

    def told(self, amount: int) -> str:
        """What the question sums up, for people."""
        asset = self.question.asset
        return self.prover.told_value(amount) if asset is None else self.prover.told(asset, amount)

    def worth(self, facts: Facts) -> int:
        """The same of one that is found; values rounded down, so that a sum of them is not above the value of all."""
        if self.question.asset is not None:
            return facts.units or 0
        priced = self.prover.assets.get(facts.asset or "")
        if priced is not None and priced.high is not None:
            return (facts.units or 0) * priced.high // priced.one
        return 0 if facts.value is None else facts.value[1]

    # The bound.

    def bound(self) -> Bound | None:
        """The most that can leave, and the limits that say so; None if none was found."""
        found = [each for each in (self._at_once(), self._by_asset()) if each is not None]
        return min(found, default=None, key=lambda each: each[0])

    def _by_asset(self) -> Bound | None:
        """In value: what can leave of each asset that has a price, at the highest one."""
        if self.question.asset is not None or not self.prover.assets:
            return None
        total, rests_on = 0, dict[str, None]()
        for asset, worth in self.prover.assets.items():
            if worth.high is None:
                continue
            found = Payments(self.prover, replace(self.question, asset=asset))._at_once()
            if found is None:
                return None
            total += -(-found[0] * worth.high // worth.one)
            rests_on |= dict.fromkeys(found[1])
        return total, tuple(rests_on)

    def _at_once(self) -> Bound | None:
        candidates = [c for rule in self.limits if (c := self._candidate(rule)) is not None]
        verdict = self.any
        solver = self.prover.solver(*self.asked(verdict), *(s == 0 for s in verdict.spent.values()))
        uncovered: list[frozenset[str]] = []
        while True:
            chosen = _cheapest(candidates, uncovered)
            if chosen is None:
                return None
            found = solver.check(*(z3.Not(verdict.fits[each.rule.id]) for each in chosen))
            if found == z3.unsat:
                return sum(each.most for each in chosen), tuple(each.rule.id for each in chosen)
            if found == z3.unknown:
                return None
            model = solver.model()
            uncovered.append(
                frozenset(
                    each.rule.id
                    for each in candidates
                    if z3.is_true(model.eval(verdict.fits[each.rule.id], model_completion=True))
                )
            )

    def _candidate(self, rule: Rule) -> _Candidate | None:
        assert rule.limit is not None
        buckets = self._buckets(rule)
        a_window = self._a_window(rule)
        if buckets is None or a_window is None:
            return None
        windows = -(-self.question.within_seconds // rule.limit.window_seconds)
        return _Candidate(rule, a_window * buckets * windows)

    def _buckets(self, rule: Rule) -> int | None:
        """Over how many windows of the rule the payments can be spread; None: any number."""
        assert rule.limit is not None
        question = self.question
        match rule.limit.per:
            case "all":
                return 1
            case "tier":
                return len(question.tiers)
            case "asset":
                return 1 if question.asset is not None else len(self.prover.assets) or None
            case "chain":
                if question.asset is not None and question.asset in self.prover.assets:
                    return 1
                return len({worth.chain for worth in self.prover.assets.values()}) or None
            case "customer" | "initiator" as per:
                return 1 if question.of_one == per else None
            case "destination":
                return None

    def _a_window(self, rule: Rule) -> int | None:
        """The most, in what the question sums up, that one window of the rule holds."""
        assert rule.limit is not None
        at_most, asset = int(rule.limit.at_most), self.question.asset
        match rule.limit.measure:
            case "payments":
                largest = self._largest(rule)
                return None if largest is None else at_most * largest
            case "units":
                return at_most if asset is not None else None
            case "value":
                if asset is None:
                    return at_most
                worth = self.prover.assets.get(asset)
                if worth is None or not worth.high:
                    return None
                # Each counts for its value at the highest price, rounded up.
                return at_most * worth.one // worth.high

    def _largest(self, rule: Rule) -> int | None:
        """The largest payment in question that the rule counts; None if it is not bounded, or not known."""
        verdict = self.any
        constraints = [*self.asked(verdict), *(s == 0 for s in verdict.spent.values()), verdict.fits[rule.id]]
        largest = maximum(self.prover, constraints, self.amount(verdict))
        return largest[0] if largest is not None else None


def _cheapest(candidates: list[_Candidate], uncovered: list[frozenset[str]]) -> list[_Candidate] | None:
    """The set of limits with the smallest sum that counts each of these payments; None if none does."""
    if not all(uncovered):
        return None
    best: list[_Candidate] | None = None
    useful = [each for each in candidates if any(each.rule.id in payment for payment in uncovered)]
    for size in range(min(len(useful), _LIMITS) + 1):
        for chosen in combinations(useful, size):
            ids = {each.rule.id for each in chosen}
            if all(ids & payment for payment in uncovered) and (
                best is None or sum(c.most for c in chosen) < sum(c.most for c in best)
            ):
                best = list(chosen)
        if best is not None and size >= _LIMITS_FOR_BEST:
            break
    return best


_LIMITS: Final = 4
"""Most limits that a bound is put together from."""
_LIMITS_FOR_BEST: Final = 3


def maximum(
    prover: Prover, constraints: list[Any], amount: Any, *, enough: int | None = None
) -> tuple[int, Any] | None:
    """The largest value and a model of it; with `enough`, any model that reaches that will do.

    None: there is no solution, no maximum, or z3 did not find out in time.
    """
    solver = prover.solver(*constraints)
    if enough is not None and solver.check(amount >= enough) == z3.sat:
        model = solver.model()
        return int(model.eval(amount, model_completion=True).as_long()), model
    optimize = z3.Optimize()
    optimize.set("timeout", prover.timeout_ms)
    optimize.add(*constraints)
    optimize.maximize(amount)
    if optimize.check() != z3.sat:
        return None
    model = optimize.model()
    value = int(model.eval(amount, model_completion=True).as_long())
    # What the optimizer says counts only if the solver finds nothing above it.
    return (value, model) if solver.check(amount > value) == z3.unsat else None
