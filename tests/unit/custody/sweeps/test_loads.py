"""Which coins move together: every coin at most once, rivals replaced once and paid for, caps kept."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from chains.btc.fees import MAX_EVICTED, FeeRate
from chains.btc.script import KEY_LOCKS
from custody.signing.btc.rivals import Rival, replacing_fee
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction, SpendableCoin, Version, VersionState
from custody.sweeps.loads import Load, Terms, fitted, loads

TERMS = Terms(
    feerate=FeeRate(2_000),
    incremental=FeeRate(1_000),
    fee_cap_sats=100_000,
    feerate_cap=FeeRate(200_000),
    spent=KEY_LOCKS["p2wpkh"],
    made=KEY_LOCKS["p2wpkh"],
    most_coins=4,
)


def coin(number: int, units: int = 1_000_000) -> SpendableCoin:
    return SpendableCoin(f"{number:064x}:0", f"{number:064x}", units, b"", 0, number, "b")


def rival(number: int, coins: list[SpendableCoin], fee_sats: int = 1_000, evicted: int = 1) -> Rival:
    resources = frozenset(each.resource for each in coins)
    version = Version(
        transaction_id=uuid.UUID(int=number),
        version=1,
        request="",
        unsigned=b"",
        content=f"{number:064x}",
        resources=resources,
        signed=None,
        txid=None,
        fee_units=fee_sats,
        feerate=1_000,
        size=1,
        state=VersionState.BUILT,
        created_at=datetime.fromtimestamp(0, UTC),
    )
    transaction = OurTransaction(
        id=uuid.UUID(int=number),
        chain="c",
        keyset="k",
        kind="payment",
        state=TransactionState.BROADCAST,
        confirmed_txid=None,
        height=None,
        block_hash=None,
        change_index=None,
        finalisations=0,
        last_error="",
        versions=(version,),
    )
    return Rival(transaction, resources, fee_sats, FeeRate(1_000), evicted)


def named(load: Load) -> list[str]:
    return [each.resource for each in load.coins]


def test_coins_are_moved_side_by_side_the_most_valuable_first() -> None:
    coins = [coin(number, 1_000_000 + number) for number in range(10)]
    found = loads(coins, [], TERMS)
    assert [len(load.coins) for load in found] == [4, 4, 2]
    assert [each for load in found for each in named(load)] == [each.resource for each in reversed(coins)]


def test_what_contests_a_payment_is_apart_from_all_else() -> None:
    coins = [coin(number) for number in range(4)]
    found = loads(coins, [rival(1, coins[:1])], TERMS)
    assert sorted((len(load.coins), len(load.rivals)) for load in found) == [(1, 1), (3, 0)]


def test_a_contest_below_the_feerate_cap_takes_the_least_valuable_coins_for_their_weight() -> None:
    """One input at 200 sat/vB pays 22,000 sats; a batch of many payments may have paid more."""
    coins = [coin(number, 1_000_000 + number) for number in range(4)]
    found = loads(coins, [rival(1, coins[3:], fee_sats=30_000)], TERMS)
    [contest] = [load for load in found if load.rivals]
    assert named(contest) == [coins[3].resource, coins[0].resource]
    assert fitted(contest, TERMS) == (contest, ())
    alone = loads(coins[3:], [rival(1, coins[3:], fee_sats=30_000)], TERMS)
    assert fitted(alone[0], TERMS)[0].coins == ()


def test_coins_that_do_not_help_a_contest_are_moved_without_it() -> None:
    coins = [coin(number, 1_000_000 + number) for number in range(4)]
    found = loads(coins, [rival(1, coins[3:], fee_sats=99_999)], TERMS)
    assert sorted(len(load.coins) for load in found) == [1, 3]


def test_more_descendants_than_nodes_drop_at_once_cannot_be_replaced() -> None:
    coins = [coin(1)]
    crowd = rival(1, coins, evicted=MAX_EVICTED + 1)
    load, forbidden = fitted(Load(tuple(coins), (crowd,)), TERMS)
    assert (load.coins, forbidden) == ((), (crowd,))


def test_what_is_worth_less_than_it_costs_stays() -> None:
    assert loads([coin(1, TERMS.coin_fee_sats)], [], TERMS) == []
    [load] = loads([coin(1, TERMS.coin_fee_sats + 1)], [], TERMS)
    assert load.units == TERMS.coin_fee_sats + 1


def test_the_coins_of_one_payment_stay_together_however_many_so_that_it_is_paid_for_once() -> None:
    coins = [coin(number) for number in range(7)]
    payment = rival(1, coins[:6], fee_sats=3_000)
    found = loads(coins, [payment], TERMS)
    assert sorted(len(load.coins) for load in found) == [1, 6]
    assert max(len(load.coins) for load in found) > TERMS.most_coins
    assert sum(len(load.rivals) for load in found) == 1


def test_payments_that_share_a_coin_go_together() -> None:
    """One of them was contested before; what contested it is dead, and the payment is not."""
    coins = [coin(number) for number in range(4)]
    found = loads(coins, [rival(1, coins[:2]), rival(2, coins[1:3])], TERMS)
    [load] = [load for load in found if load.rivals]
    assert set(named(load)) == {each.resource for each in coins[:3]}
    assert len(load.rivals) == 2


def test_a_replacement_pays_what_it_pushes_out_and_its_own_relay_and_a_higher_rate() -> None:
    coins = [coin(1), coin(2)]
    load = Load(tuple(coins), (rival(1, coins, fee_sats=20_000), rival(2, coins, fee_sats=5_000)))
    assert load.fee_sats(TERMS) > 25_000
    assert Load(tuple(coins)).fee_sats(TERMS) < 1_000
    assert replacing_fee((), 200, FeeRate(1_000)) == 0


def test_a_rescue_that_was_overtaken_and_is_in_no_mempool_costs_nothing() -> None:
    coins = [coin(1)]
    free = Rival(rival(1, coins).transaction, frozenset({coins[0].resource}), 0, FeeRate(0), 1)
    assert Load((coins[0],), (free,)).fee_sats(TERMS) == Load((coins[0],)).fee_sats(TERMS)


def test_the_caps_drop_the_dearest_payment_and_keep_the_rest() -> None:
    coins = [coin(number) for number in range(3)]
    cheap, dear = rival(1, coins[:1], fee_sats=500), rival(2, coins[1:2], fee_sats=200_000)
    load, forbidden = fitted(Load(tuple(coins), (cheap, dear)), TERMS)
    assert forbidden == (dear,)
    assert named(load) == [coins[0].resource, coins[2].resource]
    assert load.rivals == (cheap,)


def test_a_cap_below_any_fee_leaves_nothing() -> None:
    load, forbidden = fitted(
        Load((coin(1),)),
        Terms(
            FeeRate(2_000), FeeRate(1_000), 1, FeeRate(200_000), KEY_LOCKS["p2wpkh"], KEY_LOCKS["p2wpkh"], 4
        ),
    )
    assert (load.coins, forbidden) == ((), ())


@given(st.data())
def test_every_coin_moves_at_most_once_within_caps_and_rules(data: st.DataObject) -> None:
    coins = [
        coin(number, data.draw(st.integers(1, 3_000_000))) for number in range(data.draw(st.integers(0, 12)))
    ]
    rivals = [
        rival(
            number,
            data.draw(st.lists(st.sampled_from(coins), min_size=1, max_size=3)),
            data.draw(st.integers(0, 150_000)),
            data.draw(st.integers(1, 60)),
        )
        for number in range(1, 1 + (data.draw(st.integers(0, 4)) if coins else 0))
    ]
    planned = loads(coins, rivals, TERMS)
    everything = [each for load in planned for each in named(load)]
    assert len(everything) == len(set(everything))
    for load in planned:
        mine = set(named(load))
        # Nothing that a payment spends is left for another load: both would have to pay for replacing it.
        for other in planned:
            if other is not load:
                assert not {each.transaction.id for each in load.rivals} & {
                    each.transaction.id for each in other.rivals
                }
        assert {each.transaction.id for each in load.rivals} == {
            each.transaction.id for each in rivals if each.resources & mine
        }
        kept, forbidden = fitted(load, TERMS)
        if kept.coins:
            assert kept.evicted <= MAX_EVICTED
            assert kept.fee_sats(TERMS) <= kept.most_sats(TERMS)
            assert kept.fee_sats(TERMS) > sum(each.fee_sats for each in kept.rivals)
        for each in forbidden:
            assert not each.resources & set(named(kept))
