"""What the prover proves no search finds broken, and what it shows the engine and the oracle let through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chains.errors import InvalidValue
from policies.approvals import met
from policies.bundle import Approver
from policies.decision import Routed
from policies.engine import Engine
from policies.facts import AccountState, Facts
from policies.mentioned import Worth
from policies.prover import LEAVING, Answer, Ever, Guarded, Outflow, Prover, Question, plainly
from policies.rules import (
    AddressGroup,
    AllOf,
    AnyOf,
    Approvals,
    Group,
    Hours,
    Limit,
    Need,
    Operation,
    Policy,
    Route,
    Rule,
    When,
)
from policies.windows import Windows
from tests.unit.policies import oracle
from tests.unit.policies.randomly import ASSETS, GROUPS, NOON, NUMBERS, facts, policy, when

DAY = 86_400
OUT = ("external",)
HOT = Rule(id="hot", when=When(assets=("BTC",), destinations=OUT, amount_below="100"), route="hot")
COLD = Rule(
    id="cold",
    when=When(assets=("BTC",), destinations=OUT, amount_from="100"),
    route="cold",
    approvals=Need(group="holders", count=3, distinct="organisations"),
)
NEW = Rule(id="new", when=When(destinations=OUT, destination_younger_than=DAY), deny="locked")
HOT_ONLY = When(tiers=("hot",))


def limit(at_most: int, **changes: Any) -> Limit:
    fields: dict[str, Any] = {"window_seconds": DAY, "per": "all", "measure": "units"}
    return Limit(**(fields | changes), at_most=str(at_most))


WINDOW = Rule(id="window", when=HOT_ONLY, limit=limit(500))
FEW = Rule(id="few", when=HOT_ONLY, limit=limit(2, per="customer", measure="payments"))


def ask(question: Question, *rules: Rule, **changes: Any) -> Answer:
    prover = Prover(Policy(rules=rules), **changes)
    answer = prover.ask(question)
    check_example(prover.policy, question, answer)
    return answer


def check_example(policy: Policy, question: Question, answer: Answer) -> None:
    """The engine, from nothing, lets each step through, and so does the oracle; together they are what was asked."""
    engine, windows, ledger = Engine(policy, plainly), Windows(policy), oracle.Ledger()
    for step in answer.steps:
        windows.move_to(step.facts.now)
        decision = engine.decide(step.facts, windows)
        assert decision == step.decision
        assert isinstance(decision, Routed)
        assert decision.tier in question.tiers
        for key, amount in decision.counts:
            windows.add(key, amount)
        plain = oracle.decide(policy, step.facts, ledger)
        assert (plain.outcome, plain.tier) == ("route", decision.tier)
        ledger.add(step.facts.now, plain.counts)
    if answer.outcome == "refuted":
        assert shows(policy, question, [step.facts for step in answer.steps], answer)
    else:
        assert answer.steps == ()


def shows(policy: Policy, question: Question, paid: Sequence[Facts], answer: Answer | None = None) -> bool:
    """Whether these payments, all let through, are what the question asks for."""
    if isinstance(question, Ever):
        return any(may_be(policy, question.when, each) for each in paid)
    if isinstance(question, Guarded):
        assert answer is not None
        told = {each[1] if question.distinct == "organisations" else each[0] for each in answer.approvers}
        given = [(person(name, where), group) for name, where, group in answer.approvers]
        [step] = answer.steps
        assert isinstance(step.decision, Routed)
        return len(told) < question.count and met(step.decision.approvals, given)
    times = [each.now for each in paid]
    if max(times) - min(times) >= question.within_seconds:
        return False
    if question.of_one is not None and len({getattr(each, question.of_one) for each in paid}) > 1:
        return False
    return sum(summed(question, each) for each in paid) > question.at_most


def summed(question: Outflow, paid: Facts) -> int:
    if question.asset is not None:
        return (paid.units or 0) if paid.asset == question.asset else 0
    return 0 if paid.value is None else paid.value[1]


def may_be(policy: Policy, scope: When, paid: Facts) -> bool:
    answers = oracle.questions(policy, scope, paid, "hot")
    return oracle.conjunction(answers) != oracle.NO


def person(name: str, organisation: str, *roles: str) -> Approver:
    return Approver(id=name, key="00" * 32, organisation=organisation, roles=roles, not_after=2**40)


# Questions with known answers.


def test_a_young_destination_is_never_paid_where_a_rule_locks_it() -> None:
    assert ask(Ever(When(destination_younger_than=DAY)), HOT, COLD, NEW).outcome == "proven"
    found = ask(Ever(When(destination_younger_than=DAY + 1)), HOT, COLD, NEW)
    assert found.outcome == "refuted"
    assert found.steps[0].facts.destination_age_seconds == DAY
    assert ask(Ever(When(destination_younger_than=DAY)), HOT, COLD).outcome == "refuted"


def test_an_exception_that_opens_the_lock_is_found() -> None:
    friends = When(initiators=("desk",))
    locked = Rule(id="new", when=NEW.when, unless=friends, deny="locked")
    found = ask(Ever(When(destination_younger_than=DAY)), HOT, COLD, locked)
    assert found.outcome == "refuted"
    assert found.steps[0].facts.initiator == "desk"


def test_an_unknown_fact_is_no_way_around_a_rule() -> None:
    verified = Rule(id="kyc", when=When(kyc_below=1), deny="not verified")
    assert ask(Ever(When(kyc_below=1)), HOT, verified).outcome == "proven"
    found = ask(Ever(When(kyc_below=1)), HOT, Rule(id="other", when=When(kyc_below=1), delay_seconds=5))
    assert found.outcome == "refuted"


def test_what_checks_find_is_never_paid() -> None:
    checked = Rule(id="checked", when=When(destinations=OUT), checks=("screening",))
    assert ask(Ever(When(screening="hit")), HOT, checked).outcome == "proven"
    assert ask(Ever(When(screening="hit")), HOT).outcome == "refuted"


def test_hours_are_understood_over_midnight() -> None:
    night = Hours(days=("sat",), from_minute=22 * 60, to_minute=6 * 60)
    closed = Rule(id="closed", when=When(hours=night), deny="closed")
    assert ask(Ever(When(hours=night)), HOT, closed).outcome == "proven"
    morning = Hours(days=("sun",), from_minute=0, to_minute=6 * 60)
    assert ask(Ever(When(hours=morning)), HOT, closed).outcome == "proven"
    longer = Hours(days=("sun",), from_minute=0, to_minute=6 * 60 + 1)
    assert ask(Ever(When(hours=longer)), HOT, closed).outcome == "refuted"


def test_who_approves_cold_payments_is_proven_or_shown() -> None:
    assert ask(Guarded(("cold",), 3), HOT, COLD).outcome == "proven"
    four = ask(Guarded(("cold",), 4), HOT, COLD)
    assert four.outcome == "refuted"
    assert len({organisation for _, organisation, _ in four.approvers}) == 3
    assert ask(Guarded(("hot", "cold"), 1), HOT, COLD).approvers == ()
    either = AnyOf(
        needs=(Need(group="holders", count=3, distinct="organisations"), Need(group="boss", count=1))
    )
    weak = Rule(id="cold", when=COLD.when, route="cold", approvals=either)
    found = ask(Guarded(("cold",), 3), HOT, weak)
    assert found.outcome == "refuted"
    assert [group for _, _, group in found.approvers] == ["boss"]
    more = Rule(id="more", when=When(tiers=("cold",)), approvals=COLD.approvals)
    assert ask(Guarded(("cold",), 3), HOT, weak, more).outcome == "proven"


def test_with_a_bundles_people_it_depends_on_who_there_is() -> None:
    two = Need(group="holders", count=2)
    rule = Rule(id="cold", when=COLD.when, route="cold", approvals=two)
    policy = Policy(rules=(rule,), groups=(Group(id="holders", roles=("holder",)),))
    apart = (person("a", "one", "holder"), person("b", "two", "holder"), person("c", "one", "clerk"))
    assert Prover(policy, approvers=apart).ask(Guarded(("cold",), 2)).outcome == "proven"
    together = (*apart, person("d", "one", "holder"))
    found = Prover(policy, approvers=together).ask(Guarded(("cold",), 2))
    assert {name for name, _, _ in found.approvers} == {"a", "d"}
    check_example(policy, Guarded(("cold",), 2), found)


@pytest.mark.parametrize(
    ("at_most", "seconds", "outcome"),
    [(500, DAY, "proven"), (499, DAY, "refuted"), (500, DAY + 1, "refuted"), (1000, 2 * DAY, "proven"),
     (999, 2 * DAY, "refuted"), (500, 1, "proven"), (0, 60, "refuted")],
)  # fmt: skip
def test_a_window_bounds_what_leaves(at_most: int, seconds: int, outcome: str) -> None:
    question = Outflow(at_most, seconds, "BTC", ("hot",))
    assert ask(question, HOT, COLD, WINDOW).outcome == outcome


def test_windows_of_customers_bound_one_customer_and_not_all_of_them() -> None:
    rules = (HOT, COLD, FEW)
    one = ask(Outflow(198, DAY, "BTC", ("hot",), of_one="customer"), *rules)
    assert (one.outcome, one.rests_on, one.most) == ("proven", ("few",), 198)
    assert ask(Outflow(197, DAY, "BTC", ("hot",), of_one="customer"), *rules).outcome == "refuted"
    everybody = ask(Outflow(10_000, DAY, "BTC", ("hot",)), *rules)
    assert everybody.outcome == "refuted"
    assert everybody.most is None
    assert len({step.facts.customer for step in everybody.steps}) > 50


def test_what_needs_nobodys_approval_is_bounded_by_itself() -> None:
    alone = Outflow(500, DAY, "BTC", approved="nobody")
    assert ask(alone, HOT, COLD, WINDOW).outcome == "proven"
    assert ask(replace(alone, approved="anybody"), HOT, COLD, WINDOW).outcome == "refuted"


def test_several_limits_bound_together_what_none_bounds_alone() -> None:
    small, large = When(tiers=("hot",), amount_below="10"), When(tiers=("hot",), amount_from="10")
    one, other = Rule(id="s", when=small, limit=limit(50)), Rule(id="l", when=large, limit=limit(300))
    found = ask(Outflow(350, DAY, "BTC", ("hot",)), HOT, one, other)
    assert (found.outcome, set(found.rests_on)) == ("proven", {"s", "l"})
    assert ask(Outflow(346, DAY, "BTC", ("hot",)), HOT, one, other).outcome == "refuted"
    assert ask(Outflow(10**6, DAY, "BTC", ("hot",)), HOT, one).outcome == "refuted"


def test_a_window_of_each_tier_is_one_more_for_each() -> None:
    cold = Rule(id="cold", when=COLD.when, route="cold")
    each = Rule(id="each", limit=limit(200, per="tier"))
    both = Outflow(400, DAY, "BTC", ("hot", "cold"))
    assert ask(both, HOT, cold, each).outcome == "proven"
    assert ask(replace(both, at_most=396), HOT, cold, each).outcome == "refuted"
    assert ask(replace(both, at_most=200, tiers=("cold",)), HOT, cold, each).outcome == "proven"


def test_what_can_neither_be_proven_nor_shown_is_not_proven_and_says_what_is_known() -> None:
    seven = Rule(
        id="hot", when=When(assets=("BTC",), destinations=OUT, amount_from="7", amount_below="8"), route="hot"
    )
    found = ask(Outflow(9, DAY, "BTC"), seven, Rule(id="w", limit=limit(10)))
    assert (found.outcome, found.most, found.reached) == ("not-proven", 10, 7)


def test_a_few_payments_that_are_not_the_largest_come_to_more() -> None:
    sizes = [Rule(id=f"s{n}", when=_exactly(n), route="hot") for n in (5, 7)]
    found = ask(Outflow(9, DAY, "BTC"), *sizes, Rule(id="w", limit=limit(10)))
    assert (found.outcome, found.reached) == ("refuted", 10)


def _exactly(units: int) -> When:
    return When(assets=("BTC",), destinations=OUT, amount_from=str(units), amount_below=str(units + 1))


def test_prices_tie_amounts_to_values() -> None:
    assets = {"BTC": Worth("bitcoin", 10, 1_000, 2_000)}
    capped = Rule(id="v", limit=limit(100_000, measure="value"))
    found = ask(Outflow(500, DAY, "BTC"), HOT, capped, assets=assets)
    assert (found.outcome, found.rests_on) == ("proven", ("v",))
    in_value = ask(Outflow(100_000, DAY), HOT, capped, assets=assets)
    assert in_value.outcome == "proven"
    assert ask(Outflow(99_999, DAY), HOT, capped, assets=assets).outcome == "refuted"
    assert ask(Ever(When(chains=("ethereum",))), HOT, assets=assets).outcome == "proven"


def test_limits_of_all_assets_bound_the_value_of_all() -> None:
    assets = {
        "BTC": Worth("bitcoin", 10, 1_000, 2_000),
        "ETH": Worth("ethereum", 100, 7, 9),
        "X": Worth("ethereum", 1),
    }
    out = Rule(id="out", when=When(destinations=OUT, amount_below="80"), route="hot")
    rules = [out, *(Rule(id=name, when=When(assets=(name,)), limit=limit(333)) for name in ("BTC", "ETH"))]
    # 333 / 10 * 2,000 and 333 / 100 * 9, rounded up.
    found = ask(Outflow(66_630, DAY), *rules, assets=assets)
    assert (found.outcome, set(found.rests_on), found.most) == ("proven", {"BTC", "ETH"}, 66_630)
    assert ask(Outflow(60_000, DAY), *rules, assets=assets).outcome == "refuted"
    assert ask(Outflow(70_000, DAY), *rules[:2], assets=assets).outcome == "refuted"


def test_nothing_leaves_under_a_policy_without_routes() -> None:
    assert ask(Ever(When()), NEW).outcome == "proven"
    found = ask(Outflow(0, DAY, "BTC"), NEW)
    assert (found.outcome, found.most, found.rests_on) == ("proven", 0, ())


def test_a_question_without_sense_is_refused() -> None:
    with pytest.raises(InvalidValue):
        Outflow(-1, DAY)
    with pytest.raises(InvalidValue):
        Outflow(1, 0)


# Random policies.

POLICIES, SEARCHED = 30, 60
CHUNKS = 5
PEOPLE = tuple(person(f"p{n}", f"o{n % 3}", GROUPS[n % len(GROUPS)], GROUPS[n // 3 % 3]) for n in range(7))


@pytest.mark.parametrize("seed", range(CHUNKS))
def test_no_search_contradicts_what_was_proven_and_the_engine_confirms_what_was_shown(seed: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(POLICIES):
        random = Random(f"prover/{seed}/{number}")
        tried = random_policy(random)
        for question in random_questions(random):
            pool = PEOPLE if random.random() < 0.5 else None
            answer = Prover(tried, approvers=pool, timeout_ms=5_000).ask(question)
            where = f"policy {number} of seed {seed}: {question}\n{tried}\n{answer}"
            assert "engine does not" not in answer.says, where
            check_example(tried, question, answer)
            if answer.outcome == "proven":
                assert not searched(random, tried, question, pool), where
            if isinstance(question, Outflow) and answer.most is not None:
                beyond = replace(question, at_most=answer.most)
                assert not searched(random, tried, beyond, pool), where
            seen[f"{type(question).__name__} {answer.outcome}"] += 1
            seen["bounded"] += answer.most not in (None, 0)
    dull = {name for name in INTERESTING if seen[name] < 3}
    assert not dull, f"random questions have become dull: {dull} in {seen}"


INTERESTING = (
    "Ever proven", "Ever refuted", "Guarded proven", "Guarded refuted", "Outflow proven", "Outflow refuted", "bounded",
)  # fmt: skip


def random_policy(random: Random) -> Policy:
    base = policy(random)
    asked = [Rule(id="also", when=HOT_ONLY, limit=_limit(random))]
    asked += [Rule(id="all", limit=_limit(random))] if random.random() < 0.8 else []
    asked += [Rule(id="way", when=When(destinations=OUT), route=random.choice(("hot", "cold")))]
    return Policy(rules=(*base.rules, *asked), groups=base.groups, addresses=base.addresses)


def _limit(random: Random) -> Limit:
    return limit(
        random.choice((5, 20, 50)),
        window_seconds=random.choice((10, 60)),
        per=random.choice(("all", "all", "all", "customer", "tier", "asset", "initiator")),
        measure=random.choice(("units", "units", "payments", "value")),
    )


def random_questions(random: Random) -> list[Question]:
    tiers: tuple[Route, ...] = random.choice((LEAVING, LEAVING, ("hot",), ("cold",)))
    return [
        Ever(when(random, tiers=False, most=3), tiers),
        Guarded(tiers, random.randrange(1, 3), random.choice(("people", "organisations"))),
        *(_outflow(random, tiers) for _ in range(3)),
    ]


def _outflow(random: Random, tiers: tuple[Route, ...]) -> Outflow:
    return Outflow(
        random.choice((0, 10, 50, 200)),
        random.choice((1, 10, 25, 60)),
        random.choice((None, *ASSETS, *ASSETS)),
        tiers,
        random.choice((None, None, "customer", "initiator")),
        random.choice(("nobody", "anybody")),
    )


def searched(random: Random, tried: Policy, question: Question, pool: tuple[Approver, ...] | None) -> bool:
    """Whether random payments, judged by the oracle, contradict a proof."""
    for _ in range(SEARCHED):
        ledger, paid = oracle.Ledger(), list[Facts]()
        start = NOON + random.randrange(0, 7 * DAY)
        seconds = question.within_seconds if isinstance(question, Outflow) else 1
        times = sorted(start + random.randrange(0, seconds) for _ in range(random.choice((1, 4, 8))))
        for now in times:
            asked = withdrawal(random, now)
            if isinstance(question, Outflow) and question.of_one is not None and paid:
                asked = replace(asked, **{question.of_one: getattr(paid[0], question.of_one)})
            answer = oracle.decide(tried, asked, ledger)
            if answer.outcome != "route" or answer.tier not in question.tiers:
                continue
            if isinstance(question, Guarded):
                if too_few_can(answer.approvals, tried, question, pool or PEOPLE):
                    return True
                continue
            alone = isinstance(question, Outflow) and question.approved == "nobody"
            if alone and not met(AllOf(needs=tuple(answer.approvals)), []):
                continue
            ledger.add(now, answer.counts)
            paid.append(asked)
        if paid and shows(tried, question, paid):
            return True
    return False


def withdrawal(random: Random, now: int) -> Facts:
    """A random one against which nothing stands that no rule can change."""
    found = facts(random, now, hidden=0.0)
    return replace(
        found,
        operation=Operation.WITHDRAWAL,
        order="genuine",
        expires_at=now + 1,
        account=AccountState.ACTIVE,
        halts=(),
        reverts=0,
        units=random.choice(NUMBERS[1:]),
    )


def too_few_can(
    asked: Sequence[Approvals], tried: Policy, question: Guarded, pool: Sequence[Approver]
) -> bool:
    """Try all ways in which each of a few people approves for one of their groups, or not at all."""
    needed = AllOf(needs=tuple(asked))
    choices: list[list[tuple[Approver, str]]] = [[]]
    for each in pool:
        groups = [g.id for g in tried.groups if set(g.roles) & set(each.roles)]
        choices += [[*chosen, (each, group)] for chosen in choices for group in groups]
    for given in choices:
        told = {p.organisation if question.distinct == "organisations" else p.id for p, _ in given}
        if len(told) < question.count and met(needed, given):
            return True
    return False


def test_the_search_itself_finds_what_is_there() -> None:
    tried = Policy(rules=(HOT, WINDOW), addresses=(AddressGroup(id="x", addresses=("bitcoin:a1",)),))
    random = Random("search")
    assert searched(random, tried, Ever(When(destination_younger_than=DAY)), None)
    assert searched(random, tried, Outflow(15, 60, "BTC", ("hot",)), None)
    assert searched(random, tried, Guarded(("hot",), 1), None)
    assert not searched(random, tried, Outflow(500, 60, "BTC", ("hot",)), None)
