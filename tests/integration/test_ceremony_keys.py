"""What a ceremony asks of a token: entropy, one wrapping, the way back, and nothing else ever."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import PyKCS11
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key

from signers.ceremony import hsm
from signers.ceremony.hsm import (
    check_wrapping,
    import_attestation_key,
    key_names,
    make_wrapped_key,
    remove_keys,
    restore_key,
    seed_token,
    token_random,
)
from signers.errors import NotProven, SealBroken, SelfCheckFailed, TokenRefused
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import SECP256K1_OID, must_not_come_out, must_stay_inside, signing_public_key
from signers.keys.evm_keys import sign_key_file, signing_key_name
from signers.keys.keyset import EvmKeysetRecord
from signers.keys.sealed import attestation_key_name
from tests.support.records import Held


@pytest.fixture
def name() -> str:
    return f"k-{uuid.uuid4().hex[:12]}"


def attributes(token: Token, name: str) -> list[bool]:
    wanted = [
        PyKCS11.CKA_TOKEN,
        PyKCS11.CKA_PRIVATE,
        PyKCS11.CKA_SENSITIVE,
        PyKCS11.CKA_EXTRACTABLE,
        PyKCS11.CKA_NEVER_EXTRACTABLE,
        PyKCS11.CKA_DERIVE,
    ]

    def read(session: Any) -> list[bool]:
        handle = token.handle(session, PyKCS11.CKO_PRIVATE_KEY, name)
        return [bool(value) for value in session.getAttributeValue(handle, wanted)]

    return token.call(read)


def objects(token: Token) -> int:
    return token.call(lambda session: len(session.findObjects([])))


def test_a_key_is_wrapped_once_and_only_its_wrapped_form_is_left(token: Token) -> None:
    before, kek = objects(token), os.urandom(32)
    public, wrapped = make_wrapped_key(token, kek)
    assert objects(token) == before
    key = load_der_private_key(aes_key_unwrap_with_padding(kek, wrapped), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert key.public_key().public_numbers().x == int.from_bytes(public[1:], "big")
    assert make_wrapped_key(token, kek)[0] != public


def test_what_comes_back_signs_never_comes_out_and_wraps_no_more(token: Token, name: str) -> None:
    kek = os.urandom(32)
    public, wrapped = make_wrapped_key(token, kek)
    restore_key(token, name, kek, wrapped, public)
    assert signing_public_key(token, name) == public
    assert attributes(token, name) == [True, True, True, False, False, False]
    must_not_come_out(token, name)
    with pytest.raises(TokenRefused, match="is or was extractable"):
        must_stay_inside(token, name)

    def wrap_again(session: Any) -> bytes:
        handle = token.handle(session, PyKCS11.CKO_PRIVATE_KEY, name)
        with hsm._wrapping(session, kek) as (key, mechanism):
            return bytes(session.wrapKey(key, handle, mechanism))

    with pytest.raises(TokenRefused, match="UNEXTRACTABLE"):
        token.call(wrap_again)
    for attribute, value in ((PyKCS11.CKA_EXTRACTABLE, True), (PyKCS11.CKA_SENSITIVE, False)):
        with pytest.raises(TokenRefused):
            token.call(
                lambda s, a=attribute, v=value: s.setAttributeValue(  # type: ignore[misc]
                    token.handle(s, PyKCS11.CKO_PRIVATE_KEY, name), [(a, v)]
                )
            )


def test_a_wrong_key_a_damaged_blob_or_another_public_key_leaves_nothing(token: Token, name: str) -> None:
    kek = os.urandom(32)
    public, wrapped = make_wrapped_key(token, kek)
    other, _ = make_wrapped_key(token, kek)
    before = objects(token)
    with pytest.raises(SealBroken, match="does not open"):
        restore_key(token, name, os.urandom(32), wrapped, public)
    for place in (0, 8, len(wrapped) // 2, len(wrapped) - 1):
        damaged = bytearray(wrapped)
        damaged[place] ^= 1
        with pytest.raises(SealBroken, match="does not open"):
            restore_key(token, name, kek, bytes(damaged), public)
    with pytest.raises(SealBroken, match="not the one of the recorded public key"):
        restore_key(token, name, kek, wrapped, other)
    assert objects(token) == before


def test_nothing_is_replaced_and_what_is_removed_is_gone(token: Token, name: str) -> None:
    kek = os.urandom(32)
    public, wrapped = make_wrapped_key(token, kek)
    restore_key(token, name, kek, wrapped, public)
    with pytest.raises(TokenRefused, match="already"):
        restore_key(token, name, kek, wrapped, public)
    import_attestation_key(token, f"{name}-2", os.urandom(32))
    with pytest.raises(TokenRefused, match="already"):
        import_attestation_key(token, f"{name}-2", os.urandom(32))
    assert {name, f"{name}-2"} <= set(key_names(token))
    for _ in range(2):
        remove_keys(token, [name])
    assert name not in key_names(token)
    assert f"{name}-2" in key_names(token)


def test_an_imported_attestation_key_is_the_one_that_was_given_and_stays(token: Token, name: str) -> None:
    secret = os.urandom(32)
    public = import_attestation_key(token, name, secret)
    key = Ed25519PrivateKey.from_private_bytes(secret)
    assert public == key.public_key().public_bytes_raw() == token.attestation_public_key(name)
    assert token.sign(name, b"message") == key.sign(b"message")
    assert attributes(token, name)[:4] == [True, True, True, False]


def test_a_token_gives_randomness_and_takes_some(token: Token) -> None:
    drawn = {token_random(token, 32) for _ in range(8)}
    assert len(drawn) == 8
    assert seed_token(token, os.urandom(64)) is True


def test_a_token_that_wraps_in_a_form_of_its_own_is_found_out(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_wrapping(token, os.urandom)
    wrap = PyKCS11.Session.wrapKey

    def other_form(session: Any, key: Any, wrapped: Any, mechanism: Any) -> list[int]:
        return list(bytes(wrap(session, key, wrapped, mechanism))[::-1])

    monkeypatch.setattr(PyKCS11.Session, "wrapKey", other_form)
    with pytest.raises(SelfCheckFailed, match="standard tools"):
        check_wrapping(token, os.urandom)


def test_a_key_that_was_wrapped_is_used_with_its_ceremony_s_genuine_record_only(
    token: Token, name: str, tmp_path: Path
) -> None:
    """Who has the PIN could make an extractable key and keep a copy: without a ceremony's record it is refused."""
    kek, secret = os.urandom(32), os.urandom(32)
    public, wrapped = make_wrapped_key(token, kek)
    attestation = import_attestation_key(token, attestation_key_name(name), secret)
    restore_key(token, signing_key_name(name), kek, wrapped, public)
    from chains.eth.tx import address_text_of_key

    record = EvmKeysetRecord(
        id=name, chain_id=1, address=address_text_of_key(public), attestation_key=attestation.hex()
    )
    with pytest.raises(TokenRefused, match="is or was extractable"):
        sign_key_file(token, record, None)
    for signed in (Held().signed(), Held().signed(keyset=record, public_key=public.hex())):
        # Of other keys; and of these, but signed by somebody else's attestation key.
        with pytest.raises(NotProven):
            sign_key_file(token, record, signed)


def test_a_key_that_can_come_out_is_refused_whatever_the_record_says(token: Token, name: str) -> None:
    """Extractable is refused even beside a genuine record."""
    public = [
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_EC),
        (PyKCS11.CKA_EC_PARAMS, SECP256K1_OID),
        (PyKCS11.CKA_LABEL, name),
        (PyKCS11.CKA_TOKEN, True),
    ]
    private = [
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_EC),
        (PyKCS11.CKA_LABEL, name),
        (PyKCS11.CKA_TOKEN, True),
        (PyKCS11.CKA_SENSITIVE, True),
        (PyKCS11.CKA_EXTRACTABLE, True),
        (PyKCS11.CKA_SIGN, True),
    ]
    mechanism = PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN, None)
    token.call(lambda session: session.generateKeyPair(public, private, mechanism))
    with pytest.raises(TokenRefused, match="is extractable"):
        must_not_come_out(token, name)
