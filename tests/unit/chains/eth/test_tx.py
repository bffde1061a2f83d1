"""EIP-1559 transactions beside eth-account, which writes and reads them independently."""

from __future__ import annotations

import contextlib

import coincurve
import pytest
import rlp
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.tx import SignedTx, UnsignedTx, address_of_key, address_text_of_key, nonce_resource
from chains.secp256k1 import CURVE_ORDER

KEY = coincurve.PrivateKey(bytes(range(1, 33)))
OTHER = b"\x22" * 20

_fees = st.tuples(st.integers(0, 2**96), st.integers(0, 2**96)).map(sorted)


@st.composite
def unsigned(draw: st.DrawFn) -> UnsignedTx:
    priority, fee = draw(_fees)
    return UnsignedTx(
        chain_id=draw(st.integers(1, 2**53)),
        nonce=draw(st.one_of(st.integers(0, 300), st.just(2**64 - 2))),
        max_priority_fee_per_gas_wei=priority,
        max_fee_per_gas_wei=fee,
        gas_limit=draw(st.integers(0, 2**64 - 1)),
        to=draw(st.binary(min_size=20, max_size=20)),
        value_wei=draw(st.one_of(st.integers(0, 300), st.integers(0, 2**256 - 1))),
        data=draw(st.one_of(st.just(b""), st.binary(max_size=100), st.just(bytes(300)))),
    )


def fields(tx: UnsignedTx) -> dict[str, object]:
    """The transaction as eth-account takes it."""
    return {
        "type": 2,
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "maxPriorityFeePerGas": tx.max_priority_fee_per_gas_wei,
        "maxFeePerGas": tx.max_fee_per_gas_wei,
        "gas": tx.gas_limit,
        "to": checksummed(tx.to),
        "value": tx.value_wei,
        "data": "0x" + tx.data.hex(),
    }


def signed(tx: UnsignedTx) -> SignedTx:
    return tx.signed(KEY.sign_recoverable(tx.signing_hash, hasher=None))


@given(unsigned())
def test_bytes_hash_and_id_are_those_that_eth_account_makes(tx: UnsignedTx) -> None:
    theirs = Account.sign_transaction(fields(tx), KEY.secret)
    ours = signed(tx)
    assert bytes(TypedTransaction.from_dict(fields(tx)).hash()) == tx.signing_hash
    assert ours.encode() == bytes(theirs.raw_transaction)
    assert ours.txid.hex == bytes(theirs.hash).hex()


@given(unsigned())
def test_eth_account_reads_what_we_write_and_finds_the_sender_that_we_find(tx: UnsignedTx) -> None:
    raw = signed(tx).encode()
    read = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    names = fields(tx)
    assert {name: read[name] for name in names} == {
        **names,
        "to": bytes.fromhex(str(names["to"])[2:]),
        "data": tx.data,
    }
    assert Account.recover_transaction(raw) == checksummed(signed(tx).sender())
    assert signed(tx).public_key() == KEY.public_key.format()
    assert address_text_of_key(KEY.public_key.format()) == Account.from_key(KEY.secret).address


@given(unsigned())
def test_what_is_written_is_read_back(tx: UnsignedTx) -> None:
    assert UnsignedTx.decode(tx.encode()) == tx
    assert SignedTx.decode(signed(tx).encode()) == signed(tx)


