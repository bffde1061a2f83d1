"""Cases and explanations: what a plain operation is, what a case may leave open, and why an answer is what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies.bundle import Bundle
from policies.cases import Outcome, facts_in, facts_of, judge, settled
from policies.deciding import decide
from policies.decision import Deny, LimitKey, Routed
from policies.engine import SpentTable
from policies.explaining import Explanation, explain
from policies.facts import Facts, Ownership, Screening
from policies.reading import read_policy
from policies.rules import NOBODY, AllOf, AnyOf, Approvals, Case, Need, Operation
from tests.fakes.house import bundle

RULES = """
groups: {operators: {roles: [operator]}, risk: {roles: [key-holder]}}
addresses: {friends: [bitcoin:destination]}
rules:
  - {id: hot, when: {operation: withdrawal, destination: external, amount_below: 1 BTC}, route: hot}
  - {id: warm, when: {operation: withdrawal, destination: external, amount_from: 0.5 BTC}, route: warm}
  - {id: two, when: {operation: withdrawal, tier: warm}, approvals: 2 of operators}
  - {id: night, when: {operation: withdrawal, hours: '22:00-06:00 UTC'}, approvals: 1 of risk, delay: 1h}
  - {id: day, when: {operation: withdrawal, tier: hot}, limit: {at_most: 2 BTC, within: 24h, per: customer}}
  - {id: new, when: {operation: withdrawal, new_device: yes}, unless: {destination: group:friends}, deny: No.}
  - {id: sweeps, when: {operation: sweep}, route: hot}
