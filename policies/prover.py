"""Questions about a policy, each answered with a proof, with payments that show the contrary, or not at all.

A proof holds for every withdrawal there can be and for any number of them. It is z3's (unsatisfiable formulas of
`policies.symbols`) and, for sums over windows, this argument: if each payment that the question is about is counted by
one of some limits, then within any stretch as long as a limit's window no more than its maximum can be counted by it,
for what is let through counts until it has been paid and the window's length from then on. So the sum of those maxima,
each times the windows that cover the stretch, is never exceeded.

The contrary is shown by the engine: a list of withdrawals, decided one by one, each let through. What neither can be
is `not proven`, with what is known: at most so much, at least so much.

What is proven is proven of the policy alone. Whoever changes the policy, or takes keys, is outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import z3

from chains.errors import InvalidValue
from policies.bundle import Approver, Bundle
from policies.decision import Decision, Routed
from policies.engine import Engine, Told
from policies.facts import Facts
from policies.mentioned import Names, Worth, names_in, worths
from policies.notation import Money
from policies.organisations import Distinct, TooMany, counterparts, fewest
from policies.rules import COLDER, Policy, Route, When
from policies.symbols import Verdict, Withdrawal
from policies.windows import Windows

LEAVING: Final[tuple[Route, ...]] = ("hot", "warm", "cold")
"""Tiers from which money leaves us."""
OTHERS: Final = {
    "action": "action", "chain": "chain", "asset": "asset", "source": "source", "destination": "address",
    "customer": "customer", "initiator": "initiator",
}  # fmt: skip
"""What somebody is called whom nobody mentions."""
TIMEOUT_MS: Final = 30_000
"""Milliseconds for one formula; what takes longer is not proven."""


def plainly(asset: str, units: int) -> str:
    """Amounts without decimals, for reasons."""
    return f"{units} base units of {asset}"


def in_value(value: int) -> str:
    """Values in an unknown unit."""
    return f"{value} in value"


@dataclass(frozen=True, slots=True)
class Ever:
    """Can a withdrawal that is `when` ever be paid?

    A condition about a fact that nobody knows counts as met: what is not known may be so.
    """

    when: When
    tiers: tuple[Route, ...] = LEAVING


@dataclass(frozen=True, slots=True)
class Guarded:
    """Is every payment from `tiers` approved by so many different people, or organisations?"""

    tiers: tuple[Route, ...]
    count: int
    distinct: Distinct = "organisations"
    when: When = field(default_factory=When)


@dataclass(frozen=True, slots=True)
class Outflow:
    """Can more than `at_most` leave within any `within_seconds`?"""

    at_most: int
    within_seconds: int
    asset: str | None = None
    """Of this asset, in base units; None: of all whose value is known, in value at the highest prices."""
    tiers: tuple[Route, ...] = LEAVING
    of_one: Literal["customer", "initiator"] | None = None
    """By one customer alone, or on orders of one initiator alone; None: by all together."""
    approved: Literal["nobody", "anybody"] = "anybody"
    """Count only what needs nobody's approval, or everything."""
    when: When = field(default_factory=When)

    def __post_init__(self) -> None:
        if self.at_most < 0 or self.within_seconds < 1:
            raise InvalidValue("a question about an outflow needs an amount from 0 and a time from 1 s")


Question = Ever | Guarded | Outflow


