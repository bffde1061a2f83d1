"""A secp256k1 key made inside a token, that signs 32-byte digests and never leaves it.

A token draws a random nonce for each signature, so the same digest gets another one each time, half of them with
a high s. What comes out here has a low s, and says which of two points its r stands for.

Sources: PKCS#11 v3.0 (CKM_EC_KEY_PAIR_GEN, CKM_ECDSA), SEC 1 section 4.1, SEC 2 (secp256k1), EIP-2 (low s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import coincurve
import PyKCS11

from chains.secp256k1 import CURVE_ORDER
from signers.errors import TokenRefused, WrongSignature
from signers.hsm.pkcs11 import Token

DIGEST_BYTES: Final = 32
SECP256K1_OID: Final = bytes.fromhex("06052b8104000a")
"""CKA_EC_PARAMS: the DER of 1.3.132.0.10."""
_POINT_BYTES: Final = 65
"""Uncompressed: 0x04, x, y."""


def make_signing_key(token: Token, name: str) -> bytes:
    """Make a key pair whose private half never leaves the token; returns the public key (33 bytes).

    Raises:
        TokenRefused: a key of that name exists.
        TokenLost: the token does not answer.
    """
    mechanism = PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN, None)
    token.make_pair(name, PyKCS11.CKK_EC, SECP256K1_OID, mechanism)
    return signing_public_key(token, name)


def signing_public_key(token: Token, name: str) -> bytes:
    """The public half (33 bytes) of a signing key. Raises TokenRefused (no such key), TokenLost."""
    try:
        return coincurve.PublicKey(token.point(name)[-_POINT_BYTES:]).format()
    except ValueError as error:
        raise TokenRefused(f"the public key {name!r} of token {token.label!r}: {error}") from None


def must_stay_inside(token: Token, name: str) -> None:
    """Check that a private key can't be read out of the token, as whoever made it may have made it otherwise.

    Raises:
        TokenRefused: the token says that it can, or has no such key.
        TokenLost: the token does not answer.
    """
    if _attributes(token, name) != [True, False, True, True]:
        raise TokenRefused(f"the key {name!r} of token {token.label!r} is or was extractable: make another")


def must_not_come_out(token: Token, name: str) -> None:
    """Check that a private key can't be read out any more. It was wrapped once, so `must_stay_inside` refuses it.

    Only for a key of a ceremony whose record was found genuine.

    Raises:
        TokenRefused: the token says that it can be read, or has no such key.
        TokenLost: the token does not answer.
    """
    if _attributes(token, name)[:2] != [True, False]:
        raise TokenRefused(f"the key {name!r} of token {token.label!r} is extractable: make another")


def _attributes(token: Token, name: str) -> list[bool]:
    """Whether it is sensitive and extractable, and whether it was always the one and never the other."""
    wanted = [
        PyKCS11.CKA_SENSITIVE,
        PyKCS11.CKA_EXTRACTABLE,
        PyKCS11.CKA_ALWAYS_SENSITIVE,
        PyKCS11.CKA_NEVER_EXTRACTABLE,
    ]

    def read(session: Any) -> list[bool]:
        handle = token.handle(session, PyKCS11.CKO_PRIVATE_KEY, name)
        return [bool(value) for value in session.getAttributeValue(handle, wanted)]

    return token.call(read)


def sign_digest(token: Token, name: str, digest: bytes) -> bytes:
    """What the token says: r and s (64 bytes), random each time. Raises TokenRefused (no such key), TokenLost."""
    return token.signature(name, digest, PyKCS11.CKM_ECDSA)


def normalised(raw: bytes, pubkey: bytes, digest: bytes) -> bytes:
    """A token's signature with s in the lower half, and the parity under which it recovers to `pubkey`.

    Args:
        raw: r and s, 64 bytes.
        pubkey: 33 bytes.
        digest: the 32 bytes that were signed.

    Returns:
        r and s (32 bytes each) and the parity of the y of the point behind r (0 or 1): 65 bytes.

    Raises:
        WrongSignature: it recovers to another key, or to none.
    """
    if len(raw) == 64 and len(digest) == DIGEST_BYTES:
        s = int.from_bytes(raw[32:], "big")
        low = min(s, abs(CURVE_ORDER - s)).to_bytes(32, "big")
        for y_parity in (0, 1):
            signature = raw[:32] + low + bytes([y_parity])
            if _recovered(signature, digest) == pubkey:
                return signature
    raise WrongSignature("the token's signature does not verify; it was not released")


def _recovered(signature: bytes, digest: bytes) -> bytes | None:
    """The public key (33 bytes) to which 65 bytes recover, as libsecp256k1 sees it; None if to none."""
    try:
        return coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None).format()
    except ValueError:
        return None


def sign_with_throwaway(token: Token, secret: bytes, digests: Sequence[bytes]) -> list[bytes]:
    """Bring a key into the token for this call only, and sign with it.

    Args:
        token: logged in.
        secret: 32 bytes, known to the caller: it is for tests of the token, and never holds money.
        digests: 32 bytes each.

    Returns:
        What the token says to each: r and s (64 bytes), as `sign_digest`.

    Raises:
        TokenRefused: the token takes no keys from outside.
        TokenLost: the token does not answer.
    """
    template = [
        (PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY),
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_EC),
        (PyKCS11.CKA_EC_PARAMS, SECP256K1_OID),
        (PyKCS11.CKA_VALUE, secret),
        (PyKCS11.CKA_TOKEN, False),
        (PyKCS11.CKA_PRIVATE, True),
        (PyKCS11.CKA_SENSITIVE, True),
        (PyKCS11.CKA_EXTRACTABLE, False),
        (PyKCS11.CKA_SIGN, True),
    ]

    def sign(session: Any) -> list[bytes]:
        handle = session.createObject(template)
        try:
            return [token.sign_by_handle(session, handle, digest, PyKCS11.CKM_ECDSA) for digest in digests]
        finally:
            session.destroyObject(handle)

    return token.call(sign)
