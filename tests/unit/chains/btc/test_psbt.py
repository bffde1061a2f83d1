"""PSBT: round trips, and everything that a signer must not be handed."""

from __future__ import annotations

from dataclasses import replace

import coincurve
import pytest
from embit import bip32
from embit import psbt as embit_psbt
from embit.util import secp256k1
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.codec import with_size
from chains.btc.psbt import (
    InputSignature,
    InvalidSignature,
    NativeCurveMissing,
    PsbtInput,
    build_psbt,
    finalize,
    parse_psbt,
    read_psbt,
)
from chains.btc.script import p2wpkh_script
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh
from chains.errors import InvalidValue
from chains.types import TxId
from tests.support.psbts import paths_of

HARD = 2**31
MASTER = bip32.HDKey.from_seed(bytes(range(64)))
FINGERPRINT = MASTER.my_fingerprint
SIGHASH_RECORD = b"\x01\x03\x04\x01\x00\x00\x00"


def path(branch: int, index: int) -> tuple[int, ...]:
    return (84 + HARD, 1 + HARD, HARD, branch, index)


def key(branch: int, index: int) -> coincurve.PrivateKey:
    return coincurve.PrivateKey(MASTER.derive(list(path(branch, index))).secret)


def pubkey(branch: int, index: int) -> bytes:
    encoded: bytes = key(branch, index).public_key.format()
    return encoded


def previous(number: int, units: int) -> Transaction:
    outputs = (TxOut(7, b"\x51"), TxOut(units, p2wpkh_script(pubkey(0, number))))
    source = TxIn(Outpoint(TxId("11" * 32), number), witness=(b"a witness", b"of the previous transaction"))
    return Transaction(2, (source,), outputs)


PREVIOUS = [previous(0, 50_000), previous(1, 70_000)]
TX = Transaction(
    2,
    tuple(TxIn(Outpoint(tx.txid, 1)) for tx in PREVIOUS),
    (TxOut(60_000, b"\x51\x20" + bytes(32)), TxOut(59_000, p2wpkh_script(pubkey(1, 0)))),
)
INPUTS = [
    PsbtInput(txin.outpoint, txin.sequence, tx.serialize(), path(0, number), pubkey(0, number))
    for number, (txin, tx) in enumerate(zip(TX.inputs, PREVIOUS, strict=True))
]
CHANGE = {1: (pubkey(1, 0), path(1, 0))}
RAW = build_psbt(TX, INPUTS, CHANGE, FINGERPRINT)


def signatures() -> list[InputSignature]:
    return [
        InputSignature(
            number,
            pubkey(0, number),
            key(0, number).sign(
                sighash_p2wpkh(TX, number, pubkey(0, number), (50_000, 70_000)[number]), hasher=None
            )
            + b"\x01",
        )
        for number in range(2)
    ]


def test_what_was_built_is_read_back() -> None:
    parsed = parse_psbt(RAW)
    assert parsed.tx == TX
    assert parsed.previous == tuple(tx.serialize() for tx in PREVIOUS)
    assert [out.units for out in parsed.spent] == [50_000, 70_000]
    assert parsed.fee_sats == 1_000
    assert paths_of(parsed.input_keys) == (path(0, 0), path(0, 1))
    assert paths_of(parsed.output_keys) == (None, path(1, 0))
    assert [origin.fingerprint for origin in parsed.output_keys[1]] == [FINGERPRINT]
    assert [origin.pubkey for origin in parsed.output_keys[1]] == [pubkey(1, 0)]


def test_building_again_gives_the_same_bytes() -> None:
    assert build_psbt(TX, INPUTS, CHANGE, FINGERPRINT) == RAW


def test_an_input_that_is_not_ours_has_no_path() -> None:
    raw = build_psbt(TX, [INPUTS[0], replace(INPUTS[1], path=None)], {}, FINGERPRINT)
    assert paths_of(parse_psbt(raw).input_keys) == (path(0, 0), None)


