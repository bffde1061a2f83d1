"""An authenticator and its browser in software: makes the assertions that a real one would make, and wrong ones."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor
from fido2.cose import ES256, EdDSA

from policies.bundle import Passkey
from policies.intent import Approval, Assertion, SignedApproval
from policies.passkeys import encode

ORIGIN = "http://localhost:8765"
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass(frozen=True, slots=True)
class SoftPasskey:
    """One credential."""

    key: EllipticCurvePrivateKey | Ed25519PrivateKey = field(
        default_factory=lambda: generate_private_key(SECP256R1()), repr=False
    )
    rp_id: str = "localhost"
    origin: str = ORIGIN

    @property
    def credential_id(self) -> bytes:
        """16 bytes."""
        return hashlib.sha256(self.cose).digest()[:16]

    @property
    def cose(self) -> bytes:
        """Its public key as canonical CBOR."""
        public = self.key.public_key()
        kind: Any = EdDSA if isinstance(self.key, Ed25519PrivateKey) else ES256
        return cbor.encode(kind.from_cryptography_key(public))

    def entry(self, **changes: Any) -> Passkey:
        """As the bundle lists it."""
        fields: dict[str, Any] = {
            "credential_id": encode(self.credential_id),
            "public_key": encode(self.cose),
            "rp_id": self.rp_id,
            "origin": self.origin,
        }
        return Passkey(**(fields | changes))

    def sign(self, message: bytes) -> bytes:
        """DER for P-256, 64 bytes for Ed25519."""
        if isinstance(self.key, Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ECDSA(SHA256()))

    def authenticator_data(
        self, *, flags: int = PRESENT | VERIFIED, rp_id: str | None = None, more: bytes = b""
    ) -> bytes:
        """rpIdHash, flags, counter, and what follows."""
        return hashlib.sha256((rp_id or self.rp_id).encode()).digest() + struct.pack(">BI", flags, 7) + more

    def get(
        self, challenge: bytes, /, *, flags: int = PRESENT | VERIFIED, rp_id: str | None = None, **says: Any
    ) -> Assertion:
        """What `navigator.credentials.get` gives; `says` replaces members of the browser's JSON."""
        data = self.authenticator_data(flags=flags, rp_id=rp_id)
        client = {
            "type": "webauthn.get",
            "challenge": encode(challenge),
            "origin": self.origin,
            "crossOrigin": False,
        } | says
        text = json.dumps(client, separators=(",", ":")).encode()
        return Assertion(
            authenticator_data=encode(data),
            client_data=encode(text),
            signature=encode(self.sign(data + hashlib.sha256(text).digest())),
        )

    def create(
        self, challenge: bytes, /, *, flags: int = PRESENT | VERIFIED | ATTESTED, **says: Any
    ) -> dict[str, str]:
        """What the page posts after `navigator.credentials.create`."""
        credential = bytes(16) + struct.pack(">H", len(self.credential_id)) + self.credential_id + self.cose
        client = {
            "type": "webauthn.create",
            "challenge": encode(challenge),
            "origin": self.origin,
            "crossOrigin": False,
        }
        data = self.authenticator_data(flags=flags, more=credential)
        attestation = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        return {
            "attestation": encode(attestation),
            "client_data": encode(json.dumps(client | says, separators=(",", ":")).encode()),
        }


def approve_by_passkey(approval: Approval, passkey: SoftPasskey) -> SignedApproval:
    """The approval with its holder's assertion."""
    return SignedApproval(approval=approval, signature=passkey.get(approval.digest()))
