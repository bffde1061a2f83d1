"""Payments that together are more than should leave: what the engine lets through, one after the other.

The largest payment that the policy lets through, again and again, under ever new names where that helps, and waiting
for windows to empty. Where that falls short, z3 looks for a few payments that together come to more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import z3

from policies.decision import Routed
from policies.engine import Engine
from policies.facts import Facts
from policies.notation import told_duration
from policies.outflow import Payments, maximum
from policies.prover import OTHERS, Answer, Outflow, Prover, Step
from policies.rules import COLDER, Rule
from policies.symbols import Verdict
from policies.windows import Windows

_STEPS: Final = 400
"""Of the attack that z3 looks for; repetitions of one are not counted."""
_PAYMENTS: Final = 50_000
"""In one attack."""
_TOGETHER: Final = 3
"""Payments that z3 looks for at once."""


def answer(prover: Prover, question: Outflow) -> Answer:
    """Whether more can leave than the question says."""
    payments = Payments(prover, question)
    told, time = payments.told, told_duration(question.within_seconds)
    bound = payments.bound()
    most = None if bound is None else bound[0]
    if bound is not None and bound[0] <= question.at_most:
        says = f"no more than {told(bound[0])} can leave within any {time}"
        return Answer("proven", says, rests_on=bound[1], most=most)
    attack = Attack(payments)
    steps = attack.greedy()
    if sum(payments.worth(step.facts) for step in steps) <= question.at_most:
        steps = attack.together() or steps
    reached = sum(payments.worth(step.facts) for step in steps)
    if reached > question.at_most:
        times = [step.facts.now for step in steps]
        lasts = told_duration(max(times) - min(times) + 1)
        says = f"{told(reached)} leave in {len(steps)} payments within {lasts}"
        return Answer("refuted", says, steps=tuple(steps), most=most, reached=reached)
    known = "no bound was found" if most is None else f"no more than {told(most)} can leave"
    says = f"{known}, and no way to more than {told(reached)} was found"
    return Answer("not-proven", says, most=most, reached=reached)


class Attack:
    """Looks for payments.

    Args:
        payments: in question.
    """

    def __init__(self, payments: Payments) -> None:
        self._payments, self.question = payments, payments.question
        self.engine = Engine(payments.policy, payments.prover.told)

    def greedy(self) -> list[Step]:
        """Payments that the engine lets through, as much as was found; all within the time asked about."""
        windows, steps, total = Windows(self._payments.policy), list[Step](), 0
        start: int | None = None
        now, tries, pinned = 0, 0, None
        while total <= self.question.at_most and tries < _STEPS and len(steps) < _PAYMENTS:
            tries += 1
            facts = self._next(windows, None if start is None else now, len(steps), pinned)
            if facts is None:
                if start is None:
                    break
                later = self._later(steps, now)
                if later is None or later >= start + self.question.within_seconds:
                    break
                now = later
                windows.move_to(now)
                continue
            if start is None:
                start = now = facts.now
                windows.move_to(now)
            if pinned is None and self.question.of_one is not None:
                pinned = str(getattr(facts, self.question.of_one))
            taken = self._again_and_again(facts, windows, steps, total)
            if not taken:
                break
            total += taken
        return steps

    def _next(self, windows: Windows, now: int | None, number: int, pinned: str | None) -> Facts | None:
        """The largest payment now, or ever if `now` is None."""
        verdict, question = self._payments.any, self.question
        constraints = self._payments.asked(verdict)
        if now is not None:
            constraints.append(verdict.of.now == now)
        if question.of_one is not None and pinned is not None:
            constraints.append(verdict.of.is_named(question.of_one, pinned))
        for rule in self._payments.limits:
            constraints.append(verdict.spent[rule.id] == self._spent(rule, verdict, windows))
        found = maximum(
            self._payments.prover, constraints, self._payments.amount(verdict), enough=question.at_most + 1
        )
        if found is None:
            return None
        others = {fact: f"{name}-{number}" for fact, name in OTHERS.items()}
        return verdict.of.facts(found[1], id=str(number + 1), others=others)

    def _spent(self, rule: Rule, verdict: Verdict, windows: Windows) -> Any:
        """What the rule's window holds: nothing, for somebody whom nobody has mentioned."""
        assert rule.limit is not None
        spent: Any = z3.IntVal(0)
        for key, held in windows.held(rule.id, rule.limit):
            is_it = self._is_bucket(rule, verdict, key)
            if is_it is not None and held:
                spent = z3.If(is_it, held, spent)
        return spent

    def _is_bucket(self, rule: Rule, verdict: Verdict, bucket: str) -> Any:
        assert rule.limit is not None
        match rule.limit.per:
            case "all":
                return z3.BoolVal(True)
            case "tier":
                return verdict.tier == [str(tier) for tier in COLDER].index(bucket)
            case "destination":
                chain, _, destination = bucket.partition(":")
                if (
                    destination not in self._payments.names.known["destination"]
                    or chain not in self._payments.names.known["chain"]
                ):
                    return None
                return z3.And(
                    verdict.of.is_named("chain", chain), verdict.of.is_named("destination", destination)
                )
            case per:
                return verdict.of.is_named(per, bucket) if bucket in self._payments.names.known[per] else None

    def _again_and_again(self, facts: Facts, windows: Windows, steps: list[Step], total: int) -> int:
        """Pay it, and its like under new names, for as long as the engine lets them through."""
        taken = 0
        while total + taken <= self.question.at_most and len(steps) < _PAYMENTS:
            for tried in self._alike(facts, len(steps)) if taken else (facts,):
                decision = self.engine.decide(tried, windows)
                if isinstance(decision, Routed):
                    break
            else:
                break
            for key, amount in decision.counts:
                windows.add(key, amount)
            steps.append(Step(tried, decision))
            taken += self._payments.worth(tried)
        return taken

    def _alike(self, facts: Facts, number: int) -> Iterator[Facts]:
        """The same payment, and that of somebody else to somewhere else."""
        fresh: dict[str, Any] = {"id": str(number + 1)}
        yield replace(facts, **fresh)
        for name in ("customer", "initiator", "destination"):
            if name != self.question.of_one:
                fresh[name] = f"{OTHERS[name]}-{number}-0"
        yield replace(facts, **fresh)

    def _later(self, steps: list[Step], now: int) -> int | None:
        """The next moment at which a window has more room, or the hour has changed."""
        times = []
        lengths = {
            rule.id: rule.limit.window_seconds for rule in self._payments.limits if rule.limit is not None
        }
        for step in steps:
            assert isinstance(step.decision, Routed)
            times += [step.facts.now + lengths[key.rule] for key, _ in step.decision.counts]
        minute = now // 60
        for rule in self._payments.policy.rules:
            for when in (rule.when, rule.unless):
                if when is not None and when.hours is not None:
                    for edge in (when.hours.from_minute, when.hours.to_minute, 0):
                        times.append((minute + 1 + (edge - minute - 1) % 1_440) * 60)
        return min((time for time in times if time > now), default=None)

    def together(self) -> list[Step]:
        """A few payments that z3 finds at once, and the engine lets through; nothing if there are none."""
        for count in range(2, _TOGETHER + 1):
            steps = self._several(count)
            if steps:
                return steps
        return []

    def _several(self, count: int) -> list[Step]:
        verdicts = [self._payments.verdict(f"w{number}") for number in range(count)]
        solver = self._payments.prover.solver()
        for number, verdict in enumerate(verdicts):
            solver.add(*self._payments.asked(verdict))
            before = verdicts[:number]
            if before:
                solver.add(before[-1].of.now <= verdict.of.now)
                solver.add(verdict.of.now < verdicts[0].of.now + self.question.within_seconds)
            if before and self.question.of_one is not None:
                solver.add(
                    verdict.of.number[self.question.of_one] == before[0].of.number[self.question.of_one]
                )
            for rule in self._payments.limits:
                solver.add(verdict.spent[rule.id] == _spent_by(rule, before, verdict))
        solver.add(z3.Sum([self._payments.amount(verdict) for verdict in verdicts]) > self.question.at_most)
        if solver.check() != z3.sat:
            return []
        model = solver.model()
        windows, steps = Windows(self._payments.policy), list[Step]()
        for number, verdict in enumerate(verdicts):
            facts = verdict.of.facts(model, id=str(number + 1), others=OTHERS)
            windows.move_to(facts.now)
            decision = self.engine.decide(facts, windows)
            if not isinstance(decision, Routed):
                return []
            for key, amount in decision.counts:
                windows.add(key, amount)
            steps.append(Step(facts, decision))
        return steps


def _spent_by(rule: Rule, before: list[Verdict], verdict: Verdict) -> Any:
    assert rule.limit is not None
    spent = []
    for each in before:
        match rule.limit.per:
            case "all":
                same: Any = z3.BoolVal(True)
            case "tier":
                same = each.tier == verdict.tier
            case "destination":
                same = z3.And(
                    each.of.number["chain"] == verdict.of.number["chain"],
                    each.of.number["destination"] == verdict.of.number["destination"],
                )
            case per:
                same = each.of.number[per] == verdict.of.number[per]
        counts = z3.And(each.fits[rule.id], same, each.of.now > verdict.of.now - rule.limit.window_seconds)
        spent.append(z3.If(counts, each.amounts[rule.id], 0))
    return z3.Sum(spent) if spent else z3.IntVal(0)