@given(unsigned(), st.data())
def test_no_changed_byte_is_read_as_the_same_transaction(tx: UnsignedTx, data: st.DataObject) -> None:
    raw = bytearray(tx.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        read = UnsignedTx.decode(bytes(raw))
    except InvalidValue:
        return
    assert read != tx
    assert read.encode() == bytes(raw), "what is read has this form only"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(raw: bytes) -> None:
    for read in (UnsignedTx.decode, SignedTx.decode):
        for candidate in (raw, b"\x02" + raw):
            with contextlib.suppress(InvalidValue):
                assert read(candidate).encode() == candidate


def _listed(**changes: object) -> bytes:
    names = ["chain", "nonce", "priority", "fee", "gas", "to", "value", "data", "access"]
    values: dict[str, object] = dict(zip(names, [1, 2, 3, 4, 21_000, OTHER, 5, b"", []], strict=True))
    return b"\x02" + bytes(rlp.encode(list({**values, **changes}.values())))


def test_the_plain_list_is_read() -> None:
    assert UnsignedTx.decode(_listed()) == UnsignedTx(1, 2, 3, 4, 21_000, OTHER, 5)


@pytest.mark.parametrize(
    "raw",
    [
        _listed()[1:],
        b"\x01" + _listed()[1:],
        b"\x03" + _listed()[1:],
        b"",
        b"\x02",
        _listed() + b"\x00",
        _listed(nonce=b"\x00\x02"),
        _listed(nonce=b"\x00"),
        _listed(value=bytes(33)),
        _listed(value=b"\x01" + bytes(32)),
        _listed(to=b""),
        _listed(to=bytes(21)),
        _listed(chain=0),
        _listed(priority=5),
        _listed(nonce=2**64 - 1),
        _listed(gas=2**64),
        _listed(access=[[OTHER, []]]),
        _listed(access=b""),
        _listed(data=[]),
        _listed(extra=b""),
        b"\x02" + rlp.encode(b"abc"),
        b"\x02" + rlp.encode([]),
        b"\x02\xf9\x00" + _listed()[1:],
        b"\x02" + b"\xc1" * 5_000,
    ],
)
def test_other_forms_and_impossible_values_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidValue):
        UnsignedTx.decode(raw)


def test_an_unsigned_transaction_is_no_signed_one_and_the_other_way_round() -> None:
    tx = UnsignedTx(1, 2, 3, 4, 21_000, OTHER, 5)
    with pytest.raises(InvalidValue):
        SignedTx.decode(tx.encode())
    with pytest.raises(InvalidValue):
        UnsignedTx.decode(signed(tx).encode())


def test_signatures_in_the_upper_half_are_refused() -> None:
    tx = UnsignedTx(1, 2, 3, 4, 21_000, OTHER, 5)
    good = signed(tx)
    for y, r, s in (
        (1 - good.y_parity, good.r, CURVE_ORDER - good.s),
        (2, good.r, good.s),
        (good.y_parity, 0, good.s),
        (good.y_parity, good.r, 0),
        (good.y_parity, CURVE_ORDER, good.s),
    ):
        with pytest.raises(InvalidValue):
            SignedTx(tx, y, r, s)
    for length in (0, 64, 66):
        with pytest.raises(InvalidValue):
            tx.signed(bytes(length))


def test_a_signature_of_no_key_has_no_sender() -> None:
    with pytest.raises(InvalidValue):
        SignedTx(UnsignedTx(1, 2, 3, 4, 21_000, OTHER, 5), 0, 5, 1).sender()


def test_the_content_does_not_depend_on_the_signature() -> None:
    tx = UnsignedTx(1, 2, 3, 4, 21_000, OTHER, 5)
    other = coincurve.PrivateKey(b"\x05" * 32)
    second = tx.signed(other.sign_recoverable(tx.signing_hash, hasher=None))
    assert second.txid != signed(tx).txid
    assert second.tx.content == signed(tx).tx.content == tx.signing_hash.hex()


def test_a_resource_is_the_sender_in_lower_case_and_the_nonce() -> None:
    sender = address_of_key(KEY.public_key.format())
    assert nonce_resource(sender, 7) == f"0x{sender.hex()}:7"
    for wrong in ((sender[1:], 7), (sender, -1), (sender, 2**64 - 1)):
        with pytest.raises(InvalidValue):
            nonce_resource(*wrong)


def test_a_public_key_that_is_no_point_has_no_address() -> None:
    with pytest.raises(InvalidValue):
        address_of_key(b"\x02" + b"\xff" * 32)
