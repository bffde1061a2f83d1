"""Which coins are gathered: only where it pays, never so many that payments could miss them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chains.btc.fees import FeeRate
from chains.btc.script import KEY_LOCKS, P2WPKH_INPUT_WU
from custody.signing.btc.consolidate import merged
from custody.signing.model import SpendableCoin
from custody.sweeps.consolidation import Means, choose, pays
from custody.sweeps.model import SweepPace

PACE = SweepPace(consolidate_above_coins=20, small_coin_sats=100_000, max_inputs=50)
CHEAP = Means(0, 100_000, FeeRate(1_000), FeeRate(10_000), KEY_LOCKS["p2wpkh"])


def coins(*amounts: int) -> list[SpendableCoin]:
    return [
        SpendableCoin(f"{n:064x}:0", f"{n:064x}", units, b"", 0, n, "00" * 32)
        for n, units in enumerate(amounts)
    ]


AMOUNTS = st.lists(st.integers(1, 150_000) | st.integers(1, 10**8), max_size=120)
MEANS = st.builds(
    Means,
    st.integers(0, 10**8),
    st.integers(0, 200_000),
    st.builds(FeeRate, st.integers(0, 30_000)),
    st.just(FeeRate(10_000)),
)


@given(AMOUNTS, MEANS)
def test_a_consolidation_costs_less_than_spending_its_coins_later_and_leaves_enough_for_payments(
    amounts: list[int], means: Means
) -> None:
    found = coins(*amounts)
    chosen = choose(found, means, PACE)
    if not chosen:
        return
    fee_sats = merged(len(chosen), means.feerate, KEY_LOCKS["p2wpkh"], KEY_LOCKS["p2wpkh"]).fee_sats
    later = means.long_term.fee_for_weight(P2WPKH_INPUT_WU)
    taken = sum(coin.units for coin in chosen)
    left = sum(amounts) - taken
    assert means.feerate <= means.long_term
    assert fee_sats <= means.fee_cap_sats
    assert fee_sats + later < later * len(chosen)
    assert taken - fee_sats > later
    assert left >= means.needed_sats
    assert left >= taken
    assert 2 <= len(chosen) <= PACE.max_inputs
    assert len({coin.resource for coin in chosen}) == len(chosen)
    assert all(coin in found for coin in chosen)
    assert all(
        means.feerate.fee_for_weight(P2WPKH_INPUT_WU) < coin.units <= PACE.small_coin_sats for coin in chosen
    )


@given(AMOUNTS, MEANS, st.randoms(use_true_random=False))
def test_the_same_coins_in_any_order_are_chosen_alike(
    amounts: list[int], means: Means, shuffler: object
) -> None:
    found = coins(*amounts)
    first = choose(found, means, PACE)
    shuffler.shuffle(found)  # type: ignore[attr-defined]
    assert choose(found, means, PACE) == first


def test_few_small_coins_are_left_alone() -> None:
    many = coins(*[50_000] * 21, 10**8)
    assert len(choose(many, CHEAP, PACE)) == 21
    assert choose(many[1:], CHEAP, PACE) == ()


def test_nothing_is_gathered_while_fees_are_high() -> None:
    many = coins(*[50_000] * 40, 10**8)
    assert choose(many, replace(CHEAP, feerate=FeeRate(9_000)), PACE)
    assert choose(many, replace(CHEAP, feerate=FeeRate(10_000)), PACE) == ()
    assert choose(many, replace(CHEAP, feerate=FeeRate(10_001)), PACE) == ()


def test_coins_that_payments_may_need_stay() -> None:
    found = coins(*[50_000] * 40, 1_000_000)
    queued = replace(CHEAP, needed_sats=2_900_000)
    assert choose(found, replace(CHEAP, needed_sats=3_000_000), PACE) == ()
    assert len(choose(found, queued, PACE)) == 2
    assert len(choose(coins(*[50_000] * 40), CHEAP, PACE)) == 20, "half of the money always stays"


def test_a_coin_that_costs_more_to_spend_than_it_is_worth_waits() -> None:
    dust = coins(*[68] * 100, *[50_000] * 30, 10**8)
    assert {coin.units for coin in choose(dust, CHEAP, PACE)} == {50_000}


def test_the_fee_cap_bounds_how_many() -> None:
    found = coins(*[50_000] * 60, 10**8)
    cap = merged(10, CHEAP.feerate, KEY_LOCKS["p2wpkh"], KEY_LOCKS["p2wpkh"]).fee_sats
    assert len(choose(found, replace(CHEAP, fee_cap_sats=cap), PACE)) == 10


def test_a_single_coin_is_no_consolidation() -> None:
    assert not pays(coins(50_000), CHEAP)
