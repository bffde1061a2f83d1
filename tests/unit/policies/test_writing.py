"""Whatever policy a bundle can carry, the file that is written of it is read as the same policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies import words
from policies.bundle.checks import names_of
from policies.cases import facts_of, judge_all
from policies.checks import problems_of
from policies.explaining import explain
from policies.lint import lint
from policies.reading import read_policy
from policies.rules import (
    COLDER,
    DAYS,
    NOBODY,
    AddressGroup,
    AllOf,
    AnyOf,
    Approvals,
    Case,
    Filled,
    Group,
    Holding,
    Hours,
    Limit,
    Need,
    Operation,
    Policy,
    Rule,
    When,
)
from policies.writing import written
from tests.fakes.house import bundle

ROOT = Path(__file__).resolve().parents[3]
HOUSE = bundle()
GROUPS = (
    Group(id="g", roles=("operator", "key-holder")),
    Group(id="h", people=("anna",), roles=("operator",)),
)
ADDRESSES = (AddressGroup(id="friends", addresses=("bitcoin:bc1q", "bitcoin:no")),)

TEXT = (
    st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=40)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text != "" and text.isprintable())
)
UNITS = st.integers(0, 10**24).map(str)
SECONDS = st.integers(1, 10**8)


def some(*choices: str, most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(choices), max_size=most, unique=True).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


HOURS = st.builds(
    Hours,
    days=st.sets(st.sampled_from(DAYS), min_size=1).map(lambda days: tuple(d for d in DAYS if d in days)),
    from_minute=st.integers(0, 1439),
    to_minute=st.integers(0, 1440),
)


@st.composite
def scopes(draw: st.DrawFn, asset: str | None) -> When:
    bounds: dict[str, Any] = {}
    if asset is not None:
        bounds = {"amount_from": draw(maybe(UNITS)), "amount_below": draw(maybe(UNITS)), "assets": (asset,)}
    return When(
        operations=draw(some(*Operation).map(lambda all_: tuple(map(Operation, all_)))),
        chains=draw(some("bitcoin", "ethereum")),
        sources=draw(some("deposits", "btc-hot")),
        tiers=draw(some(*COLDER)),
        destinations=draw(some("internal", "external", "contract", "group:friends", "address:bitcoin:yes")),
        destination_younger_than=draw(maybe(SECONDS)),
        customers=draw(some("alice", "no", "007", "1e3", most=3)),
        kyc_below=draw(maybe(st.integers(1, 100))),
        initiators=draw(some("exchange", "anna")),
        value_from=draw(maybe(UNITS)),
        value_below=draw(maybe(UNITS)),
        hours=draw(maybe(HOURS)),
        screening=draw(maybe(st.sampled_from(["clear", "hit"]))),
        new_device=draw(maybe(st.booleans())),
        new_ip=draw(maybe(st.booleans())),
        password_younger_than=draw(maybe(SECONDS)),
        mfa_younger_than=draw(maybe(SECONDS)),
        mfa_fewer_than=draw(maybe(st.integers(1, 8))),
        mfa_without=draw(some("totp", "null")),
        **bounds,
    )


NEEDS: st.SearchStrategy[Approvals] = st.recursive(
    st.builds(
        Need,
        group=st.sampled_from(["g", "h"]),
        count=st.integers(1, 32),
        distinct=st.sampled_from(["people", "organisations"]),
    ),
    lambda inner: (
        st.builds(AllOf, needs=st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, needs=st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


@st.composite
def rules(draw: st.DrawFn, name: str) -> Rule:
    asset = draw(maybe(st.sampled_from(["BTC", "ETH", "USDC"])))
    measures = ["value", "payments"] if asset is None else ["units", "value", "payments"]
    fields: dict[str, Any]
    if draw(st.booleans()):
        fields = {"deny": draw(TEXT)}
    else:
        fields = {
            "route": draw(maybe(st.sampled_from(COLDER))),
            "approvals": draw(maybe(NEEDS)),
            "delay_seconds": draw(st.integers(0, 10**7)),
            "checks": draw(some("screening", "travel-rule", "ownership-proof")),
            "verdict": draw(st.sampled_from([None, "required"])),
            "limit": draw(
                maybe(
                    st.builds(
                        Limit,
                        window_seconds=st.integers(1, 366 * 86_400),
                        per=st.sampled_from(["customer", "tier", "all"]),
                        measure=st.sampled_from(measures),
                        at_most=UNITS,
                        beyond=st.sampled_from(["deny", "wait"]),
                    )
                )
            ),
        }
    return Rule(
        id=name,
        about=draw(st.just("") | TEXT),
        when=draw(scopes(asset)),
        unless=draw(maybe(scopes(asset))),
        **fields,
    )


FACTS = st.fixed_dictionaries(
    {},
    optional={
        "operation": st.sampled_from([str(each) for each in Operation]),
        "units": st.none() | UNITS,
        "destination": st.none() | st.sampled_from(["bc1q", "no"]),
        "value": st.none() | st.tuples(UNITS, UNITS).map(lambda both: sorted(both, key=int)),
        "destination_age_seconds": st.none() | st.integers(0, 10**8),
        "contract": st.none() | st.booleans(),
        "ownership": st.sampled_from(["customer", "external", "house", None]),
        "kyc_level": st.none() | st.integers(0, 100),
        "mfa_methods": st.none() | st.lists(st.sampled_from(["totp", "no"]), max_size=2),
        "halts": st.lists(st.sampled_from(["all", "asset:BTC"]), max_size=2),
        "now": st.integers(0, 7 * 1440 - 1).map(lambda minute: 1_767_571_200 + minute * 60),
        "order": st.sampled_from(["genuine", "forged by somebody"]),
        "reverts": st.integers(0, 100),
    },
)


@st.composite
def cases(draw: st.DrawFn, name: str, limited: list[str]) -> Case:
    facts = draw(FACTS) | {"asset": "BTC", "chain": "bitcoin"}
    expect: Any = draw(st.sampled_from(["deny", "wait", *COLDER]))
    routed = expect in COLDER
    return Case(
        id=name,
        given=json.dumps(facts, sort_keys=True, separators=(",", ":")),
        expect=expect,
        because=draw(some("limit", "r0")),
        approvals=draw(maybe(NEEDS | st.just(NOBODY))) if routed else None,
        delay_seconds=draw(maybe(st.integers(0, 10**6))) if routed else None,
        spent=tuple(Filled(rule=each, amount=draw(UNITS)) for each in limited[:2]),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    ruled = tuple(draw(rules(f"r{number}")) for number in range(draw(st.integers(1, 3))))
    limited = [rule.id for rule in ruled if rule.limit is not None]
    return Policy(
        rules=ruled,
        groups=GROUPS,
        addresses=ADDRESSES,
        holdings=tuple(
            draw(
                st.lists(
                    st.builds(
                        Holding,
                        tiers=st.sampled_from([("hot",), ("warm",), ("hot", "warm")]),
                        asset=st.sampled_from(["BTC", "USDC"]),
                        at_most=UNITS,
                        share=maybe(st.integers(1, 10_000)),
                        refill_below=maybe(st.integers(1, 100)),
                    ),
                    max_size=2,
                )
            )
        ),
        cases=tuple(draw(cases(f"c{number}", limited)) for number in range(draw(st.integers(0, 2)))),
    )


def parts(policy: Policy) -> Policy:
    """Only what is consistent, so that most of what is made can be used."""
    names = names_of(HOUSE)
    while wrong := {(problem.section, problem.id) for problem in problems_of(policy, names)}:
        policy = Policy(
            rules=tuple(each for each in policy.rules if ("rules", each.id) not in wrong),
            groups=policy.groups,
            addresses=policy.addresses,
            holdings=tuple(
                each
                for each in policy.holdings
                if ("holdings", f"{'+'.join(each.tiers)}/{each.asset}") not in wrong
            ),
            cases=tuple(each for each in policy.cases if ("cases", each.id) not in wrong),
        )
    return policy


@settings(max_examples=100, deadline=None)
@given(policies().map(parts))
def test_what_is_written_is_read_as_the_same(policy: Policy) -> None:
    text = written(policy, HOUSE)
    assert read_policy(text, HOUSE, file="written.yaml") == policy
    assert written(policy, HOUSE) == text


@settings(max_examples=100, deadline=None)
@given(policies().map(parts))
def test_every_policy_that_a_bundle_can_carry_is_examined_told_and_asked_its_cases(policy: Policy) -> None:
    ruled = bundle(policy)
    assert all(found.says and found.severity in ("error", "warning", "note") for found in lint(ruled))
    for told in words.policy(policy, ruled.told, ruled.unit):
        assert told.strip()
    for outcome in judge_all(ruled):
        explanation = explain(ruled, facts_of(outcome.case), lambda key, limit: 0)
        assert explanation.lines()


def test_the_shipped_policy_and_the_written_one_are_the_same() -> None:
    shipped = read_policy((ROOT / "policies" / "default.yaml").read_text(), HOUSE, file="default.yaml")
    text = written(shipped, HOUSE)
    assert read_policy(text, HOUSE, file="written.yaml") == shipped
    assert "- id: hot.BTC\n  about: Small payments are paid at once, by machines alone.\n" in text
    assert "    amount_below: 0.1 BTC\n  route: hot\n" in text


@pytest.mark.parametrize(
    "given_",
    [{"units": "1"}, {"now": 5}, {"now": 1_767_571_230}, {"expires_at": 7}, {"id": "x"}],
)
def test_a_case_that_no_file_can_say_is_refused(given_: dict[str, Any]) -> None:
    case = Case(id="odd", given=json.dumps(given_), expect="deny")
    with pytest.raises(InvalidValue, match=r"case odd: .* can't be written"):
        written(Policy(rules=(Rule(id="a", route="hot"),), cases=(case,)), HOUSE)
