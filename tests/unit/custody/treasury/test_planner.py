"""The treasury's plan: need flows up, an excess flows down, and a second look finds nothing left to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.treasury.planner import (
    LEAD_SECONDS,
    AssetState,
    Fees,
    PayerState,
    Proposal,
    TierState,
    Why,
    bound,
    forecast,
    plan,
)
from policies.bundle import Tier
from policies.rules import Holding

BTC = 10**8
LOW, HIGH = Fees(1_000, 10_000), Fees(50_000, 10_000)
TIERS: tuple[Tier, ...] = ("hot", "warm", "cold")
DEFAULT = (
    Holding(tiers=("hot",), asset="BTC", at_most=str(100 * BTC), share=100, refill_below=30),
    Holding(tiers=("hot", "warm"), asset="BTC", at_most=str(1_100 * BTC), share=500),
)
"""As the shipped policy: min(100 BTC, 1 %), hot and warm min(1,100 BTC, 5 %)."""


def told(asset: str, units: int) -> str:
    return f"{units} {asset}"


def state(**changes: Any) -> AssetState:
    """Tiers as `hot=units` or as states, all else plain."""
    tiers = {}
    for tier in TIERS:
        if tier in changes:
            value = changes.pop(tier)
            tiers[tier] = (
                value
                if isinstance(value, TierState)
                else TierState(tier=tier, wallet=f"btc-{tier}", present_units=value)
            )
    total = changes.pop("total", sum(each.present_units for each in tiers.values()))
    fields: dict[str, Any] = {"asset": "BTC", "holdings": DEFAULT, "fees": LOW}
    return AssetState(tiers=tiers, total_units=total, **(fields | changes))


def moves(found: tuple[Proposal, ...]) -> list[tuple[str, str, int]]:
    return [
        (each.source.removeprefix("btc-"), each.target.removeprefix("btc-"), each.units) for each in found
    ]


def carried_out(before: AssetState, found: tuple[Proposal, ...]) -> AssetState:
    """All of it has arrived."""
    tiers = dict(before.tiers)
    for move in found:
        for tier, each in tiers.items():
            gained = move.units * ((each.wallet == move.target) - (each.wallet == move.source))
            tiers[tier] = replace(tiers[tier], present_units=tiers[tier].present_units + gained)
    return replace(before, tiers=tiers)


def on_the_way(before: AssetState, found: tuple[Proposal, ...]) -> AssetState:
    """All of it is an open refill."""
    tiers = dict(before.tiers)
    for move in found:
        for tier, each in tiers.items():
            if each.wallet == move.source:
                tiers[tier] = replace(tiers[tier], present_units=tiers[tier].present_units - move.units)
            elif each.wallet == move.target:
                tiers[tier] = replace(tiers[tier], incoming_units=tiers[tier].incoming_units + move.units)
    return replace(before, tiers=tiers)


def test_hot_below_thirty_percent_of_its_maximum_is_filled_from_warm() -> None:
    # 1 % of 10,000 BTC is 100 BTC; 29 are below 30 %.
    found = plan([state(hot=29 * BTC, warm=400 * BTC, cold=9_571 * BTC)], [], told)
    assert moves(found) == [("warm", "hot", 61 * BTC)]
    assert found[0].why is Why.LOW
    assert "30 %" in found[0].reason
    assert plan([state(hot=30 * BTC, warm=400 * BTC, cold=9_570 * BTC)], [], told) == ()


def test_the_tighter_of_amount_and_share_counts() -> None:
    small = state(hot=0, warm=0, cold=1_000 * BTC)
    large = state(hot=0, warm=0, cold=100_000 * BTC)
    assert [getattr(bound(each, "hot"), "most_units", None) for each in (small, large)] == [
        10 * BTC,
        100 * BTC,
    ]
    both = [bound(each, "hot", "warm") for each in (small, large)]
    assert [each and each.most_units for each in both] == [50 * BTC, 1_100 * BTC]


def test_what_warm_lacks_comes_from_cold_first_and_then_reaches_hot() -> None:
    before = state(hot=10 * BTC, warm=0, cold=9_990 * BTC)
    first = plan([before], [], told)
    assert moves(first) == [("cold", "warm", 80 * BTC)]
    second = plan([carried_out(before, first)], [], told)
    assert moves(second) == [("warm", "hot", 80 * BTC)]
    assert plan([carried_out(carried_out(before, first), second)], [], told) == ()


def test_a_payment_that_waits_in_hot_is_a_need_whatever_the_mark_and_the_fees() -> None:
    hot = TierState(tier="hot", wallet="btc-hot", present_units=50 * BTC, queued_units=60 * BTC)
    [found] = plan([state(hot=hot, warm=400 * BTC, cold=9_550 * BTC, fees=HIGH)], [], told)
    # 10 are missing, and what is left then is below the mark: as much as the maximum lets it hold.
    assert (found.source, found.target, found.units, found.why) == ("btc-warm", "btc-hot", 50 * BTC, Why.NEED)


def test_a_payment_that_waits_in_warm_is_covered_from_cold() -> None:
    warm = TierState(tier="warm", wallet="btc-warm", present_units=3 * BTC, queued_units=9 * BTC)
    found = plan([state(hot=50 * BTC, warm=warm, cold=9_947 * BTC)], [], told)
    assert moves(found) == [("cold", "warm", 6 * BTC)]


def test_what_payments_in_the_source_wait_for_is_not_taken_from_it() -> None:
    warm = TierState(tier="warm", wallet="btc-warm", present_units=100 * BTC, queued_units=70 * BTC)
    found = plan([state(hot=10 * BTC, warm=warm, cold=9_890 * BTC)], [], told)
    assert moves(found) == [("warm", "hot", 30 * BTC), ("cold", "warm", 50 * BTC)]


def test_an_excess_of_hot_goes_to_warm_and_where_that_has_no_room_to_cold() -> None:
    assert moves(plan([state(hot=120 * BTC, warm=300 * BTC, cold=9_580 * BTC)], [], told)) == [
        ("hot", "warm", 30 * BTC)
    ]
    assert moves(plan([state(hot=120 * BTC, warm=350 * BTC, cold=9_530 * BTC)], [], told)) == [
        ("hot", "cold", 30 * BTC)
    ]


def test_hot_and_warm_together_are_drained_to_cold_from_warm_first() -> None:
    found = plan([state(hot=80 * BTC, warm=600 * BTC, cold=9_320 * BTC)], [], told)
    assert moves(found) == [("warm", "cold", 230 * BTC)]


def test_a_small_excess_waits_for_low_fees_and_a_large_one_does_not() -> None:
    small, large = 104 * BTC, 105 * BTC
    waiting = state(hot=small, warm=200 * BTC, cold=9_696 * BTC, fees=HIGH)
    assert plan([waiting], [], told) == ()
    assert plan([replace(waiting, fees=None)], [], told) == ()
    assert moves(plan([replace(waiting, fees=LOW)], [], told)) == [("hot", "warm", 14 * BTC)]
    assert moves(plan([state(hot=large, warm=200 * BTC, cold=9_695 * BTC, fees=HIGH)], [], told)) == [
        ("hot", "warm", 15 * BTC)
    ]


def test_without_a_colder_tier_nothing_moves() -> None:
    assert plan([state(hot=120 * BTC)], [], told) == ()
    assert plan([state(hot=0)], [], told) == ()
    assert plan([state(cold=120 * BTC)], [], told) == ()


def test_without_warm_hot_is_filled_from_cold() -> None:
    assert moves(plan([state(hot=0, cold=10_000 * BTC)], [], told)) == [("cold", "hot", 90 * BTC)]


def test_money_kept_for_gas_stays_and_what_is_lacking_of_it_is_needed() -> None:
    hot = TierState(tier="hot", wallet="btc-hot", present_units=120 * BTC, reserve_units=10 * BTC)
    assert moves(plan([state(hot=hot, warm=300 * BTC, cold=9_580 * BTC)], [], told)) == [
        ("hot", "warm", 20 * BTC)
    ]
    bare = replace(hot, present_units=1 * BTC, reserve_units=2 * BTC)
    assert moves(plan([state(hot=bare, warm=300 * BTC, cold=9_580 * BTC, holdings=())], [], told)) == [
        ("warm", "hot", 1 * BTC)
    ]


def test_a_gas_payer_that_runs_low_is_filled_from_hot_up_to_what_it_may_hold() -> None:
    payer = PayerState(wallet="gas", asset="BTC", held_units=2, cap_units=10)
    [found] = plan([state(hot=100, warm=100, holdings=())], [payer], told)
    assert (found.source, found.target, found.units, found.why) == ("btc-hot", "gas", 8, Why.GAS)
    assert plan([state(hot=100, holdings=())], [replace(payer, held_units=3)], told) == ()
    hot = TierState(tier="hot", wallet="btc-hot", present_units=100, queued_units=95)
    [found] = plan([state(hot=hot, holdings=())], [payer], told)
    assert found.units == 5, "what customers wait for stays"


def test_hot_that_would_run_dry_before_people_can_approve_is_filled_early() -> None:
    before = state(hot=50 * BTC, warm=300 * BTC, cold=9_650 * BTC)
    assert plan([before], [], told) == ()
    busy = replace(before, outflow=[0] * 20 + [10 * BTC] * 6)
    [found] = plan([busy], [], told)
    assert (found.units, found.why) == (40 * BTC, Why.LOW)
    assert "5 h 0 min" in found.reason
    assert plan([replace(busy, tiers={**busy.tiers, "hot": replace(busy.tiers["hot"], present_units=60 * BTC)})],
                [], told) == ()  # fmt: skip


def test_a_forecast_takes_the_highest_of_recent_rates_and_none_where_nothing_flows() -> None:
    assert forecast(100, []) == forecast(100, [0, 0]) == forecast(5, []).__class__(0, None)
    assert forecast(600, [0] * 100 + [100] * 6).seconds_left == 6 * 3600
    assert forecast(600, [100] * 24 + [0] * 6).per_hour_units == 80
    assert forecast(0, [1]).seconds_left == 0
    assert LEAD_SECONDS == 6 * 3600


def test_numbers_below_zero_are_refused() -> None:
    with pytest.raises(InvalidValue):
        TierState(tier="hot", wallet="w", present_units=1, queued_units=-1)


# What holds for any tiers, any policy.

UNITS = st.integers(0, 10**13)
_SHARE = st.none() | st.integers(1, 10_000)


@st.composite
def states(draw: st.DrawFn, *, queued: bool = True) -> AssetState:
    tiers = {}
    for tier in draw(st.sets(st.sampled_from(TIERS), min_size=1)):
        tiers[tier] = TierState(
            tier=tier,
            wallet=f"btc-{tier}",
            present_units=draw(UNITS),
            queued_units=draw(st.just(0) | UNITS) if queued else 0,
            reserve_units=draw(st.just(0) | st.integers(0, 10**10)) if queued else 0,
        )
    holdings = []
    for group in (("hot",), ("warm",), ("hot", "warm")):
        if draw(st.booleans()):
            mark = draw(st.none() | st.integers(1, 80))
            holdings.append(
                Holding(
                    tiers=group, asset="BTC", at_most=str(draw(UNITS)), share=draw(_SHARE), refill_below=mark
                )
            )
    return AssetState(
        asset="BTC",
        tiers=tiers,
        total_units=sum(each.present_units for each in tiers.values()),
        holdings=tuple(holdings),
        fees=draw(st.sampled_from([LOW, HIGH])),
        outflow=draw(st.lists(UNITS, max_size=30)),
    )


@given(states())
def test_nothing_is_taken_that_is_not_free_and_each_move_is_positive(before: AssetState) -> None:
    found = plan([before], [], told)
    assert found == plan([before], [], told), "the same arguments, the same answer"
    for tier in before.tiers.values():
        taken = sum(move.units for move in found if move.source == tier.wallet)
        assert taken <= tier.free_units
    assert all(move.units > 0 and move.source != move.target for move in found)
    assert len({(move.source, move.target) for move in found}) == len(found), "one of each"


@given(states())
def test_planning_again_with_all_of_it_on_its_way_proposes_nothing_more(before: AssetState) -> None:
    found = plan([before], [], told)
    assert plan([on_the_way(before, found)], [], told) == ()


@given(states())
def test_carrying_it_out_comes_to_rest_and_nothing_goes_back_where_it_came_from(before: AssetState) -> None:
    directions: dict[frozenset[str], set[tuple[str, str]]] = {}
    for _ in range(6):
        found = plan([before], [], told)
        if not found:
            break
        for move in found:
            directions.setdefault(frozenset((move.source, move.target)), set()).add(
                (move.source, move.target)
            )
        before = carried_out(before, found)
    else:
        # Through a warm tier that may hold little, more than that takes its time.
        assert {move.why for move in plan([before], [], told)} <= {Why.NEED, Why.LOW}
    assert all(len(each) == 1 for each in directions.values()), "there and back again"


@given(states(queued=False))
def test_at_rest_no_maximum_is_exceeded_where_a_colder_tier_can_take_it(before: AssetState) -> None:
    before = replace(before, fees=LOW)
    for _ in range(6):
        before = carried_out(before, plan([before], [], told))
    if "cold" in before.tiers:
        groups: tuple[tuple[Tier, ...], ...] = (("hot",), ("warm",), ("hot", "warm"))
        for tiers in groups:
            most = bound(before, *tiers)
            held = sum(before.tiers[tier].present_units for tier in tiers if tier in before.tiers)
            assert most is None or held <= most.most_units


@given(hot=UNITS, warm=UNITS, cold=UNITS)
def test_ninety_five_percent_are_cold_where_the_policy_says_so(hot: int, warm: int, cold: int) -> None:
    assume(hot + warm + cold > 10_000)
    before = state(hot=hot, warm=warm, cold=cold)
    for _ in range(6):
        before = carried_out(before, plan([before], [], told))
    assert before.tiers["cold"].present_units * 100 >= 95 * before.total_units
    assert before.tiers["hot"].present_units * 100 <= before.total_units
