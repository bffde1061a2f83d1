"""What every family's wallet is made of: keys, the journal's memory of signatures, and a second library's opinion."""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from chains.secp256k1 import LOW_S_LIMIT
from policies.bundle import KeysetEntry
from policies.canonical import BadSignature, Document, encode_signature, verify_ed25519
from signers.errors import WrongSignature
from signers.guard.examined import FamilyRules, U
from signers.keys.keyset import KeysetRecord
from signers.keys.openssl import openssl_verifies
from signers.ports import InputSignature


class Kept(Protocol):
    """The journal's memory of one transaction's signature."""

    @property
    def before(self) -> str | None:
        """The signature that was recorded earlier, None if there is none."""

    def keep(self, signature: str) -> str:
        """Record a signature and return the one to release: of several made at once the first one recorded.

        Raises:
            JournalUnavailable: it is not on the disk, so it must not be released.
        """


class Keys(Protocol):
    """A backend: the keys of one key-set, wherever they are. What they return is verified before it is released."""

    @property
    def record(self) -> KeysetRecord:
        """The public half."""

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) at branch/index, and its signature of 32 bytes in the form of its family.

        Raises:
            InvalidValue: no such place, or not 32 bytes.
            TokenLost: the token does not answer.
            TokenRefused: the token has no such key any more.
        """

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) of 32 bytes by the attestation key. Raises TokenLost, TokenRefused."""


class Wallet(Protocol[U]):
    """One key-set of one family."""

    @property
    def keys(self) -> Keys:
        """Its keys."""

    @property
    def rules(self) -> FamilyRules[U]:
        """How its transactions are read and judged."""

    @property
    def own_addresses(self) -> int:
        """How many addresses branch 1 has."""

    def address(self, keyset: KeysetEntry, branch: int, index: int) -> tuple[str, str]:
        """Path and address at `branch`/`index`, derived by two implementations that agree.

        Args:
            keyset: what the bundle says of the key-set; checked to be this one.
            branch: 0 for deposits, 1 for the house's own.
            index: below `own_addresses` on branch 1.
        """

    def sign(self, unsigned: U, kept: Kept) -> tuple[InputSignature, ...]:
        """The verified signatures of a journaled transaction; the same for the same transaction.

        Raises:
            WrongSignature: the backend returned something else; nothing is released.
            TokenLost: the token does not answer.
        """


def verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    """Whether `der` is a low-s DER signature of a 32-byte digest by a 33-byte key, as OpenSSL sees it."""
    try:
        r, s = decode_dss_signature(der)
    except ValueError:
        return False
    if s > LOW_S_LIMIT or encode_dss_signature(r, s) != der:
        return False
    return openssl_verifies(pubkey, digest, der)


def attested(keys: Keys, document: Document) -> str:
    """A document's signature (base64) by the attestation key of a key-set, verified before it is released.

    Raises:
        WrongSignature: the backend returned something else; nothing is released.
        TokenLost: the token does not answer.
        TokenRefused: the token has no such key any more.
    """
    digest = document.digest()
    signature = encode_signature(keys.attest(digest))
    try:
        verify_ed25519(keys.record.attestation_key, digest, signature)
    except BadSignature:
        raise WrongSignature(
            "the token's attestation signature does not verify; it was not released"
        ) from None
    return signature
