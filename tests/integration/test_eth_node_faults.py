"""The EVM adapter where nodes misbehave: stopped, stalled, on another network, contradicting themselves."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import coincurve
import pytest

from chains.errors import InvalidValue, NodeRefused, NodeUnavailable, Reorganised, WrongNetwork
from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode, reader
from chains.eth.node.transport import Limits
from chains.eth.tx import UnsignedTx, address_of_key
from chains.eth.watch import WatchedSenders
from chains.ports import BroadcastState, Observation, Presence
from chains.types import BlockRef, TxId
from ops.devnet.anvil import Anvil, AnvilRefused
from ops.devnet.process import wait_until
from tests.support.evm import deploy, outside_artifact

CHAIN = "ethereum-devnet"


def node_of(anvil: Anvil, url: str = "", *, timeout_s: float = 30.0, tokens: tuple[str, ...] = ()) -> EvmNode:
    network = EthNetwork(anvil.chain_id, anvil.block_hash(0)[2:], NativeMode.TRACE)
    return EvmNode(CHAIN, network, url or anvil.rpc_url, tokens=lambda: tokens, timeout_s=timeout_s)


def test_fault_46_a_node_of_another_chain_id_or_genesis_is_not_listened_to(anvil: Anvil) -> None:
    genesis = anvil.block_hash(0)[2:]
    for network in (
        EthNetwork(anvil.chain_id + 1, genesis, NativeMode.TRACE),
        EthNetwork(anvil.chain_id, "ab" * 32, NativeMode.TRACE),
    ):
        node = EvmNode(CHAIN, network, anvil.rpc_url, tokens=tuple)
        for call in (node.tip, node.gas_price, lambda: node.presence(TxId("ab" * 32))):  # noqa: B023
            with pytest.raises(WrongNetwork):
                call()


def test_fault_46_a_transaction_for_another_network_is_not_handed_on(anvil: Anvil) -> None:
    tx = UnsignedTx(anvil.chain_id + 1, 0, 1, 10**10, 21_000, bytes(19) + b"\x01", 1)
    key = coincurve.PrivateKey(bytes(range(1, 33)))
    raw = tx.signed(key.sign_recoverable(tx.signing_hash, hasher=None)).encode()
    with pytest.raises(InvalidValue, match="for chain id"):
        node_of(anvil).broadcast(raw)


def test_fault_17_a_stalled_node_is_unavailable_after_the_timeout(fresh_anvil: Callable[..., Anvil]) -> None:
    anvil = fresh_anvil()
    impatient = node_of(anvil, timeout_s=1.0)
    impatient.tip()
    pid = anvil.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        # The threads of a busy machine stop one by one, so the first answers may still come.
        wait_until(lambda: not _answers(impatient), timeout=30, what="the node to stop answering")
        for call in (impatient.gas_price, lambda: impatient.observe_block(BlockRef(1, "ab" * 32), {b""}, ())):
            with pytest.raises(NodeUnavailable):
                call()
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: _answers(impatient), timeout=30, what="the node to answer again")


def _answers(node: EvmNode) -> bool:
    try:
        node.tip()
    except NodeUnavailable:
        return False
    return True


def test_a_restarted_node_is_found_again_by_the_same_adapter(fresh_anvil: Callable[..., Anvil]) -> None:
    anvil = fresh_anvil()
    anvil.mine(2)
    node = node_of(anvil)
    tip = node.tip()
    anvil.stop()
    with pytest.raises(NodeUnavailable):
        node.tip()
    anvil.start()
    assert node.tip() == tip


def test_its_address_is_not_printed() -> None:
    network = EthNetwork(1, "ab" * 32, NativeMode.TRACE)
    node = EvmNode(CHAIN, network, "http://user:hunter2@127.0.0.1:9/v3/apikey", tokens=tuple)
    with pytest.raises(NodeUnavailable) as caught:
        node.tip()
    for text in (repr(node), str(caught.value)):
        assert "hunter2" not in text
        assert "apikey" not in text


def test_what_would_revert_is_said_before_it_is_signed(anvil: Anvil) -> None:
    payer, other, *_ = anvil.accounts()
    pausable = deploy(anvil, payer, outside_artifact("PausableToken"))
    pausable.do(payer, "mint", payer, 100)
    node = node_of(anvil)
    call = Call(raw_address(payer), raw_address(pausable.address), 0, pausable.data("transfer", other, 5))
    estimate = node.estimate_gas(call)
    assert isinstance(estimate, int)
    assert 30_000 < estimate < 100_000
    assert node.simulate(call) == (1).to_bytes(32, "big")
    pausable.do(payer, "setPaused", True)
    assert isinstance(node.estimate_gas(call), Reverted)
    assert isinstance(node.simulate(call), Reverted)
    assert node.estimate_gas(Call(raw_address(payer), raw_address(other), 1)) == 21_000


def test_the_price_of_gas_is_that_of_the_next_block(anvil: Anvil) -> None:
    anvil.set_next_base_fee(77 * 10**9)
    anvil.mine()
    base = int(anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
    assert base == 77 * 10**9
    price = node_of(anvil).gas_price()
    assert base * 7 // 8 <= price.base_fee_wei < base, "the block was empty, so the next is cheaper"
    assert price.priority_wei > 0


class Liar:
    """A node that passes calls on and changes what comes back."""

    def __init__(self, anvil: Anvil) -> None:
        self.anvil = anvil
        self.change: Callable[[str, Any], Any] = lambda method, result: result
        self.body: bytes | None = None
        self.status = 200
        self.cut_after = ""
        """The connection breaks after the next call of this method, which takes effect."""
        self.cut_always = False
        """It breaks after each."""
        self.endless_s: float | None = None
        """An answer with traces never ends, and this is the pause between two of its pieces."""
        self.closed = threading.Event()
        self.heads: list[tuple[str, str | None]] = []
        """Path and authorization of each request."""
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                liar.heads.append((self.path, self.headers["Authorization"]))
                body = (
                    liar.body
                    if liar.body is not None
                    else json.dumps([liar.answer(a) for a in asked]).encode()
                )
                if any(a["method"] == liar.cut_after for a in asked):
                    liar.cut_after = liar.cut_after if liar.cut_always else ""
                    self.close_connection = True
                    return
                with contextlib.suppress(ConnectionError):  # whoever asked may have heard enough
                    self.send_response(liar.status)
                    if liar.endless_s is not None and any(a["method"] == "trace_block" for a in asked):
                        self.go_on(liar.endless_s)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def go_on(self, pause_s: float) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while not liar.closed.wait(pause_s):
                    self.wfile.write(b"40000\r\n" + b" " * 0x40000 + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self.change(asked["method"], self.anvil.rpc(asked["method"], *asked["params"]))
        except AnvilRefused as error:
            return {
                "jsonrpc": "2.0",
                "id": asked["id"],
                "error": {"code": error.code, "message": error.message},
            }
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}

    def close(self) -> None:
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def liar(anvil: Anvil) -> Iterator[Liar]:
    server = Liar(anvil)
    yield server
    server.close()


@pytest.fixture
def seen(anvil: Anvil, liar: Liar) -> Iterator[Callable[..., Observation]]:
    """Reads a block in which a forwarder got ETH and tokens and our key paid, through the liar."""
    key, payer, *_ = anvil.accounts()
    token = deploy(anvil, payer, outside_artifact("Token"), "T", "T", 6)
    target = "0x" + os.urandom(20).hex()
    anvil.send_eth(payer, target, 5)
    anvil.transact(payer, token.address, token.data("mint", target, 7), gas=200_000)
    anvil.send_eth(key, payer, 3)
    anvil.mine()
    node = node_of(anvil, liar.url, tokens=(token.address,))
    tip = node.tip()
    scripts, senders = {bytes.fromhex(target[2:])}, WatchedSenders([key])
    honest = node.observe_block(tip, scripts, senders)
    assert (len(honest.receipts), len(honest.consumptions)) == (2, 1)
    yield lambda *mode: node.observe_block(tip, scripts, senders, *mode)
    node.close()


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("eth_getBlockByHash", lambda block: {**block, "hash": "0x" + "ab" * 32}),
        ("eth_getBlockByHash", lambda block: {**block, "number": "0x0"}),
        ("eth_getBlockByHash", lambda block: {**block, "number": "seven"}),
        ("eth_getBlockByHash", lambda block: []),
        ("eth_getLogs", lambda logs: [{**log, "blockHash": "0x" + "ab" * 32} for log in logs]),
        ("eth_getLogs", lambda logs: logs + logs),
        ("eth_getLogs", lambda logs: [{**log, "logIndex": "0x77"} for log in logs]),
        ("eth_getLogs", lambda logs: None),
        ("trace_block", lambda traces: []),
        ("trace_block", lambda traces: [{**t, "blockHash": "0x" + "ab" * 32} for t in traces]),
        ("trace_block", lambda traces: traces[1:]),
        ("eth_getTransactionReceipt", lambda receipt: {**receipt, "status": "0x0", "logs": []}),
        ("eth_getTransactionReceipt", lambda receipt: {**receipt, "blockHash": "0x" + "ab" * 32}),
        ("eth_getTransactionReceipt", lambda receipt: {**receipt, "transactionHash": "0x" + "ab" * 32}),
        ("eth_getTransactionReceipt", lambda receipt: None),
        ("eth_getTransactionByHash", lambda tx: {**tx, "hash": "0x" + "ab" * 32}),
        ("eth_getTransactionByHash", lambda tx: {**tx, "blockHash": None}),
        ("eth_call", lambda balance: 7),
    ],
)
def test_answers_that_contradict_each_other_are_not_believed(
    liar: Liar, seen: Callable[[], object], method: str, change: Callable[[Any], Any]
) -> None:
    liar.change = lambda asked, result: change(result) if asked == method else result
    with pytest.raises((NodeUnavailable, Reorganised)):
        seen()


def test_a_mined_transaction_whose_fields_do_not_hash_to_its_id_is_none_of_ours(
    liar: Liar, seen: Callable[[], Any]
) -> None:
    honest = seen().consumptions[0]
    for change in ({"value": "0x4"}, {"chainId": "0x1"}, {"type": "0x0"}, {"nonce": "0xffff"}, {"r": "0x1"}):
        liar.change = lambda asked, result, change=change: (  # type: ignore[misc]
            {**result, **change} if asked == "eth_getTransactionByHash" else result
        )
        content = seen().consumptions[0].content
        assert content == honest.txid.hex != honest.content


def native(seen: Observation) -> list[int]:
    return [receipt.units for receipt in seen.receipts if receipt.contract is None]


def asked_for_traces(liar: Liar, seen: Callable[[], Observation]) -> tuple[Observation, int]:
    """What is seen, and how often the node was asked for traces."""
    asked: list[str] = []
    change = liar.change

    def counted(method: str, result: Any) -> Any:
        asked.append(method)
        return change(method, result)

    liar.change = counted
    try:
        return seen(), asked.count("trace_block")
    finally:
        liar.change = change


def refusal(code: int, message: str) -> Callable[[str, Any], Any]:
    def change(method: str, result: Any) -> Any:
        if method == "trace_block":
            raise AnvilRefused(method, {"code": code, "message": message})
        return result

    return change


@pytest.mark.parametrize(
    ("change", "times"),
    [
        (refusal(-32000, "execution timeout"), 2),
        (refusal(-32005, "limit exceeded"), 2),
        (refusal(-32603, "internal error"), 2),
        (refusal(-32008, "response is too big"), 2),
        (lambda method, result: None if method == "trace_block" else result, 2),
        (lambda method, result: [*result, "x" * 70_000_000] if method == "trace_block" else result, 1),
    ],
    ids=["a timeout", "a limit", "an error", "a length", "nothing", "more than we read"],
)
def test_a_block_whose_traces_the_node_does_not_give_is_read_by_balances(
    liar: Liar, seen: Callable[..., Observation], change: Callable[[str, Any], Any], times: int
) -> None:
    traced = seen()
    liar.change = change
    compared, asked = asked_for_traces(liar, seen)
    assert (traced.native_mode, compared.native_mode) == (NativeMode.TRACE, NativeMode.BALANCE)
    assert asked == times
    assert native(compared) == native(traced) == [5]
    assert compared.consumptions == traced.consumptions
    with pytest.raises(NodeUnavailable):
        seen(NativeMode.TRACE)
    liar.change = lambda method, result: result
    assert seen(NativeMode.TRACE) == traced
    assert seen(NativeMode.BALANCE) == compared


def test_a_node_that_fails_once_is_asked_for_traces_again(
    liar: Liar, seen: Callable[..., Observation]
) -> None:
    refusals = iter([refusal(-32603, "internal error")])
    liar.change = lambda method, result: (
        next(refusals, lambda _, same: same)(method, result) if method == "trace_block" else result
    )
    assert seen().native_mode is NativeMode.TRACE


def test_a_node_that_dies_of_a_blocks_traces_is_spared_them_after_a_few_times(
    liar: Liar, seen: Callable[..., Observation]
) -> None:
    """It answers nothing else either until it is started again; and then the same block is asked for."""
    dead = [False]

    def change(method: str, result: Any) -> Any:
        dead[0] = dead[0] or method == "trace_block"
        if dead[0]:
            raise AnvilRefused(method, {"code": -32603, "message": "out of memory"})
        return result

    liar.change = change
    for _ in range(3):
        dead[0] = False
        with pytest.raises(NodeUnavailable):
            seen()
    dead[0] = False
    compared, asked = asked_for_traces(liar, seen)
    assert (compared.native_mode, asked) == (NativeMode.BALANCE, 0)


def test_a_node_that_breaks_the_connection_at_a_blocks_traces_is_asked_for_balances(
    liar: Liar, seen: Callable[..., Observation]
) -> None:
    liar.cut_after, liar.cut_always = "trace_block", True
    assert seen().native_mode is NativeMode.BALANCE


def test_traces_that_come_too_slowly_are_not_waited_for(
    anvil: Anvil, liar: Liar, seen: Callable[..., Observation], monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = threading.Event()

    def change(method: str, result: Any) -> Any:
        if method == "trace_block":
            stalled.wait(20)
        return result

    liar.change = change
    monkeypatch.setattr(reader, "TRACE_LIMITS", replace(reader.TRACE_LIMITS, seconds=0.3))
    try:
        assert seen().native_mode is NativeMode.BALANCE
    finally:
        stalled.set()


@pytest.mark.parametrize(
    ("pause_s", "limits"), [(0, Limits(10_000_000, 30)), (0.1, Limits(10**9, 1))], ids=["size", "time"]
)
def test_an_answer_without_an_end_is_broken_off(
    liar: Liar,
    seen: Callable[..., Observation],
    monkeypatch: pytest.MonkeyPatch,
    pause_s: float,
    limits: Limits,
) -> None:
    liar.endless_s = pause_s
    monkeypatch.setattr(reader, "TRACE_LIMITS", limits)
    assert seen().native_mode is NativeMode.BALANCE


def test_a_node_without_traces_at_all_is_of_the_wrong_kind(
    liar: Liar, seen: Callable[..., Observation]
) -> None:
    liar.change = refusal(-32601, "the method trace_block does not exist")
    with pytest.raises(NodeRefused):
        seen()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"", NodeUnavailable),
        (200, b"[]", NodeUnavailable),
        (200, b"<html>", NodeUnavailable),
        (200, b'[{"jsonrpc":"2.0","id":0,"result":"0x1"}', NodeUnavailable),
        (200, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"slow down"}}', NodeUnavailable),
        (200, b'[{"jsonrpc":"2.0","id":0,"error":{"code":-32603,"message":"internal"}}]', NodeUnavailable),
        (200, b'[{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no such method"}}]', NodeRefused),
        (200, b'[{"jsonrpc":"2.0","id":5,"result":null}]', NodeUnavailable),
        (429, b"slow down", NodeUnavailable),
        (503, b"starting", NodeUnavailable),
        (401, b"who are you", NodeRefused),
    ],
)
def test_answers_that_are_none_are_told_apart(
    anvil: Anvil, liar: Liar, status: int, body: bytes, error: type[Exception]
) -> None:
    node = node_of(anvil, liar.url)
    node.tip()
    liar.status, liar.body = status, body
    with pytest.raises(error):
        node.tip()
    liar.status, liar.body = 200, None
    node.tip()


def test_fault_3_a_broadcast_whose_reply_is_lost_is_sent_again_and_known(anvil: Anvil, liar: Liar) -> None:
    key = coincurve.PrivateKey(os.urandom(32))
    sender = address_of_key(key.public_key.format())
    anvil.fund(checksummed(sender), 10**18)
    tx = UnsignedTx(anvil.chain_id, 0, 10**9, 10**11, 21_000, bytes(19) + b"\x01", 1)
    signed = tx.signed(key.sign_recoverable(tx.signing_hash, hasher=None))
    node = node_of(anvil, liar.url)
    node.tip()
    liar.cut_after = "eth_sendRawTransaction"
    assert node.broadcast(signed.encode()).state is BroadcastState.ALREADY_KNOWN
    anvil.mine()
    assert node.presence(signed.txid) is Presence.MINED
    assert node.nonce(sender, node.tip()) == 1


def test_a_nodes_address_may_have_a_path_and_a_password(anvil: Anvil, liar: Liar) -> None:
    url = liar.url.replace("http://", "http://us%40er:pass%3Aword@") + "/v3/key?x=1"
    node_of(anvil, url).tip()
    expected = "Basic " + base64.b64encode(b"us@er:pass:word").decode()
    assert set(liar.heads) == {("/v3/key?x=1", expected)}


def test_threads_share_a_node_without_mixing_up_its_answers(anvil: Anvil) -> None:
    node = node_of(anvil)
    anvil.mine(8)
    tip = node.tip().height

    def read(number: int) -> list[int]:
        heights = [tip - (number + turn) % 8 for turn in range(40)]
        found = [node.header_at(height) for height in heights]
        node.close()
        assert [header and header.ref.height for header in found] == heights
        return heights

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
