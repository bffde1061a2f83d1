"""ECDSA verified by the OpenSSL of Python: the answers of `cryptography`, on whatever bytes."""

from __future__ import annotations

import threading

import coincurve
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from signers.keys import openssl
from signers.keys.openssl import openssl_verifies

KEY = coincurve.PrivateKey((7).to_bytes(32, "big"))
PUBKEY = KEY.public_key.format()
DIGEST = bytes(range(32))
SIGNATURE = KEY.sign(DIGEST, hasher=None)


def cryptography_verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), pubkey)
        key.verify(der, digest, ec.ECDSA(utils.Prehashed(SHA256())))
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.fixture(params=["through ctypes", "by cryptography"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's OpenSSL as it is here, and a Python that has it within itself."""
    if request.param == "by cryptography":
        monkeypatch.setattr(openssl, "_library", lambda: None)
    else:
        assert openssl._library() is not None


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("pubkey", "digest", "der", "holds"),
    [
        (PUBKEY, DIGEST, SIGNATURE, True),
        (PUBKEY, bytes(32), SIGNATURE, False),
        (coincurve.PrivateKey((8).to_bytes(32, "big")).public_key.format(), DIGEST, SIGNATURE, False),
        (PUBKEY, DIGEST, SIGNATURE[:-1], False),
        (PUBKEY, DIGEST, SIGNATURE + b"\x00", False),
        (PUBKEY, DIGEST, b"", False),
        (PUBKEY, DIGEST[:31], SIGNATURE, False),
        (PUBKEY, DIGEST + b"\x00", SIGNATURE, False),
        (b"\x00", DIGEST, SIGNATURE, False),
        (b"", DIGEST, SIGNATURE, False),
        (b"\x05" + PUBKEY[1:], DIGEST, SIGNATURE, False),
        (b"\x02" + b"\xff" * 32, DIGEST, SIGNATURE, False),
        (KEY.public_key.format(compressed=False), DIGEST, SIGNATURE, False),
    ],
)
def test_only_the_keys_own_signature_of_the_digest_holds(
    pubkey: bytes, digest: bytes, der: bytes, holds: bool
) -> None:
    assert openssl_verifies(pubkey, digest, der) is holds


@given(
    st.integers(1, 2**256 - 2**129),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 200),
    st.integers(0, 255),
)
def test_both_give_the_same_answer_when_a_byte_was_changed(
    secret: int, digest: bytes, at: int, flip: int
) -> None:
    key = coincurve.PrivateKey(secret.to_bytes(32, "big"))
    both = bytearray(key.public_key.format() + digest + key.sign(digest, hasher=None))
    both[at % len(both)] ^= flip
    pubkey, seen, der = bytes(both[:33]), bytes(both[33:65]), bytes(both[65:])
    assert openssl_verifies(pubkey, seen, der) == cryptography_verifies(pubkey, seen, der)
    assert openssl_verifies(pubkey, seen, der) == (flip == 0)


def test_many_threads_verify_at_once() -> None:
    answers: list[tuple[bool, bool]] = []

    def verify() -> None:
        for _ in range(20):
            answers.append(
                (openssl_verifies(PUBKEY, DIGEST, SIGNATURE), openssl_verifies(PUBKEY, bytes(32), SIGNATURE))
            )

    threads = [threading.Thread(target=verify) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(True, False)] * 80
