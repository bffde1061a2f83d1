"""Reading a full EVM block for our addresses, beside web3.py's block, logs and match.

Both read the answers of one anvil, recorded and replayed: anvil itself recovers each sender anew whenever it is asked
for a block, which takes longer than all else and which no real node does.
"""

from __future__ import annotations

import http.server
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from chains.eth.address import checksummed
from chains.eth.erc20 import TRANSFER_TOPIC, transfer_calldata
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.watch import WatchedSenders
from ops.bench.compare import Row, Side, interleave
from ops.devnet.anvil import Anvil
from ops.stack.contracts import OUTSIDE, calldata, deploy, mined

_WATCHED: Final = 1_000_000
_PAYMENTS: Final = 1_200
"""Of ETH; with the tokens some 60 M gas, a full block of today."""
_TOKEN_PAYMENTS: Final = 700
_HITS: Final = 20
_GAS: Final = 70_000


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Blocks a second, each with 1 M watched addresses and 20 arrivals of either kind."""
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name,
        Anvil(Path(name), extra_args=["--gas-limit", "100000000"]) as node,
    ):
        yield from _compare(node, progress)


def _full_block(node: Anvil, token: str, ours: list[bytes]) -> None:
    """Mines one block of payments to anybody, the first `_HITS` of either kind to ours."""
    draw = random.Random(2015)
    payer, holder, *_ = node.accounts()
    for number in range(_PAYMENTS):
        to = ours[number] if number < _HITS else draw.randbytes(20)
        node.transact(payer, checksummed(to), value_wei=10**15, gas=21_000)
    for number in range(_TOKEN_PAYMENTS):
        to = ours[number] if number < _HITS else draw.randbytes(20)
        node.transact(holder, token, transfer_calldata(to, 10**6), gas=_GAS)
    node.mine()


@contextmanager
def _replayed(node: Anvil) -> Iterator[str]:
    """Address of a server that asks the node once for each thing, and then gives the same bytes again."""
    known: dict[bytes, msgspec.Raw] = {}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        key = msgspec.json.encode([question["method"], question.get("params", [])])
        if key not in known:
            result = node.rpc(question["method"], *question.get("params", []))
            known[key] = msgspec.Raw(msgspec.json.encode(result))
        return {"jsonrpc": "2.0", "id": question["id"], "result": known[key]}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
            found = [answer(each) for each in asked] if isinstance(asked, list) else answer(asked)
            body = msgspec.json.encode(found)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _compare(node: Anvil, progress: Callable[[str], None]) -> Iterator[Row]:
    progress("ETH block scan: making 1 M addresses and a full block")
    pool = os.urandom(20 * _WATCHED)
    scripts = {pool[at : at + 20] for at in range(0, len(pool), 20)}
    ours_are = random.Random(1).sample(sorted(scripts), _HITS)
    holder = node.accounts()[1]
    token = deploy(node, holder, "Token", ("Example Dollar", "USDX", 6), directory=OUTSIDE)
    mined(node, node.transact(holder, token, calldata("mint(address,uint256)", holder, 10**18), gas=_GAS))
    _full_block(node, token, ours_are)
    with _replayed(node) as url:
        yield _row(node, url, token, scripts, progress)


def _row(node: Anvil, url: str, token: str, scripts: set[bytes], progress: Callable[[str], None]) -> Row:
    from hexbytes import HexBytes
    from web3 import HTTPProvider, Web3

    network = EthNetwork(node.chain_id, node.block_hash(0)[2:], NativeMode.TRACE)
    adapter = EvmNode("ethereum-devnet", network, url, tokens=lambda: [token])
    tip, senders = adapter.tip(), WatchedSenders([node.accounts()[5]])
    web3 = Web3(HTTPProvider(url))
    block_hash = HexBytes(tip.hash)
    wanted: Any = {"blockHash": block_hash, "address": token, "topics": [TRANSFER_TOPIC]}

    def ours() -> tuple[int, int]:
        receipts = adapter.observe_block(tip, scripts, senders).receipts
        tokens = sum(receipt.contract is not None for receipt in receipts)
        return len(receipts) - tokens, tokens

    def peer() -> tuple[int, int]:
        block: Any = web3.eth.get_block(block_hash, full_transactions=True)
        logs = web3.eth.get_logs(wanted)
        native = sum(bytes.fromhex(tx["to"][2:]) in scripts for tx in block["transactions"])
        return native, sum(bytes(log["topics"][2][12:]) in scripts for log in logs)

    if not ours() == peer() == (_HITS, _HITS):
        raise AssertionError(f"they find different things: {ours()} and {peer()}")
    progress(f"ETH block scan: a block of {_PAYMENTS + _TOKEN_PAYMENTS} transactions")
    ours_rate, peer_rate = interleave(Side(ours, 1, runs=10), Side(peer, 1), repeats=7)
    adapter.close()
    name = "web3.py: get_block and get_logs, matched; no internal payments, no balances"
    return Row("eth-block-scan", ours_rate, peer_rate, name, "blocks/s")
