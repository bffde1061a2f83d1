"""A key at rest: its entropy under a passphrase, in a file that says in the clear only what is public.

scrypt (RFC 7914) with 128 MiB stretches the passphrase; AES-256-GCM encrypts, and authenticates what is in the clear.
"""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from chains.errors import InvalidValue
from policies.bundle.common import EvmAddress
from policies.canonical import Name, Part, Seconds
from signers.airgap.errors import WrongPassphrase
from signers.airgap.registered import BitcoinNetworkName
from signers.airgap.secret import Secret

COST: Final = 2**17
"""scrypt's N: with r = 8 it takes 128 MiB and half a second on an old laptop, for a thief each guess too."""
BLOCK_SIZE, PARALLEL = 8, 1
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 32, 12, 32

Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})+\Z")]


class About(Part, frozen=True):
    """Whose key it is; public, and authenticated with it."""

    name: Name
    organisation: Name
    network: BitcoinNetworkName
    made_at: Seconds
    fingerprint: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}\Z")]
    evm_address: EvmAddress


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file's form. scrypt's numbers are fixed by its version."""

    type: Literal["strongroom-airgap-key"] = "strongroom-airgap-key"
    v: Literal[1] = 1
    about: About
    salt: Hex
    nonce: Hex
    sealed: Hex


def seal(entropy: Secret, about: About, passphrase: Secret) -> bytes:
    """The bytes of a key's file."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    with _stretched(passphrase, salt) as key:
        sealed = AESGCM(key.reveal()).encrypt(nonce, entropy.reveal(), _clear(about))
    file = KeyFile(about=about, salt=salt.hex(), nonce=nonce.hex(), sealed=sealed.hex())
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def read_keyfile(raw: bytes) -> KeyFile:
    """What a key's file says in the clear, not believed yet.

    Raises:
        InvalidValue: not such a file.
    """
    try:
        return msgspec.json.decode(raw, type=KeyFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"key file: {error}") from None


def unseal(file: KeyFile, passphrase: Secret) -> Secret:
    """The entropy (16 to 32 bytes).

    Raises:
        WrongPassphrase: or the file is damaged, in what is in the clear too.
    """
    salt, nonce, sealed = (bytes.fromhex(text) for text in (file.salt, file.nonce, file.sealed))
    with _stretched(passphrase, salt) as key:
        try:
            return Secret(AESGCM(key.reveal()).decrypt(nonce, sealed, _clear(file.about)))
        except (InvalidTag, ValueError):
            raise WrongPassphrase("wrong passphrase, or the key's file is damaged") from None


def _stretched(passphrase: Secret, salt: bytes) -> Secret:
    return Secret(Scrypt(salt, KEY_BYTES, COST, BLOCK_SIZE, PARALLEL).derive(passphrase.reveal()))


def _clear(about: About) -> bytes:
    return b"strongroom:airgap-key:v1\n" + msgspec.json.encode(about, order="sorted")
