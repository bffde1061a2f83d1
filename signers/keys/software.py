"""Keys in a file, without any HSM: for trials and tests only. No production signer opens one.

Whoever reads the file has the keys. It keeps what the other backends keep in a token: 32 bytes of entropy (BTC) or
one secp256k1 key (EVM), and the Ed25519 key that attests. Signatures are deterministic.

Sources: BIP39, BIP84 (as `signers.keys.sealed`), RFC 6979 (deterministic nonces), RFC 8032 (Ed25519).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import coincurve
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.script import KeyScript
from chains.errors import InvalidValue
from chains.eth.tx import address_text_of_key
from policies.canonical import Hex32
from signers.errors import SealBroken
from signers.keys.account import ENTROPY_BYTES, AccountSecret
from signers.keys.ecdsa import DIGEST_BYTES
from signers.keys.keyset import (
    KEY_PLACE,
    PURPOSES,
    BitcoinKeysetRecord,
    EvmRecord,
    KeysetRecord,
)
from signers.process.files import read_kept, write_new


class SoftwareFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: a key-set's public record and its secrets."""

    v: int = 1
    record: KeysetRecord
    secret: Hex32
    """BTC: entropy of a BIP39 wallet. EVM: the key."""
    attestation: Hex32
    """Ed25519 private key (its 32-byte seed)."""

    def __repr__(self) -> str:
        return "[secret]"


class _Attesting:
    """What software keys of both families have."""

    __slots__ = ("_attestation",)

    def __init__(self, file: SoftwareFile) -> None:
        self._attestation = _attestation_key(file)

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) of 32 bytes."""
        return self._attestation.sign(digest)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")


class SoftwareBitcoinKeys(_Attesting):
    """An HD wallet whose entropy is in a file."""

    __slots__ = ("_secret", "account", "record")

    record: BitcoinKeysetRecord
    account: AccountKey

    def __init__(self, record: BitcoinKeysetRecord, file: SoftwareFile) -> None:
        super().__init__(file)
        self._secret, origin = AccountSecret.from_entropy(
            bytes.fromhex(file.secret), NETWORKS[record.network], record.path
        )
        if (self._secret.public.xpub, origin) != (record.account, record.origin):
            raise SealBroken(f"key-set {record.id!r}: the software key is not the one its record describes")
        self.record, self.account = record, self._secret.public

    def __repr__(self) -> str:
        return f"SoftwareBitcoinKeys({self.record.id!r}, [secret])"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and deterministic low-s DER signature of 32 bytes."""
        return self._secret.sign(branch, index, digest)


class SoftwareEvmKeys(_Attesting):
    """One key for an EVM network, in a file."""

    __slots__ = ("_key", "pubkey", "record")

    record: EvmRecord
    pubkey: bytes
    """33 bytes."""

    def __init__(self, record: EvmRecord, file: SoftwareFile) -> None:
        super().__init__(file)
        self._key = _curve_key(file)
        self.pubkey = self._key.public_key.format()
        if address_text_of_key(self.pubkey) != record.address:
            raise SealBroken(f"key-set {record.id!r}: the software key is not the one its record describes")
        self.record = record

    def __repr__(self) -> str:
        return f"SoftwareEvmKeys({self.record.id!r}, [secret])"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes), r and s (64 bytes, the same for the same digest). Raises InvalidValue."""
        if (branch, index) != KEY_PLACE or len(digest) != DIGEST_BYTES:
            raise InvalidValue(f"place {branch}/{index} with a digest of {len(digest)} bytes: not signable")
        return self.pubkey, self._key.sign_recoverable(digest, hasher=None)[:64]


SoftwareKeys = SoftwareBitcoinKeys | SoftwareEvmKeys
"""Keys in a file."""


def software_bitcoin_file(keyset: str, network: str, script: KeyScript) -> SoftwareFile:
    """A fresh HD wallet for `write_software_keys`. Raises InvalidValue (name or network)."""
    if network not in NETWORKS:
        raise InvalidValue(f"unknown network {network!r}")
    constants, entropy = NETWORKS[network], os.urandom(ENTROPY_BYTES)
    path = f"{PURPOSES[script]}'/{constants.coin_type}'/0'"
    secret, origin = AccountSecret.from_entropy(entropy, constants, path)
    fields = {"kind": "btc-hd", "network": network, "script": script, "origin": origin}
    return _file(keyset, entropy, fields | {"account": secret.public.xpub})


def software_evm_file(keyset: str, chain_id: int) -> SoftwareFile:
    """A fresh key of one EVM network for `write_software_keys`. Raises InvalidValue (name or chain id)."""
    key = coincurve.PrivateKey()
    address = address_text_of_key(key.public_key.format())
    return _file(keyset, key.secret, {"kind": "evm-key", "chain_id": chain_id, "address": address})


def _file(keyset: str, secret: bytes, fields: Mapping[str, object]) -> SoftwareFile:
    attestation = Ed25519PrivateKey.generate()
    public = attestation.public_key().public_bytes_raw().hex()
    named = {**fields, "id": keyset, "attestation_key": public}
    try:
        record: KeysetRecord = msgspec.convert(named, KeysetRecord)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"key-set {keyset!r}: {error}") from None
    return SoftwareFile(record=record, secret=secret.hex(), attestation=attestation.private_bytes_raw().hex())


def write_software_keys(path: Path, file: SoftwareFile) -> KeysetRecord:
    """Write the file (0600); returns what the bundle has to say of it. Raises FileExistsError."""
    write_new(path, msgspec.json.encode(file))
    return file.record


def open_software_keys(path: Path, keyset: str) -> SoftwareKeys:
    """The keys in a file.

    Raises:
        SealBroken: it is missing, malformed, open to other users, of another key-set, or contradicts itself.
    """
    file = read_kept(path, SoftwareFile)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SealBroken(f"{path} is open to other users: chmod 600 it")
    record = file.record
    if record.id != keyset:
        raise SealBroken(f"{path} is of key-set {record.id!r}, not {keyset!r}")
    if _attestation_key(file).public_key().public_bytes_raw().hex() != record.attestation_key:
        raise SealBroken(f"key-set {keyset!r}: the attestation key is not the one its record describes")
    try:
        if isinstance(record, BitcoinKeysetRecord):
            return SoftwareBitcoinKeys(record, file)
        if isinstance(record, EvmRecord):
            return SoftwareEvmKeys(record, file)
    except (InvalidValue, ValueError) as error:
        raise SealBroken(f"{path}: {error}") from None
    raise SealBroken(f"{path}: a cosigner's keys are not kept in a file without a token")


def _attestation_key(file: SoftwareFile) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file.attestation))


def _curve_key(file: SoftwareFile) -> coincurve.PrivateKey:
    return coincurve.PrivateKey(bytes.fromhex(file.secret))
