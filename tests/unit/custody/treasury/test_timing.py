"""When an approved move is built: low fees are waited for where nobody misses the money, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from custody.treasury.planner import AssetState, Fees, TierState, Why
from custody.treasury.timing import PATIENCE_SECONDS, why_later
from policies.rules import Holding
from tests.unit.custody.treasury.test_joining import NOW, refill

HIGH, LOW_FEES = Fees(now=25_000, long_term=10_000), Fees(now=10_000, long_term=10_000)
AT = int(NOW.timestamp())
UP = {"source": "warm", "target": "hot"}
DOWN = {"source": "hot", "target": "warm"}


def state(hot: int, warm: int = 0, fees: Fees | None = HIGH, **changes: Any) -> AssetState:
    """Levels of hot and warm once everything on its way has come; hot may hold 1,000, both 2,000."""
    fields: dict[str, Any] = {
        "asset": "BTC",
        "tiers": {
            "hot": TierState(tier="hot", wallet="hot", present_units=hot),
            "warm": TierState(tier="warm", wallet="warm", present_units=warm),
            "cold": TierState(tier="cold", wallet="cold", present_units=100_000),
        },
        "total_units": 100_000 + hot + warm,
        "holdings": (
            Holding(tiers=("hot",), asset="BTC", at_most="1000", refill_below=30),
            Holding(tiers=("hot", "warm"), asset="BTC", at_most="2000"),
        ),
        "fees": fees,
    }
    return AssetState(**(fields | changes))


def later(why: Why, way: dict[str, str], units: int, found: AssetState, age_seconds: int = 0) -> str | None:
    return why_later(replace(refill("approved", units, why), **way), found, now=AT + age_seconds)  # type: ignore[arg-type]


def test_a_small_excess_and_a_low_tier_wait_for_low_fees_and_say_until_when() -> None:
    assert later(Why.EXCESS, DOWN, 140, state(900)) == (
        "fees: they are 250 % of what counts as low; it waits for less, until 2026-01-02 00:00 UTC"
    )
    said = later(Why.LOW, UP, 650, state(900))
    assert said is not None
    assert said.endswith("until 2026-01-01 02:00 UTC")


@pytest.mark.parametrize("why", [Why.EXCESS, Why.LOW])
@pytest.mark.parametrize("fees", [LOW_FEES, None])
def test_while_fees_are_low_or_not_known_nothing_waits(why: Why, fees: Fees | None) -> None:
    assert later(why, DOWN if why is Why.EXCESS else UP, 40, state(900, fees=fees)) is None


@pytest.mark.parametrize(("why", "way"), [(Why.EXCESS, DOWN), (Why.LOW, UP)])
def test_however_high_fees_stay_the_wait_is_bounded(why: Why, way: dict[str, str]) -> None:
    patience = PATIENCE_SECONDS[why]
    assert later(why, way, 140, state(900), patience - 1) is not None
    assert later(why, way, 140, state(900), patience) is None


@pytest.mark.parametrize("why", [Why.NEED, Why.GAS])
def test_what_payments_wait_for_and_gas_do_not_wait(why: Why) -> None:
    assert later(why, UP, 10, state(900)) is None


def test_hot_that_holds_far_too_much_is_drained_whatever_fees_are() -> None:
    """Coincheck 2018: a hot tier above its cap is drained down at once."""
    assert later(Why.EXCESS, DOWN, 150, state(900)) is None
    assert later(Why.EXCESS, {"source": "warm", "target": "cold"}, 300, state(900, 900)) is None
    assert later(Why.EXCESS, {"source": "warm", "target": "cold"}, 250, state(900, 900)) is not None


def test_a_low_tier_that_payments_wait_for_by_now_or_that_runs_dry_does_not_wait() -> None:
    waiting = TierState(tier="hot", wallet="hot", present_units=250, incoming_units=650, queued_units=300)
    found = state(0)
    assert later(Why.LOW, UP, 650, replace(found, tiers={**found.tiers, "hot": waiting})) is None
    assert later(Why.LOW, UP, 650, state(900, outflow=[50] * 24)) is None, "250 left, 50 an hour"
    assert later(Why.LOW, UP, 650, state(900, outflow=[1] * 24)) is not None