def test_the_signed_transaction_keeps_the_txid_and_fits_the_predicted_size() -> None:
    raw = finalize(parse_psbt(RAW), signatures())
    signed = Transaction.parse(raw)
    assert signed.txid == TX.txid
    assert all(len(txin.witness) == 2 for txin in signed.inputs)
    assert finalize(parse_psbt(RAW), reversed(signatures())) == raw


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS[:1],
        INPUTS[::-1],
        [replace(INPUTS[0], sequence=0xFFFF_FFFF), INPUTS[1]],
        [replace(INPUTS[0], previous=INPUTS[1].previous), INPUTS[1]],
        [replace(INPUTS[0], previous=b"nonsense"), INPUTS[1]],
        [replace(INPUTS[0], pubkey=bytes(33)), INPUTS[1]],
        [replace(INPUTS[0], path=(2**32,)), INPUTS[1]],
        [replace(INPUTS[0], path=(0,) * 11), INPUTS[1]],
    ],
)
def test_inputs_that_contradict_the_transaction_are_refused(inputs: list[PsbtInput]) -> None:
    with pytest.raises(InvalidValue):
        build_psbt(TX, inputs, CHANGE, FINGERPRINT)


def test_change_must_be_an_output_and_the_fingerprint_four_bytes() -> None:
    with pytest.raises(InvalidValue):
        build_psbt(TX, INPUTS, {2: CHANGE[1]}, FINGERPRINT)
    with pytest.raises(InvalidValue):
        build_psbt(TX, INPUTS, CHANGE, b"123")


def test_a_fee_below_zero_is_refused() -> None:
    greedy = replace(TX, outputs=(TxOut(130_000, b"\x51"),))
    with pytest.raises(InvalidValue, match="more than its inputs"):
        build_psbt(greedy, INPUTS, {}, FINGERPRINT)


def edited(change) -> bytes:  # type: ignore[no-untyped-def]
    psbt = embit_psbt.PSBT.parse(RAW)
    change(psbt)
    raw: bytes = psbt.serialize()
    return raw


