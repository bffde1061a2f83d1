"""One secp256k1 key of an EVM network, made in the HSM and never outside of it in clear.

Beside the token there is only `KEYSET.key.json`: the public record, signed by the token's attestation key so that
nobody can turn a key made for one network into a key of another, or a Safe's owner or a gas payer into a key that
pays, by editing a file. A key that a ceremony made was wrapped once, for its backup; it is used only with that
ceremony's genuine record.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from chains.errors import InvalidValue
from chains.eth.tx import address_text_of_key
from policies.canonical import BadSignature, Document, Name, encode_signature, verify_ed25519
from policies.intent import Signature
from signers.ceremony.record import SignedCeremony, check_ceremony
from signers.errors import SealBroken
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import (
    DIGEST_BYTES,
    make_signing_key,
    must_not_come_out,
    must_stay_inside,
    sign_digest,
    signing_public_key,
)
from signers.keys.keyset import KEY_PLACE, EvmKeysetRecord, EvmRecord, GasPayerRecord, SafeOwnerRecord
from signers.keys.sealed import attestation_key_name
from signers.process.files import read_kept, write_new

_R = TypeVar("_R", EvmKeysetRecord, SafeOwnerRecord, GasPayerRecord)


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.key.json`."""

    v: int = 1
    record: EvmRecord
    signature: Signature
    """Of the record by the token's attestation key."""
    ceremony: SignedCeremony | None = None
    """By which the key was made, if it was wrapped for a backup."""


class _Binding(Document, frozen=True):
    """What the attestation key vouches for."""

    domain = "evm-key"

    keyset: Name
    kind: Name
    chain_id: int
    address: str


def _binding(record: EvmRecord) -> bytes:
    kind = str(record.__struct_config__.tag)
    return _Binding(keyset=record.id, kind=kind, chain_id=record.chain_id, address=record.address).digest()


def signing_key_name(keyset: str) -> str:
    """Label of the secp256k1 key in the token."""
    return f"{keyset}-sign"


def key_path(directory: Path, keyset: str) -> Path:
    """Where a key-set's record is kept."""
    return directory / f"{keyset}.key.json"


def create_evm_keyset(token: Token, keyset_id: str, chain_id: int, directory: Path) -> EvmKeysetRecord:
    """Make a key-set: both keys in the token, and the signed record beside it.

    Again with the same `directory` returns the record of the key-set that is there.

    Args:
        token: logged in.
        keyset_id: its name in the bundle.
        chain_id: of its network (EIP-155).
        directory: the signer's directory; gets `KEYSET.key.json` (0600).

    Raises:
        InvalidValue: a malformed name or chain id.
        SealBroken: a key-set of this name is there, for another network or purpose.
        TokenRefused: the token has keys of this name but the record is missing.
        TokenLost: the token does not answer.
    """
    return _created(token, EvmKeysetRecord, keyset_id, chain_id, directory)


def create_safe_owner(token: Token, vault_id: str, chain_id: int, directory: Path) -> SafeOwnerRecord:
    """Make the key of one owner of the Safe `vault_id`. All else is as for `create_evm_keyset`."""
    return _created(token, SafeOwnerRecord, vault_id, chain_id, directory)


def create_gas_payer(token: Token, payer_id: str, chain_id: int, directory: Path) -> GasPayerRecord:
    """Make the key of the gas payer `payer_id`. All else is as for `create_evm_keyset`."""
    return _created(token, GasPayerRecord, payer_id, chain_id, directory)


def _created(token: Token, kind: type[_R], name: str, chain_id: int, directory: Path) -> _R:
    path = key_path(directory, name)
    if path.exists():
        found = read_key_file(path).record
        if not isinstance(found, kind) or found.chain_id != chain_id:
            raise SealBroken(
                f"{path} is a {found.__struct_config__.tag} of chain id {found.chain_id}, not a "
                f"{kind.__struct_config__.tag} of {chain_id}: give the new key-set another name"
            )
        return found
    try:
        blank = msgspec.convert(
            {
                "kind": kind.__struct_config__.tag,
                "id": name,
                "chain_id": chain_id,
                "address": "0x" + "00" * 20,
                "attestation_key": "00" * 32,
            },
            kind,
        )
    except msgspec.ValidationError as error:
        raise InvalidValue(f"key-set {name!r} with chain id {chain_id!r}: {error}") from None
    pubkey = make_signing_key(token, signing_key_name(name))
    attestation_key = token.make_attestation_key(attestation_key_name(name))
    record = msgspec.structs.replace(
        blank, address=address_text_of_key(pubkey), attestation_key=attestation_key.hex()
    )
    write_new(path, msgspec.json.encode(sign_key_file(token, record, None)))
    return record


def sign_key_file(token: Token, record: EvmRecord, ceremony: SignedCeremony | None) -> KeyFile:
    """The file of keys that the token has, signed by their attestation key and opened once.

    Args:
        token: has both keys of this key-set.
        record: their public half.
        ceremony: by which they were made, if the key was wrapped for a backup.

    Raises:
        SealBroken: the token's keys are other ones.
        NotProven: the ceremony's record is not genuine, or of other keys.
        TokenRefused: the token has no such keys, or lets them out.
        TokenLost: the token does not answer.
    """
    signature = token.sign(attestation_key_name(record.id), _binding(record))
    file = KeyFile(record=record, signature=encode_signature(signature), ceremony=ceremony)
    TokenKeys(token, file, signing_key_name(record.id))
    return file


def read_key_file(path: Path) -> KeyFile:
    """Read a key-set's file. Raises SealBroken where it is missing or malformed."""
    return read_kept(path, KeyFile)


class TokenKeys:
    """A key-set whose keys are both in the token.

    Args:
        token: logged in.
        file: the key-set's record.
        label: of the signing key in the token.

    Raises:
        SealBroken: the token's keys are not those of the record, or the record was edited.
        NotProven: the record of the ceremony that made them is not genuine.
        TokenRefused: the token has no such keys, or lets them out.
        TokenLost: the token does not answer.
    """

    __slots__ = ("_label", "_token", "pubkey", "record")

    record: EvmRecord
    pubkey: bytes
    """33 bytes."""

    def __init__(self, token: Token, file: KeyFile, label: str) -> None:
        self._token, self._label, self.record = token, label, file.record
        self.pubkey = signing_public_key(token, label)
        attestation_key = token.attestation_public_key(attestation_key_name(file.record.id)).hex()
        theirs = (file.record.address, file.record.attestation_key)
        if (address_text_of_key(self.pubkey), attestation_key) != theirs:
            raise SealBroken(f"key-set {file.record.id!r}: the token's keys are not the recorded ones")
        try:
            verify_ed25519(attestation_key, _binding(file.record), file.signature)
        except BadSignature:
            raise SealBroken(
                f"key-set {file.record.id!r}: its record is not the one that token {token.label!r} signed"
            ) from None
        if file.ceremony is None:
            must_stay_inside(token, label)
        else:
            check_ceremony(file.ceremony, file.record)
            must_not_come_out(token, label)

    def __repr__(self) -> str:
        return f"TokenKeys({self.record.id!r}, {self.record.address})"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes), r and s (64 bytes, others each time). Raises InvalidValue, TokenLost, TokenRefused."""
        if (branch, index) != KEY_PLACE or len(digest) != DIGEST_BYTES:
            raise InvalidValue(f"place {branch}/{index} with a digest of {len(digest)} bytes: not signable")
        return self.pubkey, sign_digest(self._token, self._label, digest)

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by the token's attestation key."""
        return self._token.sign(attestation_key_name(self.record.id), digest)
