"""Scripts: types, sizes, weights and dust limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.btc import script
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from chains.types import TxId

KEY_HASH, LONG_HASH = bytes(range(20)), bytes(range(32))
STANDARD = {
    "p2pkh": script.p2pkh_script_from_hash(KEY_HASH),
    "p2sh": script.p2sh_script_from_hash(KEY_HASH),
    "p2wpkh": script.p2wpkh_script_from_hash(KEY_HASH),
    "p2wsh": script.witness_script(0, LONG_HASH),
    "p2tr": script.witness_script(1, LONG_HASH),
}


@pytest.mark.parametrize("kind", STANDARD)
def test_each_standard_script_is_classified_and_one_byte_more_is_not(kind: str) -> None:
    assert script.classify(STANDARD[kind]) == kind
    assert script.classify(STANDARD[kind] + b"\x00") is None
    assert script.classify(STANDARD[kind][:-1]) is None


@pytest.mark.parametrize(
    ("kind", "limit"), [("p2pkh", 546), ("p2sh", 540), ("p2wpkh", 294), ("p2wsh", 330), ("p2tr", 330)]
)
def test_dust_limits_are_those_that_bitcoind_documents(kind: str, limit: int) -> None:
    assert script.dust_limit_sats(STANDARD[kind]) == limit


def test_unspendable_scripts_have_no_dust_limit() -> None:
    assert script.dust_limit_sats(b"\x6a\x01\x00") == 0
    assert script.dust_limit_sats(bytes(10_001)) == 0


@given(st.binary(max_size=70_000))
def test_output_size_is_the_serialised_size(data: bytes) -> None:
    tx = Transaction(2, (TxIn(Outpoint(TxId("00" * 32), 0)),), (TxOut(1, data),))
    without_output = 4 + 1 + 41 + 1 + 4
    assert script.output_size_vb(data) == len(tx.serialize()) - without_output
    script.classify(data)
    script.dust_limit_sats(data)


@pytest.mark.parametrize(
    ("weight", "spend"),
    [
        (script.P2WPKH_INPUT_WU, TxIn(Outpoint(TxId("11" * 32), 0), witness=(bytes(72), bytes(33)))),
        (script.P2TR_KEY_INPUT_WU, TxIn(Outpoint(TxId("11" * 32), 0), witness=(bytes(64),))),
        (script.P2PKH_INPUT_WU, TxIn(Outpoint(TxId("11" * 32), 0), script_sig=bytes(1 + 72 + 1 + 33))),
    ],
)
def test_input_weights_are_what_the_largest_signature_weighs(weight: int, spend: TxIn) -> None:
    beside = TxIn(Outpoint(TxId("22" * 32), 0), witness=(b"x",))
    outputs = (TxOut(1, b""),)
    assert (
        Transaction(2, (beside, spend), outputs).weight - Transaction(2, (beside,), outputs).weight == weight
    )


@pytest.mark.parametrize("pubkey", [b"", bytes(33), b"\x04" + bytes(64), b"\x02" + bytes(31)])
def test_only_compressed_keys_get_a_witness_script(pubkey: bytes) -> None:
    with pytest.raises(InvalidValue):
        script.p2wpkh_script(pubkey)


@pytest.mark.parametrize(("version", "size"), [(0, 21), (0, 2), (1, 20), (1, 2), (2, 32), (16, 32)])
def test_witness_programs_without_a_standard_type_are_refused(version: int, size: int) -> None:
    with pytest.raises(InvalidValue):
        script.witness_script(version, bytes(size))
