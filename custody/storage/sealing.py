"""Columns with personal data, sealed with AES-256-GCM (NIST SP 800-38D) before they reach the database.

The key ring is a file that only its user can read, one line a key: `ID KEY`, the key 32 bytes in base64, and `#`
comments. The last key seals, all of them open. To rotate, add a key (`strongroom operator sealing-key`), give the file
to all processes, and have everything sealed anew (`strongroom operator reseal`); when nothing is left under an old
key, its line may go.

A sealed value is `1 | length of the key's id | id | nonce (12) | ciphertext and tag (16)`. Table, column and row are
its associated data, so it opens nowhere else. Nonces are random: a key seals at most 2^32 values.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chains.errors import InvalidValue, PermanentError

VERSION: Final = 1
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_MAX_RING_BYTES: Final = 64 * 1024


class UnusableKeyRing(PermanentError):
    """The file with the sealing keys is missing, readable by others, or not one; the sentence says what to do."""


class CannotOpen(PermanentError):
    """A sealed value that was changed, moved from another row, or sealed under a key that is not in the ring."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs."""

    table: str
    column: str
    row: str
    """The row's primary key as text."""

    def associated(self, key_id: str) -> bytes:
        """What is authenticated with the value."""
        return msgspec.json.encode(["strongroom-sealed", VERSION, self.table, self.column, self.row, key_id])


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a ring, by id, oldest first."""

    _keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self._keys or any(len(key) != KEY_BYTES for key in self._keys.values()):
            raise InvalidValue(f"a key ring needs a key, and each has {KEY_BYTES} bytes")

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._keys)}: [secret])"

    @property
    def newest(self) -> str:
        """Id of the key that seals."""
        return list(self._keys)[-1]

    def seal(self, place: Place, value: bytes) -> bytes:
        """The value, sealed with the newest key for this place only."""
        return _sealed(self.newest, self._keys[self.newest], place, value)

    def open(self, place: Place, sealed: bytes) -> bytes:
        """The value. Raises CannotOpen."""
        key_id, nonce, ciphertext = _parts(sealed)
        if key_id not in self._keys:
            raise CannotOpen(
                f"{place.table}.{place.column}: sealed with key {key_id}, which is not in the ring"
            )
        try:
            return AESGCM(self._keys[key_id]).decrypt(nonce, ciphertext, place.associated(key_id))
        except InvalidTag:
            raise CannotOpen(
                f"{place.table}.{place.column} of {place.row}: it was changed, or belongs to another row"
            ) from None

    def fingerprint(self, place: Place, value: bytes, key_id: str | None = None) -> tuple[str, bytes]:
        """A keyed hash by which the same value at the same place is known again, without opening anything.

        Args:
            place: where the value belongs.
            value: what to hash.
            key_id: which key; None: the newest.

        Returns:
            The key's id, and 32 bytes (HMAC-SHA256 under a key derived by HKDF, RFC 5869).

        Raises:
            CannotOpen: there is no such key.
        """
        name = self.newest if key_id is None else key_id
        if name not in self._keys:
            raise CannotOpen(f"key {name} is not in the ring")
        derived = HKDF(hashes.SHA256(), KEY_BYTES, None, b"strongroom-fingerprint").derive(self._keys[name])
        return name, hmac.digest(derived, place.associated(name) + b"\n" + value, hashlib.sha256)


def key_of(sealed: bytes) -> str:
    """Id of the key that a value is sealed with. Raises CannotOpen if it is no sealed value."""
    return _parts(sealed)[0]


def _sealed(key_id: str, key: bytes, place: Place, value: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    name = key_id.encode("ascii")
    head = bytes([VERSION, len(name)]) + name
    return head + nonce + AESGCM(key).encrypt(nonce, value, place.associated(key_id))


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    length = sealed[1] if len(sealed) > 1 and sealed[0] == VERSION else 0
    end = 2 + length
    name = sealed[2:end].decode("ascii", "replace")
    if not _ID.fullmatch(name) or len(sealed) < end + NONCE_BYTES + _TAG_BYTES:
        raise CannotOpen("not a sealed value")
    return name, sealed[end : end + NONCE_BYTES], sealed[end + NONCE_BYTES :]


class KeyRing:
    """The keys of a file, read again when it changes. A new file that is no ring leaves the old keys in use.

    Args:
        path: of the file.

    Raises:
        UnusableKeyRing: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys = self._read()

    def __repr__(self) -> str:
        return f"KeyRing({str(self._path)!r}, [secret])"

    def __call__(self) -> Keys:
        """The keys now."""
        with self._lock:
            try:
                if self._look() != self._stamp:
                    self._keys = self._read()
            except (OSError, UnusableKeyRing):
                pass  # half-written, or away: what was read before still holds
            return self._keys

    def _look(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Keys:
        keys, stamp = read_ring(self._path)
        self._stamp = stamp
        return keys


def read_ring(path: Path) -> tuple[Keys, tuple[int, int, int]]:
    """The keys of a file, and its stamp (time of change, size, inode).

    Raises:
        UnusableKeyRing: missing, of another user, readable by others, or not a key ring.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise UnusableKeyRing(f"{path} can be read by others: run chmod 600 {path}")
            if status.st_uid != os.geteuid():
                raise UnusableKeyRing(f"{path} belongs to another user: each process has a copy of its own")
            text = file.read(_MAX_RING_BYTES + 1)
    except OSError as error:
        raise UnusableKeyRing(
            f"{path}: {error.strerror}; `strongroom operator sealing-key` makes one"
        ) from None
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            key_id, key = _line(path, number, words)
            if key_id in keys:
                raise UnusableKeyRing(f"{path}:{number}: {key_id} is there twice")
            keys[key_id] = key
    if not keys or len(text) > _MAX_RING_BYTES:
        raise UnusableKeyRing(f"{path} holds no key: `strongroom operator sealing-key` adds one")
    return Keys(keys), (status.st_mtime_ns, status.st_size, status.st_ino)


def _line(path: Path, number: int, words: list[str]) -> tuple[str, bytes]:
    # No message quotes the line: it may hold a key.
    try:
        key_id, text = words
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise UnusableKeyRing(f"{path}:{number}: write ID KEY, the key {KEY_BYTES} bytes in base64") from None
    if not _ID.fullmatch(key_id) or len(key) != KEY_BYTES:
        raise UnusableKeyRing(f"{path}:{number}: write ID KEY, the key {KEY_BYTES} bytes in base64")
    return key_id, key


def add_key(path: Path, key_id: str) -> None:
    """Append a fresh key, which seals from then on; the file is made if it is missing, and is never half-written.

    Raises:
        InvalidValue: the id is taken, or none.
        UnusableKeyRing: the file is there and cannot be used.
    """
    if not _ID.fullmatch(key_id):
        raise InvalidValue(f"key id {key_id[:64]!r}: write 1 to 32 of A-Za-z0-9._-")
    present = b""
    if path.exists():
        keys, _ = read_ring(path)
        if key_id in keys._keys:
            raise InvalidValue(f"key {key_id} is in {path} already")
        present = path.read_bytes()
        present += b"" if present.endswith(b"\n") else b"\n"
    line = f"{key_id} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(present + line.encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