def _drop_previous(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.inputs[0].non_witness_utxo = None


def _witness_only(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.inputs[0].witness_utxo = psbt.inputs[0].non_witness_utxo.vout[1]
    psbt.inputs[0].non_witness_utxo = None


def _lie_about_amount(psbt) -> None:  # type: ignore[no-untyped-def]
    output = psbt.inputs[0].non_witness_utxo.vout[1]
    psbt.inputs[0].witness_utxo = type(output)(output.value + 1, output.script_pubkey)


def _other_sighash(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.inputs[0].sighash_type = 0x83


def _unknown_global(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.unknown[b"\xfc\x01"] = b"x"


def _unknown_input(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.inputs[0].unknown[b"\xfc\x01"] = b"x"


def _unknown_output(psbt) -> None:  # type: ignore[no-untyped-def]
    psbt.outputs[0].unknown[b"\xfc\x01"] = b"x"


def _redeem_script(psbt) -> None:  # type: ignore[no-untyped-def]
    from embit.script import Script

    psbt.inputs[0].redeem_script = Script(b"\x51")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop_previous, "required"),
        (_witness_only, "required"),
        (_lie_about_amount, "contradicts"),
        (_other_sighash, "sighash"),
        (_unknown_global, "not allowed"),
        (_unknown_input, "not allowed"),
        (_unknown_output, "not allowed"),
        (_redeem_script, "not allowed"),
    ],
)
def test_what_a_signer_has_no_use_for_is_refused(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue, match=reason):
        parse_psbt(edited(change))


def test_a_witness_utxo_that_repeats_the_previous_output_is_accepted() -> None:
    def repeat(psbt) -> None:  # type: ignore[no-untyped-def]
        psbt.inputs[0].witness_utxo = psbt.inputs[0].non_witness_utxo.vout[1]

    assert parse_psbt(edited(repeat)).tx == TX


def test_a_field_that_comes_twice_is_refused() -> None:
    assert RAW.count(SIGHASH_RECORD) == 2
    with pytest.raises(InvalidValue, match="twice"):
        parse_psbt(RAW.replace(SIGHASH_RECORD, SIGHASH_RECORD * 2, 1))


def test_a_signed_transaction_inside_is_refused() -> None:
    signed = finalize(parse_psbt(RAW), signatures())
    unsigned = with_size(TX.serialize())
    with pytest.raises(InvalidValue):
        parse_psbt(RAW.replace(unsigned, with_size(signed), 1))


@pytest.mark.parametrize("raw", [b"", b"psbt", RAW[:-1], RAW + b"\x00", RAW[:5], b"PSBT" + RAW[4:]])
def test_anything_but_one_whole_psbt_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_psbt(raw)


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_a_damaged_psbt_is_refused_or_means_something_else(at: int, flip: int) -> None:
    damaged = bytearray(RAW)
    damaged[at] ^= flip
    try:
        parsed = parse_psbt(bytes(damaged))
    except InvalidValue:
        return
    assert parsed != parse_psbt(RAW)


def second_reading(raw: bytes) -> object:
    """What both decoders read; why not, as text."""
    try:
        return parse_psbt(raw)
    except InvalidValue as error:
        return str(error)


@given(
    st.lists(
        st.tuples(st.integers(0, len(RAW)), st.integers(0, 40), st.binary(max_size=40)),
        min_size=1,
        max_size=3,
    )
    | st.tuples(st.integers(len(RAW) - 400, len(RAW) - 1), st.just(1), st.binary(min_size=1, max_size=1)).map(
        lambda edit: [edit]
    )
)
def test_embit_never_reads_otherwise_what_our_decoder_alone_accepts(
    edits: list[tuple[int, int, bytes]],
) -> None:
    raw = RAW
    for at, removed, put in edits:
        raw = raw[:at] + put + raw[at + removed :]
    try:
        parsed = read_psbt(raw)
    except InvalidValue:
        return
    # What a signer would sign are these very bytes, whoever else reads them.
    assert with_size(parsed.tx.serialize()) in raw
    second = second_reading(raw)
    assert second == parsed or "refused by the second decoder" in str(second)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_after_the_magic_are_refused(tail: bytes) -> None:
    for read in (parse_psbt, read_psbt):
        with pytest.raises(InvalidValue):
            read(b"psbt\xff" + tail)


def _high_s(signature: bytes) -> bytes:
    from coincurve.utils import GROUP_ORDER_INT
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    r, s = decode_dss_signature(signature[:-1])
    return encode_dss_signature(r, GROUP_ORDER_INT - s) + b"\x01"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda both: both[:1],
        lambda both: [both[0], both[0]],
        lambda both: [both[0], replace(both[1], index=2)],
        lambda both: [both[0], replace(both[1], pubkey=both[0].pubkey)],
        lambda both: [both[0], replace(both[1], signature=both[0].signature)],
        lambda both: [both[0], replace(both[1], signature=_high_s(both[1].signature))],
        lambda both: [both[0], replace(both[1], signature=both[1].signature + b"\x01")],
        lambda both: [both[0], replace(both[1], signature=both[1].signature[:-1] + b"\x03")],
        lambda both: [both[0], replace(both[1], signature=both[1].signature[:-1])],
        lambda both: [both[0], replace(both[1], signature=b"")],
    ],
)
def test_a_wrong_signature_never_gets_into_a_transaction(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSignature):
        finalize(parse_psbt(RAW), spoil(signatures()))


def test_the_pure_python_curve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from embit.util import py_secp256k1

    monkeypatch.setattr(secp256k1, "ec_pubkey_create", py_secp256k1.ec_pubkey_create)
    with pytest.raises(NativeCurveMissing):
        parse_psbt(RAW)


def test_a_key_that_is_no_point_of_the_curve_is_refused_by_our_decoder_too() -> None:
    at = RAW.index(pubkey(0, 0))
    damaged = [RAW[: at + 32] + bytes([last]) + RAW[at + 33 :] for last in range(256)]
    refused = 0
    for raw in damaged:
        second = second_reading(raw)
        if isinstance(second, str):
            refused += 1
            with pytest.raises(InvalidValue, match="no point of the curve"):
                read_psbt(raw)
        else:
            assert read_psbt(raw) == second
    assert 0 < refused < 256
