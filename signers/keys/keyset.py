"""The public halves of key-sets, as the bundle names them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec

from chains.btc.script import KeyScript
from policies.canonical import Hex32, Name

PURPOSES: Final[Mapping[KeyScript, int]] = MappingProxyType({"p2wpkh": 84, "p2tr": 86})
"""First step of an account's path, by what its keys lock coins with (BIP84, BIP86)."""
KEY_PLACE: Final = (1, 0)
"""Branch and index of the one key of an EVM key-set: it is the house's own, and there is no other."""

NetworkName = Literal["main", "test", "signet", "regtest"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every record has."""

    v: Literal[1] = 1
    id: Name
    attestation_key: Hex32
    """Ed25519 public key that attests addresses."""


class BitcoinKeysetRecord(_Record, frozen=True, kw_only=True, tag_field="kind", tag="btc-hd"):
    """The public half of an HD wallet: what the bundle says of it."""

    network: NetworkName
    script: KeyScript = "p2wpkh"
    account: str
    """Account public key, `xpub...` or `tpub...`."""
    origin: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(/[0-9]{1,9}'){3}\Z")]
    """Master fingerprint and path of the account, e.g. `d34db33f/84'/1'/0'`; 86' with `p2tr`."""

    def __post_init__(self) -> None:
        if self.path.split("/", 1)[0] != f"{PURPOSES[self.script]}'":
            raise ValueError(f"{self.path} is no account for {self.script}")

    @property
    def path(self) -> str:
        """Path of the account key without the leading `m/`, e.g. `84'/1'/0'`."""
        return self.origin[9:]

    @property
    def fingerprint(self) -> bytes:
        """Master key fingerprint, 4 bytes."""
        return bytes.fromhex(self.origin[:8])


class BitcoinCosignerRecord(_Record, frozen=True, tag_field="kind", tag="btc-cosigner"):
    """The public half of one cosigner's keys: what the bundle's vault says of it. `id` is the vault's."""

    network: NetworkName
    account: str
    """Account public key, `xpub...` or `tpub...`."""
    origin: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}/48'/[01]'/[0-9]{1,9}'/2'\Z")]
    """Master fingerprint and path of the account (BIP48, P2WSH), e.g. `d34db33f/48'/1'/0'/2'`."""

    @property
    def path(self) -> str:
        """Path of the account key without the leading `m/`, e.g. `48'/1'/0'/2'`."""
        return self.origin[9:]


class _EvmRecord(_Record, frozen=True, kw_only=True):
    """The public half of one key for an EVM network."""

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """EIP-155: this key signs for no other network."""
    address: Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
    """Of the key, with the checksum of EIP-55."""


class EvmKeysetRecord(_EvmRecord, frozen=True, tag_field="kind", tag="evm-key"):
    """The public half of a key that pays: what the bundle says of it."""


class SafeOwnerRecord(_EvmRecord, frozen=True, tag_field="kind", tag="safe-owner"):
    """The public half of one owner's key: what the bundle's Safe says of it. `id` is the Safe's.

    It signs what Safes do, and never a transaction of its own address.
    """


class GasPayerRecord(_EvmRecord, frozen=True, tag_field="kind", tag="gas-payer"):
    """The public half of a key that pays the gas of Safes' transactions: what the bundle says of it. It pays nobody."""


EvmRecord = EvmKeysetRecord | SafeOwnerRecord | GasPayerRecord
"""The public half of one key for an EVM network."""

KeysetRecord = BitcoinKeysetRecord | BitcoinCosignerRecord | EvmRecord
"""The public half of a key-set, or of one signer's part of a vault: what the bundle says of it."""
