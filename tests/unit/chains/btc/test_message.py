"""Messages signed by the key of an address (BIP322), by the BIP's vectors and another implementation."""

from __future__ import annotations

import base64
import os

import bip322
import coincurve
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.address import address_text, parse_address
from chains.btc.message import verifies
from chains.btc.network import NETWORKS
from chains.btc.script import p2wpkh_script
from chains.errors import InvalidValue
from chains.types import Address
from tests.support.messages import signed_by

MAIN = NETWORKS["main"]
SEGWIT = "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"
TAPROOT = "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3"
VECTORS = [
    (
        SEGWIT,
        "",
        (
            "AkcwRAIgM2gBAQqvZX15ZiysmKmQpDrG83avLIT492QBzLnQIxYCIBaTpOaD20qRlEylyxFSeEA2ba9YOixpX8z46TSDtS40ASECx/EgAxlk"
            "QpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI="
        ),
    ),
    (
        SEGWIT,
        "Hello World",
        (
            "AkcwRAIgZRfIY3p7/DoVTty6YZbWS71bc5Vct9p9Fia83eRmw2QCICK/ENGfwLtptFluMGs2KsqoNSk89pO7F29zJLUx9a/sASECx/EgAxlk"
            "QpQ9hYjgGu6EBCPMVPwVIVJqO4XCsMvViHI="
        ),
    ),
    (
        TAPROOT,
        "Hello World",
        "AUHd69PrJQEv+oKTfZ8l+WROBHuy9HKrbFCJu7U1iK2iiEy1vMU5EfMtjc+VSHM7aU0SDbak5IUZRVno2P5mjSafAQ==",
    ),
]


def address(text: str) -> Address:
    return parse_address(text, MAIN, "bitcoin")


def signed(key: coincurve.PrivateKey, message: str) -> tuple[Address, str]:
    """A P2WPKH address of a key, and its signature of a message."""
    pubkey = key.public_key.format()
    ours = address(address_text(p2wpkh_script(pubkey), MAIN))
    return ours, signed_by(key, ours, message)


def agrees(text: str, message: str, signature: str) -> bool:
    """What the other implementation says."""
    try:
        bip322.verify_simple_encoded(text, message, signature)
    except bip322.VerificationError:
        return False
    return True


@pytest.mark.parametrize(("text", "message", "signature"), VECTORS)
def test_the_vectors_of_the_bip_verify_and_nothing_else_does(text: str, message: str, signature: str) -> None:
    assert verifies(address(text), message, signature)
    assert verifies(address(text), message, "smp" + signature)
    assert agrees(text, message, signature)
    assert not verifies(address(text), message + ".", signature)
    other = TAPROOT if text == SEGWIT else SEGWIT
    assert not verifies(address(other), message, signature)


@given(message=st.text(max_size=200), secret=st.binary(min_size=32, max_size=32))
def test_what_a_key_signs_verifies_here_and_elsewhere(message: str, secret: bytes) -> None:
    key = coincurve.PrivateKey(bytes([1]) + secret[1:])
    ours, signature = signed(key, message)
    assert verifies(ours, message, signature)
    assert agrees(ours.text, message, signature)
    assert not verifies(ours, message + "x", signature)


@given(position=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_never_verifies(position: int, bit: int) -> None:
    text, message, signature = VECTORS[1]
    raw = bytearray(base64.b64decode(signature))
    raw[position % len(raw)] ^= 1 << bit
    assert not verifies(address(text), message, base64.b64encode(raw).decode())


@given(st.binary(max_size=300) | st.text(max_size=100))
def test_noise_is_no_signature(noise: bytes | str) -> None:
    text = base64.b64encode(noise).decode() if isinstance(noise, bytes) else noise
    assert not verifies(address(SEGWIT), "Hello World", text)
    assert not verifies(address(TAPROOT), "Hello World", text)


def test_a_signature_of_another_hash_type_or_key_is_none() -> None:
    key = coincurve.PrivateKey(os.urandom(32))
    ours, signature = signed(key, "m")
    raw = bytearray(base64.b64decode(signature))
    raw[1 + raw[1]] = 3  # SIGHASH_SINGLE: it would not cover everything
    assert not verifies(ours, "m", base64.b64encode(raw).decode())
    theirs, _ = signed(coincurve.PrivateKey(os.urandom(32)), "m")
    assert not verifies(theirs, "m", signature)


def test_addresses_of_other_kinds_can_not_prove_anything() -> None:
    with pytest.raises(InvalidValue, match="only of P2WPKH and P2TR"):
        verifies(address("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"), "m", "AA==")
