"""The engine and a slow second implementation of the same sentences give the same answers."""

from __future__ import annotations

from collections import Counter

import pytest

from policies.decision import Decision, Deny, Routed, Wait
from policies.engine import Engine
from policies.facts import Facts
from policies.rules import AllOf, Approvals
from policies.windows import Windows
from tests.unit.policies import oracle
from tests.unit.policies.randomly import Trial, trials

CHUNKS, TRIALS, OPERATIONS = 10, 1_250, 8
"""100,000 decisions: of each chunk so many policies, of each policy so many operations in a row."""

INTERESTING = {
    **dict.fromkeys(("ledger", "hot", "warm", "cold"), 200), "Wait": 100,
    **dict.fromkeys(("with approvals", "with delay_seconds", "with verdict", "with counts"), 100),
    **dict.fromkeys(("Deny: limit", "Deny: missing-fact", "Deny: denied", "Deny: no-rule-allows"), 500),
    **dict.fromkeys(("only limit", "only missing-fact", "only denied", "only no-rule-allows"), 100),
    "only destination-blocked": 10, "only travel-rule": 10, "only ownership-proof": 10, "only halted": 10,
    "only order-not-genuine": 10, "only order-expired": 10, "only amount-zero": 10, "only customer-frozen": 10,
    "only destination-is-house": 10, "only payments-reverted": 10,
}  # fmt: skip
"""What each chunk must meet so often at least: each kind of answer, and each reason as the only one for it."""


def shown(asset: str, units: int) -> str:
    return f"{units} {asset}"


def as_answer(decision: Decision) -> oracle.Answer:
    """The engine's answer in the oracle's form; the sentences are left out."""
    reasons = {(reason.code, reason.rule) for reason in decision.reasons}
    match decision:
        case Deny():
            return oracle.Answer("deny", reasons)
        case Wait():
            return oracle.Answer("wait", reasons)
        case Routed():
            return oracle.Answer(
                "route",
                reasons,
                decision.tier,
                needs_of(decision.approvals),
                decision.delay_seconds,
                decision.verdict,
                {(key.rule, key.bucket, amount) for key, amount in decision.counts},
            )


def needs_of(approvals: Approvals) -> list[Approvals]:
    return list(approvals.needs) if isinstance(approvals, AllOf) else [approvals]


def same(engine: oracle.Answer, plain: oracle.Answer) -> bool:
    if len(plain.approvals) == 1:
        plain.approvals = needs_of(plain.approvals[0])
    return engine == plain


def compare(trial: Trial, seen: Counter[str], where: str) -> None:
    engine, windows, ledger = Engine(trial.policy, shown), Windows(trial.policy), oracle.Ledger()
    for facts in trial.operations:
        windows.move_to(facts.now)
        decision = engine.decide(facts, windows)
        ours, plain = as_answer(decision), oracle.decide(trial.policy, facts, ledger)
        assert same(ours, plain), f"{where}\n{facts}\n{trial.policy}\nengine: {ours}\noracle: {plain}"
        if isinstance(decision, Routed):
            for key, amount in decision.counts:
                windows.add(key, amount)
            ledger.add(facts.now, plain.counts)
        tally(seen, decision, facts)


def tally(seen: Counter[str], decision: Decision, facts: Facts) -> None:
    seen["decisions"] += 1
    seen[decision.tier if isinstance(decision, Routed) else type(decision).__name__] += 1
    seen.update({f"{type(decision).__name__}: {reason.code}" for reason in decision.reasons})
    if isinstance(decision, Routed):
        for name in ("approvals", "delay_seconds", "verdict", "counts"):
            told = needs_of(decision.approvals) if name == "approvals" else getattr(decision, name)
            seen[f"with {name}"] += bool(told)
    if len(decision.reasons) == 1 and isinstance(decision, Deny):
        seen[f"only {decision.reasons[0].code}"] += 1


@pytest.mark.parametrize("seed", range(CHUNKS))
def test_engine_and_oracle_agree_on_random_policies_and_operations(seed: int) -> None:
    seen: Counter[str] = Counter()
    for number, trial in enumerate(trials(seed, TRIALS, operations=OPERATIONS)):
        compare(trial, seen, f"trial {number} of seed {seed}")
    assert seen["decisions"] == TRIALS * OPERATIONS
    missing = {what: (seen[what], least) for what, least in INTERESTING.items() if seen[what] < least}
    assert not missing, f"random cases have become dull: {missing}"
