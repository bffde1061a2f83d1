"""The two operators' own keys: Ed25519, each under a passphrase that only its operator knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from policies.keys import SigningKey
from signers.ceremony.files import write_exclusive
from signers.errors import CeremonyStopped

MIN_PASSPHRASE_CHARS: Final = 12


def create_operator_key(path: Path, passphrase: str) -> str:
    """Make an operator's key in a new file (0600, PKCS#8 PEM under the passphrase); returns its public key (hex).

    Raises:
        CeremonyStopped: the passphrase is too short, or the file is there.
    """
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        raise CeremonyStopped(f"a passphrase has at least {MIN_PASSPHRASE_CHARS} characters")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))
    write_exclusive(path, pem)
    return SigningKey(key).public_hex


def load_operator_key(name: str, path: Path, passphrase: Callable[[], str]) -> SigningKey:
    """An operator's key.

    Raises:
        CeremonyStopped: no such file, a wrong passphrase, none at all, or another kind of key.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CeremonyStopped(f"{name}'s key file {path}: {os.strerror(error.errno or 0)}") from None
    if b"ENCRYPTED" not in raw.split(b"\n", 1)[0]:
        raise CeremonyStopped(
            f"{name}'s key file {path} is not under a passphrase: then either operator could sign for both"
        )
    try:
        key = load_pem_private_key(raw, passphrase().encode())
    except (ValueError, TypeError):
        raise CeremonyStopped(
            f"{name}'s key file {path} does not open: another passphrase, or damaged"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CeremonyStopped(f"{name}'s key file {path}: expected an Ed25519 key")
    return SigningKey(key)
