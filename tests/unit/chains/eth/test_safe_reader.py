"""A node that contradicts itself about Safes, changes its mind, or talks nonsense is not believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from chains.errors import InvalidValue, NodeUnavailable, Reorganised
from chains.eth.node.safes import SafeReader
from chains.eth.node.transport import Reply, Transport
from chains.eth.safe import EXECUTED, parse_safe_resource, safe_resource
from chains.ports import Consumption, Header
from chains.types import BlockRef, TxId

SAFE = b"\x5a" * 20
BLOCK, TIP = BlockRef(7, "07" * 32), BlockRef(9, "09" * 32)
SUCCESS, FAILURE = EXECUTED


@dataclass
class FakeNode:
    """Answers as the test says."""

    logs: list[dict[str, Any]] = field(default_factory=list)
    later: int = 0
    """Executions between block and tip."""
    nonce: str = "0x" + f"{3:064x}"
    best: dict[int, str] = field(default_factory=lambda: {7: BLOCK.hash, 9: TIP.hash})
    asked: list[str] = field(default_factory=list)

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Reply]:
        [(method, [question, *_])] = calls
        self.asked.append(method)
        if method == "eth_call":
            answer: Any = self.nonce
        elif "blockHash" in question:
            answer = self.logs
        else:
            assert (question["fromBlock"], question["toBlock"]) == ("0x8", "0x9")
            answer = [event(0)] * self.later
        return [Reply(method, msgspec.Raw(json.dumps(answer).encode()), None)]

    def tip(self) -> BlockRef:
        return TIP

    def header_at(self, height: int) -> Header | None:
        found = self.best.get(height)
        return None if found is None else Header(BlockRef(height, found), "00" * 32, 0)

    def read(self) -> list[Consumption]:
        return SafeReader(cast(Transport, self), self).executions([SAFE], BLOCK)


def event(index: int, **changes: Any) -> dict[str, Any]:
    """An event of the Safe in the block."""
    fields = {
        "address": f"0x{SAFE.hex()}",
        "topics": [SUCCESS, "0x" + f"{index + 1:064x}"],
        "data": "0x",
        "blockHash": f"0x{BLOCK.hash}",
        "transactionHash": "0x" + "aa" * 32,
        "logIndex": hex(index),
    }
    return fields | changes


def test_nonces_are_counted_back_from_the_tip_in_the_order_of_the_events() -> None:
    node = FakeNode([event(11), event(2, topics=[FAILURE, "0x" + "bb" * 32])], later=1)
    first, second = node.read()
    assert first == Consumption(safe_resource(SAFE, 0), TxId("aa" * 32), "bb" * 32, succeeded=False)
    assert (second.resource, second.content) == (safe_resource(SAFE, 1), f"{12:064x}")


def test_a_block_without_executions_costs_one_question() -> None:
    node = FakeNode()
    assert node.read() == []
    assert node.asked == ["eth_getLogs"]


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(FakeNode([event(0, blockHash="0x" + "01" * 32)]), id="an event of another block"),
        pytest.param(FakeNode([event(0)], later=3), id="more executions than nonces"),
        pytest.param(FakeNode([event(0)], nonce="0x"), id="no contract, but an event"),
        pytest.param(FakeNode([event(0)], nonce="0x01"), id="a short nonce"),
        pytest.param(FakeNode([event(0)], nonce="nonsense"), id="no nonce"),
        pytest.param(FakeNode([event(0, topics=[SUCCESS])]), id="an event of an older Safe"),
        pytest.param(FakeNode([event(0, topics=["0x" + "00" * 32] * 2)]), id="another event"),
        pytest.param(FakeNode([event(0, transactionHash="0x12")]), id="no transaction id"),
        pytest.param(FakeNode([event(0, topics=[SUCCESS, "0x12"])]), id="no hash that was signed"),
        pytest.param(FakeNode([event(0, logIndex="last")]), id="no index"),
        pytest.param(FakeNode([event(0, address="here")]), id="no address"),
    ],
)
def test_nonsense_is_no_answer(node: FakeNode) -> None:
    with pytest.raises(NodeUnavailable):
        node.read()


@pytest.mark.parametrize("height", [7, 9])
def test_a_chain_that_changes_while_it_is_read_tells_nothing(height: int) -> None:
    node = FakeNode([event(0)])
    node.best[height] = "ff" * 32
    with pytest.raises(Reorganised):
        node.read()
    del node.best[height]
    with pytest.raises(Reorganised):
        node.read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "safe:",
        f"0x{SAFE.hex()}:1",
        f"safe:0x{SAFE.hex()}:",
        f"safe:0x{SAFE.hex()}:01",
        f"safe:0x{SAFE.hex()}:-1",
        f"safe:0x{SAFE.hex()}:{2**256}",
        f"safe:0x{SAFE.hex().upper()}:1",
        f"safe:0x{SAFE.hex()}:1\n",
    ],
)
def test_a_resource_has_one_form(text: str) -> None:
    assert parse_safe_resource(safe_resource(SAFE, 2**256 - 1)) == (SAFE, 2**256 - 1)
    with pytest.raises(InvalidValue):
        parse_safe_resource(text)
