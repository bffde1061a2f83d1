"""An HD seed sealed under an HSM key, and the account key that lives in this process while it signs.

At rest: 32 bytes of BIP39 entropy (24 words, no passphrase) as AES-256-GCM ciphertext under a key that cannot
leave the token; the associated data binds key-set, network and account path, so that a sealed file can't be
used under another name. In memory: only the account node (`signers.keys.account`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from chains.btc.hd import AccountKey, BranchKeys
from chains.btc.network import NETWORKS
from chains.btc.script import KeyScript
from chains.errors import InvalidValue
from policies.canonical import Document, Name
from signers.errors import SealBroken
from signers.hsm.pkcs11 import Token
from signers.keys.account import ENTROPY_BYTES, AccountSecret, P
from signers.keys.keyset import PURPOSES, BitcoinCosignerRecord, BitcoinKeysetRecord, NetworkName
from signers.process.files import read_kept, write_new

SealedRecord = BitcoinKeysetRecord | BitcoinCosignerRecord
"""The public half of what a sealed seed is for."""
R = TypeVar("R", bound=SealedRecord)


class SealedSeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.seed.json`: ciphertext and what it is bound to."""

    v: int = 1
    record: SealedRecord
    sealed: str
    """Base64 of nonce (12), ciphertext (32), tag (16)."""


class _Binding(Document, frozen=True):
    """What the ciphertext is bound to."""

    domain = "sealed-seed"

    keyset: Name
    network: str
    path: str


def _associated(keyset: str, network: str, path: str) -> bytes:
    return _Binding(keyset=keyset, network=network, path=path).digest()


def sealing_key_name(keyset: str) -> str:
    """Label of the AES key in the token under which the key-set's seed is sealed."""
    return f"{keyset}-seal"


def attestation_key_name(keyset: str) -> str:
    """Label of the Ed25519 key in the token that attests the key-set's addresses."""
    return f"{keyset}-attest"


def seed_path(directory: Path, keyset: str) -> Path:
    """Where a key-set's sealed seed is kept."""
    return directory / f"{keyset}.seed.json"


def create_keyset(
    token: Token,
    keyset_id: str,
    network: str,
    directory: Path,
    *,
    account: int = 0,
    script: KeyScript = "p2wpkh",
    entropy: Callable[[int], bytes] = os.urandom,
) -> BitcoinKeysetRecord:
    """Make a key-set: keys in the token, a fresh seed sealed under one of them, and its public record.

    Again with the same `directory` returns the record of the key-set that is there.

    Args:
        token: logged in.
        keyset_id: its name in the bundle.
        network: `main`, `test`, `signet` or `regtest`.
        directory: the signer's directory; gets `KEYSET.seed.json` (0600).
        account: BIP44 account number.
        script: what its keys lock coins with.
        entropy: gives so many random bytes.

    Raises:
        InvalidValue: a malformed name, or an unknown network.
        TokenRefused: the token has keys of this name but the sealed seed is missing.
        TokenLost: the token does not answer.
        SealBroken: what was sealed does not open again (nothing is kept then), or other keys are there.
    """
    path = seed_path(directory, keyset_id)
    if path.exists():
        found = read_sealed(path).record
        if not isinstance(found, BitcoinKeysetRecord) or (found.network, found.script) != (network, script):
            raise SealBroken(f"{path} is no seed of a {script} key-set on {network}")
        return found
    name = _network(keyset_id, network)
    constants = NETWORKS[name]
    account_path = f"{PURPOSES[script]}'/{constants.coin_type}'/{account}'"
    made = entropy(ENTROPY_BYTES)
    secret, origin = AccountSecret.from_entropy(made, constants, account_path)
    record = BitcoinKeysetRecord(
        id=keyset_id,
        network=name,
        script=script,
        account=secret.public.xpub,
        origin=origin,
        attestation_key=_made_keys(token, keyset_id),
    )
    file = seal_entropy(token, record, made)
    write_new(path, msgspec.json.encode(file))
    return record


def create_cosigner(
    token: Token,
    vault_id: str,
    network: str,
    directory: Path,
    *,
    account: int = 0,
    entropy: Callable[[int], bytes] = os.urandom,
) -> BitcoinCosignerRecord:
    """Make one cosigner's keys of a vault, like `create_keyset`; takes and raises the same."""
    path = seed_path(directory, vault_id)
    if path.exists():
        found = read_sealed(path).record
        if not isinstance(found, BitcoinCosignerRecord) or found.network != network:
            raise SealBroken(f"{path} is no seed of a cosigner on {network}")
        return found
    name = _network(vault_id, network)
    constants = NETWORKS[name]
    made = entropy(ENTROPY_BYTES)
    account_path = f"48'/{constants.coin_type}'/{account}'/2'"
    secret, origin = AccountSecret.of_cosigner(made, constants, account_path)
    record = BitcoinCosignerRecord(
        id=vault_id,
        network=name,
        account=secret.public.xpub,
        origin=origin,
        attestation_key=_made_keys(token, vault_id),
    )
    file = seal_entropy(token, record, made)
    write_new(path, msgspec.json.encode(file))
    return record


