"""The public halves of key-sets, as the bundle names them. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policies.canonical import Hex32, Name

HARDENED = 2**31
"""First hardened child number (BIP32)."""


NetworkName = Literal["main", "test", "signet", "regtest"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every record has."""

    v: Literal[1] = 1
    id: Name
    attestation_key: Hex32
    """Ed25519 public key that attests addresses."""


class BitcoinKeysetRecord(_Record, frozen=True, tag_field="kind", tag="btc-hd"):
    """The public half of an HD wallet: what the bundle says of it."""

    network: NetworkName
    account: str
    """Account public key, `xpub...` or `tpub...`."""
    origin: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(/[0-9]{1,9}'){3}\Z")]
    """Master fingerprint and path of the account, e.g. `d34db33f/84'/1'/0'`."""

    @property
    def path(self) -> str:
        """Path of the account key without the leading `m/`, e.g. `84'/1'/0'`."""
        return self.origin[9:]

    @property
    def fingerprint(self) -> bytes:
        """Master key fingerprint, 4 bytes."""
        return bytes.fromhex(self.origin[:8])

    def place(self, path: tuple[int, ...] | None) -> tuple[int, int] | None:
        """Branch (0 or 1) and index of a whole path from the master, None for a path elsewhere."""
        account = tuple(int(step[:-1]) + HARDENED for step in self.path.split("/"))
        if path is None or len(path) != 5 or path[:3] != account:
            return None
        branch, index = path[3:]
        return (branch, index) if branch in (0, 1) and 0 <= index < HARDENED else None


class EvmKeysetRecord(_Record, frozen=True, tag_field="kind", tag="evm-key"):
    """The public half of one key for an EVM network."""

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """EIP-155: this key signs for no other network."""
    address: Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
    """Of the key, with the checksum of EIP-55."""


KeysetRecord = BitcoinKeysetRecord | EvmKeysetRecord
"""The public half of a key-set: what the bundle says of it."""