"""
HOUSE = bundle()
RULED: Bundle = bundle(read_policy(RULES, HOUSE, file="policy.yaml"))


def ask(text: str) -> Outcome:
    [case] = read_policy(f"{RULES}cases:\n  - {{id: it, {text}}}\n", HOUSE, file="policy.yaml").cases
    return judge(case, RULED)


@pytest.mark.parametrize(
    "text",
    [
        "given: {amount: 0.1 BTC}, expect: hot, approvals: nobody, delay: none, because: [hot, day]",
        "given: {amount: 0.5 BTC}, expect: warm, approvals: 2 of operators, because: two",
        "given: {amount: 0.1 BTC, at: 'tue 23:00 UTC'}, expect: hot, approvals: 1 of risk, delay: 1h",
        ("given: {amount: 1 BTC, at: 'sun 05:59'}, expect: warm,"
        " approvals: {all: [1 of risk, 2 of operators]}, delay: 1h"),
        "given: {amount: 0.1 BTC}, spent: {day: 1.9 BTC}, expect: hot",
        "given: {amount: 0.1 BTC}, spent: {day: 1.90000001 BTC}, expect: deny, because: [limit, day]",
        "given: {amount: 0.1 BTC, screening: unknown}, expect: hot",
        "given: {amount: 0.1 BTC, screening: hit}, expect: deny, because: destination-blocked",
        "given: {amount: unknown, asset: BTC}, expect: deny, because: missing-fact",
        "given: {amount: 0.1 BTC, account: frozen}, expect: deny, because: customer-frozen",
        "given: {amount: 0.1 BTC, halts: all}, expect: deny, because: halted",
        "given: {amount: 0.1 BTC, new_device: yes}, expect: hot",
        "given: {amount: 0.1 BTC, destination: 'bitcoin:other', new_device: yes}, expect: deny, because: [denied, new]",
        "given: {amount: 0.1 BTC, destination: internal}, expect: deny, because: no-rule-allows",
        "given: {operation: sweep, asset: BTC}, expect: hot",
    ],
)  # fmt: skip
def test_a_case_that_is_right(text: str) -> None:
    assert ask(text).wrong == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "given: {amount: 0.1 BTC}, expect: warm",
            "expected warm, the policy says hot: allowed: from hot (rule hot)",
        ),
        (
            "given: {amount: 0.1 BTC}, expect: hot, because: warm",
            "because of warm; the reasons are allowed, day, hot",
        ),
        (
            "given: {amount: 0.5 BTC}, expect: warm, approvals: nobody",
            "approval of nobody, it is 2 of operators",
        ),
        ("given: {amount: 0.5 BTC}, expect: warm, delay: 1h", "a delay of 3600 s, it is 0 s"),
        ("given: {amount: 0.5 BTC}, expect: deny", "expected deny, the policy says warm"),
    ],
)
def test_a_case_that_is_wrong_says_what_the_policy_answers(text: str, told: str) -> None:
    assert told in "; ".join(ask(text).wrong)


def test_what_a_case_leaves_out_is_plain_and_what_it_says_is_unknown_is() -> None:
    plain = facts_in({})
    assert (plain.operation, plain.ownership, plain.screening) == (
        Operation.WITHDRAWAL,
        Ownership.EXTERNAL,
        Screening.CLEAR,
    )
    assert plain.expires_at == plain.now + 3600
    assert facts_in({"screening": None}).screening is None
    assert facts_in({"expires_at": None}).expires_at is None
    assert facts_in({"operation": "sweep"}).customer == "house"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"units": -1}'])
def test_a_case_without_facts_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        facts_of(Case(id="a", given=text, expect="deny"))


_NEEDS: st.SearchStrategy[Approvals] = st.recursive(
    st.builds(Need, group=st.sampled_from("abc"), count=st.integers(1, 2)),
    lambda inner: (
        st.builds(AllOf, needs=st.lists(inner, max_size=3).map(tuple))
        | st.builds(AnyOf, needs=st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@given(_NEEDS, _NEEDS)
def test_approvals_are_the_same_whatever_their_order_and_nesting(one: Approvals, other: Approvals) -> None:
    assert settled(AllOf(needs=(one, other))) == settled(AllOf(needs=(other, AllOf(needs=(one,)), one)))
    assert settled(AnyOf(needs=(one, other))) == settled(AnyOf(needs=(other, AnyOf(needs=(one,)))))
    assert settled(AllOf(needs=(one,))) == settled(one) == settled(AnyOf(needs=(one,)))


def test_all_and_any_of_the_same_are_not_the_same() -> None:
    one, other = Need(group="a", count=1), Need(group="b", count=1)
    assert settled(AllOf(needs=(one, other))) != settled(AnyOf(needs=(one, other)))
    assert settled(NOBODY) != settled(one)


# Explanations


def why(spent: dict[LimitKey, int] | None = None, **given: Any) -> Explanation:
    facts = facts_in({"asset": "BTC", "chain": "bitcoin", "units": "10000000", **given})
    return explain(RULED, facts, SpentTable({LimitKey("day", "customer"): 0} if spent is None else spent))


def fits(explanation: Explanation) -> dict[str, str]:
    return {each.rule.id: each.fit for each in explanation.rules}


def test_an_explanation_says_of_each_rule_whether_it_fits() -> None:
    told = why()
    assert isinstance(told.decision, Routed)
    assert fits(told) == {
        "hot": "fits", "warm": "no", "two": "no", "night": "no", "day": "fits", "new": "no", "sweeps": "no",
    }  # fmt: skip
    assert {each.rule.id: each.facts for each in told.rules if each.facts} == {
        "warm": ("units",), "two": ("tier",), "night": ("now",), "new": ("new_device",), "sweeps": ("operation",),
    }  # fmt: skip
    assert told.lines()[0] == "Paid from hot, approved by nobody:"
    assert told.lines()[-1] == "And 1 rule about other operations, chains and assets."


def test_it_says_which_fact_nobody_knows_and_where_an_exception_holds() -> None:
    unknown = why(new_device=None, destination="other")
    assert isinstance(unknown.decision, Deny)
    assert fits(unknown)["new"] == "unknown"
    assert any(line.endswith("Nobody knows the new device.") for line in unknown.lines())
    excepted = why(new_device=True)
    assert fits(excepted)["new"] == "excepted"
    assert any(line.endswith("The exception holds.") for line in excepted.lines())


def test_it_says_what_is_left_in_each_window_also_where_that_is_not_known() -> None:
    [window] = why({LimitKey("day", "customer"): 150_000_000}).windows
    assert window.told == "1.5 BTC of 2 BTC of customer are used, 0.5 BTC are left; 0.1 BTC fits"
    assert window.describe()["left"] == "50000000"
    [window] = why({LimitKey("day", "customer"): 250_000_000}).windows
    assert window.told == "2.5 BTC of 2 BTC of customer are used, 0 BTC are left; 0.1 BTC is too much"
    [window] = why({}).windows
    assert window.told == "what the window of customer holds is not known; at most 2 BTC"
    assert window.describe()["left"] is None


def test_a_denied_operation_is_explained_by_the_tier_that_would_have_paid_it() -> None:
    told = why(account="frozen", units="50000000")
    assert told.lines()[0] == "Denied:"
    assert fits(told)["two"] == "fits"
    assert fits(told)["day"] == "no"


@given(
    st.builds(
        dict,
        units=st.sampled_from(["1", "49999999", "50000000", "100000000"]),
        new_device=st.sampled_from([True, False, None]),
        ownership=st.sampled_from(["external", "customer", "house", None]),
        screening=st.sampled_from(["clear", "hit", None]),
        operation=st.sampled_from(["withdrawal", "sweep"]),
    ),
    st.sampled_from([0, 195_000_000, None]),
)
def test_an_explanation_is_of_the_very_decision_that_the_service_makes(
    given_: dict[str, Any], held: int | None
) -> None:
    facts: Facts = facts_in({"asset": "BTC", "chain": "bitcoin", **given_})
    spent = SpentTable({} if held is None else {LimitKey("day", "customer"): held})
    told = explain(RULED, facts, spent)
    assert told.decision == decide(RULED, facts, spent)
    # Whatever it names as a reason is among the rules that fit, or that nobody could judge.
    named = {reason.rule for reason in told.decision.reasons} - {""}
    assert named <= {each.rule.id for each in told.rules if each.fit in ("fits", "unknown")}
    assert json.dumps(told.describe())
