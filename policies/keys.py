"""Ed25519 private keys of people and programs: callers that sign orders and tokens, officers that sign bundles.

Signers' own attestation keys are not here: those live in an HSM and never leave it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, BundleSignature, SignedBundle, check_consistent
from policies.canonical import Document, encode_signature
from policies.intent import Approval, Order, SignedApproval, SignedOrder, SignedVerdict, Verdict
from policies.statements import (
    ClockConfirmation,
    Freeze,
    Lowering,
    Resolution,
    SignedClockConfirmation,
    SignedFreeze,
    SignedLowering,
    SignedResolution,
    SignedVeto,
    SignedWhitelistEntry,
    Veto,
    WhitelistEntry,
)

_ENCRYPTED: Final = "-----BEGIN ENCRYPTED PRIVATE KEY-----"
_OTHERS_MAY: int = stat.S_IRWXG | stat.S_IRWXO


class UnusableKey(PermanentError):
    """A key file that is missing, malformed, of another kind, or open to other users."""


class SigningKey:
    """An Ed25519 private key (RFC 8032) that prints as `[secret]` and cannot be pickled or copied."""

    __slots__ = ("_key", "public_hex")

    public_hex: str
    """The public key: 32 bytes as 64 lower-case hex digits."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_hex = key.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: Callable[[], str] | None = None) -> Self:
        """Read a key from a PKCS#8 PEM file that only its owner may read.

        Args:
            path: the file.
            passphrase: asked for if the file is encrypted; None: only one that is not is read.

        Raises:
            UnusableKey: says what is wrong with the file and what to do.
        """
        try:
            mode = path.stat().st_mode
            raw = path.read_bytes()
        except OSError as error:
            raise UnusableKey(f"key file {path}: {error.strerror}") from None
        if mode & _OTHERS_MAY:
            raise UnusableKey(f"key file {path} is open to other users: chmod 600 it")
        encrypted = raw.lstrip().startswith(_ENCRYPTED.encode())
        if encrypted and passphrase is None:
            raise UnusableKey(f"key file {path} is encrypted: expected one that is not")
        try:
            password = passphrase().encode() if encrypted and passphrase is not None else None
            key = load_pem_private_key(raw, password=password)
        except (ValueError, TypeError):
            what = "wrong passphrase, or damaged" if encrypted else "expected a PKCS#8 PEM"
            raise UnusableKey(f"key file {path}: {what}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey(f"key file {path}: expected an Ed25519 key")
        return cls(key)

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key as PKCS#8 PEM into a new file of mode 0600; an existing file is never overwritten.

        Args:
            path: the file.
            passphrase: encrypts it (PBES2: scrypt with 128 MiB, AES-256); None: it is not encrypted.

        Raises:
            UnusableKey: the file exists, or it can't be written.
        """
        pem = self._plain() if passphrase is None else self._sealed(passphrase)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UnusableKey(f"key file {path}: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())

    def _plain(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _sealed(self, passphrase: str) -> bytes:
        # OpenSSL's own encryption of PKCS#8 stretches a passphrase 2,048 times only: a minute's work for a thief.
        from Crypto.IO import PEM, PKCS8

        inner = b"\x04\x20" + self._key.private_bytes_raw()  # RFC 8410: an OCTET STRING in the OCTET STRING
        der = PKCS8.wrap(
            inner,
            "1.3.101.112",
            passphrase.encode(),
            "scryptAndAES256-CBC",
            {"iteration_count": 2**17, "block_size": 8, "parallelization": 1, "salt_size": 16},
            None,
        )
        return PEM.encode(der, _ENCRYPTED.removeprefix("-----BEGIN ").removesuffix("-----")).encode() + b"\n"

    def sign_digest(self, digest: bytes) -> str:
        """The signature over a document's 32-byte digest, as base64 (88 characters).

        Raises:
            InvalidValue: not 32 bytes.
        """
        if len(digest) != 32:
            raise InvalidValue(f"digest of {len(digest)} bytes: expected 32")
        return encode_signature(self._key.sign(digest))

    def sign(self, document: Document) -> str:
        """The signature over `document.digest()`, as base64."""
        return self.sign_digest(document.digest())


def sign_order(order: Order, key: SigningKey) -> SignedOrder:
    """The order with its caller's signature."""
    return SignedOrder(order=order, signature=key.sign(order))


def sign_entry(entry: WhitelistEntry, key: SigningKey) -> SignedWhitelistEntry:
    """The entry of a whitelist with its caller's signature."""
    return SignedWhitelistEntry(entry=entry, signature=key.sign(entry))


def sign_approval(approval: Approval, key: SigningKey) -> SignedApproval:
    """The approval with its approver's signature."""
    return SignedApproval(approval=approval, signature=key.sign(approval))


def sign_verdict(verdict: Verdict, key: SigningKey) -> SignedVerdict:
    """The verdict with its verifier's signature."""
    return SignedVerdict(verdict=verdict, signature=key.sign(verdict))


def sign_freeze(freeze: Freeze, key: SigningKey) -> SignedFreeze:
    """The freeze with its officer's signature."""
    return SignedFreeze(freeze=freeze, signature=key.sign(freeze))


def sign_veto(veto: Veto, key: SigningKey) -> SignedVeto:
    """The veto with its officer's signature."""
    return SignedVeto(veto=veto, signature=key.sign(veto))


def sign_lowering(lowering: Lowering, key: SigningKey) -> SignedLowering:
    """The lowering with its officer's signature."""
    return SignedLowering(lowering=lowering, signature=key.sign(lowering))


def sign_clock(confirmation: ClockConfirmation, key: SigningKey) -> SignedClockConfirmation:
    """The confirmation of a signer's clock with its officer's signature."""
    return SignedClockConfirmation(confirmation=confirmation, signature=key.sign(confirmation))


def sign_resolution(resolution: Resolution, key: SigningKey) -> SignedResolution:
    """What became of a transaction, with its verifier's signature."""
    return SignedResolution(resolution=resolution, signature=key.sign(resolution))


def sign_bundle(bundle: Bundle, officers: Mapping[str, SigningKey]) -> SignedBundle:
    """The bundle with the signatures of `officers` (key by the officer's id in the trust root).

    Raises:
        InvalidValue: the bundle is inconsistent within itself.
    """
    check_consistent(bundle)
    return SignedBundle(
        bundle=bundle,
        signatures=tuple(
            BundleSignature(key=name, signature=key.sign(bundle)) for name, key in officers.items()
        ),
    )
