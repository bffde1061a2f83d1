"""Keys inside an HSM through PKCS#11 (PyKCS11): an AES-256 sealing key and an Ed25519 attestation key.

All keys are made inside the token as sensitive and non-extractable.

Sources: PKCS#11 v3.0 (CKM_AES_GCM, CKM_EDDSA), NIST SP 800-38D (GCM), RFC 8032 (Ed25519).
"""

from __future__ import annotations

import os
from typing import Any, Final

import PyKCS11

from signers.errors import TokenRefused
from signers.hsm.sessions import Sessions

NONCE_BYTES: Final = 12
TAG_BITS: Final = 128

_ED25519_NAME: Final = b"\x13\x0cedwards25519"
"""The PrintableString form that PKCS#11 v3.0 names for the same curve (what SoftHSM takes)."""


def private_template(name: str, key_type: int) -> list[tuple[int, Any]]:
    """The attributes of a private key that stays in the token, signs, does nothing else, and never comes out."""
    return [
        (PyKCS11.CKA_KEY_TYPE, key_type),
        (PyKCS11.CKA_LABEL, name),
        (PyKCS11.CKA_TOKEN, True),
        (PyKCS11.CKA_PRIVATE, True),
        (PyKCS11.CKA_SENSITIVE, True),
        (PyKCS11.CKA_EXTRACTABLE, False),
        (PyKCS11.CKA_SIGN, True),
        (PyKCS11.CKA_DERIVE, False),
    ]


def public_template(name: str, key_type: int, curve: bytes) -> list[tuple[int, Any]]:
    """The attributes of its public half; `curve` is CKA_EC_PARAMS."""
    return [
        (PyKCS11.CKA_KEY_TYPE, key_type),
        (PyKCS11.CKA_EC_PARAMS, curve),
        (PyKCS11.CKA_LABEL, name),
        (PyKCS11.CKA_TOKEN, True),
        (PyKCS11.CKA_VERIFY, True),
    ]


class Token(Sessions):
    """One PKCS#11 token, logged in as its user (see `Sessions`), and what its keys do."""

    def make_sealing_key(self, name: str) -> None:
        """Make an AES-256 key that never leaves the token.

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.must_be_free(PyKCS11.CKO_SECRET_KEY, name)
        template = [
            (PyKCS11.CKA_CLASS, PyKCS11.CKO_SECRET_KEY),
            (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_AES),
            (PyKCS11.CKA_VALUE_LEN, 32),
            (PyKCS11.CKA_LABEL, name),
            (PyKCS11.CKA_TOKEN, True),
            (PyKCS11.CKA_PRIVATE, True),
            (PyKCS11.CKA_SENSITIVE, True),
            (PyKCS11.CKA_EXTRACTABLE, False),
            (PyKCS11.CKA_ENCRYPT, True),
            (PyKCS11.CKA_DECRYPT, True),
            (PyKCS11.CKA_WRAP, False),
            (PyKCS11.CKA_UNWRAP, False),
        ]
        mechanism = PyKCS11.Mechanism(PyKCS11.CKM_AES_KEY_GEN, None)
        self.call(lambda session: session.generateKey(template, mechanism))

    def make_attestation_key(self, name: str) -> bytes:
        """Make an Ed25519 key pair whose private half never leaves the token; returns the public key (32 bytes).

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.make_pair(
            name,
            PyKCS11.CKK_EC_EDWARDS,
            _ED25519_NAME,
            PyKCS11.Mechanism(PyKCS11.CKM_EC_EDWARDS_KEY_PAIR_GEN, None),
        )
        return self.attestation_public_key(name)

    def attestation_public_key(self, name: str) -> bytes:
        """The public half (32 bytes) of an attestation key. Raises TokenRefused (no such key), TokenLost."""
        return self.point(name)[-32:]

    def sign(self, name: str, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by an attestation key. Raises TokenRefused (no such key), TokenLost."""
        return self.signature(name, message, PyKCS11.CKM_EDDSA)

    def seal(self, name: str, plaintext: bytes, associated: bytes) -> bytes:
        """AES-256-GCM under a sealing key: nonce (12 bytes), ciphertext, tag (16 bytes).

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """
        nonce = os.urandom(NONCE_BYTES)

        def seal(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_SECRET_KEY, name)
            mechanism = PyKCS11.AES_GCM_Mechanism(nonce, associated, TAG_BITS)
            return nonce + bytes(session.encrypt(handle, plaintext, mechanism))

        return self.call(seal)

    def unseal(self, name: str, sealed: bytes, associated: bytes) -> bytes | None:
        """The plaintext of `seal`, or None where the tag does not match (other key, other data, damage).

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """
        if len(sealed) < NONCE_BYTES + TAG_BITS // 8:
            return None

        def unseal(session: Any) -> bytes | None:
            handle = self.handle(session, PyKCS11.CKO_SECRET_KEY, name)
            mechanism = PyKCS11.AES_GCM_Mechanism(sealed[:NONCE_BYTES], associated, TAG_BITS)
            try:
                return bytes(session.decrypt(handle, sealed[NONCE_BYTES:], mechanism))
            except PyKCS11.PyKCS11Error as error:
                # SoftHSM answers a wrong tag with GENERAL_ERROR or ENCRYPTED_DATA_INVALID, never with a plaintext.
                if error.value in (
                    PyKCS11.CKR_ENCRYPTED_DATA_INVALID,
                    PyKCS11.CKR_ENCRYPTED_DATA_LEN_RANGE,
                    PyKCS11.CKR_GENERAL_ERROR,
                ):
                    return None
                raise

        return self.call(unseal)

    def make_pair(self, name: str, key_type: int, curve: bytes, mechanism: Any) -> None:
        """Make a key pair that signs and does nothing else, and whose private half never leaves the token.

        Args:
            name: of both halves.
            key_type: CKK_...
            curve: CKA_EC_PARAMS, DER.
            mechanism: which generates it.

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.must_be_free(PyKCS11.CKO_PRIVATE_KEY, name)
        public, private = public_template(name, key_type, curve), private_template(name, key_type)
        self.call(lambda session: session.generateKeyPair(public, private, mechanism))

    def point(self, name: str) -> bytes:
        """CKA_EC_POINT of a key pair: an OCTET STRING, so the point's own bytes are the last ones.

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """

        def read(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_PUBLIC_KEY, name)
            return bytes(session.getAttributeValue(handle, [PyKCS11.CKA_EC_POINT])[0])

        return self.call(read)

    def signature(self, name: str, data: bytes, mechanism: int) -> bytes:
        """What a private key makes of `data` by a mechanism (CKM_...). Raises TokenRefused (no such key), TokenLost."""

        def sign(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_PRIVATE_KEY, name)
            return self.sign_by_handle(session, handle, data, mechanism)

        return self.call(sign)

    def sign_by_handle(self, session: Any, key: Any, data: bytes, mechanism: int) -> bytes:
        """The same within an operation of `call`. Raises PyKCS11Error."""
        return self._library.sign(session, key, data, mechanism)

    def must_be_free(self, kind: int, name: str) -> None:
        """Check that no key has this name. Raises TokenRefused (one has: it is never replaced), TokenLost."""
        wanted = [(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)]
        if self.call(lambda session: session.findObjects(wanted)):
            raise TokenRefused(f"token {self.label!r} has a key {name!r} already; it is not replaced")
