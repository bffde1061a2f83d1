"""Files to and from an owner of a Safe: one form each, everything else refused with words that say what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import coincurve
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.safe import SafeMessage, SafeTx
from chains.eth.safe_files import (
    MAX_FILE_BYTES,
    BadSafeFile,
    SafeRequest,
    SafeSignature,
    decode_request,
    decode_signature,
    encode_request,
    encode_signature,
)
from chains.eth.tx import address_of_key
from tests.fakes.safe_txs import addresses, safe_txs

SMALL = st.integers(0, 2**53 - 1)
notes = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=200)
requests = st.builds(
    SafeRequest,
    st.builds(SafeMessage, st.integers(1, 2**53 - 1), addresses, st.builds(replace, safe_txs, nonce=SMALL)),
    SMALL,
    notes,
)
KEY = coincurve.PrivateKey(b"\x07" * 32)
OWNER = address_of_key(KEY.public_key.format())
PLAIN = SafeRequest(SafeMessage(1, b"\x11" * 20, SafeTx(b"\x22" * 20, 5, b"", 7)), 2_000_000_000, "Friday")


def signature_over(digest: bytes) -> SafeSignature:
    compact = KEY.sign_recoverable(digest, hasher=None)
    return SafeSignature(digest, OWNER, compact[:64] + bytes([27 + compact[64]]))


def changed(raw: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(raw) | fields, separators=(",", ":"), ensure_ascii=False).encode()


@given(requests)
def test_what_is_written_is_read_again_and_only_that(request: SafeRequest) -> None:
    raw = encode_request(request)
    assert decode_request(raw) == request
    assert decode_request(raw + b"\n") == request
    assert decode_request(raw).message.signing_hash == request.message.signing_hash
    found = json.loads(raw)
    assert found["type"] == "strongroom-safe-request"
    for other in (b" " + raw, json.dumps(found).encode(), raw[:-1] + b',"note":"x"}', raw[:-1]):
        with pytest.raises(BadSafeFile):
            decode_request(other)


@given(st.binary(min_size=32, max_size=32))
def test_a_signature_is_read_again_and_recovered(digest: bytes) -> None:
    signature = signature_over(digest)
    raw = encode_signature(signature)
    assert decode_signature(raw) == signature
    assert list(json.loads(raw)) == ["type", "v", "safe_tx_hash", "owner", "signature"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("type", "strongroom-safe-thing"),
        ("chain_id", 0),
        ("chain_id", "1"),
        ("chain_id", 2**53),
        ("safe", checksummed(b"\xab" * 20).lower()),
        ("to", ""),
        ("value", "-1"),
        ("value", "01"),
        ("value", 5),
        ("value", str(2**256)),
        ("data", "0xABCD"),
        ("data", "abcd"),
        ("data", "0xabc"),
        ("operation", 2),
        ("operation", True),
        ("nonce", -1),
        ("gas_price", "1.5"),
        ("expires_at", None),
        ("note", "x" * 201),
        ("note", "\x1b[2J"),
        ("note", "\u202e"),
        ("note", "two\nlines"),
        ("hash", "0x00"),
    ],
)
def test_a_request_with_a_field_that_is_not_as_it_must_be_is_refused(field: str, value: Any) -> None:
    raw = encode_request(PLAIN)
    assert changed(raw) == raw
    with pytest.raises(BadSafeFile, match=r"again|new|as it was made"):
        decode_request(changed(raw, **{field: value}))


def test_a_signature_of_somebody_else_or_of_another_form_is_refused() -> None:
    good = signature_over(b"\x33" * 32)
    raw = encode_signature(good)
    r_s = good.signature[:64]
    for fields in (
        {"owner": checksummed(b"\x01" * 20)},
        {"safe_tx_hash": "0x" + "34" * 32},
        {"safe_tx_hash": "0x33"},
        {"signature": "0x" + r_s.hex()},
        {"signature": "0x" + (r_s + bytes([good.signature[64] ^ 7])).hex()},
        {"signature": "0x" + (r_s + bytes([good.signature[64] - 27])).hex()},
        {"signature": "0x" + (r_s + bytes([good.signature[64] + 4])).hex()},
        {"signature": "0x" + "00" * 65},
        {"owner": "nobody"},
    ):
        with pytest.raises(BadSafeFile):
            decode_signature(changed(raw, **fields))


def test_one_file_in_place_of_the_other_is_called_so() -> None:
    with pytest.raises(BadSafeFile, match="this file is a request"):
        decode_signature(encode_request(PLAIN))
    with pytest.raises(BadSafeFile, match="this file is a signature"):
        decode_request(encode_signature(signature_over(b"\x33" * 32)))


def test_long_deep_and_empty_files_are_refused() -> None:
    for raw in (b"", b"null", b"[" * 100_000, b" " * (MAX_FILE_BYTES + 1), b"\xff\xfe", b'{"type":1}'):
        with pytest.raises(BadSafeFile):
            decode_request(raw)
        with pytest.raises(BadSafeFile):
            decode_signature(raw)


def test_what_cannot_be_written_is_not_made() -> None:
    with pytest.raises(InvalidValue):
        replace(PLAIN, note="\a")
    with pytest.raises(InvalidValue):
        replace(PLAIN, expires_at=-1)
    with pytest.raises(InvalidValue):
        replace(PLAIN, message=replace(PLAIN.message, tx=replace(PLAIN.message.tx, nonce=2**53)))
    with pytest.raises(InvalidValue):
        SafeSignature(b"\x01" * 32, OWNER, signature_over(b"\x02" * 32).signature)


def test_the_largest_calldata_that_nodes_take_fits() -> None:
    tx = replace(PLAIN.message.tx, data=b"\x01" * (128 * 1024))
    request = replace(PLAIN, message=replace(PLAIN.message, tx=tx))
    assert decode_request(encode_request(request)) == request
