"""Assertions of passkeys: each part of one is checked, no byte can change, and nothing malformed gets through."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fido2 import cbor
from fido2.cose import ES384
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies.bundle.checks import check_consistent
from policies.canonical import BadSignature
from policies.intent import Assertion
from policies.keys import SigningKey
from policies.passkeys import check_passkey, decode, encode, raw_key, verify_assertion
from tests.fakes.passkey import PRESENT, VERIFIED, SoftPasskey
from tests.fakes.signing import SoftKeys, World

CHALLENGE = hashlib.sha256(b"an approval").digest()
KINDS = [SoftPasskey(), SoftPasskey(Ed25519PrivateKey.generate())]


@pytest.mark.parametrize("soft", KINDS, ids=["ES256", "EdDSA"])
def test_what_its_holder_has_signed_verifies_and_again(soft: SoftPasskey) -> None:
    check_passkey(soft.entry())
    assertion = soft.get(CHALLENGE)
    for _ in range(2):
        verify_assertion(assertion, soft.entry(), CHALLENGE)


@pytest.mark.parametrize("soft", KINDS, ids=["ES256", "EdDSA"])
@pytest.mark.parametrize("part", ["authenticator_data", "client_data", "signature"])
def test_no_byte_of_an_assertion_can_change(soft: SoftPasskey, part: str) -> None:
    assertion = soft.get(CHALLENGE)
    raw = decode(getattr(assertion, part))
    for position in range(len(raw)):
        for flip in (0x01, 0x80):
            changed = bytearray(raw)
            changed[position] ^= flip
            other = msgspec.structs.replace(assertion, **{part: encode(bytes(changed))})
            with pytest.raises(BadSignature):
                verify_assertion(other, soft.entry(), CHALLENGE)


@pytest.mark.parametrize("part", ["authenticator_data", "client_data", "signature"])
def test_no_byte_can_be_added_or_taken_away_and_no_letter_written_otherwise(part: str) -> None:
    soft = KINDS[1]
    assertion = soft.get(CHALLENGE)
    text: str = getattr(assertion, part)
    raw = decode(text)
    others = [encode(raw + b"\0"), encode(raw[:-1]), encode(raw * 2), text + "=", text + "A", "_"]
    if len(raw) % 3:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        others.append(text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1])
    for other in others:
        with pytest.raises(BadSignature):
            verify_assertion(msgspec.structs.replace(assertion, **{part: other}), soft.entry(), CHALLENGE)


@pytest.mark.parametrize(
    "assertion",
    [
        KINDS[0].get(hashlib.sha256(b"another").digest()),
        KINDS[0].get(CHALLENGE, type="webauthn.create"),
        KINDS[0].get(CHALLENGE, type="payment.get"),
        KINDS[0].get(CHALLENGE, challenge=encode(CHALLENGE + b"\0")),
        KINDS[0].get(CHALLENGE, challenge=7),
        KINDS[0].get(CHALLENGE, origin="http://localhost:8766"),
        KINDS[0].get(CHALLENGE, origin="http://localhost:8765/"),
        KINDS[0].get(CHALLENGE, origin="https://localhost:8765"),
        KINDS[0].get(CHALLENGE, origin=["http://localhost:8765"]),
        KINDS[0].get(CHALLENGE, crossOrigin=True),
        KINDS[0].get(CHALLENGE, crossOrigin=0),
        KINDS[0].get(CHALLENGE, rp_id="localhost.example"),
        KINDS[0].get(CHALLENGE, flags=PRESENT),
        KINDS[0].get(CHALLENGE, flags=VERIFIED),
        KINDS[0].get(CHALLENGE, flags=0),
        KINDS[0].get(CHALLENGE, flags=PRESENT | VERIFIED | 0x40),
        KINDS[0].get(CHALLENGE, flags=PRESENT | VERIFIED | 0x80),
        SoftPasskey().get(CHALLENGE),
        KINDS[1].get(CHALLENGE),
    ],
)
def test_an_assertion_that_is_wrong_in_one_thing_is_refused_though_it_is_signed(assertion: Assertion) -> None:
    with pytest.raises(BadSignature):
        verify_assertion(assertion, KINDS[0].entry(), CHALLENGE)


@given(st.binary(max_size=200), st.binary(max_size=400), st.binary(max_size=80))
def test_no_bytes_of_strangers_do_more_than_to_be_refused(
    data: bytes, client: bytes, signature: bytes
) -> None:
    soft = KINDS[0]
    genuine = soft.get(CHALLENGE)
    for assertion in (
        Assertion(
            authenticator_data=encode(data), client_data=genuine.client_data, signature=genuine.signature
        ),
        Assertion(
            authenticator_data=genuine.authenticator_data,
            client_data=encode(client),
            signature=encode(signature),
        ),
    ):
        with pytest.raises(BadSignature):
            verify_assertion(assertion, soft.entry(), CHALLENGE)


def test_json_of_endless_depth_is_refused() -> None:
    text = encode(b"[" * 1_000)
    with pytest.raises(BadSignature):
        verify_assertion(
            msgspec.structs.replace(KINDS[0].get(CHALLENGE), client_data=text), KINDS[0].entry(), CHALLENGE
        )


def _cose(**changes: Any) -> bytes:
    found: dict[int, Any] = dict(cbor.decode(KINDS[0].cose))  # type: ignore[arg-type]
    for name, value in changes.items():
        key = int(name.replace("minus", "-").replace("plus", ""))
        if value is None:
            del found[key]
        else:
            found[key] = value
    return bytes(cbor.encode(found))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xa0",
        b"\x80",
        KINDS[0].cose + b"\0",
        KINDS[0].cose[:-1],
        _cose(plus3=-35),
        _cose(plus1=1),
        _cose(minus1=2),
        _cose(minus2=b"\0" * 32),
        _cose(minus3=b"\1" * 33),
        _cose(minus3=None),
        _cose(plus4=[1]),
        bytes(cbor.encode(ES384.from_cryptography_key(generate_private_key(SECP384R1()).public_key()))),  # type: ignore[no-untyped-call]
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_public_key_of_another_kind_or_form_is_taken_by_no_bundle(raw: bytes) -> None:
    with pytest.raises(InvalidValue):
        check_passkey(KINDS[0].entry(public_key=encode(raw) or "A"))


@pytest.mark.parametrize(
    ("rp_id", "origin", "good"),
    [
        ("localhost", "http://localhost:8765", True),
        ("example.com", "https://approve.example.com", True),
        ("example.com", "https://example.com:444", True),
        ("example.com", "http://example.com", False),
        ("example.com", "https://badexample.com", False),
        ("approve.example.com", "https://example.com", False),
        ("localhost", "http://localhost:99999", False),
        ("localhost", "http://127.0.0.1:8765", False),
    ],
)
def test_a_page_belongs_to_its_relying_party_and_has_tls_elsewhere_than_here(
    rp_id: str, origin: str, good: bool
) -> None:
    entry = KINDS[0].entry(rp_id=rp_id, origin=origin)
    if good:
        check_passkey(entry)
        return
    with pytest.raises(InvalidValue):
        check_passkey(entry)


def test_the_ed25519_key_behind_a_passkey_is_told() -> None:
    key = KINDS[1].key
    assert isinstance(key, Ed25519PrivateKey)
    assert raw_key(KINDS[1].entry()) == key.public_key().public_bytes_raw().hex()
    assert raw_key(KINDS[0].entry()) is None


def test_one_key_is_no_two_approvers_not_even_as_a_passkey_and_bare() -> None:
    """Whoever held both entries of a bundle would approve for two people with one key."""
    world = World(SoftKeys.make().record)
    bare, passkey = SigningKey(KINDS[1].key), KINDS[1].entry()  # type: ignore[arg-type]
    entries = (
        world.approver_entry("ada", key=bare.public_hex),
        world.approver_entry("ben", key=passkey),
        world.approver_entry("cem", key=KINDS[0].entry()),
    )
    check_consistent(world.bundle(approvers=entries[1:]))
    with pytest.raises(InvalidValue, match="another approver's"):
        check_consistent(world.bundle(approvers=entries))
