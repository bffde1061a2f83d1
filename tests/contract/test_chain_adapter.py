"""What every chain adapter owes its callers: run on a chain in memory, a real bitcoind, and anvil in both native modes.

Names with `coin` or `pending` concern chains with outputs and a mempool that is followed; only these have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.btc.tx import Transaction
from chains.errors import InvalidAddress, InvalidValue, Reorganised
from chains.eth.network import NativeMode
from chains.ports import BroadcastState, Consumption, Presence
from chains.types import BlockRef, TxId
from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from tests.support.chain_worlds import AnvilWorld, BitcoindWorld, BtcWorld, FakeBtcWorld, World


@pytest.fixture(scope="module")
def bitcoind_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BitcoindWorld]:
    # A node of its own: reorgs would disturb those who share one.
    directory: Path = tmp_path_factory.mktemp("contract-bitcoind")
    with Bitcoind(directory) as bitcoind:
        world = BitcoindWorld(bitcoind)
        yield world
        world.node.close()


@pytest.fixture(scope="module")
def contract_anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    with Anvil(tmp_path_factory.mktemp("contract-anvil")) as anvil:
        yield anvil


@pytest.fixture(params=["fake", "bitcoind"])
def coins(request: pytest.FixtureRequest) -> BtcWorld:
    """A chain with outputs and a mempool that is followed."""
    if request.param == "fake":
        return FakeBtcWorld()
    real: BitcoindWorld = request.getfixturevalue("bitcoind_world")
    return real


@pytest.fixture(params=["fake", "bitcoind", *NativeMode])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeBtcWorld()
    elif request.param == "bitcoind":
        yield request.getfixturevalue("bitcoind_world")
    else:
        anvil_world = AnvilWorld(request.getfixturevalue("contract_anvil"), request.param)
        yield anvil_world
        anvil_world.node.close()


def test_an_address_is_read_for_its_own_network_only(world: World) -> None:
    text, kind = world.written
    read = world.adapter.parse_address(text)
    assert (read.kind, read.chain) == (kind, world.adapter.chain)
    assert world.adapter.parse_address(read.text) == read
    with pytest.raises(InvalidAddress):
        world.adapter.parse_address(world.misread)


def test_headers_link_from_the_tip_and_there_are_none_above_it(world: World) -> None:
    before = world.adapter.tip()
    world.mine(3)
    tip = world.adapter.tip()
    assert tip.height == before.height + 3
    assert world.adapter.header_at(tip.height + 1) is None
    above = world.adapter.header_at(tip.height)
    for height in range(tip.height - 1, before.height - 1, -1):
        header = world.adapter.header_at(height)
        assert above is not None
        assert header is not None
        assert header.ref.height == height
        assert above.previous == header.ref.hash
        above = header
    assert above is not None
    assert above.ref == before


def test_confirmations_count_from_the_tip_at_most_and_reach_every_block_in_time(world: World) -> None:
    world.mine(1)
    tip = world.adapter.tip()
    assert -1 <= world.adapter.anchor(tip) <= tip.height
    world.bury()
    assert world.adapter.anchor(tip) == tip.height
    assert tip.height <= world.adapter.anchor(world.adapter.tip()) <= world.adapter.tip().height


def test_a_payment_in_a_block_is_a_receipt_and_read_again_the_same(world: World) -> None:
    txid = world.pay(world.script, 123_456)
    assert world.adapter.presence(txid) is Presence.MEMPOOL
    world.mine(1)
    tip = world.adapter.tip()
    mined = world.adapter.observe_block(tip, {world.script}, set())
    assert [(r.script, r.units, r.contract, r.coinbase) for r in mined.receipts] == [
        (world.script, 123_456, None, False)
    ]
    assert world.adapter.presence(txid) is Presence.MINED
    assert world.adapter.observe_block(tip, {world.script}, set()) == mined


def test_what_is_not_watched_is_not_observed(world: World) -> None:
    world.pay(world.script, 50_000)
    world.mine(1)
    for scripts in (set(), {world.elsewhere}):
        seen = world.adapter.observe_block(world.adapter.tip(), scripts, set())
        assert (seen.receipts, seen.consumptions) == ((), ())


def test_using_a_watched_resource_is_a_consumption_known_by_its_content(world: World) -> None:
    spendable = world.spendable()
    signed = spendable.signed(world.fees[0], world.elsewhere)
    assert world.adapter.broadcast(signed.raw).state is BroadcastState.ACCEPTED
    world.mine(1)
    [used] = world.adapter.observe_block(world.adapter.tip(), set(), {spendable.resource}).consumptions
    expected = Consumption(spendable.resource, signed.txid, signed.content, fee_units=used.fee_units)
    assert used == expected


def test_a_broadcast_again_is_already_known_in_the_mempool_and_in_a_block(world: World) -> None:
    raw = world.spendable().signed(world.fees[0], world.script).raw
    assert world.adapter.broadcast(raw).state is BroadcastState.ACCEPTED
    assert world.adapter.broadcast(raw).state is BroadcastState.ALREADY_KNOWN
    world.mine(1)
    assert world.adapter.broadcast(raw).state is BroadcastState.ALREADY_KNOWN


def test_a_broadcast_that_nobody_can_pay_for_is_rejected_with_a_reason(world: World) -> None:
    result = world.adapter.broadcast(world.without_money())
    assert result.state is BroadcastState.REJECTED
    assert result.reason


def test_a_broadcast_with_a_wrong_signature_is_rejected(world: World) -> None:
    assert world.adapter.broadcast(world.signed_wrongly()).state is BroadcastState.REJECTED


def test_bytes_that_are_no_transaction_are_not_sent(world: World) -> None:
    for raw in (b"", b"\x00" * 60, world.without_money() + b"\x00"):
        with pytest.raises(InvalidValue):
            world.adapter.broadcast(raw)


def test_a_replacement_needs_a_higher_fee_and_then_drives_out_the_first(world: World) -> None:
    spendable, (low, high) = world.spendable(), world.fees
    first = spendable.signed(low, world.elsewhere)
    same_fee = spendable.signed(low, world.script)
    higher = spendable.signed(high, world.elsewhere)
    assert world.adapter.broadcast(first.raw).state is BroadcastState.ACCEPTED
    assert world.adapter.broadcast(same_fee.raw).state is BroadcastState.REJECTED
    assert world.adapter.broadcast(higher.raw).state is BroadcastState.ACCEPTED
    assert world.adapter.presence(first.txid) is Presence.UNKNOWN
    world.mine(1)
    [used] = world.adapter.observe_block(world.adapter.tip(), set(), {spendable.resource}).consumptions
    assert used.content == higher.content
    assert world.adapter.broadcast(first.raw).state is BroadcastState.REJECTED


def test_a_reorg_changes_the_hashes_and_the_payment_waits_until_it_is_mined_again(world: World) -> None:
    txid = world.pay(world.script, 77_000)
    world.mine(2)
    old_tip = world.adapter.tip()
    old = world.adapter.header_at(old_tip.height - 1)
    assert old is not None
    world.reorg(2)
    new_header = world.adapter.header_at(old_tip.height)
    assert new_header is not None
    assert new_header.ref.hash != old_tip.hash
    assert world.adapter.tip().height == old_tip.height + 1
    assert world.adapter.presence(txid) is Presence.MEMPOOL
    world.mine(1)
    [again] = world.adapter.observe_block(world.adapter.tip(), {world.script}, set()).receipts
    assert (again.script, again.units) == (world.script, 77_000)
    assert world.adapter.presence(txid) is Presence.MINED


def test_a_block_that_never_was_is_reported_as_a_reorg(world: World) -> None:
    with pytest.raises(Reorganised):
        world.adapter.observe_block(BlockRef(1, "ab" * 32), set(), set())


def test_a_transaction_nobody_sent_is_unknown(world: World) -> None:
    assert world.adapter.presence(TxId("cd" * 32)) is Presence.UNKNOWN
    assert world.adapter.observe_pending([TxId("cd" * 32)], {world.script}, set()) == {}


def test_a_pending_payment_is_the_receipt_that_it_will_be_when_mined(coins: BtcWorld) -> None:
    txid = coins.pay(coins.script, 123_456)
    assert txid in coins.adapter.mempool()
    pending = coins.adapter.observe_pending([txid], {coins.script}, set())[txid].receipts
    assert coins.adapter.observe_pending([txid], {coins.elsewhere}, set())[txid].receipts == ()
    coins.mine(1)
    mined = coins.adapter.observe_block(coins.adapter.tip(), {coins.script}, set()).receipts
    assert pending == mined
    assert [receipt.txid for receipt in mined] == [txid]
    assert txid not in coins.adapter.mempool()


def test_a_pending_use_of_an_outpoint_is_the_consumption_that_it_will_be(coins: BtcWorld) -> None:
    coin = coins.spendable()
    signed = coin.signed(coins.fees[0], coins.elsewhere)
    coins.adapter.broadcast(signed.raw)
    pending = coins.adapter.observe_pending([signed.txid], set(), {coin.resource})[signed.txid].consumptions
    coins.mine(1)
    mined = coins.adapter.observe_block(coins.adapter.tip(), set(), {coin.resource}).consumptions
    assert pending == mined != ()


def test_a_coin_that_arrives_and_leaves_in_one_block_is_seen_doing_both(coins: BtcWorld) -> None:
    coin = coins.own_coin()
    raw = coins.spend(coin, 10_000, coins.elsewhere).raw
    assert coins.adapter.broadcast(raw).state is BroadcastState.ACCEPTED
    coins.mine(1)
    seen = coins.adapter.observe_block(coins.adapter.tip(), {coins.script}, set())
    assert [receipt.resource for receipt in seen.receipts] == [coin.resource]
    assert [(c.resource, c.txid) for c in seen.consumptions] == [(coin.resource, Transaction.parse(raw).txid)]


def test_a_pending_payment_replaced_by_one_that_does_not_pay_us_leaves_nothing_behind(
    coins: BtcWorld,
) -> None:
    txid = coins.pay(coins.script, 33_000)
    other = coins.pay_elsewhere_instead(txid)
    seen = coins.adapter.observe_pending([txid, other], {coins.script}, set())
    assert set(seen) == {other}
    assert seen[other].receipts == ()
    assert txid not in coins.adapter.mempool()


def test_of_two_pending_versions_only_the_one_that_pays_more_is_there(coins: BtcWorld) -> None:
    coin, (low, high) = coins.spendable(), coins.fees
    first, second = coin.signed(low, coins.elsewhere), coin.signed(high, coins.elsewhere)
    for signed in (first, second):
        coins.adapter.broadcast(signed.raw)
    seen = coins.adapter.observe_pending([first.txid, second.txid], set(), {coin.resource})
    assert set(seen) == {second.txid}
