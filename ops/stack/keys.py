"""Ed25519 keys of people in files: officers of the quorum and callers of the API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chains.errors import InvalidValue
from ops.devnet.files import write_private


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs: an officer or a caller."""

    id: str
    organisation: str
    key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Person({self.id!r}, {self.organisation!r}, key=[secret])"

    @property
    def public_hex(self) -> str:
        """The public key: 32 bytes as lower-case hex."""
        return self.key.public_key().public_bytes_raw().hex()


def private_directory(path: Path) -> Path:
    """Makes a directory that only its owner may enter, and returns it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def person(directory: Path, name: str, *, organisation: str) -> Person:
    """Reads the key of `name` from `directory`, or makes one there (PKCS#8 PEM, 0600).

    Raises:
        InvalidValue: the file holds something else than an Ed25519 key.
    """
    path = private_directory(directory) / f"{name}.pem"
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem.decode())
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidValue(f"{path} holds no Ed25519 key; remove it and start again with an empty directory")
    return Person(name, organisation, key)
