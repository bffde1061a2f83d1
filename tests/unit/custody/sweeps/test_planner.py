"""Which forwarders are flushed, with whom, and when: rules for any set of candidates, and examples of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.sweeps.model import Batch, Candidate, Pile, Reason, SweepPace, Terms
from custody.sweeps.planner import BASE_GAS, Market, apart, gas_of, least_units, plan, singly

NOW = 1_800_000_000
GWEI = 10**9
NATIVE = "ETH"
PACE = SweepPace(
    gather_seconds=300,
    sweep_after_seconds=86_400,
    max_forwarders=10,
    retry_seconds=60,
    long_term_wei_per_gas=20 * GWEI,
)
TERMS = {
    "ETH": Terms("ETH", 5 * 10**16, None),
    "USDX": Terms("USDX", 50_000_000, "0x" + "11" * 20),
    "DAIX": Terms("DAIX", 50 * 10**18, "0x" + "22" * 20),
}
USUAL = Market(20 * GWEI, 20 * GWEI)
CAP = 8_000_000

PILES = st.one_of(
    st.builds(
        Pile,
        st.just("ETH"),
        st.integers(0, 2 * 10**17) | st.integers(0, 10**16),
        st.integers(NOW - 200_000, NOW),
    ),
    st.builds(
        Pile,
        st.just("USDX"),
        st.integers(0, 100_000_000),
        st.integers(NOW - 200_000, NOW),
        st.integers(0, 3),
        st.integers(NOW - 1_000, NOW),
    ),
    st.builds(
        Pile,
        st.sampled_from(["DAIX", "USDX", "ETH"]),
        st.integers(0, 100 * 10**18),
        st.integers(NOW - 200_000, NOW),
        failures=st.sampled_from([0, 0, 1, 2, 5]),
        failed_at=st.integers(NOW - 10_000, NOW),
    ),
    st.builds(Pile, st.just("NOTLISTED"), st.integers(0, 10**30), st.integers(NOW - 200_000, NOW)),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for index in range(draw(st.integers(0, 30))):
        piles = draw(st.lists(PILES, max_size=4, unique_by=lambda pile: pile.asset))
        found.append(
            Candidate(
                address_id=1_000 + index,
                index=index,
                address=f"forwarder {index}",
                piles=tuple(piles),
                deployed=draw(st.booleans()),
                doubtful=draw(st.just(frozenset()) | st.frozensets(st.sampled_from(sorted(TERMS)))),
            )
        )
    return found


MARKETS = st.builds(Market, st.integers(1, 500 * GWEI), st.just(20 * GWEI))
NEEDS = st.frozensets(st.sampled_from(["ETH", "USDX"]))


def planned(
    found: list[Candidate],
    market: Market = USUAL,
    pace: SweepPace = PACE,
    needed: frozenset[str] = frozenset(),
    gas_cap: int = CAP,
    shared_gas_cap: int = CAP,
) -> tuple[Batch, ...]:
    return plan(
        found,
        TERMS,
        market,
        pace,
        native=NATIVE,
        gas_cap=gas_cap,
        shared_gas_cap=shared_gas_cap,
        now=NOW,
        needed=needed,
    )


def one(*piles: Pile, index: int = 0, **fields: object) -> Candidate:
    return replace(Candidate(1_000 + index, index, f"forwarder {index}", piles), **fields)  # type: ignore[arg-type]


@given(candidates(), MARKETS, NEEDS)
def test_nothing_below_the_floor_is_swept_unless_it_is_old_or_needed_and_worth_its_gas(
    found: list[Candidate], market: Market, needed: frozenset[str]
) -> None:
    for batch in planned(found, market, needed=needed):
        for candidate in batch.candidates:
            named = [pile for pile in candidate.piles if pile.asset in batch.tokens and pile.units]
            for pile in named or [pile for pile in candidate.piles if pile.asset == NATIVE]:
                if pile.units < TERMS[pile.asset].floor_units:
                    assert NOW - pile.since >= PACE.sweep_after_seconds or pile.asset in needed
                    if pile.asset == NATIVE:
                        alone = replace(candidate, piles=(pile,))
                        assert pile.units > gas_of(alone, (), NATIVE) * market.wei_per_gas
                    else:
                        worth = pile.units * market.long_term_wei_per_gas
                        assert worth >= TERMS[pile.asset].floor_units * market.wei_per_gas


@given(candidates(), MARKETS, NEEDS)
def test_a_sweep_of_native_money_brings_more_than_it_costs(
    found: list[Candidate], market: Market, needed: frozenset[str]
) -> None:
    for batch in planned(found, market, needed=needed):
        if not batch.tokens:
            brought = sum(candidate.units(NATIVE) for candidate in batch.candidates)
            assert brought > batch.gas * market.wei_per_gas
            for candidate in batch.candidates:
                assert candidate.units(NATIVE) > gas_of(candidate, (), NATIVE) * market.wei_per_gas


@given(candidates(), MARKETS, NEEDS)
def test_what_is_held_at_a_forwarder_is_never_named_nor_its_native_money_taken_with_other_things(
    found: list[Candidate], market: Market, needed: frozenset[str]
) -> None:
    for batch in planned(found, market, needed=needed):
        for part in (batch, *apart(batch, NATIVE), *singly(batch, market, NATIVE)):
            for candidate in part.candidates:
                assert not candidate.doubtful & {*part.tokens, NATIVE}


@given(candidates(), MARKETS, NEEDS)
def test_what_failed_is_flushed_with_nothing_else_of_its_forwarder_but_native_money(
    found: list[Candidate], market: Market, needed: frozenset[str]
) -> None:
    for batch in planned(found, market, needed=needed):
        for candidate in batch.candidates:
            failed = {pile.asset for pile in candidate.piles if pile.failures}
            assert not failed & set(batch.tokens) or len(batch.tokens) == 1


@given(candidates(), MARKETS, NEEDS, st.integers(BASE_GAS, 1_000_000))
def test_every_batch_fits_the_caps_and_the_plan_never_takes_a_forwarder_twice(
    found: list[Candidate], market: Market, needed: frozenset[str], gas_cap: int
) -> None:
    batches = planned(found, market, needed=needed, gas_cap=gas_cap)
    taken = [candidate.address_id for batch in batches for candidate in batch.candidates]
    assert len(taken) == len(set(taken))
    for batch in batches:
        assert 1 <= len(batch.candidates) <= PACE.max_forwarders
        expected = BASE_GAS + sum(gas_of(each, batch.tokens, NATIVE) for each in batch.candidates)
        assert batch.gas == expected <= gas_cap
        assert list(batch.candidates) == sorted(batch.candidates, key=lambda each: each.index)
        assert NATIVE not in batch.tokens
        assert set(batch.tokens) <= set(TERMS)
        for token in batch.tokens:
            assert any(candidate.units(token) for candidate in batch.candidates)


@given(candidates(), MARKETS, NEEDS, st.integers(BASE_GAS, 1_000_000), st.integers(0, 1_000_000))
def test_sharing_among_different_tokens_never_costs_more_and_moves_the_same(
    found: list[Candidate], market: Market, needed: frozenset[str], gas_cap: int, shared_gas_cap: int
) -> None:
    alone = planned(found, market, needed=needed, gas_cap=gas_cap, shared_gas_cap=0)
    shared = planned(found, market, needed=needed, gas_cap=gas_cap, shared_gas_cap=shared_gas_cap)
    assert sum(batch.gas for batch in shared) <= sum(batch.gas for batch in alone)
    assert len(shared) <= len(alone)
    for batches in (alone, shared):
        for batch in batches:
            expected = BASE_GAS + sum(gas_of(each, batch.tokens, NATIVE) for each in batch.candidates)
            assert batch.gas == expected <= gas_cap
            assert len(batch.candidates) <= PACE.max_forwarders

    def moved(batches: tuple[Batch, ...]) -> set[tuple[int, str]]:
        items = [item for batch in batches for item in batch.items(NATIVE)]
        return {(item.address_id, item.asset) for item in items if item.units}

    assert moved(shared) == moved(alone)
    for batch in shared:
        parts = apart(batch, NATIVE)
        if len(parts) > 1:
            assert batch.gas <= shared_gas_cap
            assert batch.gas < sum(part.gas for part in parts)
            assert not any(pile.failures for candidate in batch.candidates for pile in candidate.piles)
        for part in parts:
            assert all(candidate.units(token) for candidate in part.candidates for token in part.tokens)


@given(candidates(), MARKETS, NEEDS, st.randoms(use_true_random=False))
def test_the_same_candidates_in_any_order_give_the_same_plan(
    found: list[Candidate], market: Market, needed: frozenset[str], shuffler: object
) -> None:
    first = planned(found, market, needed=needed)
    shuffler.shuffle(found)  # type: ignore[attr-defined]
    assert planned(found, market, needed=needed) == first


@given(candidates(), MARKETS)
def test_planning_again_after_a_plan_was_carried_out_plans_nothing_of_it(
    found: list[Candidate], market: Market
) -> None:
    taken = {each.address_id for batch in planned(found, market) for each in batch.candidates}
    left = [each for each in found if each.address_id not in taken]
    again = {each.address_id for batch in planned(left, market) for each in batch.candidates}
    assert not taken & again


@given(candidates(), MARKETS, NEEDS)
def test_what_is_never_worth_moving_may_be_left_out_before_anything_is_planned(
    found: list[Candidate], market: Market, needed: frozenset[str]
) -> None:
    least = least_units(TERMS, market, NATIVE)
    worthy = [
        each for each in found if any(pile.units >= least.get(pile.asset, 10**99) for pile in each.piles)
    ]
    assert planned(worthy, market, needed=needed) == planned(found, market, needed=needed)


def test_what_reached_its_floor_waits_a_moment_for_others_to_share_its_transaction() -> None:
    fresh = one(Pile("USDX", 60_000_000, NOW - 299))
    assert planned([fresh]) == ()
    [batch] = planned([one(Pile("USDX", 60_000_000, NOW - 300))])
    assert batch.tokens == ("USDX",)
    assert batch.reasons == {Reason.FLOOR}
    many = [one(Pile("USDX", 60_000_000, NOW), index=n) for n in range(10)]
    [batch] = planned(many)
    assert len(batch.candidates) == 10


def test_dust_stays_where_it_is_until_it_is_old_and_gas_is_cheap() -> None:
    dust = Pile("USDX", 5_000_000, NOW - 100_000)
    assert planned([one(dust)]) == ()
    assert planned([one(dust)], Market(2 * GWEI + 1, 20 * GWEI)) == ()
    [batch] = planned([one(dust)], Market(2 * GWEI, 20 * GWEI))
    assert batch.reasons == {Reason.OLD}
    assert planned([one(replace(dust, since=NOW - 1_000))], Market(2 * GWEI, 20 * GWEI)) == ()


def test_a_spike_of_gas_postpones_tokens_but_not_for_ever() -> None:
    spike = Market(200 * GWEI, 20 * GWEI)
    recent = Pile("USDX", 60_000_000, NOW - 3_600)
    assert planned([one(recent)], spike) == ()
    assert planned([one(replace(recent, units=500_000_000))], spike)
    assert planned([one(replace(recent, since=NOW - 86_400))], spike)
    assert planned([one(recent)], spike, needed=frozenset({"USDX"}))


def test_native_money_of_less_than_its_fee_is_never_swept_however_old_or_needed() -> None:
    cost = (BASE_GAS + gas_of(one(Pile("ETH", 1, 0)), (), NATIVE)) * USUAL.wei_per_gas
    poor, just = Pile("ETH", cost, 0), Pile("ETH", cost + 1, 0)
    assert planned([one(poor)], needed=frozenset({"ETH"})) == ()
    [batch] = planned([one(just)], needed=frozenset({"ETH"}))
    assert batch.items(NATIVE)[0].units == cost + 1


def test_withdrawals_that_wait_for_an_asset_bring_its_sweep_forward_and_to_the_front() -> None:
    usdx, daix = Pile("USDX", 60_000_000, NOW), Pile("DAIX", 60 * 10**18, NOW - 400)
    found = [one(daix, index=n) for n in range(9)] + [one(usdx, index=n) for n in (9, 10)]
    assert [batch.tokens for batch in planned(found)] == [("DAIX",)]
    assert [batch.tokens for batch in planned(found, needed=frozenset({"USDX"}))] == [("USDX",), ("DAIX",)]


def test_a_flush_takes_native_money_along_whatever_it_is_worth() -> None:
    both = one(Pile("USDX", 60_000_000, NOW - 400), Pile("ETH", 1_000, NOW))
    [batch] = planned([both])
    assert [(item.asset, item.units) for item in batch.items(NATIVE)] == [
        ("USDX", 60_000_000),
        ("ETH", 1_000),
    ]


def test_forwarders_with_the_same_tokens_share_a_transaction_others_if_that_is_cheaper() -> None:
    found = [
        one(Pile("USDX", 60_000_000, NOW - 400), index=0),
        one(Pile("USDX", 60_000_000, NOW - 400), Pile("DAIX", 60 * 10**18, NOW - 400), index=1),
        one(Pile("USDX", 60_000_000, NOW - 400), Pile("DAIX", 1, NOW - 400), index=2),
        one(Pile("ETH", 10**18, NOW - 400), index=3),
    ]
    shares = {batch.tokens: [each.index for each in batch.candidates] for batch in planned(found)}
    assert shares == {("USDX",): [0, 2, 3], ("DAIX", "USDX"): [1]}, "what is not to be moved is not named"
    alone = {
        batch.tokens: [each.index for each in batch.candidates] for batch in planned(found, shared_gas_cap=0)
    }
    assert alone == {("USDX",): [0, 2], ("DAIX", "USDX"): [1], (): [3]}


def test_five_with_native_money_and_five_with_a_token_make_one_transaction_fifty_and_fifty_make_two() -> None:
    def half_and_half(each: int) -> list[Candidate]:
        eth, usdx = Pile("ETH", 10**18, NOW - 400), Pile("USDX", 60_000_000, NOW - 400)
        return [one(usdx if n % 2 else eth, index=n, deployed=True) for n in range(2 * each)]

    pace = replace(PACE, max_forwarders=100)
    [batch] = planned(half_and_half(5), pace=pace)
    assert (len(batch.candidates), batch.tokens) == (10, ("USDX",))
    assert [len(batch.candidates) for batch in planned(half_and_half(50), pace=pace)] == [50, 50]


def test_what_failed_shares_with_nobody_that_has_other_tokens() -> None:
    eth, usdx = Pile("ETH", 10**18, NOW - 400), Pile("USDX", 60_000_000, NOW - 400)
    found = [one(replace(eth, failures=1, failed_at=NOW - 100), index=0), one(usdx, index=1)]
    assert [batch.tokens for batch in planned(found)] == [(), ("USDX",)]
    before = Pile("DAIX", 1, NOW - 400, failures=1, failed_at=NOW)
    assert [batch.tokens for batch in planned([one(eth, before, index=0), one(usdx, index=1)])] == [
        (),
        ("USDX",),
    ], "nor does what went well of the same forwarder"


def test_what_failed_together_is_tried_in_halves_and_ever_later() -> None:
    def failed(failures: int, seconds_ago: int) -> list[Candidate]:
        pile = Pile("USDX", 60_000_000, NOW - 4_000, failures=failures, failed_at=NOW - seconds_ago)
        return [one(pile, index=n) for n in range(10)]

    assert planned(failed(1, 59)) == ()
    assert [len(batch.candidates) for batch in planned(failed(1, 60))] == [5, 5]
    assert planned(failed(2, 119)) == ()
    assert [len(batch.candidates) for batch in planned(failed(2, 120))] == [2] * 5
    assert [len(batch.candidates) for batch in planned(failed(4, 480))] == [1] * 10
    [batch] = planned([*failed(4, 0)[:1], *failed(0, 0)[1:]])
    assert len(batch.candidates) == 9, "one that fails stops no other"


def test_after_a_failure_native_money_goes_alone_at_once_and_each_token_alone_when_it_has_rested() -> None:
    eth = Pile("ETH", 10**18, NOW - 4_000)
    usdx = Pile("USDX", 60_000_000, NOW - 4_000, failures=1, failed_at=NOW - 60)
    daix = Pile("DAIX", 60 * 10**18, NOW - 4_000, failures=2, failed_at=NOW - 120)
    assert [batch.tokens for batch in planned([one(eth, usdx, daix)])] == [()]
    assert [batch.tokens for batch in planned([one(usdx, daix)])] == [("USDX",)]
    assert [batch.tokens for batch in planned([one(daix)])] == [("DAIX",)]
    assert planned([one(replace(usdx, failed_at=NOW - 59))]) == ()
    fresh = replace(usdx, failures=0, failed_at=0)
    assert [batch.tokens for batch in planned([one(eth, fresh, daix)])] == [("USDX",)]


def test_a_batch_that_would_fail_is_tried_as_native_money_worth_its_gas_and_token_by_token() -> None:
    usdx, daix = Pile("USDX", 60_000_000, NOW - 400), Pile("DAIX", 60 * 10**18, NOW - 400)
    rich, poor = one(Pile("ETH", 10**18, NOW), usdx, daix), one(Pile("ETH", 1, NOW), usdx, daix, index=1)
    [batch] = planned([rich, poor])
    parts = singly(batch, USUAL, NATIVE)
    assert [(part.tokens, [each.index for each in part.candidates]) for part in parts] == [
        ((), [0]),
        (("DAIX",), [0, 1]),
        (("USDX",), [0, 1]),
    ]
    assert [part.tokens for part in singly(parts[1], USUAL, NATIVE)] == [()]
    assert singly(parts[0], USUAL, NATIVE) == ()


def test_a_held_deposit_keeps_its_token_and_held_native_money_keeps_all() -> None:
    eth, usdx = Pile("ETH", 10**18, NOW - 400), Pile("USDX", 60_000_000, NOW - 400)
    daix = Pile("DAIX", 60 * 10**18, NOW - 400)
    both = one(eth, usdx, daix, doubtful=frozenset({"USDX"}))
    assert [batch.tokens for batch in planned([both])] == [("DAIX",)]
    alone = one(eth, doubtful=frozenset({"USDX"}))
    neighbour = one(usdx, index=1)
    assert [batch.tokens for batch in planned([alone, neighbour])] == [(), ("USDX",)], "they share nothing"
    assert planned([one(eth, usdx, doubtful=frozenset({"ETH"}))]) == ()


def test_a_token_that_refused_rests_while_the_rest_of_its_forwarder_moves() -> None:
    refused = Pile("USDX", 60_000_000, NOW - 400, left_behind=2, left_at=NOW - 119)
    good = Pile("DAIX", 60 * 10**18, NOW - 400)
    assert [batch.tokens for batch in planned([one(refused, good)])] == [("DAIX",)]
    rested = replace(refused, left_at=NOW - 120)
    assert [batch.tokens for batch in planned([one(rested, good)])] == [("DAIX", "USDX")]


def test_fault_29_a_flood_of_dust_plans_nothing_whatever_its_number() -> None:
    """Thousands of deposits too small to move cost nothing but their rows; what is worth moving among them moves."""
    flood = [one(Pile("USDX", 1_000_000, 0), Pile("ETH", 10**13, 0), index=n) for n in range(5_000)]
    assert planned(flood) == ()
    good = one(Pile("USDX", 60_000_000, NOW - 400), index=5_000)
    [batch] = planned([*flood, good])
    assert batch.candidates == (good,)


@pytest.mark.parametrize(
    "wrong", [{"max_forwarders": 0}, {"max_open": 0}, {"retry_seconds": 0}, {"gather_seconds": -1}]
)
def test_a_pace_that_would_plan_nothing_or_without_end_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValue):
        SweepPace(**wrong)
