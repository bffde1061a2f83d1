"""Keys in a real SoftHSM token: they work, they don't come out, and a lost session is not the end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PyKCS11
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chains.errors import InvalidValue
from ops.devnet.softhsm import SoftHsmToken
from signers.errors import SealBroken, TokenRefused
from signers.pkcs11 import Token
from signers.sealed import (
    attestation_key_name,
    create_keyset,
    open_keyset,
    read_sealed,
    sealing_key_name,
    seed_path,
)


@pytest.fixture
def token(softhsm: SoftHsmToken) -> Iterator[Token]:
    opened = Token(softhsm.module_path, softhsm.label, softhsm.user_pin)
    yield opened
    opened.close()


@pytest.fixture
def name() -> str:
    return f"k-{uuid.uuid4().hex[:12]}"


def test_a_sealed_secret_opens_only_with_the_same_key_and_association(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    token.make_sealing_key(name + "-2")
    sealed = token.seal(name, b"secret", b"for this")
    assert token.unseal(name, sealed, b"for this") == b"secret"
    assert token.unseal(name, sealed, b"for that") is None
    assert token.unseal(name + "-2", sealed, b"for this") is None
    assert token.unseal(name, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"for this") is None
    assert token.unseal(name, sealed[:-1], b"for this") is None
    assert token.unseal(name, b"", b"for this") is None


def test_sealing_twice_uses_another_nonce(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    assert token.seal(name, b"secret", b"") != token.seal(name, b"secret", b"")


def test_attestations_verify_in_another_library_from_many_threads(token: Token, name: str) -> None:
    public = Ed25519PublicKey.from_public_bytes(token.make_attestation_key(name))
    messages = [os.urandom(32) for _ in range(64)]
    with ThreadPoolExecutor(16) as pool:
        for message, signature in zip(
            messages, pool.map(lambda m: token.sign(name, m), messages), strict=True
        ):
            public.verify(signature, message)


def test_a_key_is_never_replaced(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    token.make_attestation_key(name)
    with pytest.raises(TokenRefused, match="already"):
        token.make_sealing_key(name)
    with pytest.raises(TokenRefused, match="already"):
        token.make_attestation_key(name)


def test_an_unknown_key_is_refused(token: Token) -> None:
    with pytest.raises(TokenRefused, match="0 keys named 'nothing'"):
        token.sign("nothing", b"x")


def test_keys_can_not_be_read_out_or_made_readable(token: Token, softhsm: SoftHsmToken, name: str) -> None:
    token.make_sealing_key(name)
    token.make_attestation_key(name)
    session = token._session(token._slot())
    for kind in (PyKCS11.CKO_SECRET_KEY, PyKCS11.CKO_PRIVATE_KEY):
        (key,) = session.findObjects([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)])
        sensitive, extractable, value = session.getAttributeValue(
            key, [PyKCS11.CKA_SENSITIVE, PyKCS11.CKA_EXTRACTABLE, PyKCS11.CKA_VALUE]
        )
        assert (bool(sensitive), bool(extractable), value) == (True, False, None)
        for attribute, wish in ((PyKCS11.CKA_EXTRACTABLE, True), (PyKCS11.CKA_SENSITIVE, False)):
            with pytest.raises(PyKCS11.PyKCS11Error):
                session.setAttributeValue(key, [(attribute, wish)])
    session.closeSession()


def test_fault_30_lost_sessions_are_opened_again_and_give_the_same(token: Token, name: str) -> None:
    token.make_attestation_key(name)
    before = token.sign(name, b"same")
    token._library.raw.closeAllSessions(token._slot())
    assert token.sign(name, b"same") == before


def test_a_missing_library_or_token_is_a_clear_refusal(softhsm: SoftHsmToken) -> None:
    with pytest.raises(TokenRefused, match="did not load"):
        Token(Path("/nowhere.so"), softhsm.label, softhsm.user_pin)
    with pytest.raises(TokenRefused, match="no token labelled"):
        Token(softhsm.module_path, "elsewhere", softhsm.user_pin)


def test_a_keyset_is_made_once_and_opens_again(token: Token, name: str, tmp_path: Path) -> None:
    record = create_keyset(token, name, "regtest", tmp_path)
    assert create_keyset(token, name, "regtest", tmp_path) == record
    secret = open_keyset(token, read_sealed(seed_path(tmp_path, name)))
    assert secret.public.xpub == record.account
    assert record.origin.endswith("/84'/1'/0'")
    assert seed_path(tmp_path, name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.seed.json"]


def test_a_keyset_whose_seed_was_lost_is_not_made_anew(token: Token, name: str, tmp_path: Path) -> None:
    create_keyset(token, name, "regtest", tmp_path)
    seed_path(tmp_path, name).unlink()
    with pytest.raises(TokenRefused, match="already"):
        create_keyset(token, name, "regtest", tmp_path)


def test_a_seed_sealed_for_one_keyset_does_not_open_as_another(
    token: Token, name: str, tmp_path: Path
) -> None:
    create_keyset(token, name, "regtest", tmp_path)
    create_keyset(token, name + "-b", "regtest", tmp_path)
    swapped = seed_path(tmp_path, name).read_bytes().replace(name.encode(), (name + "-b").encode())
    seed_path(tmp_path, name + "-b").write_bytes(swapped)
    with pytest.raises(SealBroken):
        open_keyset(token, read_sealed(seed_path(tmp_path, name + "-b")))


def test_names_and_networks_are_checked_before_anything_is_made(token: Token, tmp_path: Path) -> None:
    for bad_name, network in (("../x", "regtest"), ("", "regtest"), ("good-name", "mainnet")):
        with pytest.raises(InvalidValue):
            create_keyset(token, bad_name, network, tmp_path)
    with pytest.raises(TokenRefused, match="0 keys"):
        token.unseal(sealing_key_name("good-name"), b"x" * 40, b"")
    assert attestation_key_name("a") != sealing_key_name("a")
