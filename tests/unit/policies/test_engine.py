"""The policy: a missing fact denies, a denial wins, and every input has exactly one answer."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.types import Asset
from policies.decision import Deny, Reason, Route, describe
from policies.engine import decide
from policies.facts import GENUINE, AccountState, Facts, Ownership, Screening
from policies.facts import describe as describe_facts
from policies.rules import MAX_REVERTS, RuleSet

BTC = Asset("BTC", "bitcoin", 8)
RULES = RuleSet(BTC, 1, 10_000_000, 1_000_000_000, 500_000_000, 300_000_000, 86_400)
GOOD = Facts(
    asset="BTC",
    units=1_000_000,
    destination_kind="p2wpkh",
    ownership=Ownership.EXTERNAL,
    screening=Screening.CLEAR,
    customer="alice",
    account=AccountState.ACTIVE,
    initiator="exchange",
    order=GENUINE,
    halts=(),
    now=1_000,
    expires_at=2_000,
    customer_window_units=0,
    hot_window_units=0,
    customer_reverts=0,
)
NAMES = [field.name for field in fields(Facts)]


def codes(decision: Deny | Route) -> set[str]:
    return {reason.code for reason in decision.reasons}


def test_a_small_payment_goes_to_the_hot_tier() -> None:
    decision = decide(GOOD, RULES)
    assert isinstance(decision, Route)
    assert (decision.tier, decision.approvals, decision.delay_seconds) == ("hot", (), 0)
    assert describe(decision)["outcome"] == "route"


@pytest.mark.parametrize("name", NAMES)
def test_any_missing_fact_denies_and_is_named(name: str) -> None:
    decision = decide(replace(GOOD, **{name: None}), RULES)
    assert isinstance(decision, Deny)
    assert [r.detail for r in decision.reasons] == [f"{name} is not known"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"asset": "ETH"}, "asset-mismatch"),
        ({"order": "the amount was changed"}, "order-not-genuine"),
        ({"now": 2_000}, "order-expired"),
        ({"units": 0}, "amount-zero"),
        ({"account": AccountState.FROZEN}, "customer-frozen"),
        ({"halts": ("all",)}, "halted"),
        ({"screening": Screening.HIT}, "destination-blocked"),
        ({"ownership": Ownership.HOUSE}, "destination-is-house"),
        ({"customer_window_units": 299_000_001}, "customer-window"),
        ({"hot_window_units": 499_000_001}, "hot-window"),
        ({"customer_reverts": 3}, "payments-reverted"),
        ({"units": 10_000_000}, "tier-not-available"),
        ({"units": 1_000_000_000, "customer_window_units": 0}, "tier-not-available"),
    ],
)
def test_each_rule_denies_with_its_code(change: dict[str, Any], code: str) -> None:
    decision = decide(replace(GOOD, **change), RULES)
    assert isinstance(decision, Deny)
    assert code in codes(decision)


@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        (
            {"customer_window_units": 299_000_001},
            "customer-window",
            "3.00000001 BTC in 86400 s, at most 3.00000000 BTC are allowed",
        ),
        (
            {"hot_window_units": 499_000_001},
            "hot-window",
            "5.00000001 BTC from the hot tier in 86400 s, at most 5.00000000 BTC are allowed",
        ),
        (
            {"units": 10_000_000},
            "tier-not-available",
            (
                "0.10000000 BTC belong to the warm tier, which this version does not pay from yet"
                " (hot pays below 0.10000000 BTC)"
            ),
        ),
    ],
)
def test_people_read_amounts_of_a_denial_in_whole_units(
    change: dict[str, Any], code: str, detail: str
) -> None:
    assert Reason(code, detail) in decide(replace(GOOD, **change), RULES).reasons


@pytest.mark.parametrize(("units", "tier"), [(10_000_000, "warm"), (299_999_999, "warm")])
def test_a_larger_amount_is_denied_with_the_tier_it_belongs_to(units: int, tier: str) -> None:
    decision = decide(replace(GOOD, units=units), RULES)
    assert isinstance(decision, Deny)
    assert any(r.code == "tier-not-available" and f"the {tier} tier" in r.detail for r in decision.reasons)


def test_the_largest_amounts_belong_to_the_cold_tier() -> None:
    decision = decide(replace(GOOD, units=1_000_000_000), RULES)
    assert any("the cold tier" in r.detail for r in decision.reasons)


@pytest.mark.parametrize(("used", "allowed"), [(299_000_000, True), (299_000_001, False)])
def test_the_customers_window_is_exact_to_the_satoshi(used: int, *, allowed: bool) -> None:
    assert isinstance(decide(replace(GOOD, customer_window_units=used), RULES), Route) is allowed


def test_a_payment_to_a_customer_of_ours_is_settled_in_the_ledger_whatever_its_tier() -> None:
    facts = replace(GOOD, ownership=Ownership.CUSTOMER, units=200_000_000, hot_window_units=10**12)
    decision = decide(facts, RULES)
    assert isinstance(decision, Route)
    assert decision.tier == "ledger"


def test_two_failed_payments_stop_nothing_and_three_stop_what_goes_to_the_chain_only() -> None:
    assert isinstance(decide(replace(GOOD, customer_reverts=2), RULES), Route)
    stopped = decide(replace(GOOD, customer_reverts=3), RULES)
    assert isinstance(stopped, Deny)
    assert "3 payments" in stopped.reasons[0].detail
    ours = decide(replace(GOOD, customer_reverts=3, ownership=Ownership.CUSTOMER), RULES)
    assert isinstance(ours, Route)
    assert ours.tier == "ledger"


def test_facts_are_stored_with_amounts_as_strings() -> None:
    stored = describe_facts(GOOD)
    assert stored["units"] == "1000000"
    assert stored["now"] == 1_000
    assert stored["halts"] == []


def test_rules_that_make_no_sense_do_not_exist() -> None:
    with pytest.raises(InvalidValue):
        RuleSet(BTC, 1, 11, 10, 0, 0, 0)
    with pytest.raises(InvalidValue):
        RuleSet(BTC, 1, 0, 10, True, 0, 0)


amounts = st.one_of(st.none(), st.integers(-(10**9), 10**10), st.booleans(), st.text(max_size=3), st.floats())
anything = st.one_of(st.none(), st.text(max_size=5), st.integers(), st.just(()), st.just(("all",)))
some_facts = st.builds(
    Facts,
    asset=st.one_of(st.just("BTC"), anything),
    units=amounts,
    destination_kind=st.one_of(st.just("p2tr"), anything),
    ownership=st.one_of(st.sampled_from(Ownership), anything),
    screening=st.one_of(st.sampled_from(Screening), anything),
    customer=st.one_of(st.just("alice"), anything),
    account=st.one_of(st.sampled_from(AccountState), anything),
    initiator=st.one_of(st.just("exchange"), anything),
    order=st.one_of(st.just(GENUINE), anything),
    halts=st.one_of(st.just(()), anything),
    now=amounts,
    expires_at=amounts,
    customer_window_units=amounts,
    hot_window_units=amounts,
    customer_reverts=amounts,
)
good_facts = st.builds(
    replace,
    st.just(GOOD),
    units=st.integers(0, 2 * 10**9),
    ownership=st.sampled_from(Ownership),
    screening=st.sampled_from(Screening),
    account=st.sampled_from(AccountState),
    order=st.sampled_from([GENUINE, "changed"]),
    halts=st.sampled_from([(), ("all",)]),
    now=st.integers(0, 3_000),
    customer_window_units=st.integers(0, 6 * 10**8),
    hot_window_units=st.integers(0, 6 * 10**8),
    customer_reverts=st.integers(0, 5),
)


@given(st.one_of(some_facts, good_facts))
def test_every_input_has_one_answer_and_the_same_again(facts: Facts) -> None:
    first = decide(facts, RULES)
    assert isinstance(first, Deny | Route)
    assert decide(facts, RULES) == first


@given(good_facts)
def test_what_is_routed_breaks_no_rule(facts: Facts) -> None:
    decision = decide(facts, RULES)
    if isinstance(decision, Deny):
        return
    assert facts.units is not None
    assert facts.customer_window_units is not None
    assert facts.hot_window_units is not None
    assert facts.now is not None
    assert facts.expires_at is not None
    assert facts.order == GENUINE
    assert facts.account is AccountState.ACTIVE
    assert facts.screening is Screening.CLEAR
    assert facts.halts == ()
    assert facts.now < facts.expires_at
    assert facts.customer_window_units + facts.units <= RULES.customer_window_cap
    if decision.tier == "hot":
        assert facts.customer_reverts is not None
        assert facts.customer_reverts < MAX_REVERTS
        assert 0 < facts.units < RULES.hot_below
        assert facts.hot_window_units + facts.units <= RULES.hot_window_cap
    else:
        assert facts.ownership is Ownership.CUSTOMER


@given(good_facts, st.sampled_from(NAMES))
def test_taking_a_fact_away_never_allows_more(facts: Facts, name: str) -> None:
    assert isinstance(decide(replace(facts, **{name: None}), RULES), Deny)


@given(good_facts, st.integers(0, 10**9))
def test_more_use_of_a_window_never_allows_more(facts: Facts, more: int) -> None:
    assert facts.customer_window_units is not None
    if isinstance(decide(facts, RULES), Deny):
        worse = replace(facts, customer_window_units=facts.customer_window_units + more)
        assert isinstance(decide(worse, RULES), Deny)
