"""Keys back from shares, record and wrapped key: the same code for the proof of a backup and for a lost machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from policies.canonical import Name, Uuid
from signers.ceremony.facts import bitcoin_public_key, check_facts
from signers.ceremony.hsm import (
    described,
    import_attestation_key,
    key_names,
    remove_keys,
    restore_key,
)
from signers.ceremony.people import People
from signers.ceremony.record import CeremonyRecord, SignedCeremony, ceremony_path, check_ceremony
from signers.ceremony.shares import Share, join, read_share
from signers.errors import CeremonyStopped, NotProven, SealBroken
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import KeyFile, key_path, sign_key_file, signing_key_name
from signers.keys.keyset import EvmRecord, KeysetRecord
from signers.keys.sealed import (
    SealedSeed,
    attestation_key_name,
    seal_entropy,
    sealing_key_name,
    seed_path,
)
from signers.process.files import read_kept

_ATTESTATION_SALT: Final = b"strongroom:attestation-key:v1"
ATTESTATION_BYTES: Final = 32


class WrappedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.wrapped.json`: an EVM key that only the holders' shares open. Not secret."""

    v: Literal[1] = 1
    keyset: Name
    ceremony: Uuid
    form: Literal["AES-256-KWP (RFC 5649) of PKCS#8 (RFC 5958)"] = (
        "AES-256-KWP (RFC 5649) of PKCS#8 (RFC 5958)"
    )
    wrapped: str
    """Hex."""


def wrapped_path(directory: Path, keyset: str) -> Path:
    """Where a wrapped key is kept."""
    return directory / f"{keyset}.wrapped.json"


def key_file_path(directory: Path, keyset: KeysetRecord) -> Path:
    """The file by which a signer opens these keys; there is a key-set if and only if it is there."""
    return (key_path if isinstance(keyset, EvmRecord) else seed_path)(directory, keyset.id)


def key_labels(keyset: KeysetRecord) -> tuple[str, str]:
    """Labels of the token's keys: the one that signs or seals, and the one that attests."""
    own = signing_key_name if isinstance(keyset, EvmRecord) else sealing_key_name
    return own(keyset.id), attestation_key_name(keyset.id)


def attestation_secret(secret: bytes, keyset: str) -> bytes:
    """The key-set's Ed25519 key (32 bytes) as it follows from the recovery secret (HKDF-SHA256).

    So what was attested before stays attested after a restore, and nobody has to sign a new bundle for it.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), ATTESTATION_BYTES, salt=_ATTESTATION_SALT, info=keyset.encode()).derive(secret)


def attestation_public_key(secret: bytes, keyset: str) -> bytes:
    """The public half (32 bytes) of `attestation_secret`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(attestation_secret(secret, keyset))
    return key.public_key().public_bytes_raw()


def read_backup(directory: Path, keyset: str) -> tuple[SignedCeremony, bytes | None]:
    """The signed record and the wrapped key (None for BTC) from where they are kept, checked against each other.

    Raises:
        SealBroken: a file is missing or malformed.
        NotProven: the record is not genuine.
        CeremonyStopped: the wrapped key is not the recorded one.
    """
    signed = read_kept(ceremony_path(directory, keyset), SignedCeremony)
    check_ceremony(signed, signed.record.keyset)
    check_facts(signed.record)
    if signed.record.keyset.id != keyset:
        raise NotProven(f"the record in {directory} is of key-set {signed.record.keyset.id!r}")
    if signed.record.backup.wrapped is None:
        return signed, None
    file = read_kept(wrapped_path(directory, keyset), WrappedKey)
    try:
        wrapped = bytes.fromhex(file.wrapped)
    except ValueError:
        raise SealBroken(f"{wrapped_path(directory, keyset)}: not hex") from None
    if hashlib.sha256(wrapped).hexdigest() != signed.record.backup.wrapped:
        raise CeremonyStopped(f"the wrapped key in {directory} is not the one of the ceremony's record")
    return signed, wrapped


