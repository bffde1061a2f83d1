"""What a block's answers mean, on invented ones: whatever contracts claim, no more counts than arrived."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.block import (
    Transfer,
    arriving,
    balance_receipts,
    check_traces,
    flushed,
    native_receipts,
    token_receipts,
    transfers,
)
from chains.eth.erc20 import TRANSFER_TOPIC
from chains.eth.forwarder import ETHER_FLUSHED_TOPIC
from chains.eth.wire import Block, BlockTx, Log, Trace, TxReceipt, octets, quantity

OURS = [bytes([number]) * 20 for number in (1, 2, 3)]
OUTSIDE = [bytes([number]) * 20 for number in (8, 9)]
TOKEN = checksummed(b"\x70" * 20)
TXID, BLOCK = "0x" + "ab" * 32, "0x" + "cd" * 32

parties = st.sampled_from(OURS + OUTSIDE)
claims = st.lists(st.tuples(parties, parties, st.integers(0, 50)), max_size=12)


def as_transfers(found: list[tuple[bytes, bytes, int]]) -> list[Transfer]:
    return [
        Transfer(TOKEN, sender, to, units, TXID, hex(number))
        for number, (sender, to, units) in enumerate(found)
        if sender in OURS or to in OURS
    ]


def places(found: list[Transfer]) -> dict[str, int]:
    return {each.index: number for number, each in enumerate(found)}


@given(claims, st.integers(0, 1000))
def test_honest_events_are_receipts_one_to_one(found: list[tuple[bytes, bytes, int]], start: int) -> None:
    events = as_transfers(found)
    balances = {}
    for ours in OURS:
        change = sum(e.units for e in events if e.to == ours) - sum(
            e.units for e in events if e.sender == ours
        )
        balances[ours, TOKEN] = (start, start + change)
    receipts = token_receipts(events, set(OURS), balances, places(events))
    assert [(r.script, r.units) for r in receipts] == [(e.to, e.units) for e in arriving(events, set(OURS))]
    assert len({r.resource for r in receipts}) == len(receipts)


@given(claims, st.lists(st.integers(0, 60), min_size=3, max_size=3))
def test_no_more_counts_than_came_whatever_is_claimed(
    found: list[tuple[bytes, bytes, int]], came: list[int]
) -> None:
    # Nothing leaves: forwarders are emptied by our own factory only.
    events = [e for e in as_transfers(found) if e.sender not in OURS]
    balances = {(ours, TOKEN): (100, 100 + units) for ours, units in zip(OURS, came, strict=True)}
    receipts = token_receipts(events, set(OURS), balances, places(events))
    got: Counter[bytes] = Counter()
    claimed: Counter[bytes] = Counter()
    for receipt in receipts:
        got[receipt.script] += receipt.units
    for event in events:
        claimed[event.to] += event.units
    for ours, units in zip(OURS, came, strict=True):
        assert got[ours] == min(units, claimed[ours])
    assert all(receipt.units > 0 for receipt in receipts)


def log(**changes: Any) -> Log:
    words = ["0x" + (bytes(12) + address).hex() for address in (OUTSIDE[0], OURS[0])]
    plain = {
        "address": TOKEN.lower(),
        "topics": [TRANSFER_TOPIC, *words],
        "data": "0x" + (7).to_bytes(32, "big").hex(),
        "blockHash": BLOCK,
        "transactionHash": TXID,
        "logIndex": "0x0",
    }
    return msgspec.convert({**plain, **changes}, Log)


def test_an_event_is_read_as_its_parties_and_units() -> None:
    contracts = {bytes.fromhex(TOKEN[2:]): TOKEN}
    [found] = transfers([log()], set(OURS), contracts)
    assert found == Transfer(TOKEN, OUTSIDE[0], OURS[0], 7, TXID, "0x0")
    assert transfers([log()], set(), contracts) == []
    assert transfers([log()], set(OURS), {}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"topics": [TRANSFER_TOPIC]},
        {"topics": []},
        {"topics": ["0x" + "11" * 32, *log().topics[1:]]},
        {"topics": [*log().topics, "0x" + "11" * 32], "data": "0x"},
        {"topics": [TRANSFER_TOPIC, log().topics[1], "0x" + "11" * 32]},
        {"data": "0x"},
        {"data": "0x" + "00" * 64},
    ],
)
def test_what_is_no_transfer_is_left_out_and_stops_nothing(changes: dict[str, Any]) -> None:
    assert transfers([log(**changes)], set(OURS), {bytes.fromhex(TOKEN[2:]): TOKEN}) == []


def frame(path: list[int], **changes: Any) -> Trace:
    action = {"from": OUTSIDE[0].hex(), "to": "0x" + OURS[0].hex(), "value": "0x5", "callType": "call"}
    plain = {
        "type": "call",
        "action": action,
        "traceAddress": path,
        "blockHash": BLOCK,
        "transactionHash": TXID,
    }
    return msgspec.convert({**plain, **changes}, Trace)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[list[int], bool]]:
    """Paths of a call tree, parents first, and whether each frame was undone by itself."""
    found: list[tuple[list[int], bool]] = []

    def grow(path: list[int], depth: int) -> None:
        found.append((path, draw(st.booleans()) and draw(st.booleans())))
        for number in range(draw(st.integers(0, 3)) if depth else 0):
            grow([*path, number], depth - 1)

    grow([], 3)
    return found


@given(trees())
def test_a_frame_counts_unless_it_or_one_above_it_was_undone(tree: list[tuple[list[int], bool]]) -> None:
    frames = [frame(path, error="Reverted" if undone else None) for path, undone in tree]
    dead = [path for path, undone in tree if undone]
    alive = [path for path, _ in tree if not any(path[: len(d)] == d for d in dead)]
    names = [f"{'ab' * 32}:trace:{'.'.join(map(str, path))}" for path in alive]
    assert [receipt.resource for receipt in native_receipts(frames, set(OURS))] == names


def test_only_frames_that_move_money_from_outside_count() -> None:
    inner = "0x" + OURS[1].hex()
    nothing = [
        frame([0], action={"from": "0x", "to": "0x" + OURS[0].hex(), "value": "0x0", "callType": "call"}),
        frame([1], action={"from": inner, "to": "0x" + OURS[0].hex(), "value": "0x5", "callType": "call"}),
        *(
            frame([2], action={"from": "0x", "to": "0x" + OURS[0].hex(), "value": "0x5", "callType": kind})
            for kind in ("delegatecall", "callcode", "staticcall")
        ),
        frame([3], type="reward", transactionHash=None),
        frame([4], type="create", result={"address": "0x" + OUTSIDE[1].hex()}),
        frame(
            [5],
            type="suicide",
            action={"address": inner, "refundAddress": "0x" + OURS[0].hex(), "balance": "0x5"},
        ),
        frame(
            [6],
            type="suicide",
            action={"address": "0x" + "77" * 20, "refundAddress": inner, "balance": "0x0"},
        ),
    ]
    assert native_receipts(nothing, set(OURS)) == []
    left = frame(
        [7], type="suicide", action={"address": "0x" + "77" * 20, "refundAddress": inner, "balance": "0x9"}
    )
    assert [(r.script, r.units) for r in native_receipts([left], set(OURS))] == [(OURS[1], 9)]


def test_traces_that_leave_a_transaction_out_or_are_of_another_block_are_refused() -> None:
    block = Block(BLOCK, "0x" + "00" * 32, "0x1", [BlockTx(TXID, "0x" + "77" * 20, "0x0")])
    check_traces([frame([])], block)
    for traces in ([], [frame([0])], [frame([], type="reward")], [frame([], blockHash="0x" + "00" * 32)]):
        with pytest.raises(InvalidValue):
            check_traces(traces, block)


amounts = st.integers(0, 1000)


@given(amounts, amounts, amounts, amounts)
def test_a_balance_shows_what_came_whatever_left_meanwhile(
    before: int, came: int, left: int, own: int
) -> None:
    after = before + came + own - left
    balances = {OURS[0]: (before, after), OURS[1]: (5, 5)}
    receipts = balance_receipts("cd" * 32, balances, {OURS[0]: left}, {OURS[0]: own})
    assert [(r.script, r.units) for r in receipts] == ([(OURS[0], came)] if came else [])
    assert all(r.resource == f"{'cd' * 32}:{checksummed(OURS[0])}" for r in receipts)


def test_only_our_own_forwarders_can_say_that_they_were_flushed() -> None:
    data = "0x" + (9).to_bytes(32, "big").hex()
    ours = log(address="0x" + OURS[0].hex(), topics=[ETHER_FLUSHED_TOPIC], data=data)
    logs = [
        ours,
        ours,
        log(address="0x" + OUTSIDE[0].hex(), topics=[ETHER_FLUSHED_TOPIC], data=data),
        log(address="0x" + OURS[1].hex(), topics=[TRANSFER_TOPIC], data=data),
    ]
    assert flushed(logs, set(OURS)) == {OURS[0]: 18}


def test_a_fee_is_gas_at_its_price_and_what_else_the_block_charges() -> None:
    plain = {
        "transactionHash": TXID,
        "blockHash": BLOCK,
        "blockNumber": "0x1",
        "status": "0x1",
        "gasUsed": "0x10",
        "effectiveGasPrice": "0x3",
        "logs": [],
    }
    assert msgspec.convert(plain, TxReceipt).fee_wei == 48
    more = {**plain, "status": "0x0", "blobGasUsed": "0x2", "blobGasPrice": "0x5", "l1Fee": "0x7"}
    assert msgspec.convert(more, TxReceipt).fee_wei == 48 + 10 + 7
    assert not msgspec.convert(more, TxReceipt).succeeded


@given(st.text(max_size=10))
def test_texts_that_are_no_numbers_or_bytes_are_refused_as_such(text: str) -> None:
    for read in (quantity, octets):
        try:
            read(text)
        except InvalidValue:
            continue
        assert all(letter in "0123456789abcdefABCDEFx \t\n\r\f\v_" for letter in text)