@dataclass(frozen=True, slots=True)
class Step:
    """One withdrawal of an example, with the engine's answer."""

    facts: Facts
    decision: Decision


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found out."""

    outcome: Literal["proven", "refuted", "not-proven"]
    says: str
    """A sentence with the numbers."""
    rests_on: tuple[str, ...] = ()
    """Ids of the limits whose windows make the proof."""
    steps: tuple[Step, ...] = ()
    """Refuted: what the engine lets through, in this order."""
    approvers: tuple[tuple[str, str, str], ...] = ()
    """Refuted: who approves it, with organisation and group."""
    most: int | None = None
    """Outflow: no more than this, proven; None: no bound was found."""
    reached: int | None = None
    """Outflow: so much, shown."""


@dataclass(frozen=True)
class Prover:
    """Asks about one policy.

    Args:
        policy: a consistent one.
        assets: of the bundle, by id; empty: any asset may be on any chain, and be worth anything.
        approvers: of the bundle; None: there may be any.
        timeout_ms: for one formula.
    """

    policy: Policy
    assets: dict[str, Worth] = field(default_factory=dict)
    approvers: tuple[Approver, ...] | None = None
    timeout_ms: int = TIMEOUT_MS
    told: Told = plainly
    """Shows amounts."""
    told_value: Callable[[int], str] = in_value
    """Shows values."""

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, timeout_ms: int = TIMEOUT_MS) -> Prover:
        """Of a bundle's policy, with its assets, prices and approvers."""
        money = Money({}, bundle.unit)
        return cls(bundle.policy, worths(bundle), bundle.approvers, timeout_ms, bundle.told, money.told_value)

    def ask(self, question: Question) -> Answer:
        """Answer one question."""
        match question:
            case Ever():
                return self._ever(question)
            case Guarded():
                return self._guarded(question)
            case Outflow():
                from policies.attack import answer

                return answer(self, question)

    def names(self, when: When) -> Names:
        """All names that the policy and a question mention."""
        return names_in(self.policy, self.assets, [when])

    def verdict(self, name: str, names: Names) -> Verdict:
        """A withdrawal and what the policy says of it."""
        return Verdict(name, self.policy, Withdrawal(name, names, self.policy, self.assets))

    def solver(self, *constraints: Any) -> Any:
        """A solver with these constraints, and the time that one formula may take."""
        solver = z3.Solver()
        solver.set("timeout", self.timeout_ms)
        solver.add(*constraints)
        return solver

    def let_through(self, facts: Facts) -> Step | None:
        """What the engine says of a withdrawal before which there was none; None if it is not let through."""
        decision = Engine(self.policy, self.told).decide(facts, Windows(self.policy))
        return Step(facts, decision) if isinstance(decision, Routed) else None

    def _ever(self, question: Ever) -> Answer:
        verdict = self.verdict("w", self.names(question.when))
        solver = self.solver(verdict.paid, among(verdict, question.tiers), may_be(verdict, question.when))
        solver.add(*(spent == 0 for spent in verdict.spent.values()))
        found = solver.check()
        if found == z3.unsat:
            return Answer("proven", "no such withdrawal can ever be paid")
        if found == z3.unknown:
            return Answer("not-proven", f"z3 did not find out: {solver.reason_unknown()}")
        step = self.let_through(verdict.of.facts(solver.model(), id="1", others=OTHERS))
        if step is None:
            return Answer("not-proven", "z3 found a withdrawal that the engine does not let through")
        return Answer("refuted", f"this one is paid from the {tier_of(step)} tier", steps=(step,))

    def _guarded(self, question: Guarded) -> Answer:
        verdict = self.verdict("w", self.names(question.when))
        asking = [rule for rule in self.policy.rules if rule.approvals is not None]
        least = z3.IntVal(0)
        for rule in asking:
            asked = fewest([rule], question.distinct)
            least = z3.If(z3.And(verdict.fits[rule.id], asked > least), asked, least)
        solver = self.solver(verdict.paid, among(verdict, question.tiers), may_be(verdict, question.when))
        solver.add(*(spent == 0 for spent in verdict.spent.values()))
        solver.add(least < question.count)
        kind = "people" if question.distinct == "people" else "organisations"
        for _ in range(_COMBINATIONS):
            found = solver.check()
            if found == z3.unsat:
                return Answer("proven", f"each is approved by at least {question.count} different {kind}")
            if found == z3.unknown:
                return Answer("not-proven", f"z3 did not find out: {solver.reason_unknown()}")
            model = solver.model()
            fitting = [
                rule
                for rule in asking
                if z3.is_true(model.eval(verdict.fits[rule.id], model_completion=True))
            ]
            step = self.let_through(verdict.of.facts(model, id="1", others=OTHERS))
            if step is None:
                return Answer("not-proven", "z3 found a withdrawal that the engine does not let through")
            try:
                people = self._approvers_of(step, question)
            except TooMany as error:
                return Answer("not-proven", str(error), steps=(step,))
            if people is not None:
                told = len({each[1] if question.distinct == "organisations" else each[0] for each in people})
                says = f"this one is paid when {told} {kind} have approved, not {question.count}"
                return Answer("refuted", says, steps=(step,), approvers=people)
            # Nobody in the bundle can approve just that with so few: look for other rules that fit together.
            solver.add(z3.Or([z3.Not(verdict.fits[rule.id]) for rule in fitting]))
        return Answer("not-proven", f"more than {_COMBINATIONS} combinations of rules ask for approvals")

    def _approvers_of(self, step: Step, question: Guarded) -> tuple[tuple[str, str, str], ...] | None:
        assert isinstance(step.decision, Routed)
        return counterparts(
            step.decision.approvals,
            fewer_than=question.count,
            distinct=question.distinct,
            policy=self.policy,
            approvers=self.approvers,
        )


_COMBINATIONS: Final = 64


def among(verdict: Verdict, tiers: Sequence[Route]) -> Any:
    """It is paid from one of these."""
    return z3.Or([verdict.tier == COLDER.index(tier) for tier in tiers])


def may_be(verdict: Verdict, when: When) -> Any:
    """The scope fits, or asks for what is not known."""
    return z3.Not(verdict.of.scope(when, verdict.tier).no)


def tier_of(step: Step) -> str:
    """Where it is paid from."""
    assert isinstance(step.decision, Routed)
    return step.decision.tier
