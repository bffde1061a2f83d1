"""What every chain adapter owes its callers, run on the fake chain and on a real bitcoind alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import coincurve
import pytest

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.script import p2wpkh_script
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh, with_witnesses
from chains.errors import InvalidAddress, InvalidValue, Reorganised
from chains.ports import BroadcastState, ChainAdapter, Presence
from chains.types import BlockRef, TxId
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.chain import FakeChain

KEY = coincurve.PrivateKey(bytes(range(1, 33)))
PUBKEY = KEY.public_key.format()
SCRIPT = p2wpkh_script(PUBKEY)
ELSEWHERE = b"\x51\x20" + bytes(range(32))


class World(Protocol):
    """An adapter, and the powers of payers and miners over its chain."""

    adapter: ChainAdapter

    def pay(self, script: bytes, units: int) -> TxId: ...

    def pay_elsewhere_instead(self, txid: TxId) -> TxId: ...

    def mine(self, blocks: int) -> None: ...

    def reorg(self, depth: int) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.chain = FakeChain()
        self.adapter: ChainAdapter = self.chain

    def pay(self, script: bytes, units: int) -> TxId:
        return self.chain.pay([TxOut(units, script)])

    def pay_elsewhere_instead(self, txid: TxId) -> TxId:
        return self.chain.pay([TxOut(1_000, ELSEWHERE)], replaces=txid)

    def mine(self, blocks: int) -> None:
        self.chain.mine(blocks)

    def reorg(self, depth: int) -> None:
        self.chain.reorg(depth)


class RealWorld:
    def __init__(self, bitcoind: Bitcoind) -> None:
        self.bitcoind = bitcoind
        self.miner = bitcoind.wallet("miner")
        self.wallet = bitcoind.wallet("payer")
        # The payer has no coinbase outputs: a reorg makes young ones immature, and drops what spends them.
        self.miner.fund()
        self.miner.send_many({self.wallet.address(): 10**7 for _ in range(40)})
        self.miner.mine(10)
        self.node = BitcoinNode("bitcoin-regtest", NETWORKS["regtest"], bitcoind.rpc_url, bitcoind.rest_url)
        self.adapter: ChainAdapter = self.node

    def pay(self, script: bytes, units: int) -> TxId:
        address = self.bitcoind.rpc("decodescript", script.hex())["address"]
        return TxId(self.wallet.send(address, units))

    def pay_elsewhere_instead(self, txid: TxId) -> TxId:
        address = self.bitcoind.rpc("decodescript", ELSEWHERE.hex())["address"]
        options = {"outputs": [{address: "0.00001000"}], "fee_rate": 50}
        return TxId(self.wallet.rpc("bumpfee", txid.hex, options)["txid"])

    def mine(self, blocks: int) -> None:
        self.miner.mine(blocks)

    def reorg(self, depth: int) -> None:
        height = self.bitcoind.rpc("getblockcount")
        self.bitcoind.rpc("invalidateblock", self.bitcoind.rpc("getblockhash", height - depth + 1))
        for _ in range(depth + 1):
            self.bitcoind.rpc("generateblock", self.miner.address(), [])


@pytest.fixture(scope="module")
def real_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    # A node of its own: reorgs would disturb those who share one.
    directory: Path = tmp_path_factory.mktemp("contract-bitcoind")
    with Bitcoind(directory) as bitcoind:
        world = RealWorld(bitcoind)
        yield world
        world.node.close()


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fake":
        return FakeWorld()
    real: RealWorld = request.getfixturevalue("real_world")
    return real


def spend(source: TxId, vout: int, value: int, *outputs: TxOut) -> bytes:
    """A signed transaction that spends one output of KEY's script."""
    tx = Transaction(2, (TxIn(Outpoint(source, vout)),), outputs)
    signature = KEY.sign(sighash_p2wpkh(tx, 0, PUBKEY, value), hasher=None) + b"\x01"
    return with_witnesses(tx, [[signature, PUBKEY]]).serialize()


def own_coin(world: World, units: int) -> Outpoint:
    """An output of KEY's script, pending."""
    txid = world.pay(SCRIPT, units)
    [receipt] = world.adapter.observe_pending([txid], {SCRIPT}, set())[txid].receipts
    return Outpoint.parse(receipt.resource)


def test_an_address_is_read_for_its_own_network_only(world: World) -> None:
    read = world.adapter.parse_address("BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080")
    assert (read.kind, read.chain) == ("p2wpkh", world.adapter.chain)
    with pytest.raises(InvalidAddress, match="wrong network"):
        world.adapter.parse_address("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")


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


def test_a_payment_is_the_same_receipt_while_pending_and_when_mined(world: World) -> None:
    txid = world.pay(SCRIPT, 123_456)
    assert txid in world.adapter.mempool()
    assert world.adapter.presence(txid) is Presence.MEMPOOL
    pending = world.adapter.observe_pending([txid], {SCRIPT}, set())[txid].receipts
    world.mine(1)
    mined = world.adapter.observe_block(world.adapter.tip(), {SCRIPT}, set()).receipts
    assert pending == mined
    assert [(r.txid, r.script, r.units, r.coinbase) for r in mined] == [(txid, SCRIPT, 123_456, False)]
    assert world.adapter.presence(txid) is Presence.MINED
    assert txid not in world.adapter.mempool()


def test_what_is_not_watched_is_not_observed(world: World) -> None:
    txid = world.pay(SCRIPT, 50_000)
    assert world.adapter.observe_pending([txid], {ELSEWHERE}, set())[txid].receipts == ()
    world.mine(1)
    seen = world.adapter.observe_block(world.adapter.tip(), set(), set())
    assert (seen.receipts, seen.consumptions) == ((), ())


