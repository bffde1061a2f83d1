"""A second reading of a Safe request, which shares nothing with the first but the file and the hash function. Pure.

The first (`chains/eth/safe_files.py`, `chains/eth/safe.py`) reads JSON by msgspec and encodes words by itself; this one
reads JSON by the standard library and encodes with eth-abi. What one of them misreads, the other does not.

Sources: EIP-712, `Safe.sol` v1.4.1.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from Crypto.Hash import keccak

from chains.errors import InvalidValue

_DOMAIN_TYPE: Final = "EIP712Domain(uint256 chainId,address verifyingContract)"
_FIELDS: Final = (
    ("address", "to"),
    ("uint256", "value"),
    ("bytes", "data"),
    ("uint8", "operation"),
    ("uint256", "safeTxGas"),
    ("uint256", "baseGas"),
    ("uint256", "gasPrice"),
    ("address", "gasToken"),
    ("address", "refundReceiver"),
    ("uint256", "nonce"),
)
_NAMES: Final = {
    "safeTxGas": "safe_tx_gas",
    "baseGas": "base_gas",
    "gasPrice": "gas_price",
    "gasToken": "gas_token",
    "refundReceiver": "refund_receiver",
}
"""Where a file calls a field otherwise than the contract does."""
_TRANSFER: Final = "transfer(address,uint256)"


class SecondReading(NamedTuple):
    """What the file says, in plain values. Addresses are 20 bytes."""

    chain_id: int
    safe: bytes
    fields: tuple[Any, ...]
    """In the contract's order: bytes and integers."""
    expires_at: int
    safe_tx_hash: bytes
    """What would be signed, 32 bytes."""
    transfer: tuple[bytes, int] | None
    """Recipient and units, where the data are a token's `transfer` and nothing more."""
    treasury: tuple[str, bytes | None] | None
    """`propose`, `accept` or `cancel`, and whom it names, where the data are such a call and nothing more."""


def second_reading(raw: bytes) -> SecondReading:
    """Read the bytes of a request.

    Args:
        raw: of a file that the first reader takes; it bounds length and depth.

    Raises:
        InvalidValue: they are none to this reader.
    """
    from eth_abi.exceptions import EncodingError

    try:
        file = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
        values = tuple(_value(kind, file[_NAMES.get(name, name)]) for kind, name in _FIELDS)
        chain_id, safe = int(file["chain_id"]), _value("address", file["safe"])
        expires_at = int(file["expires_at"])
        transfer, treasury = _transfer(values[2]), _treasury(values[2])
        digest = _safe_tx_hash(chain_id, safe, values)
    except (LookupError, TypeError, ValueError, EncodingError) as error:
        raise InvalidValue(f"a second reader cannot read the request: {error}") from None
    return SecondReading(chain_id, safe, values, expires_at, digest, transfer, treasury)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no field comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field comes twice")
    return found


def _value(kind: str, written: Any) -> Any:
    """The value of one field: bytes of an address or of data, or an integer."""
    return bytes.fromhex(written.removeprefix("0x")) if kind in ("address", "bytes") else int(written)


def _safe_tx_hash(chain_id: int, safe: bytes, values: tuple[Any, ...]) -> bytes:
    """The EIP-712 hash of a SafeTx, with eth-abi's encoding of its words."""
    from eth_abi.abi import encode

    types = [kind for kind, _ in _FIELDS]
    struct_type = "SafeTx(" + ",".join(f"{kind} {name}" for kind, name in _FIELDS) + ")"
    hashed = [_keccak(value) if kind == "bytes" else value for kind, value in zip(types, values, strict=True)]
    words = ["bytes32" if kind == "bytes" else kind for kind in types]
    struct = _keccak(encode(["bytes32", *words], [_keccak(struct_type.encode()), *hashed]))
    domain = encode(["bytes32", "uint256", "address"], [_keccak(_DOMAIN_TYPE.encode()), chain_id, safe])
    return _keccak(b"\x19\x01" + _keccak(domain) + struct)


def _transfer(data: bytes) -> tuple[bytes, int] | None:
    """What `transfer` was called with; None: the data are another call, or not in eth-abi's own form."""
    from eth_abi.abi import decode, encode
    from eth_abi.exceptions import DecodingError

    if data[:4] != _keccak(_TRANSFER.encode())[:4]:
        return None
    try:
        to, units = decode(["address", "uint256"], data[4:])
    except DecodingError:
        return None
    if encode(["address", "uint256"], [to, units]) != data[4:]:
        return None
    return bytes.fromhex(to[2:]), units


def _treasury(data: bytes) -> tuple[str, bytes | None] | None:
    """Which step of a change of the treasury it is; None: another call, or not in eth-abi's own form."""
    from eth_abi.abi import decode, encode
    from eth_abi.exceptions import DecodingError

    for step in ("accept", "cancel"):
        if data == _keccak(f"{step}Treasury()".encode())[:4]:
            return step, None
    if data[:4] != _keccak(b"proposeTreasury(address)")[:4]:
        return None
    try:
        (candidate,) = decode(["address"], data[4:])
    except DecodingError:
        return None
    if encode(["address"], [candidate]) != data[4:] or int(candidate, 16) == 0:
        return None
    return "propose", bytes.fromhex(candidate[2:])


def _keccak(data: bytes) -> bytes:
    hashed = keccak.new(digest_bits=256)
    hashed.update(data)
    return hashed.digest()
