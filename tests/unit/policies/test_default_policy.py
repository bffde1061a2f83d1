"""The shipped policy carries the mission's numbers, each shown from both sides of its boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policies.bundle.checks import check_consistent
from policies.cases import Outcome, facts_in, judge_all
from policies.decision import Decision, Deny, LimitKey, Routed, Wait
from policies.engine import Engine, SpentTable
from policies.reading import read_policy
from policies.rules import NOBODY, Limit, Need, Policy
from tests.fakes.house import ONE, bundle

FILE = Path(__file__).resolve().parents[3] / "policies" / "default.yaml"
HOUSE = bundle()


@pytest.fixture(scope="module")
def policy() -> Policy:
    return read_policy(FILE.read_text(), HOUSE, file=FILE.name)


@pytest.fixture(scope="module")
def engine(policy: Policy) -> Engine:
    return Engine(policy, HOUSE.told)


def nothing_spent(key: LimitKey, limit: Limit) -> int:
    return 0


def decide(engine: Engine, units: int, asset: str = "BTC", **given: Any) -> Decision:
    chain = "bitcoin" if asset == "BTC" else "ethereum"
    return engine.decide(
        facts_in({"asset": asset, "chain": chain, "units": str(units), **given}), nothing_spent
    )


def tier_of(decision: Decision) -> str:
    assert isinstance(decision, Routed), decision
    return decision.tier


def test_it_is_consistent_with_a_bundle_of_two_chains_and_four_assets(policy: Policy) -> None:
    check_consistent(bundle(policy))


def test_all_its_cases_come_out_as_they_say(policy: Policy) -> None:
    outcomes = judge_all(bundle(policy))
    assert len(outcomes) > 20
    assert [(o.case.id, o.wrong) for o in outcomes if o.wrong] == []


@pytest.mark.parametrize(
    ("asset", "small", "huge"),
    [
        ("BTC", ONE["BTC"] // 10, 10 * ONE["BTC"]),
        ("ETH", 2 * ONE["ETH"], 200 * ONE["ETH"]),
        ("USDC", 10_000 * ONE["USDC"], 1_000_000 * ONE["USDC"]),
        ("USDT", 10_000 * ONE["USDT"], 1_000_000 * ONE["USDT"]),
    ],
)
def test_amounts_go_to_their_tier_at_the_very_base_unit(
    engine: Engine, asset: str, small: int, huge: int
) -> None:
    hot = decide(engine, small - 1, asset)
    assert tier_of(hot) == "hot"
    assert isinstance(hot, Routed)
    assert (hot.approvals, hot.delay_seconds, hot.verdict) == (NOBODY, 0, False)
    for units in (small, huge - 1):
        warm = decide(engine, units, asset)
        assert isinstance(warm, Routed)
        assert (warm.tier, warm.approvals) == ("warm", Need(group="operators", count=2))
        assert warm.verdict
    cold = decide(engine, huge, asset)
    assert isinstance(cold, Routed)
    assert (cold.tier, cold.approvals) == (
        "cold",
        Need(group="key-holders", count=3, distinct="organisations"),
    )
    assert cold.verdict


def test_large_withdrawals_wait_twelve_to_twenty_four_hours(engine: Engine) -> None:
    waits = []
    for units in (ONE["BTC"] - 1, ONE["BTC"], 10 * ONE["BTC"] - 1, 10 * ONE["BTC"]):
        decision = decide(engine, units)
        assert isinstance(decision, Routed)
        waits.append(decision.delay_seconds)
    assert waits == [0, 12 * 3600, 12 * 3600, 24 * 3600]


def test_new_destinations_are_locked_for_a_day(engine: Engine) -> None:
    locked = decide(engine, 1, destination_age_seconds=24 * 3600 - 1)
    assert isinstance(locked, Deny)
    assert [reason.rule for reason in locked.reasons] == ["new-destination"]
    assert tier_of(decide(engine, 1, destination_age_seconds=24 * 3600)) == "hot"


def test_hot_pays_five_bitcoin_in_a_day_and_more_waits(engine: Engine) -> None:
    facts = facts_in({"asset": "BTC", "chain": "bitcoin", "units": "1"})
    table = {LimitKey("hot-window.BTC", ""): 5 * ONE["BTC"] - 1}
    others = {
        LimitKey(rule, "customer"): 0
        for rule in ("hot-customer-window.BTC", "customer-window.BTC", "payments-window")
    }
    assert tier_of(engine.decide(facts, SpentTable(table | others))) == "hot"
    table = {LimitKey("hot-window.BTC", ""): 5 * ONE["BTC"]}
    beyond = engine.decide(facts, SpentTable(table | others))
    assert isinstance(beyond, Wait)
    assert [(reason.code, reason.rule) for reason in beyond.reasons] == [("limit", "hot-window.BTC")]


@pytest.mark.parametrize(
    "fact",
    ["destination_age_seconds", "kyc_level", "password_age_seconds", "mfa_age_seconds", "mfa_methods", "new_device",
     "lookalike", "screening", "travel_rule"],
)  # fmt: skip
def test_what_it_asks_for_and_nobody_knows_denies(engine: Engine, fact: str) -> None:
    unknown: dict[str, Any] = {fact: None}
    assert isinstance(decide(engine, ONE["BTC"] // 20, **unknown), Deny)


def test_hot_and_warm_hold_no_more_than_the_mission_says(policy: Policy) -> None:
    held = {(h.tiers, h.asset): (int(h.at_most), h.share, h.refill_below) for h in policy.holdings}
    assert held[(("hot",), "BTC")] == (100 * ONE["BTC"], 100, 30)
    assert held[(("hot", "warm"), "BTC")] == (1_100 * ONE["BTC"], 500, None)
    assert {asset for tiers, asset in held if tiers == ("hot",)} == set(ONE)


def test_a_case_that_is_wrong_is_told() -> None:
    text = FILE.read_text().replace(
        "given: {amount: 0.1 BTC}\n    expect: warm", "given: {amount: 0.1 BTC}\n    expect: hot"
    )
    assert text != FILE.read_text()
    changed = read_policy(text, HOUSE, file=FILE.name)
    wrong: list[Outcome] = [o for o in judge_all(bundle(changed)) if o.wrong]
    assert [o.case.id for o in wrong] == ["a-tenth-is-warm-with-two-approvals"]
    assert "expected hot, the policy says warm" in wrong[0].wrong[0]
