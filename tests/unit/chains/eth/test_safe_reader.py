"""A node that contradicts itself about Safes, changes its mind, or talks nonsense is not believed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args, get_type_hints

import msgspec
import pytest

from chains.errors import InvalidValue, NodeUnavailable, Reorganised
from chains.eth import safe_report
from chains.eth.abi import selector
from chains.eth.address import keccak256
from chains.eth.node.safes import SafeReader
from chains.eth.node.transport import Reply, Transport
from chains.eth.safe import EXECUTED, parse_safe_resource, safe_resource
from chains.eth.safe_report import SafeReport
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


@dataclass
class LongChain(FakeNode):
    """Its tip is far beyond the block, with one execution in each thousandth block."""

    ranges: list[tuple[int, int]] = field(default_factory=list)

    def tip(self) -> BlockRef:
        return BlockRef(9_007, TIP.hash)

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Reply]:
        [(method, [question, *_])] = calls
        if method == "eth_getLogs" and "fromBlock" in question:
            first, last = int(question["fromBlock"], 16), int(question["toBlock"], 16)
            self.ranges.append((first, last))
            found = [event(0)] * sum(1 for height in range(first, last + 1) if height % 1_000 == 0)
            return [Reply(method, msgspec.Raw(json.dumps(found).encode()), None)]
        return super().batch(calls)


def test_what_lies_between_block_and_tip_is_looked_through_in_pieces_that_nodes_answer() -> None:
    node = LongChain([event(0)], nonce="0x" + f"{12:064x}", best={7: BLOCK.hash, 9_007: TIP.hash})
    [use] = node.read()
    assert use.resource == safe_resource(SAFE, 12 - 9 - 1)
    assert [first for first, _ in node.ranges] == [last + 1 for _, last in [(0, 7), *node.ranges[:-1]]]
    assert node.ranges[-1][1] == 9_007
    assert max(last - first for first, last in node.ranges) < 2_000


def word(number: int) -> str:
    return f"{number:064x}"


GOOD = {
    "eth_getCode": "0x01",
    "eth_getStorageAt": "0x" + word(0),
    "VERSION()": "0x" + word(32) + word(5) + b"1.4.1".hex().ljust(64, "0"),
    "getOwners()": "0x" + word(32) + word(2) + word(0xAA) + word(0xBB),
    "getThreshold()": "0x" + word(2),
    "getModulesPaginated(address,uint256)": "0x" + word(64) + word(1) + word(0),
    "nonce()": "0x" + word(7),
}


@dataclass
class InspectedNode:
    """Answers what a Safe is asked: one answer for each function."""

    changes: dict[str, str | None] = field(default_factory=dict)
    best: str = BLOCK.hash

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Reply]:
        return [self._one(method, arguments) for method, arguments in calls]

    def _one(self, method: str, arguments: Sequence[Any]) -> Reply:
        assert arguments[-1] == {"blockHash": f"0x{BLOCK.hash}"}
        answers: dict[str, str | None] = {**GOOD, **self.changes}
        name = method
        if method == "eth_call":
            named = {selector(each).hex(): each for each in GOOD if each.endswith(")")}
            name = named[arguments[0]["data"][2:10]]
        found = answers[name]
        if found is None:
            failure = {"error": {"code": -32_000, "message": "header not found"}}
            return Reply(method, msgspec.Raw(b""), msgspec.convert(failure["error"], failure_type()))
        return Reply(method, msgspec.Raw(json.dumps(found).encode()), None)

    def tip(self) -> BlockRef:
        return BLOCK

    def header_at(self, height: int) -> Header | None:
        return Header(BlockRef(height, self.best), "00" * 32, 0)

    def inspect(self) -> SafeReport:
        return SafeReader(cast(Transport, self), self).inspect(SAFE, BLOCK)


def failure_type() -> Any:
    return get_args(get_type_hints(Reply)["failure"])[0]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one byte of code that the fake answers counts as the official one."""
    for name in ("PROXY_CODE", "SINGLETON_CODE"):
        monkeypatch.setattr(safe_report, name, keccak256(b"\x01"))


@pytest.mark.usefixtures("official")
def test_a_safe_is_read_as_it_says() -> None:
    report = InspectedNode().inspect()
    assert (report.version, report.threshold, report.nonce, report.modules) == ("1.4.1", 2, 7, ())
    assert report.owners == (bytes(19) + b"\xaa", bytes(19) + b"\xbb")
    assert (report.guard, report.fallback_handler) == (None, None)
    module = "0x" + word(64) + word(1) + word(1) + word(0xCC)
    assert InspectedNode({"getModulesPaginated(address,uint256)": module}).inspect().modules == (
        bytes(19) + b"\xcc",
    )


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("eth_getCode", "code"),
        ("eth_getStorageAt", "0x00"),
        ("VERSION()", "0x" + word(32) + word(99) + b"1.4.1".hex()),
        ("VERSION()", "0x" + word(32) + word(1) + "ff".ljust(64, "0")),
        ("getOwners()", "0x"),
        ("getOwners()", "0x" + word(32) + word(2) + word(0xAA)),
        ("getOwners()", "0x" + word(32) + word(1) + "01" + word(0xAA)[2:]),
        ("getThreshold()", "0x02"),
        ("getModulesPaginated(address,uint256)", "0x" + word(64) + word(1) + word(2**200)),
        ("nonce()", "0x"),
        ("nonce()", None),
    ],
)
def test_a_safe_that_says_nonsense_is_not_believed(what: str, answer: str | None) -> None:
    with pytest.raises(NodeUnavailable):
        InspectedNode({what: answer}).inspect()


@pytest.mark.usefixtures("official")
def test_a_block_that_is_gone_tells_nothing_of_a_safe() -> None:
    with pytest.raises(Reorganised):
        InspectedNode({"nonce()": None}, best="ff" * 32).inspect()
