"""The price of gas: offers stay within their bounds, replacements are taken by nodes, nothing overpays unasked."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.eth.gas import MAX_WEI_PER_GAS, FeeOffer, GasPrice, gas_limit, offer, replacement, told

GWEI = 10**9
wei = st.integers(0, 10**13)
prices = st.builds(GasPrice, wei, wei)
offers = st.tuples(wei, wei).map(sorted).map(lambda pair: FeeOffer(pair[1], pair[0]))


@given(prices, wei, wei)
def test_an_offer_pays_what_gas_costs_now_and_stays_within_its_bounds(
    price: GasPrice, floor: int, cap: int
) -> None:
    made = offer(price, floor_wei=floor, cap_wei=cap)
    if made is None:
        assert max(price.now_wei, floor) > cap
        return
    assert max(price.now_wei, floor) <= made.max_fee_wei <= cap
    assert made.max_fee_wei <= max(2 * price.base_fee_wei + price.priority_wei, floor)
    assert made.priority_wei == price.priority_wei
    assert made.pays(price)


def test_an_offer_leaves_room_for_the_base_fee_to_double() -> None:
    assert offer(GasPrice(10 * GWEI, GWEI), floor_wei=0, cap_wei=100 * GWEI) == FeeOffer(21 * GWEI, GWEI)
    assert offer(GasPrice(10 * GWEI, GWEI), floor_wei=0, cap_wei=12 * GWEI) == FeeOffer(12 * GWEI, GWEI)
    assert offer(GasPrice(10 * GWEI, GWEI), floor_wei=0, cap_wei=10 * GWEI) is None
    assert offer(GasPrice(0, 0), floor_wei=GWEI, cap_wei=10 * GWEI) == FeeOffer(GWEI, 0)


@given(offers, prices, wei)
def test_a_replacement_raises_both_fees_by_an_eighth_at_least_within_the_cap(
    before: FeeOffer, price: GasPrice, cap: int
) -> None:
    made = replacement(before, price, cap_wei=cap)
    if made is None:
        assert before.max_fee_wei * 9 > cap * 8 - 8
        return
    assert made.max_fee_wei <= cap
    for old, new in (
        (before.max_fee_wei, made.max_fee_wei),
        (before.priority_wei, made.priority_wei),
    ):
        assert new * 1000 >= old * 1125
        assert new > old


@given(offers, prices)
def test_a_replacement_without_a_tight_cap_pays_what_gas_costs_now(before: FeeOffer, price: GasPrice) -> None:
    made = replacement(before, price, cap_wei=MAX_WEI_PER_GAS)
    assert made is not None
    assert made.max_fee_wei >= price.now_wei
    assert made.priority_wei >= price.priority_wei


def test_a_cap_below_an_eighth_more_allows_no_replacement() -> None:
    before, price = FeeOffer(80 * GWEI, GWEI), GasPrice(200 * GWEI, GWEI)
    assert replacement(before, price, cap_wei=90 * GWEI) == FeeOffer(90 * GWEI, 1_125_000_000)
    assert replacement(before, price, cap_wei=90 * GWEI - 1) is None


def test_a_gas_limit_leaves_a_third_more_room_up_to_the_cap() -> None:
    assert gas_limit(100_000, 500_000) == 130_000
    assert gas_limit(100_001, 500_000) == 130_002
    assert gas_limit(450_000, 500_000) == 500_000
    assert gas_limit(500_001, 500_000) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: GasPrice(-1, 0),
        lambda: GasPrice(0, MAX_WEI_PER_GAS + 1),
        lambda: FeeOffer(1, 2),
        lambda: FeeOffer(-1, -1),
        lambda: offer(GasPrice(1, 1), floor_wei=-1, cap_wei=5),
        lambda: offer(GasPrice(1, 1), floor_wei=1, cap_wei=MAX_WEI_PER_GAS + 1),
    ],
)
def test_prices_that_are_mistakes_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidValue):
        make()


@given(st.integers(0, MAX_WEI_PER_GAS))
def test_people_read_a_price_in_gwei_to_the_wei(wei: int) -> None:
    number, unit = told(wei).split()
    assert unit == "gwei"
    assert Decimal(number) * 10**9 == wei
    assert told(20_000_000_000) == "20 gwei"
    assert told(1_500_000_000) == "1.5 gwei"
    assert told(1) == "0.000000001 gwei"
