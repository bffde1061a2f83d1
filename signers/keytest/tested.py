"""`KEYSET.tested.json`: that the backend of a key-set has passed `strongroom key test`, and which one it was.

The attestation key of the key-set signs it. It is of no use for other keys, for another token, or for another version
of the library or firmware that makes the signatures.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from policies.canonical import BadSignature, Document, Hex32, Name, Seconds, verify_ed25519
from policies.intent import Signature
from signers.errors import NotTested, SealBroken
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import TokenKeys
from signers.keys.keyset import KeysetRecord
from signers.process.files import read_kept, write_new
from signers.wallets import Keys, attested


class Tested(Document, frozen=True):
    """What was tested."""

    domain = "key-tested"

    v: Literal[1]
    keyset: Name
    record: Hex32
    """Hash of the key-set's public record."""
    backend: str
    """Library, token and versions that make the signatures, see `backend_text`."""
    signatures: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    """How many nonces were looked at."""
    at: Seconds


class TestedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    tested: Tested
    signature: Signature
    """By the key-set's attestation key."""


def path_of_tested(directory: Path, keyset: str) -> Path:
    """Where the record of a key-set's test is kept."""
    return directory / f"{keyset}.tested.json"


def backend_text(keys: Keys, token: Token | None) -> str:
    """What makes the signatures of these keys, with all versions. Raises TokenLost."""
    parts = []
    if token is not None:
        identity = token.identity()
        parts += [identity.module, identity.library, identity.model, identity.firmware, identity.serial]
    if not isinstance(keys, TokenKeys):
        parts.append(f"coincurve {importlib.metadata.version('coincurve')}")
    return "; ".join(parts)


def write_tested(directory: Path, keys: Keys, token: Token | None, *, signatures: int, now: int) -> Path:
    """Record that a test was passed; an earlier record is replaced.

    Args:
        directory: the signer's.
        keys: that were tested.
        token: of these keys, None for keys in a file.
        signatures: how many nonces were looked at.
        now: UNIX time.

    Raises:
        TokenRefused, TokenLost: the attestation key does not sign.
    """
    record = keys.record
    tested = Tested(
        v=1,
        keyset=record.id,
        record=_record_hash(record),
        backend=backend_text(keys, token),
        signatures=signatures,
        at=now,
    )
    file = TestedFile(tested=tested, signature=attested(keys, tested))
    path = path_of_tested(directory, record.id)
    fresh = path.with_name(path.name + ".fresh")
    fresh.unlink(missing_ok=True)
    write_new(fresh, msgspec.json.encode(file))
    owner = directory.stat()
    if os.geteuid() == 0:  # else the signer, another user, could not read what root has written
        os.chown(fresh, owner.st_uid, owner.st_gid)
    os.replace(fresh, path)
    return path


def require_tested(directory: Path, keys: Keys, token: Token | None) -> None:
    """Check that the backend of these keys was tested as it is now.

    Raises:
        NotTested: it was not; the message says what is missing, and what to do.
        TokenLost: the token does not answer.
    """
    keyset = keys.record.id
    path = path_of_tested(directory, keyset)
    cure = "run `strongroom key test` with this signer's configuration, then start it again"
    if not path.exists():
        raise NotTested(f"key-set {keyset!r}: its signatures were never tested ({path} is missing): {cure}")
    try:
        file = read_kept(path, TestedFile)
        verify_ed25519(keys.record.attestation_key, file.tested.digest(), file.signature)
    except (SealBroken, BadSignature) as error:
        raise NotTested(f"key-set {keyset!r}: {path} is not what its key signed ({error}): {cure}") from None
    if (file.tested.keyset, file.tested.record) != (keyset, _record_hash(keys.record)):
        raise NotTested(f"key-set {keyset!r}: {path} is of other keys: {cure}")
    present = backend_text(keys, token)
    if file.tested.backend != present:
        raise NotTested(
            f"key-set {keyset!r}: tested was [{file.tested.backend}], but now it is [{present}]: {cure}"
        )


def _record_hash(record: KeysetRecord) -> str:
    return hashlib.sha256(msgspec.json.encode(record, order="sorted")).hexdigest()