def open_keyset(token: Token, file: SealedSeed) -> AccountSecret[AccountKey]:
    """Unseal a key-set and check that it is the one its record describes.

    Raises:
        SealBroken: it is not, or the ciphertext does not open under this token's key, or it is a cosigner's.
        TokenRefused: the token has no such key.
        TokenLost: the token does not answer.
    """
    record = file.record
    if not isinstance(record, BitcoinKeysetRecord):
        raise SealBroken(f"{record.id!r}: a cosigner's seed, not a key-set's")
    found = AccountSecret.from_entropy(_unsealed(token, file), NETWORKS[record.network], record.path)
    return _described(token, record, found)


def open_cosigner(token: Token, file: SealedSeed) -> AccountSecret[BranchKeys]:
    """Unseal a cosigner's keys, like `open_keyset`; raises the same."""
    record = file.record
    if not isinstance(record, BitcoinCosignerRecord):
        raise SealBroken(f"{record.id!r}: a key-set's seed, not a cosigner's")
    found = AccountSecret.of_cosigner(_unsealed(token, file), NETWORKS[record.network], record.path)
    return _described(token, record, found)


def _network(keyset: str, network: str) -> NetworkName:
    """The network, if name and network are well formed. Raises InvalidValue."""
    try:
        name, _ = msgspec.convert((network, keyset), tuple[NetworkName, Name])
    except msgspec.ValidationError as error:
        raise InvalidValue(f"key-set {keyset!r} on {network!r}: {error}") from None
    return name


def _made_keys(token: Token, keyset: str) -> str:
    """Make the token's keys of a key-set; the public half of the one that attests (hex)."""
    token.make_sealing_key(sealing_key_name(keyset))
    return token.make_attestation_key(attestation_key_name(keyset)).hex()


def seal_entropy(token: Token, record: SealedRecord, entropy: bytes) -> SealedSeed:
    """Seal a seed under the sealing key that the token has for this key-set, and check that it opens again.

    Args:
        token: has the sealing key and the attestation key that the record names.
        record: the public half.
        entropy: 32 bytes (BIP39).

    Raises:
        SealBroken: what was sealed does not open again, or is not what the record describes.
        TokenRefused: the token has no such keys.
        TokenLost: the token does not answer.
    """
    associated = _associated(record.id, record.network, record.path)
    ciphertext = token.seal(sealing_key_name(record.id), entropy, associated)
    file = SealedSeed(record=record, sealed=base64.b64encode(ciphertext).decode())
    if isinstance(record, BitcoinKeysetRecord):
        open_keyset(token, file)
    else:
        open_cosigner(token, file)
    return file


def _unsealed(token: Token, file: SealedSeed) -> bytes:
    record = file.record
    entropy = token.unseal(
        sealing_key_name(record.id),
        base64.b64decode(file.sealed),
        _associated(record.id, record.network, record.path),
    )
    if entropy is None:
        raise SealBroken(
            f"key-set {record.id!r}: the sealed seed does not open under token {token.label!r}; "
            "it belongs to another token or key-set, or the file is damaged"
        )
    return entropy


def _described(token: Token, record: SealedRecord, found: tuple[AccountSecret[P], str]) -> AccountSecret[P]:
    """The secret, if it and the token's attestation key are what the record says."""
    secret, origin = found
    if (secret.public.xpub, origin) != (record.account, record.origin):
        raise SealBroken(f"key-set {record.id!r}: the sealed seed is not the one its record describes")
    if token.attestation_public_key(attestation_key_name(record.id)).hex() != record.attestation_key:
        raise SealBroken(f"key-set {record.id!r}: the token's attestation key is not the recorded one")
    return secret


def read_sealed(path: Path) -> SealedSeed:
    """Read a sealed seed's file. Raises SealBroken where it is missing or malformed."""
    return read_kept(path, SealedSeed)


class _Sealed(Generic[R, P]):
    """A seed that was unsealed, and the attestation key that stays in the token."""

    __slots__ = ("_secret", "_token", "account", "record")

    record: R
    account: P

    def __init__(self, token: Token, record: R, secret: AccountSecret[P]) -> None:
        self._token, self._secret = token, secret
        self.record, self.account = record, secret.public

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record.id!r}, [secret])"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and deterministic signature of 32 bytes, see `AccountSecret.sign`."""
        return self._secret.sign(branch, index, digest)

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by the token's attestation key."""
        return self._token.sign(attestation_key_name(self.record.id), digest)


class SealedKeys(_Sealed[BitcoinKeysetRecord, AccountKey]):
    """A key-set whose seed was unsealed and whose attestation key stays in the token."""

    __slots__ = ()

    def __init__(self, token: Token, file: SealedSeed) -> None:
        secret = open_keyset(token, file)
        assert isinstance(file.record, BitcoinKeysetRecord)  # open_keyset has said so
        super().__init__(token, file.record, secret)


class SealedCosigner(_Sealed[BitcoinCosignerRecord, BranchKeys]):
    """One cosigner's keys of a vault, likewise."""

    __slots__ = ()

    def __init__(self, token: Token, file: SealedSeed) -> None:
        secret = open_cosigner(token, file)
        assert isinstance(file.record, BitcoinCosignerRecord)  # open_cosigner has said so
        super().__init__(token, file.record, secret)
