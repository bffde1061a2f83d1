"""Feerates: rounding, bounds, and what a replacement must pay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.fees import MAX_SAT_PER_KVB, FeeRate, clamp, minimum_replacement_fee
from chains.errors import InvalidValue

rates = st.builds(FeeRate, st.integers(0, MAX_SAT_PER_KVB - 1))
sizes = st.integers(1, 100_000)


@given(rates, sizes)
def test_a_fee_always_reaches_its_rate_and_one_satoshi_less_does_not(rate: FeeRate, size: int) -> None:
    fee = rate.fee_for(size)
    assert fee * 1000 >= rate.sat_per_kvb * size
    assert (fee - 1) * 1000 < rate.sat_per_kvb * size
    assert rate.fee_for_weight(size * 4) == fee


@given(sizes, st.integers(0, 10**9))
def test_the_rate_that_was_paid_is_never_overstated(size: int, fee: int) -> None:
    if fee * 1000 // size > MAX_SAT_PER_KVB:
        with pytest.raises(InvalidValue):
            FeeRate.paid(fee, size)
    else:
        assert FeeRate.paid(fee, size).fee_for(size) <= fee


@given(rates, rates, rates)
def test_clamping_stays_within_the_bounds(rate: FeeRate, low: FeeRate, high: FeeRate) -> None:
    if low > high:
        with pytest.raises(InvalidValue):
            clamp(rate, low, high)
    else:
        assert low <= clamp(rate, low, high) <= high
        assert clamp(rate, low, high) == rate or not low <= rate <= high


@pytest.mark.parametrize("value", [-1, MAX_SAT_PER_KVB + 1, True, 1.5, "1000"])
def test_other_values_are_no_feerate(value: object) -> None:
    with pytest.raises(InvalidValue):
        FeeRate(value)  # type: ignore[arg-type]


@given(sizes, sizes, st.integers(0, 10**6), rates.filter(lambda r: r.sat_per_kvb < 10**6))
def test_a_replacement_pays_for_its_relay_and_a_higher_rate(
    old_size: int, new_size: int, old_fee: int, incremental: FeeRate
) -> None:
    if old_fee * 1000 // old_size >= MAX_SAT_PER_KVB:
        return
    old_rate = FeeRate.paid(old_fee, old_size)
    fee = minimum_replacement_fee(old_fee, old_rate, new_size, incremental)
    assert fee - old_fee >= incremental.fee_for(new_size)
    assert fee * old_size > old_fee * new_size, "the exact feerate is higher"


def test_rates_print_in_sat_per_vb() -> None:
    assert str(FeeRate(12_345)) == "12.345 sat/vB"
