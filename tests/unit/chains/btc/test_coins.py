"""Coin selection: what every choice must satisfy, and small cases against all subsets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.coin_index import Coin, CoinIndex
from chains.btc.coins import (
    ChangeOutput,
    FeeAboveLimit,
    InsufficientFunds,
    Payments,
    Selection,
    TooManyInputs,
    select,
)
from chains.btc.fees import FeeRate
from chains.btc.script import P2TR_KEY_INPUT_WU, P2WPKH_INPUT_WU, output_size_vb, p2wpkh_script_from_hash
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from chains.types import TxId

SCRIPT = p2wpkh_script_from_hash(bytes(20))
CHANGE = ChangeOutput.to(SCRIPT)
LONG_TERM = FeeRate(10_000)
RATE = FeeRate(20_000)


def coin(number: int, units: int, input_wu: int = P2WPKH_INPUT_WU) -> Coin:
    return Coin(f"{number:064x}:0", units, input_wu)


def coins_of(*units: int) -> list[Coin]:
    return [coin(number, value) for number, value in enumerate(units)]


def pay(*units: int) -> Payments:
    return Payments.to((value, SCRIPT) for value in units)


def size_with_largest_signatures(selection: Selection, payments: Payments) -> int:
    """Virtual bytes of a real transaction of this shape."""
    witness = {P2WPKH_INPUT_WU: (bytes(72), bytes(33)), P2TR_KEY_INPUT_WU: (bytes(64),)}
    inputs = tuple(
        TxIn(Outpoint(TxId(c.resource[:64]), 0), witness=witness[c.input_wu]) for c in selection.coins
    )
    outputs = [TxOut(1, SCRIPT)] * (payments.count + (selection.change_sats is not None))
    return Transaction(2, inputs, tuple(outputs)).vsize


def check(selection: Selection, payments: Payments, feerate: FeeRate, pinned: list[Coin]) -> None:
    assert sum(c.units for c in selection.coins) == (
        payments.total_sats + (selection.change_sats or 0) + selection.fee_sats
    ), "inputs are payments, change and fee, exactly"
    assert len({c.resource for c in selection.coins}) == len(selection.coins)
    assert list(selection.coins[: len(pinned)]) == pinned
    assert selection.vsize_vb == size_with_largest_signatures(selection, payments)
    if selection.change_sats is None:
        assert selection.fee_sats >= feerate.fee_for(selection.vsize_vb)
        spare = selection.fee_sats - feerate.fee_for(selection.vsize_vb)
        limit = CHANGE.dust_sats + LONG_TERM.fee_for_weight(CHANGE.input_wu) + feerate.fee_for(40)
        assert spare <= limit, "no more is given away than change would have cost"
    else:
        assert selection.fee_sats == feerate.fee_for(selection.vsize_vb)
        assert selection.change_sats >= CHANGE.dust_sats
        assert selection.change_sats > LONG_TERM.fee_for_weight(CHANGE.input_wu)


wallets = st.lists(st.integers(1, 10**6), min_size=1, max_size=40).map(lambda units: coins_of(*units))
mixed_wallets = st.lists(
    st.tuples(st.integers(1, 10**6), st.sampled_from([P2WPKH_INPUT_WU, P2TR_KEY_INPUT_WU])),
    min_size=1,
    max_size=40,
).map(lambda items: [coin(number, units, wu) for number, (units, wu) in enumerate(items)])
payments_made = st.lists(st.integers(1_000, 10**6), min_size=1, max_size=4).map(lambda units: pay(*units))
feerates = st.builds(FeeRate, st.integers(100, 300_000))


@given(st.one_of(wallets, mixed_wallets), payments_made, feerates, st.integers(0, 5), st.integers(0, 3))
def test_every_choice_balances_reaches_the_feerate_and_makes_no_dust(
    wallet: list[Coin], payments: Payments, feerate: FeeRate, seed: int, pins: int
) -> None:
    pinned = wallet[:pins]

    def choose() -> Selection:
        return select(
            wallet,
            payments,
            feerate=feerate,
            long_term_feerate=LONG_TERM,
            change=CHANGE,
            pinned=pinned,
            seed=seed,
        )

    worth = [c for c in wallet[pins:] if c.units * 4000 > feerate.sat_per_kvb * c.input_wu]
    everything = [*pinned, *worth]
    weight = sum(c.input_wu for c in everything) + (10 + payments.outputs_vb) * 4 + 2
    needed_sats = payments.total_sats + feerate.fee_for_weight(weight)
    try:
        selection = choose()
    except InsufficientFunds:
        # Rounding to whole virtual bytes is the only slack.
        assert sum(c.units for c in everything) <= needed_sats + feerate.fee_for(1)
        return
    assert sum(c.units for c in everything) >= needed_sats
    check(selection, payments, feerate, pinned)
    assert choose() == selection, "the same again"


@given(st.lists(st.integers(1_000, 60_000), min_size=1, max_size=5), st.integers(5_000, 80_000), feerates)
def test_no_changeless_subset_wastes_less(units: list[int], target: int, feerate: FeeRate) -> None:
    wallet, payments = coins_of(*units), pay(target)
    changeless = []
    for size in range(1, len(wallet) + 1):
        for subset in itertools.combinations(wallet, size):
            if any(c.units * 4000 <= feerate.sat_per_kvb * c.input_wu for c in subset):
                continue
            weight = 42 + payments.outputs_vb * 4 + sum(c.input_wu for c in subset)
            spare = sum(c.units for c in subset) - target - feerate.fee_for(-(-weight // 4))
            window = feerate.fee_for(CHANGE.output_vb) // 2
            if 0 <= spare <= window and spare >= feerate.fee_for(1) + 1:
                per_input = (feerate.sat_per_kvb - LONG_TERM.sat_per_kvb) * P2WPKH_INPUT_WU
                changeless.append((per_input * size + spare * 4000) // 4000)
    if changeless:
        selection = select(wallet, payments, feerate=feerate, long_term_feerate=LONG_TERM, change=CHANGE)
        assert selection.waste_sats <= min(changeless)


def test_an_exact_match_is_found_among_many_and_makes_no_change() -> None:
    size = 10 + output_size_vb(SCRIPT) + 2
    fee = RATE.fee_for(-(-(size * 4 - 6 + 2 * P2WPKH_INPUT_WU) // 4))
    wallet = coins_of(*(1_000_000 + 7_919 * n for n in range(500)), 333_333, 222_222)
    selection = select(
        wallet, pay(555_555 - fee - 50), feerate=RATE, long_term_feerate=LONG_TERM, change=CHANGE
    )
    assert sorted(c.units for c in selection.coins) == [222_222, 333_333]
    assert selection.change_sats is None
    assert selection.algorithm == "branch-and-bound"


def test_a_coin_that_costs_more_than_it_is_worth_is_left_alone_unless_pinned() -> None:
    worthless, good = coin(1, 1_300), coin(2, 100_000)
    arguments = {"feerate": RATE, "long_term_feerate": LONG_TERM, "change": CHANGE}
    assert select([worthless, good], pay(50_000), **arguments).coins == (good,)  # type: ignore[arg-type]
    pinned = select([worthless, good], pay(50_000), pinned=[worthless], **arguments)  # type: ignore[arg-type]
    assert pinned.coins == (worthless, good)
    with pytest.raises(InsufficientFunds):
        select([worthless], pay(1_000), **arguments)  # type: ignore[arg-type]


def test_pinned_coins_alone_are_enough_if_they_pay() -> None:
    pinned = coins_of(60_000, 70_000)
    selection = select(
        [coin(9, 500_000)],
        pay(100_000),
        feerate=RATE,
        long_term_feerate=LONG_TERM,
        change=CHANGE,
        pinned=pinned,
    )
    assert selection.coins == tuple(pinned)
    assert selection.algorithm == "pinned"


def test_errors_carry_their_numbers() -> None:
    with pytest.raises(InsufficientFunds) as poor:
        select(coins_of(10_000), pay(10_000), feerate=RATE, long_term_feerate=LONG_TERM, change=CHANGE)
    assert (poor.value.available_sats, poor.value.needed_sats) == (8_640, 10_845)
    with pytest.raises(FeeAboveLimit) as dear:
        select(
            coins_of(100_000),
            pay(10_000),
            feerate=RATE,
            long_term_feerate=LONG_TERM,
            change=CHANGE,
            max_fee_sats=2_000,
        )
    assert dear.value.max_fee_sats == 2_000
    assert dear.value.fee_sats > 2_000
    with pytest.raises(TooManyInputs) as heavy:
        select(
            coins_of(*[2_000] * 2_000),
            pay(3_000_000),
            feerate=FeeRate(1_000),
            long_term_feerate=LONG_TERM,
            change=CHANGE,
        )
    assert heavy.value.weight_wu > heavy.value.max_weight_wu == 400_000


def test_the_weight_limit_holds_where_many_coins_are_needed() -> None:
    selection = select(
        coins_of(*[10_000] * 1_500),
        pay(13_000_000),
        feerate=FeeRate(1_000),
        long_term_feerate=LONG_TERM,
        change=CHANGE,
    )
    assert selection.vsize_vb * 4 <= 400_000
    check(selection, pay(13_000_000), FeeRate(1_000), [])


@pytest.mark.parametrize("count", [252, 253, 254])
def test_the_fee_is_exact_where_the_number_of_inputs_takes_more_bytes(count: int) -> None:
    wallet = coins_of(*[10_000] * 300)
    payments = pay(count * 8_600)
    selection = select(wallet, payments, feerate=RATE, long_term_feerate=LONG_TERM, change=CHANGE)
    check(selection, payments, RATE, [])


def test_another_seed_may_choose_others_and_the_same_seed_never_does() -> None:
    wallet = coins_of(*(5_000 + 13 * n for n in range(400)))
    low = FeeRate(1_000)

    def chosen(seed: int) -> tuple[Coin, ...]:
        return select(
            wallet, pay(200_000), feerate=low, long_term_feerate=LONG_TERM, change=CHANGE, seed=seed
        ).coins

    assert chosen(1) == chosen(1)
    assert len({chosen(seed) for seed in range(10)}) > 1


def test_an_index_gives_the_same_choice_as_the_list_in_any_order() -> None:
    wallet = coins_of(*(5_000 + 977 * n for n in range(300)))
    arguments = {"feerate": RATE, "long_term_feerate": LONG_TERM, "change": CHANGE}
    from_list = select(wallet, pay(123_456), **arguments)  # type: ignore[arg-type]
    assert select(CoinIndex(wallet[::-1]), pay(123_456), **arguments) == from_list  # type: ignore[arg-type]


def test_an_index_refuses_a_coin_twice_and_gives_up_coins() -> None:
    wallet = coins_of(1_000, 2_000)
    with pytest.raises(InvalidValue, match="twice"):
        CoinIndex([*wallet, wallet[0]])
    index = CoinIndex(wallet)
    assert index.total_sats == 3_000
    assert index.without({"elsewhere"}) is index
    assert index.without({wallet[1].resource}).total_sats == 1_000
    assert len(index) == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: Coin("a:0", 0, 272),
        lambda: Coin("a:0", 1_000, 10),
        lambda: Payments(-1, 1, 31),
        lambda: Payments(1, 0, 31),
        lambda: Payments(1, 1, 8),
        lambda: select(
            [], pay(1), feerate=RATE, long_term_feerate=RATE, change=CHANGE, pinned=[coin(1, 5), coin(1, 5)]
        ),
    ],
)
def test_what_can_not_be_is_refused(build) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue):
        build()
