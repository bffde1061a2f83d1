"""The quick block scanner against a slow and obvious one, on generated blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.block import Block, WatchedOutpoints, block_hash, observe_transaction
from chains.btc.codec import Reader, compact_size
from chains.btc.script import hash256
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from chains.ports import Consumption, Observation, Receipt
from chains.types import TxId
from tests.unit.chains.btc.strategies import transactions

COINBASE = Transaction(
    1,
    (TxIn(Outpoint(TxId("00" * 32), 0xFFFF_FFFF), script_sig=b"\x01\x01"),),
    (TxOut(50, b"\x00\x14" + b"\x01" * 20),),
)


def merkle_root(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        padded = hashes + hashes[-1:] * (len(hashes) % 2)
        hashes = [hash256(padded[i] + padded[i + 1]) for i in range(0, len(padded), 2)]
    return hashes[0]


def assemble(block: list[Transaction]) -> bytes:
    root = merkle_root([bytes.fromhex(tx.txid.hex)[::-1] for tx in block])
    header = b"\x00\x00\x00\x20" + bytes(range(32)) + root + bytes(12)
    return header + compact_size(len(block)) + b"".join(tx.serialize() for tx in block)


def obvious(block: list[Transaction], scripts: set[bytes], resources: set[str]) -> Observation:
    receipts = []
    for tx in block:
        for vout, out in enumerate(tx.outputs):
            if out.script in scripts:
                coinbase = tx.resources == (f"{'0' * 64}:{2**32 - 1}",)
                receipts.append(Receipt(f"{tx.txid}:{vout}", tx.txid, out.script, out.units, None, coinbase))
    known = resources | {receipt.resource for receipt in receipts}
    consumptions = [
        Consumption(f"{txin.outpoint.txid}:{txin.outpoint.vout}", tx.txid, content=tx.txid.hex)
        for tx in block
        for txin in tx.inputs
        if f"{txin.outpoint.txid}:{txin.outpoint.vout}" in known
    ]
    return Observation(tuple(receipts), tuple(consumptions))


@st.composite
def blocks(draw: st.DrawFn) -> list[Transaction]:
    """A coinbase and up to 8 transactions, some of which spend outputs of earlier ones in the block."""
    block = [COINBASE, *draw(st.lists(transactions, max_size=6, unique_by=lambda tx: tx.txid))]
    if len(block) > 1 and draw(st.booleans()):
        parent = draw(st.sampled_from(block[1:]))
        child = TxIn(Outpoint(parent.txid, 0), witness=(b"s", b"k"))
        block.append(Transaction(2, (child,), (TxOut(1, b"\x51"),)))
    return block


@given(blocks(), st.data())
def test_the_scanner_sees_what_the_obvious_way_sees(block: list[Transaction], data: st.DataObject) -> None:
    all_scripts = sorted({out.script for tx in block for out in tx.outputs})
    all_resources = sorted({resource for tx in block for resource in tx.resources})
    scripts = data.draw(st.sets(st.sampled_from(all_scripts))) | {b"\x00\x14" + b"\xee" * 20}
    resources = data.draw(st.sets(st.sampled_from(all_resources))) | {"ee" * 32 + ":0"}
    raw = assemble(block)
    expected = obvious(block, scripts, resources)
    assert Block.parse(raw).observe(scripts, WatchedOutpoints(resources)) == expected
    assert Block.parse(raw).observe(frozenset(scripts), resources) == expected, "any container will do"
    assert Block.parse(raw).observe(dict.fromkeys(scripts), dict.fromkeys(resources)) == expected
    Block.parse(raw).check_merkle_root()


@given(blocks(), st.data())
def test_a_damaged_block_is_refused_or_fails_its_merkle_root(
    block: list[Transaction], data: st.DataObject
) -> None:
    raw = bytearray(assemble(block))
    at = data.draw(st.integers(36, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        parsed = Block.parse(bytes(raw))
        parsed.check_merkle_root()
    except InvalidValue:
        return
    # Only witnesses (with their marker and sizes) are outside of the merkle root.
    ids = [Transaction.parse(tx.serialize()).txid for tx in block]
    assert [parsed.transaction(number).txid for number in range(len(ids))] == ids


@given(blocks(), st.integers(1, 200))
def test_a_cut_or_extended_block_is_refused(block: list[Transaction], cut: int) -> None:
    raw = assemble(block)
    for broken in (raw[: max(0, len(raw) - cut)], raw + b"\x00" * cut):
        with pytest.raises(InvalidValue):
            Block.parse(broken)


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_refused_or_cut_up_without_a_crash(raw: bytes) -> None:
    try:
        Block.parse(bytes(80) + raw).observe({b"\x51"}, WatchedOutpoints())
    except InvalidValue:
        return
    assert Reader(raw).compact_size() >= 1


def test_a_block_with_many_inputs_and_outputs_uses_the_longer_counts() -> None:
    inputs = tuple(
        TxIn(Outpoint(TxId("22" * 32), n), witness=(b"",) * 260 if n == 5 else (b"",)) for n in range(300)
    )
    outputs = (*(TxOut(n, b"\x51" * 300) for n in range(299)), TxOut(9, b"watched"))
    block = [COINBASE, Transaction(2, inputs, outputs)]
    seen = Block.parse(assemble(block)).observe({b"watched"}, WatchedOutpoints(["22" * 32 + ":299"]))
    assert [receipt.resource for receipt in seen.receipts] == [f"{block[1].txid}:299"]
    assert [consumption.txid for consumption in seen.consumptions] == [block[1].txid]


def test_repeated_last_transactions_are_refused() -> None:
    one, two = COINBASE, Transaction(2, (TxIn(Outpoint(TxId("33" * 32), 0)),), (TxOut(1, b""),))
    three = Transaction(2, (TxIn(Outpoint(TxId("44" * 32), 0)),), (TxOut(1, b""),))
    honest, forged = assemble([one, two, three]), assemble([one, two, three, three])
    assert block_hash(honest) == block_hash(forged), "CVE-2012-2459: the same header"
    Block.parse(honest).check_merkle_root()
    with pytest.raises(InvalidValue, match="repeats"):
        Block.parse(forged).check_merkle_root()


def test_a_count_that_is_not_in_its_shortest_form_is_refused() -> None:
    raw = assemble([COINBASE])
    with pytest.raises(InvalidValue, match="shortest"):
        Block.parse(raw[:80] + b"\xfd\x01\x00" + raw[81:])


def test_a_coinbase_is_marked() -> None:
    [receipt] = observe_transaction(COINBASE, {COINBASE.outputs[0].script}, ()).receipts
    assert receipt.coinbase


def test_the_header_names_block_and_parent() -> None:
    raw = assemble([COINBASE])
    block = Block.parse(raw)
    assert block.hash == block_hash(raw) == hash256(raw[:80])[::-1].hex()
    assert block.previous == bytes(range(32))[::-1].hex()
    with pytest.raises(InvalidValue):
        block_hash(raw[:79])


def test_watched_outpoints_behave_like_a_set_of_texts() -> None:
    one, two = "11" * 32 + ":1", "22" * 32 + ":70000"
    watched = WatchedOutpoints([one])
    watched.add(one)
    watched.update([one, two])
    assert set(watched) == {one, two}
    assert len(watched) == 2
    assert one in watched
    assert 7 not in watched
    watched.discard(one)
    watched.discard(one)
    assert set(watched) == {two}
    with pytest.raises(InvalidValue):
        watched.add("11:1")
