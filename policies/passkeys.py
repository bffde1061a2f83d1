"""Passkeys of approvers: what a WebAuthn assertion must say, and what a credential's public key must be.

Level 2, section 7.2, as far as it is about one assertion: type, challenge, origin, rpIdHash, user presence, user
verification, signature. Attestation is not asked for: the quorum, which signs the bundle, says whose key it is.
Counters are not looked at: signers share no memory, and an approval counts once however often it comes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from fido2 import cbor
from fido2.cose import ES256
from fido2.webauthn import AttestationObject, AuthenticatorData, CollectedClientData

from chains.errors import InvalidValue
from policies.bundle.people import Passkey
from policies.canonical import BadSignature, encode_signature, verify_ed25519
from policies.intent import Assertion

ES256_ALGORITHM: Final = -7
EDDSA_ALGORITHM: Final = -8
ALGORITHMS: Final = (ES256_ALGORITHM, EDDSA_ALGORITHM)
"""COSE algorithms that are taken, the one that all authenticators have first."""


def verify_assertion(assertion: Assertion, passkey: Passkey, challenge: bytes) -> None:
    """Check that the holder of a passkey has signed `challenge` (32 bytes), present and verified.

    Raises:
        BadSignature: says which of it does not hold.
    """
    try:
        data, client = decode(assertion.authenticator_data), decode(assertion.client_data)
        signature = decode(assertion.signature)
        key = _key_of(passkey)
    except InvalidValue as error:
        raise BadSignature(f"passkey: {error}") from None
    _check_client(client, passkey, challenge, "webauthn.get")
    _check_authenticator(data, passkey)
    message = data + hashlib.sha256(client).digest()
    if isinstance(key, str):
        verify_ed25519(key, message, encode_signature(signature))
        return
    try:
        key.verify(message, signature)
    except (InvalidSignature, ValueError):
        raise BadSignature("the passkey's signature does not verify") from None


def _check_client(raw: bytes, passkey: Passkey, challenge: bytes, kind: str) -> None:
    try:
        client = CollectedClientData(raw)
        said = (client.type, client.challenge, client.origin, client.cross_origin)
    except Exception:  # noqa: BLE001 - whatever strangers' bytes do to a parser
        raise BadSignature("passkey: what the browser says cannot be read") from None
    wanted = (kind, challenge, passkey.origin, False)
    for name, found, expected in zip(
        ("type", "challenge", "origin", "crossOrigin"), said, wanted, strict=True
    ):
        if type(found) is not type(expected) or found != expected:
            raise BadSignature(f"passkey: its {name} is another one")


def _check_authenticator(raw: bytes, passkey: Passkey) -> None:
    try:
        data = AuthenticatorData(raw)
    except Exception:  # noqa: BLE001 - as above
        raise BadSignature("passkey: what the authenticator says cannot be read") from None
    if data.rp_id_hash != hashlib.sha256(passkey.rp_id.encode()).digest():
        raise BadSignature("passkey: its rpIdHash is another one")
    if not data.is_user_present():
        raise BadSignature("passkey: the authenticator has seen nobody (user presence)")
    if not data.is_user_verified():
        raise BadSignature("passkey: the authenticator has asked for no PIN or biometric (user verification)")


def registered(attestation: bytes, client: bytes, challenge: bytes, *, rp_id: str, origin: str) -> Passkey:
    """The passkey that an authenticator has just made (WebAuthn section 7.1; attestation is not looked at).

    Args:
        attestation: CBOR of the attestation object.
        client: the browser's JSON.
        challenge: 32 bytes that were asked to be in it.
        rp_id: relying party.
        origin: of the page.

    Raises:
        BadSignature: another challenge or page, or nobody was present and verified.
        InvalidValue: no credential, or one with a key of another kind.
    """
    try:
        data = AttestationObject(attestation).auth_data
        credential = data.credential_data
        key = cbor.encode(dict(credential.public_key)) if credential is not None else b""
    except Exception:  # noqa: BLE001 - whatever strangers' bytes do to a parser
        raise InvalidValue("what the authenticator has made cannot be read") from None
    if credential is None:
        raise InvalidValue("the authenticator has made no credential")
    made = Passkey(
        credential_id=encode(credential.credential_id), public_key=encode(key), rp_id=rp_id, origin=origin
    )
    _check_client(client, made, challenge, "webauthn.create")
    _check_authenticator(bytes(data), made)
    check_passkey(made)
    return made


def check_passkey(passkey: Passkey) -> None:
    """Check a credential before anybody relies on it.

    Raises:
        InvalidValue: its key is no ES256 or EdDSA key in canonical form, or the origin is no page of the relying party.
    """
    _key_of(passkey)
    decode(passkey.credential_id)
    parts = urlsplit(passkey.origin)
    host = parts.hostname or ""
    try:
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise InvalidValue(f"passkey: {passkey.origin} has an impossible port") from None
    if host != passkey.rp_id and not host.endswith("." + passkey.rp_id):
        raise InvalidValue(f"passkey: {passkey.origin} is no page of {passkey.rp_id}")
    if parts.scheme != "https" and host != "localhost":
        raise InvalidValue(f"passkey: {passkey.origin} has no TLS and is not localhost")


def raw_key(passkey: Passkey) -> str | None:
    """The Ed25519 public key behind a passkey as 64 hex digits; None for one on P-256.

    Raises:
        InvalidValue: as `check_passkey` for its key.
    """
    key = _key_of(passkey)
    return key if isinstance(key, str) else None


def _key_of(passkey: Passkey) -> Any:
    """A `fido2.cose.ES256`; or an Ed25519 key as hex, which libsodium verifies with: it refuses keys of small order."""
    raw = decode(passkey.public_key)
    try:
        cose = cbor.decode(raw)
        again = cbor.encode(cose)
    except Exception:  # noqa: BLE001 - whatever strangers' bytes do to a parser
        raise InvalidValue("the passkey's public key is no CBOR") from None
    if again != raw or not isinstance(cose, Mapping):
        raise InvalidValue("the passkey's public key is not in canonical CBOR")
    match dict(cose):
        case {1: 1, 3: -8, -1: 6, -2: bytes(point), **rest} if len(point) == 32 and not rest:
            return point.hex()
        case {1: 2, 3: -7, -1: 1, -2: bytes(x), -3: bytes(y), **rest} if (
            len(x) == len(y) == 32 and not rest and _on_curve(x, y)
        ):
            return ES256(cose)
    raise InvalidValue("the passkey's public key is neither ES256 on P-256 nor EdDSA on Ed25519")


def _on_curve(x: bytes, y: bytes) -> bool:
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), SECP256R1())
    try:
        numbers.public_key()
    except ValueError:
        return False
    return True


def encode(raw: bytes) -> str:
    """Bytes as base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Bytes of base64url without padding. Raises InvalidValue: not in its one form."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidValue("not base64url") from None
    if encode(raw) != text:
        raise InvalidValue("base64url that is not in its one form")
    return raw
