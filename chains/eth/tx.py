"""EIP-1559 transactions: the only type that we make, and so the only one that is read strictly. Pure.

`UnsignedTx` is what a signer gets and decides on, `SignedTx` what is broadcast. Both have one serialisation only:
what would be written differently is refused, so bytes and meaning never part (EIP-2718, EIP-1559).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import coincurve
import rlp

from chains.errors import InvalidValue
from chains.eth.address import ADDRESS_BYTES, checksummed, keccak256
from chains.secp256k1 import CURVE_ORDER, LOW_S_LIMIT
from chains.types import TxId

TYPE: Final = 0x02
"""First byte of a serialised EIP-1559 transaction (EIP-2718)."""

MAX_NONCE: Final = 2**64 - 2
"""EIP-2681."""

MAX_RAW_BYTES: Final = 128 * 1024
"""What nodes take in (`txMaxSize` of go-ethereum's pool)."""

_UNSIGNED_FIELDS: Final = 9
_SIGNED_FIELDS: Final = 12
_WORD: Final = 2**256


class ContractCreation(InvalidValue):
    """A transaction to nobody, which makes a contract."""


def nonce_resource(sender: bytes, nonce: int) -> str:
    """What a transaction uses up: its sender (20 bytes) in lower-case hex, and its nonce.

    Raises:
        InvalidValue: not 20 bytes, or a nonce beyond EIP-2681.
    """
    if len(sender) != ADDRESS_BYTES:
        raise InvalidValue(f"sender of {len(sender)} bytes: expected {ADDRESS_BYTES}")
    return f"0x{sender.hex()}:{_within('nonce', nonce, MAX_NONCE)}"


@dataclass(frozen=True, slots=True)
class UnsignedTx:
    """An EIP-1559 transaction to an address, without access list and signature.

    Raises:
        InvalidValue: a field out of range, or a priority fee above the fee (no node takes that).
        ContractCreation: no destination.
    """

    chain_id: int
    """EIP-155: part of what is signed."""
    nonce: int
    """How many transactions the sender has sent before this one."""
    max_priority_fee_per_gas_wei: int
    """Most that goes to the block's proposer, per gas."""
    max_fee_per_gas_wei: int
    """Most that is paid per gas, base fee included."""
    gas_limit: int
    to: bytes
    """Whom it pays or calls, 20 bytes. Creations are not ours to make."""
    value_wei: int
    data: bytes = b""
    """Calldata."""

    def __post_init__(self) -> None:
        _within("chain id", self.chain_id, _WORD - 1)
        _within("nonce", self.nonce, MAX_NONCE)
        _within("priority fee", self.max_priority_fee_per_gas_wei, _WORD - 1)
        _within("fee", self.max_fee_per_gas_wei, _WORD - 1)
        _within("gas limit", self.gas_limit, 2**64 - 1)
        _within("value", self.value_wei, _WORD - 1)
        if self.chain_id == 0:
            raise InvalidValue("chain id 0: a signature would be valid on any network")
        if self.max_priority_fee_per_gas_wei > self.max_fee_per_gas_wei:
            raise InvalidValue(
                f"priority fee {self.max_priority_fee_per_gas_wei} above fee {self.max_fee_per_gas_wei} wei"
            )
        if self.to == b"":
            raise ContractCreation("no destination: it would create a contract")
        if type(self.to) is not bytes or len(self.to) != ADDRESS_BYTES:
            raise InvalidValue(f"destination {self.to!r}: expected {ADDRESS_BYTES} bytes")
        if type(self.data) is not bytes or len(self.data) > MAX_RAW_BYTES:
            raise InvalidValue(f"calldata: expected at most {MAX_RAW_BYTES} bytes")

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read the unsigned serialisation, strictly.

        Raises:
            InvalidValue: another type, an access list, a number or list not in its only form, bytes left over, or a
                field out of range.
        """
        tx = cls(*_fields(raw, _UNSIGNED_FIELDS))
        if tx.encode() != raw:
            raise InvalidValue("transaction: not in its only form")
        return tx

    def encode(self) -> bytes:
        """The bytes whose hash is signed: 0x02 and the list of nine fields."""
        return _serialised(self._list())

    @property
    def signing_hash(self) -> bytes:
        """What the key signs (32 bytes)."""
        return keccak256(self.encode())

    @property
    def content(self) -> str:
        """The signing hash as 64 hex digits: the name of the transaction before and whatever its signature."""
        return self.signing_hash.hex()

    @property
    def max_fee_wei(self) -> int:
        """Most that it can cost beside its value. (Rollups that charge for data apart are not among our networks.)"""
        return self.gas_limit * self.max_fee_per_gas_wei

    def resource(self, sender: bytes) -> str:
        """The one resource that it uses up. Raises InvalidValue: the sender isn't 20 bytes."""
        return nonce_resource(sender, self.nonce)

    def signed(self, signature: bytes) -> SignedTx:
        """Together with a signature.

        Args:
            signature: r and s (32 bytes each), and the parity of y (0 or 1).

        Raises:
            InvalidValue: malformed, or s in the upper half (EIP-2).
        """
        if len(signature) != 65:
            raise InvalidValue(f"signature of {len(signature)} bytes: expected 65")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return SignedTx(self, signature[64], r, s)

    def _list(self) -> list[Any]:
        return [
            self.chain_id,
            self.nonce,
            self.max_priority_fee_per_gas_wei,
            self.max_fee_per_gas_wei,
            self.gas_limit,
            self.to,
            self.value_wei,
            self.data,
            [],
        ]


@dataclass(frozen=True, slots=True)
class SignedTx:
    """An EIP-1559 transaction with its signature.

    Raises:
        InvalidValue: a signature that no key could have made, or with s in the upper half (EIP-2).
    """

    tx: UnsignedTx
    y_parity: int
    r: int
    s: int

    def __post_init__(self) -> None:
        if self.y_parity not in (0, 1):
            raise InvalidValue(f"y parity {self.y_parity!r}: expected 0 or 1")
        if not 0 < self.r < CURVE_ORDER or not 0 < self.s <= LOW_S_LIMIT:
            raise InvalidValue("signature: r or s out of range, or s in the upper half")

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a serialised transaction, strictly. Raises InvalidValue like `UnsignedTx.decode`."""
        fields = _fields(raw, _SIGNED_FIELDS)
        signed = cls(UnsignedTx(*fields[:8]), *fields[8:])
        if signed.encode() != raw:
            raise InvalidValue("transaction: not in its only form")
        return signed

    def encode(self) -> bytes:
        """The bytes that are broadcast."""
        return _serialised([*self.tx._list(), self.y_parity, self.r, self.s])

    @property
    def txid(self) -> TxId:
        """Hash of the serialisation."""
        return TxId(keccak256(self.encode()).hex())

    def public_key(self) -> bytes:
        """The key that signed (33 bytes, compressed), recovered from the signature.

        Raises:
            InvalidValue: the signature belongs to no key.
        """
        return self._recovered().format(compressed=True)

    def sender(self) -> bytes:
        """Address of the key that signed (20 bytes). Raises InvalidValue like `public_key`."""
        return address_of_key(self._recovered().format(compressed=True))

    def _recovered(self) -> coincurve.PublicKey:
        compact = self.r.to_bytes(32, "big") + self.s.to_bytes(32, "big") + bytes([self.y_parity])
        try:
            return coincurve.PublicKey.from_signature_and_message(compact, self.tx.signing_hash, hasher=None)
        except ValueError as error:
            raise InvalidValue(f"signature: no key has made it ({error})") from None


def address_of_key(public_key: bytes) -> bytes:
    """The address (20 bytes) of a public key (33 or 65 bytes, SEC 1).

    Raises:
        InvalidValue: not a point of secp256k1.
    """
    try:
        point = coincurve.PublicKey(public_key).format(compressed=False)
    except ValueError:
        raise InvalidValue("public key: not a point of secp256k1") from None
    return keccak256(point[1:])[12:]


def address_text_of_key(public_key: bytes) -> str:
    """The address of a public key with its checksum (EIP-55). Raises InvalidValue like `address_of_key`."""
    return checksummed(address_of_key(public_key))


def _within(what: str, value: int, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidValue(f"{what} {value!r}: expected an integer 0 to {most}")
    return value


def _serialised(fields: list[Any]) -> bytes:
    encoded: bytes = rlp.encode(fields)
    return bytes([TYPE]) + encoded


def _fields(raw: bytes, count: int) -> list[Any]:
    """The fields of a serialised transaction without its access list, which must be empty."""
    if not raw or raw[0] != TYPE:
        raise InvalidValue(f"transaction of type {raw[:1].hex() or 'nothing'}: expected EIP-1559 (02)")
    if len(raw) > MAX_RAW_BYTES:
        raise InvalidValue(f"transaction of {len(raw)} bytes: at most {MAX_RAW_BYTES} are read")
    try:
        items = rlp.decode(raw[1:])
    except (rlp.exceptions.RLPException, RecursionError) as error:
        raise InvalidValue(f"transaction: {error}") from None
    if not isinstance(items, list) or len(items) != count:
        raise InvalidValue(f"transaction: expected a list of {count} fields")
    access_list = items.pop(8)
    if access_list != []:
        raise InvalidValue("transaction: it has an access list")
    if not all(isinstance(item, bytes) for item in items):
        raise InvalidValue("transaction: a list where a field is expected")
    # Destination and calldata are bytes; all others are numbers, whose leading zeros the callers' comparison finds.
    return [item if at in (5, 7) else int.from_bytes(item, "big") for at, item in enumerate(items)]
