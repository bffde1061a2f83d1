"""The policy: a missing fact denies where a rule asks for it, the strictest wins, every input has one answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chains.errors import InvalidValue
from policies.decision import Decision, Deny, LimitKey, Routed, Wait, describe
from policies.engine import MAX_REVERTS, Engine, SpentTable
from policies.facts import (
    GENUINE,
    AccountState,
    Facts,
    Operation,
    Ownership,
    Screening,
    Whitelist,
    read,
)
from policies.facts import describe as describe_facts
from policies.rules import AllOf, Hours, Limit, Need, Policy, Rule, When

DAY = 86_400
GOOD = Facts(
    operation=Operation.WITHDRAWAL,
    now=1_000,
    chain="bitcoin",
    asset="BTC",
    units=1_000_000,
    destination="bc1qxyz",
    ownership=Ownership.EXTERNAL,
    screening=Screening.CLEAR,
    customer="alice",
    account=AccountState.ACTIVE,
    initiator="exchange",
    order=GENUINE,
    halts=(),
    expires_at=2_000,
    reverts=0,
)
HOT = Rule(id="hot", when=When(assets=("BTC",), amount_below="10000000"), route="hot")
WARM = Rule(id="warm", when=When(assets=("BTC",), amount_from="10000000"), route="warm")


def decide(facts: Facts, *rules: Rule, spent: dict[tuple[str, str], int] | None = None) -> Decision:
    table = SpentTable({LimitKey(*key): amount for key, amount in (spent or {}).items()})
    return Engine(Policy(rules=rules), lambda asset, units: f"{units} {asset}").decide(facts, table)


def codes(decision: Decision) -> set[str]:
    return {reason.code for reason in decision.reasons}


def limited(at_most: int, **changes: Any) -> Rule:
    limit = Limit(window_seconds=DAY, per="customer", measure="units", at_most=str(at_most))
    return Rule(id="daily", when=When(assets=("BTC",)), limit=limit, **changes)


def test_a_small_payment_goes_to_the_hot_tier() -> None:
    decision = decide(GOOD, HOT, WARM)
    assert isinstance(decision, Routed)
    assert (decision.tier, decision.approvals, decision.delay_seconds) == ("hot", AllOf(needs=()), 0)
    assert describe(decision)["outcome"] == "route"


def test_without_a_rule_that_routes_it_is_denied() -> None:
    assert codes(decide(GOOD)) == {"no-rule-allows"}
    assert codes(decide(replace(GOOD, asset="ETH"), HOT, WARM)) == {"no-rule-allows"}


@pytest.mark.parametrize(
    "name",
    ["chain", "asset", "units", "destination", "customer", "initiator", "ownership", "order", "expires_at",
     "account", "reverts", "halts"],
)  # fmt: skip
def test_what_every_withdrawal_needs_denies_where_it_is_missing(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    assert "missing-fact" in codes(decide(replace(GOOD, **unknown), HOT, WARM))


def test_a_fact_denies_only_where_a_rule_asks_for_it() -> None:
    asks = Rule(id="kyc", when=When(kyc_below=2, assets=("BTC",)), deny="your identity is not verified")
    assert codes(decide(GOOD, HOT, asks)) == {"missing-fact"}
    assert codes(decide(replace(GOOD, kyc_level=1), HOT, asks)) == {"denied"}
    assert isinstance(decide(replace(GOOD, kyc_level=2), HOT, asks), Routed)
    elsewhere = Rule(id="kyc", when=When(kyc_below=2, assets=("ETH",)), deny="not verified")
    assert isinstance(decide(GOOD, HOT, elsewhere), Routed)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"order": "changed"}, "order-not-genuine"),
        ({"now": 2_000}, "order-expired"),
        ({"units": 0}, "amount-zero"),
        ({"account": AccountState.FROZEN}, "customer-frozen"),
        ({"halts": ("all",)}, "halted"),
        ({"ownership": Ownership.HOUSE}, "destination-is-house"),
        ({"reverts": MAX_REVERTS}, "payments-reverted"),
    ],
)
def test_what_no_rule_can_allow(changes: dict[str, Any], code: str) -> None:
    assert code in codes(decide(replace(GOOD, **changes), HOT, WARM))


def test_the_coldest_tier_wins_and_demands_add_up() -> None:
    need, other = Need(group="operators", count=2), Need(group="risk", count=1)
    decision = decide(
        GOOD,
        HOT,
        Rule(id="careful", route="cold", approvals=need, delay_seconds=60),
        Rule(id="more", approvals=other, delay_seconds=30),
        Rule(id="again", approvals=need),
        Rule(id="hot-only", when=When(tiers=("hot",)), deny="never reached"),
    )
    assert isinstance(decision, Routed)
    assert (decision.tier, decision.delay_seconds) == ("cold", 60)
    assert decision.approvals == AllOf(needs=(need, other))


def test_an_exception_is_no_permission() -> None:
    night = Rule(id="night", unless=When(hours=Hours(from_minute=8 * 60, to_minute=18 * 60)), deny="closed")
    assert codes(decide(replace(GOOD, now=1_000, expires_at=10**9), HOT, night)) == {"denied"}
    assert isinstance(decide(replace(GOOD, now=9 * 3600, expires_at=10**9), HOT, night), Routed)


def test_hours_over_midnight_belong_to_the_day_they_began_on() -> None:
    rule = Rule(
        id="night",
        when=When(hours=Hours(days=("thu",), from_minute=22 * 60, to_minute=6 * 60)),
        deny="closed",
    )
    for hour, closed in ((5, False), (22, True), (29, True), (30, False), (46, False)):
        decision = decide(
            replace(GOOD, now=hour * 3600, expires_at=10**9), HOT, rule
        )  # from Thursday 1970-01-01
        assert isinstance(decision, Deny) is closed, hour


def test_a_window_denies_or_waits() -> None:
    assert isinstance(decide(GOOD, HOT, limited(1_500_000), spent={("daily", "alice"): 500_000}), Routed)
    assert codes(decide(GOOD, HOT, limited(1_500_000), spent={("daily", "alice"): 500_001})) == {"limit"}
    assert codes(decide(GOOD, HOT, limited(1_500_000))) == {"missing-fact"}
    rule = limited(1_500_000)
    assert rule.limit is not None
    waits = Rule(
        id="daily", limit=Limit(window_seconds=1, per="all", measure="payments", at_most="1", beyond="wait")
    )
    assert isinstance(decide(GOOD, HOT, waits, spent={("daily", ""): 1}), Wait)


def test_what_is_let_through_says_what_it_counts() -> None:
    decision = decide(GOOD, HOT, limited(10**9), spent={("daily", "alice"): 0})
    assert isinstance(decision, Routed)
    assert decision.counts == ((LimitKey("daily", "alice"), 1_000_000),)


@pytest.mark.parametrize(
    ("scope", "whitelist", "fits"),
    [
        ("whitelisted", Whitelist.USABLE, True),
        ("whitelisted", Whitelist.COOLING, False),
        ("one-time", Whitelist.COOLING, True),
        ("one-time", Whitelist.USABLE, False),
        ("external", None, True),
        ("internal", None, False),
        ("address:bitcoin:bc1qxyz", None, True),
        ("address:ethereum:bc1qxyz", None, False),
    ],
)
def test_destinations(scope: str, whitelist: Whitelist | None, fits: bool) -> None:
    rule = Rule(id="to", when=When(destinations=(scope,)), deny="not there")
    assert isinstance(decide(replace(GOOD, whitelist=whitelist), HOT, rule), Deny) is fits


def test_internal_payments_never_leave_and_others_never_stay() -> None:
    inside = replace(GOOD, ownership=Ownership.CUSTOMER)
    ledger = Rule(id="ledger", route="ledger")
    stays = decide(inside, HOT, ledger)
    assert isinstance(stays, Routed)
    assert stays.tier == "ledger"
    leaves = decide(GOOD, HOT, ledger)
    assert isinstance(leaves, Routed)
    assert leaves.tier == "hot"
    assert codes(decide(inside, HOT)) == {"no-rule-allows"}


def test_an_erring_rule_denies() -> None:
    def spent(key: LimitKey, limit: Limit) -> int:
        raise ZeroDivisionError("window")

    engine = Engine(Policy(rules=(HOT, limited(10**9))), lambda asset, units: "")
    assert codes(engine.decide(GOOD, spent)) == {"rule-failed"}


def test_a_value_between_bounds_is_not_known() -> None:
    rule = Rule(id="large", when=When(value_from="1000"), deny="too large")
    assert isinstance(decide(replace(GOOD, value=(1, 999)), HOT, rule), Routed)
    assert codes(decide(replace(GOOD, value=(1, 1000)), HOT, rule)) == {"missing-fact"}
    assert codes(decide(replace(GOOD, value=(1000, 2000)), HOT, rule)) == {"denied"}


def test_facts_survive_their_record() -> None:
    full = replace(
        GOOD,
        value=(5, 7),
        whitelist=Whitelist.USABLE,
        mfa_methods=frozenset({"totp", "passkey"}),
        new_ip=False,
    )
    assert read(describe_facts(full)) == full
    with pytest.raises(InvalidValue):
        read({"operation": "theft", "now": 1})


@pytest.mark.parametrize("changes", [{"units": -1}, {"now": True}, {"value": (2, 1)}])
def test_impossible_facts_cannot_be_told(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        replace(GOOD, **changes)


def test_a_signer_insists_on_what_it_knows() -> None:
    known = replace(GOOD, whitelist=None, screening=None, account=None, halts=None, order=None, value=(1, 1))
    need = Need(group="operators", count=2)
    engine = Engine(
        Policy(
            rules=(
                HOT,
                WARM,
                Rule(
                    id="large",
                    when=When(assets=("BTC",), amount_from="500000"),
                    approvals=need,
                    delay_seconds=9,
                ),
                Rule(id="unknown", when=When(destinations=("one-time",)), deny="cannot be judged here"),
                limited(1_000_000),
            )
        ),
        lambda asset, units: "",
    )
    demands = engine.demands(known, "hot")
    assert (demands.refusals, demands.approvals, demands.delay_seconds) == ((), need, 9)
    assert [(key, amount) for key, _, amount in demands.limits] == [(LimitKey("daily", "alice"), 1_000_000)]
    assert {r.code for r in engine.demands(replace(known, units=10**7), "hot").refusals} >= {"policy-tier"}
    assert {r.code for r in engine.demands(replace(known, asset="ETH"), "hot").refusals} == {"policy-no-rule"}
