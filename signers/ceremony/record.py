"""What a ceremony leaves: its record, the proof by a restore, and who signed them. Pure; holds no secret.

The record is signed by both operators and by the key-set's own attestation key; so is the proof, which names the
record by its hash. `KEYSET.ceremony.json` is a `SignedCeremony`, `KEYSET.proven.json` a `ProvenCeremony`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from policies.canonical import BadSignature, Document, Hex32, Name, Seconds, Uuid, decoder_for, verify_ed25519
from policies.intent import Signature
from signers.config import Environment
from signers.errors import NotProven
from signers.keys.keyset import KeysetRecord

Purpose = Literal["wallet", "cosigner", "owner", "gas"]
"""A wallet of its own, one cosigner's account of a Bitcoin vault, or one owner's key of a Safe."""
QuorumFingerprint = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4}( [0-9a-f]{4}){4}\Z")]
"""As `policies.bundle.root.root_fingerprint` gives it."""
Fingerprint = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
"""First 8 bytes of a share's hash: tells shares apart and says nothing about them."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the record's parts."""


class Operator(Part, frozen=True):
    """One of the two who made the keys."""

    name: Name
    key: Hex32
    """Ed25519 public key, of which only this operator knows the passphrase."""


class TokenDescription(Part, frozen=True):
    """Which token, as it and its library say themselves (CK_TOKEN_INFO, CK_INFO)."""

    label: str
    serial: str
    model: str
    firmware: str
    library: str


class EntropyUsed(Part, frozen=True):
    """How much of each source went into the keys; never what it was."""

    host_bytes: int
    token_bytes: int
    typed_characters: int
    token_seeded: bool
    """The token took entropy of the host into its own generator (C_SeedRandom)."""


class FirstAddress(Part, frozen=True):
    """An address on which two implementations agreed."""

    branch: Literal[0, 1]
    index: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    address: str


class HolderShare(Part, frozen=True):
    """Which share a recovery holder got."""

    holder: Name
    index: Annotated[int, msgspec.Meta(ge=1, le=16)]
    """SLIP-39 member index, from 1."""
    fingerprint: Fingerprint


class Backup(Part, frozen=True):
    """How the key-set comes back: `threshold` of the shares, for EVM keys with the wrapped key."""

    scheme: Literal["slip39"]
    identifier: Annotated[int, msgspec.Meta(ge=0, le=2**15 - 1)]
    """SLIP-39: the same in all shares of one secret."""
    threshold: Annotated[int, msgspec.Meta(ge=2, le=16)]
    shares: Annotated[tuple[HolderShare, ...], msgspec.Meta(min_length=2, max_length=16)]
    wrapped: Hex32 | None
    """SHA-256 of the wrapped key (AES-KWP of its PKCS#8); null where the shares alone are the backup."""


class CeremonyRecord(Document, frozen=True):
    """Who made which keys, when, on what, and who holds the backup."""

    domain: ClassVar[str] = "ceremony"

    v: Literal[1]
    ceremony: Uuid
    environment: Environment
    tool: str
    began_at: Seconds
    made_at: Seconds
    operators: tuple[Operator, Operator]
    token: TokenDescription
    entropy: EntropyUsed
    purpose: Purpose
    organisation: Name | None
    """Whose cosigner or owner it is; null for a wallet."""
    member: Name | None
    """Its id among the members of the vault; null for a wallet."""
    keyset: KeysetRecord
    public_key: str
    """BTC: the account's extended public key. EVM: the compressed public key, 33 bytes as hex."""
    fingerprints: dict[str, str]
    """`master` (BIP32, BTC only), and SHA-256 of `public_key` (its text) and of `attestation_key` (its 32 bytes)."""
    descriptor: str | None
    """BTC: what the addresses are made of, with BIP380's checksum; of a cosigner: its key expression."""
    addresses: tuple[FirstAddress, ...]
    """The first three of each branch; an EVM key's only one. None of a cosigner, as they need all keys of the vault."""
    backup: Backup
    quorum: QuorumFingerprint | None
    """Of the quorum that signs bundles, as both operators saw it; null where the plan named none."""


class Proof(Document, frozen=True):
    """That the backup gave the same keys on another token."""

    domain: ClassVar[str] = "ceremony-proof"

    v: Literal[1]
    ceremony: Uuid
    keyset: Name
    record: Hex32
    """Hash of the record."""
    proven: Literal[True]
    proven_at: Seconds
    holders: tuple[Name, ...]
    """Whose shares it was restored from."""
    checked: tuple[Name, ...]
    """Whose shares were read and found to be the recorded ones, the former included."""
    token: TokenDescription
    """Where it was restored to; the keys were destroyed there afterwards."""
    compared: tuple[Literal["public-key", "addresses", "signature", "attestation"], ...]


class Restoration(Document, frozen=True):
    """That keys were brought back from their backup, by whom and to where."""

    domain: ClassVar[str] = "ceremony-restore"

    v: Literal[1]
    ceremony: Uuid
    keyset: Name
    record: Hex32
    """Hash of the ceremony's record."""
    restored_at: Seconds
    operators: tuple[Operator, Operator]
    holders: tuple[Name, ...]
    """Whose shares it was restored from."""
    token: TokenDescription
    """Where the keys are now, too."""


class OperatorSignature(Part, frozen=True):
    """One operator's signature."""

    operator: Name
    signature: Signature


class SignedCeremony(Part, frozen=True):
    """A record with its three signatures."""

    record: CeremonyRecord
    signatures: tuple[OperatorSignature, OperatorSignature]
    attestation: Signature
    """By the key-set's attestation key."""


class ProvenCeremony(Part, frozen=True):
    """A signed record, and the signed proof of its backup."""

    ceremony: SignedCeremony
    proof: Proof
    signatures: tuple[OperatorSignature, OperatorSignature]
    attestation: Signature


class SignedRestoration(Part, frozen=True):
    """The file `KEYSET.restored.json`."""

    restoration: Restoration
    signatures: tuple[OperatorSignature, OperatorSignature]
    attestation: Signature
    """By the restored attestation key."""


def restored_path(directory: Path, keyset: str) -> Path:
    """Where it is kept that a key-set was restored."""
    return directory / f"{keyset}.restored.json"


def ceremony_path(directory: Path, keyset: str) -> Path:
    """Where a key-set's signed record is kept."""
    return directory / f"{keyset}.ceremony.json"


def proven_path(directory: Path, keyset: str) -> Path:
    """Where a key-set's proof is kept."""
    return directory / f"{keyset}.proven.json"


def check_ceremony(signed: SignedCeremony, keyset: KeysetRecord) -> None:
    """Check that a record is genuine and of these very keys.

    Args:
        signed: as read from a file.
        keyset: with the attestation key that the token has.

    Raises:
        NotProven: it is of other keys, or not signed by both operators and by the key-set's attestation key.
    """
    if signed.record.keyset != keyset:
        raise NotProven(f"key-set {keyset.id!r}: the ceremony's record is of other keys")
    _check_signatures(signed.record, signed.record, signed.signatures, signed.attestation)


def check_proven(proven: ProvenCeremony, keyset: KeysetRecord) -> None:
    """Check that a proof is genuine, and of a genuine record of these very keys.

    Raises:
        NotProven: says what is wrong.
    """
    check_ceremony(proven.ceremony, keyset)
    record, proof = proven.ceremony.record, proven.proof
    if (proof.ceremony, proof.keyset, proof.record) != (record.ceremony, keyset.id, record.digest_hex()):
        raise NotProven(f"key-set {keyset.id!r}: the proof is of another ceremony")
    _check_signatures(record, proof, proven.signatures, proven.attestation)


def _check_signatures(
    record: CeremonyRecord, document: Document, signatures: Sequence[OperatorSignature], attestation: str
) -> None:
    first, second = record.operators
    if first.name == second.name or first.key == second.key:
        raise NotProven(f"key-set {record.keyset.id!r}: one operator stands for two in the ceremony's record")
    digest = document.digest()
    try:
        for operator, signed in zip(record.operators, signatures, strict=True):
            if operator.name != signed.operator:
                raise BadSignature(f"expected {operator.name}'s signature, not {signed.operator}'s")
            verify_ed25519(operator.key, digest, signed.signature)
        verify_ed25519(record.keyset.attestation_key, digest, attestation)
    except BadSignature as error:
        raise NotProven(f"key-set {record.keyset.id!r}: the {document.domain} document: {error}") from None


for _kind in (SignedCeremony, ProvenCeremony):
    decoder_for(_kind)
