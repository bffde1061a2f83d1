"""History under a draft: the same policy again changes nothing, another one changes what it says differently."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.backtest import Backtest, Change, Ended, Event, describe, outcome_of, read_history
from policies.decision import LimitKey, Routed
from policies.decision import describe as describe_decision
from policies.engine import Engine
from policies.facts import Facts
from policies.prover import plainly
from policies.records import Record
from policies.rules import Limit, Need, Policy, Rule, When
from policies.windows import Windows
from tests.unit.policies.randomly import NOON, Trial, facts, policy

HOT = Rule(id="hot", when=When(amount_below="10"), route="hot")
COLD = Rule(id="cold", when=When(amount_from="10"), route="cold")
PER_DAY = Rule(id="few", limit=Limit(window_seconds=86_400, per="customer", measure="payments", at_most="2"))


def engine(tried: Policy) -> Engine:
    return Engine(tried, plainly)


def live(tried: Policy, operations: list[Facts], random: Random, *, unpaid: float = 0.3) -> list[Event]:
    """A history as the service would write it: each decided once, and paid or released some time later."""
    windows, history, ends = Windows(tried), list[Event](), list[tuple[int, str, Any]]()
    decide = engine(tried).decide
    for asked in operations:
        for at, payment, how in sorted(end for end in ends if end[0] <= asked.now):
            windows.move_to(at)
            getattr(windows, how)(payment)
            history.append(Ended(payment, at, how))
        ends = [end for end in ends if end[0] > asked.now]
        windows.move_to(asked.now)
        spent = dict[LimitKey, int]()

        def remembered(key: LimitKey, limit: Limit, spent: dict[LimitKey, int] = spent) -> int:
            spent[key] = windows(key, limit)
            return spent[key]

        decision = decide(asked, remembered)
        history.append(Record(1, asked, spent, describe_decision(decision)))
        if isinstance(decision, Routed):
            windows.let_through(asked.id, decision.counts)
            if random.random() >= unpaid:
                how = random.choice(("settled", "settled", "settled", "released"))
                ends.append((asked.now + random.randrange(0, 120), asked.id, how))
    return history


def operations(random: Random, count: int) -> list[Facts]:
    times = sorted(NOON + random.randrange(0, 3_000) for _ in range(count))
    found = [facts(random, now, hidden=0.0) for now in times]
    return [
        msgspec.convert({**_fields(each), "id": f"w{number}"}, Facts) for number, each in enumerate(found)
    ]


def _fields(asked: Facts) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in Facts.__dataclass_fields__}


def backtest(tried: Policy, history: list[Event]) -> tuple[Backtest, list[Change]]:
    run = Backtest(tried, engine(tried).decide)
    return run, list(run.run(history))


@pytest.mark.parametrize("seed", range(60))
def test_the_same_policy_again_changes_nothing(seed: int) -> None:
    random = Random(f"backtest/{seed}")
    trial = Trial(policy(random), ())
    history = live(trial.policy, operations(random, 40), random)
    run, changes = backtest(trial.policy, history)
    assert changes == []
    assert run.tally.decisions == 40
    assert run.tally.was == run.tally.becomes


def simple(*amounts: int, tried: Policy) -> list[Event]:
    random = Random("simple")
    plain = operations(random, 1)[0]
    known = {"ownership": "external", "order": "genuine", "account": "active", "halts": (), "reverts": 0}
    asked = [
        msgspec.convert(
            {**_fields(plain), **known, "operation": "withdrawal", "customer": "alice", "chain": "bitcoin",
             "asset": "BTC", "id": f"w{n}", "now": NOON + n, "expires_at": NOON + 99, "units": units},
            Facts,
        )
        for n, units in enumerate(amounts)
    ]  # fmt: skip
    return live(tried, asked, random, unpaid=1)


def test_what_a_draft_changes_is_told_with_the_reasons_then_and_now() -> None:
    before = Policy(rules=(HOT, COLD))
    history = simple(1, 2, 3, 20, tried=before)
    run, changes = backtest(Policy(rules=(HOT, COLD, PER_DAY)), history)
    assert [(change.payment, change.was, change.becomes) for change in changes] == [
        ("w2", "hot", "deny"),
        ("w3", "cold", "deny"),
    ]
    assert "rule few" in changes[0].reasons_now[0]
    assert "rule hot" in changes[0].reasons_then[0]
    assert run.tally.to_object() == {
        "decisions": 4,
        "changed": 2,
        "was": {"cold": 1, "hot": 3},
        "becomes": {"deny": 2, "hot": 2},
        "moves": {"cold -> deny": 1, "hot -> deny": 1},
    }


def test_other_approvals_delays_and_verdicts_are_changes_too() -> None:
    history = simple(20, tried=Policy(rules=(HOT, COLD)))
    for more, told in (
        (Rule(id="x", approvals=Need(group="g", count=2)), "cold, approved by 2 of g"),
        (Rule(id="x", delay_seconds=60), "cold, after 60 s"),
        (Rule(id="x", verdict="required"), "cold, with a verdict"),
    ):
        _, [change] = backtest(Policy(rules=(HOT, COLD, more)), history)
        assert (change.was, change.becomes) == ("cold", told)
    _, changes = backtest(Policy(rules=(HOT, COLD, Rule(id="x", approvals=None))), history)
    assert changes == []


def test_what_a_draft_lets_through_that_was_refused_fills_its_windows() -> None:
    history = simple(1, 2, 3, tried=Policy(rules=(COLD,)))
    _, changes = backtest(Policy(rules=(HOT, COLD, PER_DAY)), history)
    assert [(change.payment, change.becomes) for change in changes] == [("w0", "hot"), ("w1", "hot")]


def test_a_payment_counts_until_it_was_paid_and_not_after_it_was_released() -> None:
    tried = Policy(rules=(HOT, PER_DAY))
    first, second, third = simple(1, 2, 3, tried=Policy(rules=(HOT,)))
    _, [change] = backtest(tried, [first, second, third])
    assert (change.payment, change.becomes) == ("w2", "deny")
    _, changes = backtest(tried, [first, second, Ended("w0", NOON + 1, "released"), third])
    assert changes == []
    _, changes = backtest(tried, [first, second, Ended("w0", NOON + 1, "settled"), third])
    assert [change.payment for change in changes] == ["w2"]


def test_a_history_without_ends_can_be_taken_as_paid_at_once() -> None:
    short = Rule(id="few", limit=Limit(window_seconds=1, per="customer", measure="payments", at_most="1"))
    history = simple(1, 2, 3, tried=Policy(rules=(HOT,)))
    _, changes = backtest(Policy(rules=(HOT, short)), history)
    assert len(changes) == 2
    run = Backtest(Policy(rules=(HOT, short)), engine(Policy(rules=(HOT, short))).decide, paid="at-once")
    assert list(run.run(history)) == []


def test_a_history_survives_its_file_and_the_answer_is_the_same_byte_for_byte() -> None:
    random = Random("file")
    old, draft = policy(random), Policy(rules=(HOT, COLD, PER_DAY))
    history = live(old, operations(random, 200), random)
    lines = [msgspec.json.encode(describe(event)) for event in history]
    again = list(read_history([*lines, b"\n"]))
    assert [msgspec.json.encode(describe(event)) for event in again] == lines
    told = [msgspec.json.encode([c.to_object() for c in backtest(draft, h)[1]]) for h in (history, again)]
    assert told[0] == told[1]
    assert len(told[0]) > 1_000


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"settled": 1, "at": 2}', '{"released": "x"}', '{"facts": {}}', "{}"]
)
def test_a_line_that_is_no_event_is_named(line: str) -> None:
    with pytest.raises(InvalidValue, match="line 2"):
        list(read_history(["", line]))


def test_outcomes_have_names() -> None:
    history = simple(1, 20, tried=Policy(rules=(HOT,)))
    decide = engine(Policy(rules=(HOT,))).decide
    windows = Windows(Policy())
    records = [event for event in history if isinstance(event, Record)]
    assert [outcome_of(decide(each.facts, windows)) for each in records] == ["hot", "deny"]
    assert [each.outcome for each in records] == ["hot", "deny"]
