"""The bitcoind adapter where nodes misbehave: stopped, stalled, restarted, on another network, short of words."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from chains.btc.fees import Evicted
from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode, BlockAnnouncements, ScanDescriptor
from chains.errors import NodeRefused, NodeUnavailable, WrongNetwork
from chains.types import BlockRef, TxId
from ops.devnet.bitcoind import Bitcoind, btc_to_sats
from ops.devnet.process import wait_until

REGTEST = NETWORKS["regtest"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """A node that may be stopped and stalled."""
    directory: Path = tmp_path_factory.mktemp("node-bitcoind")
    with Bitcoind(directory) as bitcoind:
        bitcoind.wallet("miner").fund()
        yield bitcoind


@pytest.fixture
def node(own: Bitcoind) -> Iterator[BitcoinNode]:
    adapter = BitcoinNode("bitcoin-regtest", REGTEST, own.rpc_url, own.rest_url)
    yield adapter
    adapter.close()


def test_its_password_is_not_printed(own: Bitcoind, node: BitcoinNode) -> None:
    password = own.rpc_url.split(":")[2].split("@")[0]
    assert password not in repr(node)
    own.stop()
    with pytest.raises(NodeUnavailable) as caught:
        node.tip()
    own.start()
    assert password not in str(caught.value)


def test_a_restarted_node_is_found_again_by_the_same_adapter(own: Bitcoind, node: BitcoinNode) -> None:
    tip = node.tip()
    assert node.header_at(0) is not None
    own.restart()
    assert node.tip() == tip
    assert node.header_at(tip.height) is not None


def test_a_killed_node_is_unavailable_until_it_is_back(own: Bitcoind, node: BitcoinNode) -> None:
    tip = node.tip()
    own.kill()
    for call in (node.tip, node.mempool, lambda: node.observe_block(tip, set(), set())):
        with pytest.raises(NodeUnavailable):
            call()
    own.start()
    # Blocks that were not flushed are gone: without peers nobody has them.
    assert node.tip().height <= tip.height


def test_a_stalled_node_is_unavailable_after_the_timeout(own: Bitcoind) -> None:
    impatient = BitcoinNode("bitcoin-regtest", REGTEST, own.rpc_url, own.rest_url, timeout_s=1.0)
    pid = own.process.pid
    assert pid is not None
    wait_until(lambda: _answers(impatient), timeout=30, what="the node to answer")
    os.kill(pid, signal.SIGSTOP)
    try:
        # The threads of a busy machine stop one by one, so the first answers may still come.
        wait_until(lambda: not _answers(impatient), timeout=30, what="the node to stop answering")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: _answers(impatient), timeout=30, what="the node to answer again")
    impatient.close()


def _answers(node: BitcoinNode) -> bool:
    try:
        node.tip()
    except NodeUnavailable:
        return False
    return True


def test_a_node_of_another_network_is_not_used(own: Bitcoind) -> None:
    adapter = BitcoinNode("bitcoin", NETWORKS["main"], own.rpc_url, own.rest_url)
    for call in (adapter.tip, adapter.mempool, lambda: adapter.header_at(0)):
        with pytest.raises(WrongNetwork):
            call()


def test_a_wrong_password_is_permanent_and_a_warming_up_or_busy_node_is_not(own: Bitcoind) -> None:
    wrong = BitcoinNode("c", REGTEST, own.rpc_url.replace("strongroom:", "strongroom:x"), own.rest_url)
    with pytest.raises(NodeRefused):
        wrong.tip()
    warming_up = b'{"error":{"code":-28,"message":"Loading block index..."},"id":1,"result":null}'
    for status, body in (
        ("503 Service Unavailable", b"Work queue depth exceeded"),
        ("500 Internal Server Error", warming_up),
        ("200 OK", b'{"result": 1'),
        ("200 OK", b""),
    ):
        with CannedServer(status, body) as host:
            busy = BitcoinNode("c", REGTEST, f"http://u:p@{host}", f"http://{host}", timeout_s=2)
            with pytest.raises(NodeUnavailable):
                busy.tip()


class CannedServer:
    """An HTTP server on a loopback port that gives every request the same answer."""

    def __init__(self, status: str, body: bytes) -> None:
        kind = "application/json" if body.startswith(b"{") else "text/plain"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self._answer = head.encode() + b"Connection: close\r\n\r\n" + body
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(self._answer)

    def __enter__(self) -> str:
        self._thread.start()
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def test_threads_share_an_adapter(node: BitcoinNode) -> None:
    tip = node.tip()
    wrong: list[object] = []

    def ask() -> None:
        try:
            for height in range(tip.height):
                header = node.header_at(height)
                if header is None or header.ref.height != height:
                    wrong.append(header)
        except Exception as error:  # noqa: BLE001 - the test reports whatever it was
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_headers_come_in_runs_that_link(own: Bitcoind, node: BitcoinNode) -> None:
    tip = node.tip()
    headers = node.headers(0, 2_000)
    assert len(headers) == tip.height + 1
    assert headers[-1].ref == tip
    assert all(above.previous == below.ref.hash for below, above in pairwise(headers))
    assert node.headers(tip.height + 1, 10) == ()
    theirs = own.rpc("getblockheader", headers[5].ref.hash)
    assert (headers[5].previous, headers[5].time) == (theirs["previousblockhash"], theirs["time"])


def test_an_idle_node_is_synced_and_knows_its_minimum_rates(node: BitcoinNode) -> None:
    assert node.is_synced()
    assert node.mempool_min_feerate().sat_per_kvb > 0
    assert node.incremental_feerate().sat_per_kvb > 0
    assert node.fee_estimate(6) is None, "a fresh chain has no history to estimate from"


def test_unspent_outputs_of_a_descriptor_are_found_at_one_tip(own: Bitcoind, node: BitcoinNode) -> None:
    from embit import bip32
    from embit.networks import NETWORKS as EMBIT_NETWORKS

    master = bip32.HDKey.from_seed(bytes(range(64)), version=EMBIT_NETWORKS["regtest"]["xprv"])
    account = AccountKey.parse(master.derive("m/84h/1h/9h").to_public().to_base58(), REGTEST)
    miner = own.wallet("miner")
    expected = {}
    for index, units in ((0, 10_000), (1, 20_000), (30, 30_000)):
        miner.send(account.address(0, index), units)
        expected[account.script(0, index)] = units
    miner.mine(1)
    descriptors = [ScanDescriptor(f"wpkh({account.xpub}/{branch}/*)", 40) for branch in (0, 1)]
    found = node.utxo_scan(descriptors)
    assert found.tip == node.tip()
    assert found.total_sats == 60_000
    assert {unspent.script: unspent.units for unspent in found.unspents} == expected
    assert {unspent.height for unspent in found.unspents} == {found.tip.height}
    assert node.utxo_scan([ScanDescriptor(f"wpkh({account.xpub}/0/*)", 10)]).total_sats == 30_000


def test_what_a_replacement_pushes_out_is_the_transaction_and_all_that_spends_from_it(
    own: Bitcoind, node: BitcoinNode
) -> None:
    miner = own.wallet("miner")
    miner.mine(1)
    txid = miner.send(miner.address(), 50_000)
    entry = own.rpc("getmempoolentry", txid)
    alone = node.evicted(TxId(txid))
    assert alone == Evicted(1, btc_to_sats(entry["fees"]["base"]))
    [output] = [
        each for each in own.rpc("getrawtransaction", txid, 1)["vout"] if btc_to_sats(each["value"]) == 50_000
    ]
    raw = own.rpc(
        "createrawtransaction", [{"txid": txid, "vout": output["n"]}], [{miner.address(): "0.00047000"}]
    )
    child = own.rpc("sendrawtransaction", miner.rpc("signrawtransactionwithwallet", raw)["hex"])
    assert node.evicted(TxId(txid)) == Evicted(2, alone.fees_sats + 3_000)
    assert node.evicted(TxId(child)) == Evicted(1, 3_000)
    miner.mine(1)
    assert node.evicted(TxId(txid)) is None, "no longer in the mempool"
    assert node.evicted(TxId("ab" * 32)) is None


def test_a_raw_transaction_comes_from_the_block_that_has_it(own: Bitcoind, node: BitcoinNode) -> None:
    txid = TxId(own.wallet("miner").send(own.wallet("miner").address(), 5_000))
    pending = node.raw_transaction(txid)
    [block_hash] = own.wallet("miner").mine(1)
    assert node.raw_transaction(txid, block_hash) == pending
    with pytest.raises(NodeRefused):
        node.raw_transaction(TxId("ab" * 32))


def test_announcements_wake_a_waiter_for_blocks_and_for_payments(own: Bitcoind) -> None:
    with BlockAnnouncements(own.zmq_url) as announcements:
        # The subscription is settled when the first announcement arrives.
        def announced() -> bool:
            own.wallet("miner").mine(1)
            return announcements.wait(0.5)

        wait_until(announced, timeout=20, what="the first announcement")
        while announcements.wait(0.3):
            pass
        assert not announcements.wait(0.1)
        own.wallet("miner").send(own.wallet("miner").address(), 5_000)
        assert announcements.wait(5)


def test_a_pruned_block_is_no_reorg(tmp_path: Path) -> None:
    with Bitcoind(tmp_path, extra_args=("-fastprune", "-prune=1")) as pruned:
        miner = pruned.wallet("miner")
        miner.mine(600)
        pruned.rpc("pruneblockchain", 310)
        adapter = BitcoinNode("c", REGTEST, pruned.rpc_url, pruned.rest_url)
        header = adapter.header_at(1)
        assert header is not None
        with pytest.raises(NodeUnavailable, match="pruned"):
            adapter.observe_block(header.ref, set(), set())
        # Who asks what a vault has paid must not be told that it did not.
        with pytest.raises(NodeUnavailable, match="pruned"):
            adapter.mined(TxId("ab" * 32), header.ref.hash)
        tip = adapter.tip()
        with pytest.raises(NodeRefused):
            adapter.mined(TxId("ab" * 32), tip.hash)
        adapter.close()


def test_a_block_that_is_not_what_was_asked_for_is_not_believed(own: Bitcoind, node: BitcoinNode) -> None:
    tip = node.tip()
    raw = bytearray(bytes.fromhex(own.rpc("getblock", tip.hash, 0)))
    raw[-45] ^= 1  # in the last output of the last transaction; the header stays as it is
    body = bytes(raw)
    other = node.header_at(tip.height - 1)
    assert other is not None
    for ref in (tip, other.ref):
        with CannedServer("200 OK", body) as host:
            lied_to = BitcoinNode("c", REGTEST, own.rpc_url, f"http://{host}", timeout_s=2)
            with pytest.raises(NodeUnavailable, match=r"merkle root|instead of"):
                lied_to.observe_block(BlockRef(ref.height, ref.hash), set(), set())
            lied_to.close()