def collect(record: CeremonyRecord, people: People, *, ask: Literal["enough", "all"]) -> dict[str, Share]:
    """Ask the holders, in the record's order, for their shares; by holder.

    Args:
        record: says who got which share.
        people: in the room.
        ask: only until enough shares are together, or all holders who are there.

    Raises:
        CeremonyStopped: too few holders came, or one gave something else than the share that he was given.
    """
    found: dict[str, Share] = {}
    for held in record.backup.shares:
        if ask == "enough" and len(found) == record.backup.threshold:
            break
        words = people.share_of(held.holder)
        if words is None:
            continue
        share = read_share(words)
        if (share.identifier, share.index, share.fingerprint) != (
            record.backup.identifier,
            held.index,
            held.fingerprint,
        ):
            raise CeremonyStopped(
                f"{held.holder} gave share {share.index} with identifier {share.identifier}, which is not the one that "
                f"the record names: share {held.index} with identifier {record.backup.identifier}"
            )
        found[held.holder] = share
    if len(found) < record.backup.threshold:
        raise CeremonyStopped(f"{len(found)} shares: {record.backup.threshold} are needed")
    return found


def restore_keys(
    token: Token, signed: SignedCeremony, wrapped: bytes | None, shares: Mapping[str, Share]
) -> SealedSeed | KeyFile:
    """Bring the keys into a token; returns the file by which a signer opens them.

    Args:
        token: has no keys of this key-set.
        signed: the genuine record.
        wrapped: of an EVM key.
        shares: by holder; exactly as many as are needed.

    Raises:
        CeremonyStopped: the shares are not of this key-set, or the token has keys of this name. Nothing stays then.
        SealBroken: the wrapped key does not open. Nothing stays then.
        TokenRefused: the token refused.
        TokenLost: the token does not answer.
    """
    record, secret = signed.record, join(list(shares.values()))
    keyset = record.keyset
    if isinstance(keyset, EvmRecord):
        if wrapped is None:
            raise CeremonyStopped("an EVM key needs its wrapped form beside the shares")
    elif bitcoin_public_key(keyset, secret) != record.public_key:
        raise CeremonyStopped("these shares give another wallet than the recorded one")
    if attestation_public_key(secret, keyset.id).hex() != keyset.attestation_key:
        raise CeremonyStopped("these shares give another attestation key than the recorded one")
    install(token, keyset, secret, wrapped, record.public_key)
    return key_file(token, signed, secret)


def must_be_free(token: Token, names: Sequence[str]) -> None:
    """Check that the token has no keys of these names. To be asked before anything is begun that undoes itself.

    Raises:
        CeremonyStopped: it has.
        TokenLost: the token does not answer.
    """
    there = sorted(set(key_names(token)) & set(names))
    if there:
        raise CeremonyStopped(
            f"token {token.label!r}, serial {described(token).serial}, has keys named {', '.join(there)} already: "
            "nothing is replaced"
        )


def install(
    token: Token, keyset: KeysetRecord, secret: bytes, wrapped: bytes | None, public_key: str
) -> None:
    """Put the keys into a token: the attestation key, and the sealing key or the unwrapped EVM key.

    Raises:
        CeremonyStopped: the token has keys of this name already.
        SealBroken: the wrapped key does not open, or is another one.
        TokenRefused: the token refused.
        TokenLost: the token does not answer.
    """
    names = key_labels(keyset)
    must_be_free(token, names)
    try:
        import_attestation_key(token, names[1], attestation_secret(secret, keyset.id))
        if wrapped is None:
            token.make_sealing_key(names[0])
        else:
            restore_key(token, names[0], secret, wrapped, bytes.fromhex(public_key))
    except BaseException:
        remove_keys(token, names)
        raise


def key_file(token: Token, signed: SignedCeremony, secret: bytes) -> SealedSeed | KeyFile:
    """The file by which a signer opens the keys that `install` has put into the token."""
    keyset = signed.record.keyset
    if isinstance(keyset, EvmRecord):
        return sign_key_file(token, keyset, signed)
    return seal_entropy(token, keyset, secret)
