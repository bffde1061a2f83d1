"""Transactions: strict decoding, round trips, ids and weights against embit, the digest of BIP143."""

from __future__ import annotations

import pytest
from embit.transaction import Transaction as EmbitTransaction
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.tx import (
    MAX_MONEY_SATS,
    Outpoint,
    SegwitDigests,
    Transaction,
    TxIn,
    TxOut,
    sighash_p2wpkh,
    with_witnesses,
)
from chains.errors import InvalidValue
from chains.types import TxId
from tests.unit.chains.btc.strategies import outpoints, transactions

# BIP143, "Native P2WPKH": the second input spends 6 BTC.
BIP143_TX = bytes.fromhex(
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffff"
    "ef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff"
    "02202cb206000000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac"
    "9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac11000000"
)
BIP143_PUBKEY = bytes.fromhex("025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357")
BIP143_DIGEST = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"

POINT = Outpoint(TxId("11" * 32), 1)
SIMPLE = Transaction(2, (TxIn(POINT),), (TxOut(1_000, b"\x51"),))


def test_the_digest_of_bip143() -> None:
    tx = Transaction.parse(BIP143_TX)
    assert sighash_p2wpkh(tx, 1, BIP143_PUBKEY, 600_000_000).hex() == BIP143_DIGEST


@given(transactions, st.data())
def test_digests_agree_with_embit(tx: Transaction, data: st.DataObject) -> None:
    from embit.ec import PublicKey
    from embit.script import p2pkh_from_p2wpkh, p2wpkh

    index = data.draw(st.integers(0, len(tx.inputs) - 1))
    amount = data.draw(st.integers(0, MAX_MONEY_SATS))
    code = p2pkh_from_p2wpkh(p2wpkh(PublicKey.parse(BIP143_PUBKEY)))
    theirs = EmbitTransaction.parse(tx.serialize()).sighash_segwit(index, code, amount)
    assert SegwitDigests(tx).p2wpkh(index, BIP143_PUBKEY, amount) == theirs


@given(transactions)
def test_a_transaction_survives_its_bytes(tx: Transaction) -> None:
    raw = tx.serialize()
    assert Transaction.parse(raw) == tx
    theirs = EmbitTransaction.parse(raw)
    assert theirs.txid().hex() == tx.txid.hex
    assert theirs.serialize() == raw
    assert tx.weight == 3 * len(tx.serialize_without_witness()) + len(raw)
    assert (tx.weight + 3) // 4 == tx.vsize


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_decoded_or_refused(raw: bytes) -> None:
    try:
        tx = Transaction.parse(raw)
    except InvalidValue:
        return
    assert tx.serialize() == raw


@given(transactions, st.data())
def test_damaged_bytes_are_refused_or_are_the_bytes_of_another_transaction(
    tx: Transaction, data: st.DataObject
) -> None:
    raw = bytearray(tx.serialize())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = Transaction.parse(bytes(raw))
    except InvalidValue:
        return
    assert other.serialize() == bytes(raw)
    assert other != tx


@given(transactions)
def test_cut_or_extended_bytes_are_refused(tx: Transaction) -> None:
    raw = tx.serialize()
    for broken in (raw[:-1], raw + b"\x00", raw[: len(raw) // 2], b""):
        with pytest.raises(InvalidValue):
            Transaction.parse(broken)


def test_a_compact_size_that_is_not_the_shortest_is_refused() -> None:
    raw = SIMPLE.serialize()
    with pytest.raises(InvalidValue, match="shortest"):
        Transaction.parse(raw[:4] + b"\xfd\x01\x00" + raw[5:])


def test_a_count_beyond_the_data_is_refused_before_anything_is_allocated() -> None:
    raw = SIMPLE.serialize()
    with pytest.raises(InvalidValue, match="follow"):
        Transaction.parse(raw[:4] + b"\xff" + b"\xff" * 8 + raw[5:])


def test_an_empty_witness_section_is_refused() -> None:
    raw = SIMPLE.serialize()
    with pytest.raises(InvalidValue, match="without witnesses"):
        Transaction.parse(raw[:4] + b"\x00\x01" + raw[4:-4] + b"\x00" + raw[-4:])


@pytest.mark.parametrize(
    "build",
    [
        lambda: Transaction(2, (), SIMPLE.outputs),
        lambda: Transaction(2, SIMPLE.inputs, ()),
        lambda: Transaction(2, SIMPLE.inputs * 2, SIMPLE.outputs),
        lambda: Transaction(2, SIMPLE.inputs, (TxOut(MAX_MONEY_SATS, b""), TxOut(1, b""))),
        lambda: Transaction(-1, SIMPLE.inputs, SIMPLE.outputs),
        lambda: Transaction(2, SIMPLE.inputs, SIMPLE.outputs, 2**32),
        lambda: TxOut(-1, b""),
        lambda: TxOut(MAX_MONEY_SATS + 1, b""),
        lambda: TxOut(True, b""),
        lambda: TxIn(POINT, 2**32),
        lambda: Outpoint(POINT.txid, -1),
        lambda: Outpoint(POINT.txid, 2**32),
    ],
)
def test_what_can_not_be_valid_is_not_made(build) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue):
        build()


@given(outpoints)
def test_an_outpoint_survives_text_and_bytes(outpoint: Outpoint) -> None:
    assert Outpoint.parse(outpoint.resource) == outpoint
    assert Outpoint.from_raw(outpoint.raw) == outpoint


@pytest.mark.parametrize(
    "text", ["", "11:0", "11" * 32, "11" * 32 + ":", "11" * 32 + ":01", "11" * 32 + ":-1", "AA" * 32 + ":0"]
)
def test_other_forms_of_an_outpoint_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        Outpoint.parse(text)


def test_witnesses_leave_the_txid_alone_and_there_is_one_for_each_input() -> None:
    signed = with_witnesses(SIMPLE, [[b"sig", b"key"]])
    assert signed.txid == SIMPLE.txid
    assert signed.inputs[0].witness == (b"sig", b"key")
    with pytest.raises(InvalidValue):
        with_witnesses(SIMPLE, [])


def test_resources_are_the_outpoints_in_order() -> None:
    assert SIMPLE.resources == (f"{'11' * 32}:1",)
