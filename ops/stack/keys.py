"""Who signs in a trial installation: officers of the quorum and callers of the API, their keys in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.keys import SigningKey


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs: an officer or a caller."""

    id: str
    organisation: str
    key: SigningKey
    key_file: Path


def private_directory(path: Path) -> Path:
    """Makes a directory that only its owner may enter, and returns it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def person(directory: Path, name: str, *, organisation: str) -> Person:
    """Reads the key of `name` from `directory`, or makes one there (PKCS#8 PEM, 0600).

    Raises:
        UnusableKey: the file holds something else than an Ed25519 key, or is open to others.
    """
    path = private_directory(directory) / f"{name}.pem"
    if not path.exists():
        SigningKey.generate().save(path)
    return Person(name, organisation, SigningKey.load(path), path)