def test_spending_a_watched_outpoint_is_a_consumption_while_pending_and_when_mined(world: World) -> None:
    coin = own_coin(world, 80_000)
    world.mine(1)
    raw = spend(coin.txid, coin.vout, 80_000, TxOut(70_000, ELSEWHERE))
    assert world.adapter.broadcast(raw).state is BroadcastState.ACCEPTED
    txid = Transaction.parse(raw).txid
    pending = world.adapter.observe_pending([txid], set(), {coin.resource})[txid].consumptions
    world.mine(1)
    mined = world.adapter.observe_block(world.adapter.tip(), set(), {coin.resource}).consumptions
    assert pending == mined
    assert [(c.resource, c.txid, c.succeeded) for c in mined] == [(coin.resource, txid, True)]


def test_a_coin_that_arrives_and_leaves_in_one_block_is_seen_doing_both(world: World) -> None:
    coin = own_coin(world, 60_000)
    raw = spend(coin.txid, coin.vout, 60_000, TxOut(50_000, ELSEWHERE))
    assert world.adapter.broadcast(raw).state is BroadcastState.ACCEPTED
    world.mine(1)
    seen = world.adapter.observe_block(world.adapter.tip(), {SCRIPT}, set())
    assert [receipt.resource for receipt in seen.receipts] == [coin.resource]
    assert [(c.resource, c.txid) for c in seen.consumptions] == [(coin.resource, Transaction.parse(raw).txid)]


def test_a_broadcast_again_is_already_known_in_the_mempool_and_in_a_block(world: World) -> None:
    coin = own_coin(world, 40_000)
    raw = spend(coin.txid, coin.vout, 40_000, TxOut(30_000, SCRIPT))
    assert world.adapter.broadcast(raw).state is BroadcastState.ACCEPTED
    assert world.adapter.broadcast(raw).state is BroadcastState.ALREADY_KNOWN
    world.mine(1)
    assert world.adapter.broadcast(raw).state is BroadcastState.ALREADY_KNOWN


def test_a_broadcast_that_spends_nothing_known_is_rejected_with_a_reason(world: World) -> None:
    result = world.adapter.broadcast(spend(TxId("ab" * 32), 0, 10_000, TxOut(5_000, SCRIPT)))
    assert result.state is BroadcastState.REJECTED
    assert "missingorspent" in result.reason


def test_a_broadcast_with_a_wrong_signature_is_rejected(world: World) -> None:
    coin = own_coin(world, 40_000)
    raw = spend(coin.txid, coin.vout, 39_999, TxOut(30_000, SCRIPT))
    assert world.adapter.broadcast(raw).state is BroadcastState.REJECTED


def test_bytes_that_are_no_transaction_are_not_sent(world: World) -> None:
    with pytest.raises(InvalidValue):
        world.adapter.broadcast(b"\x00" * 60)


def test_a_replacement_needs_a_higher_fee_and_then_drives_out_the_first(world: World) -> None:
    coin = own_coin(world, 90_000)
    world.mine(1)
    first = spend(coin.txid, coin.vout, 90_000, TxOut(88_000, ELSEWHERE))
    same_fee = spend(coin.txid, coin.vout, 90_000, TxOut(88_000, SCRIPT))
    higher = spend(coin.txid, coin.vout, 90_000, TxOut(80_000, SCRIPT))
    assert world.adapter.broadcast(first).state is BroadcastState.ACCEPTED
    assert world.adapter.broadcast(same_fee).state is BroadcastState.REJECTED
    assert world.adapter.broadcast(higher).state is BroadcastState.ACCEPTED
    txids = [Transaction.parse(raw).txid for raw in (first, higher)]
    assert set(world.adapter.observe_pending(txids, set(), {coin.resource})) == {txids[1]}
    assert world.adapter.presence(txids[0]) is Presence.UNKNOWN


def test_a_payment_replaced_by_one_that_does_not_pay_us_leaves_nothing_behind(world: World) -> None:
    txid = world.pay(SCRIPT, 33_000)
    other = world.pay_elsewhere_instead(txid)
    seen = world.adapter.observe_pending([txid, other], {SCRIPT}, set())
    assert set(seen) == {other}
    assert seen[other].receipts == ()
    assert txid not in world.adapter.mempool()


def test_a_reorg_changes_the_hashes_and_puts_the_payment_back_into_the_mempool(world: World) -> None:
    txid = world.pay(SCRIPT, 77_000)
    world.mine(2)
    old_tip = world.adapter.tip()
    world.reorg(2)
    new_header = world.adapter.header_at(old_tip.height)
    assert new_header is not None
    assert new_header.ref.hash != old_tip.hash
    assert world.adapter.tip().height == old_tip.height + 1
    assert txid in world.adapter.mempool()
    assert world.adapter.presence(txid) is Presence.MEMPOOL
    world.mine(1)
    mined = world.adapter.observe_block(world.adapter.tip(), {SCRIPT}, set()).receipts
    assert [receipt.txid for receipt in mined].count(txid) == 1


def test_a_block_that_never_was_is_reported_as_a_reorg(world: World) -> None:
    with pytest.raises(Reorganised):
        world.adapter.observe_block(BlockRef(1, "ab" * 32), set(), set())


def test_a_transaction_nobody_sent_is_unknown(world: World) -> None:
    assert world.adapter.presence(TxId("cd" * 32)) is Presence.UNKNOWN
    assert world.adapter.observe_pending([TxId("cd" * 32)], {SCRIPT}, set()) == {}
