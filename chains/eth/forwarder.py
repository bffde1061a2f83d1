"""Deposit addresses without keys: where a forwarder is before it exists, and the call that empties many. Pure.

The contracts are in `chains/eth/contracts`. Address: EIP-1014 (CREATE2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chains.errors import DerivationDisagreement, InvalidValue
from chains.eth.abi import (
    WORD_BYTES,
    address_word,
    decode_two_arrays,
    encode_two_arrays,
    selector,
    topic,
    word_address,
)
from chains.eth.address import checksummed, keccak256, raw_address
from chains.types import check_hash

MAX_INDEX: Final = 2**31 - 1
"""Indices are those of attestation paths, which end here as BIP32's do."""

FLUSH: Final = selector("flush(bytes32[],address[])")
"""Of the factory: deploys what is missing and sends everything to its treasury."""

ETHER_FLUSHED_TOPIC: Final = topic("EtherFlushed(uint256)")
"""Event of a forwarder: so many wei left it for the treasury."""


@dataclass(frozen=True, slots=True)
class Flush:
    """What `flush` was called with."""

    salts: tuple[bytes, ...]
    """One of 32 bytes for each forwarder."""
    tokens: tuple[bytes, ...]
    """Contracts (20 bytes each) whose balances go along with the native asset."""


def salt_of(index: int) -> bytes:
    """The salt (32 bytes) of the forwarder with an index. Raises InvalidValue: not 0 to `MAX_INDEX`."""
    if type(index) is not int or not 0 <= index <= MAX_INDEX:
        raise InvalidValue(f"index {index!r}: expected an integer 0 to {MAX_INDEX}")
    return index.to_bytes(WORD_BYTES, "big")


def index_of(salt: bytes) -> int:
    """The index that a salt stands for. Raises InvalidValue: none of ours."""
    index = int.from_bytes(salt, "big")
    if len(salt) != WORD_BYTES or index > MAX_INDEX:
        raise InvalidValue(f"salt {salt.hex()}: not that of an index")
    return index


def forwarder_address(factory: bytes, initcode_hash: bytes, salt: bytes) -> bytes:
    """Where a factory makes the contract with an init code (EIP-1014); 20 bytes.

    Args:
        factory: address of the contract that creates, 20 bytes.
        initcode_hash: keccak256 of the init code.
        salt: 32 bytes.

    Raises:
        InvalidValue: a wrong length.
    """
    if (len(factory), len(initcode_hash), len(salt)) != (20, 32, 32):
        raise InvalidValue("forwarder: expected a factory of 20 bytes, and a hash and a salt of 32")
    return keccak256(b"\xff" + factory + salt + initcode_hash)[12:]


def agreed_forwarder(factory: str, initcode_hash: str, index: int) -> str:
    """The address (EIP-55) of the forwarder with an index, on which two implementations agree.

    Args:
        factory: as in the bundle (EIP-55).
        initcode_hash: `forwarder` of the key-set, 64 hex digits.
        index: of the forwarder.

    Raises:
        DerivationDisagreement: they don't agree; neither address may be used.
        InvalidValue: an argument is malformed.
    """
    check_hash(initcode_hash, what="hash of the init code")
    ours = checksummed(forwarder_address(raw_address(factory), bytes.fromhex(initcode_hash), salt_of(index)))
    theirs = second_opinion(factory, initcode_hash, index)
    if ours != theirs:
        raise DerivationDisagreement(f"forwarder {index}: {ours} by pycryptodome, {theirs} by pysha3")
    return ours


def second_opinion(factory: str, initcode_hash: str, index: int) -> str:
    """The same address by another path: put together as text, hashed by the Keccak team's code (pysha3)."""
    from sha3 import keccak_256

    preimage = f"ff{factory.removeprefix('0x')}{index:064x}{initcode_hash}"
    digits = keccak_256(bytes.fromhex(preimage)).hexdigest()[-40:]
    case = int(keccak_256(digits.encode()).hexdigest(), 16) >> 96
    marks = (case >> shift & 8 for shift in range(156, -1, -4))
    return "0x" + "".join(d.upper() if mark else d for d, mark in zip(digits, marks, strict=True))


def flush_calldata(salts: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Calldata for the factory: empty these forwarders of these tokens (contracts, 20 bytes) and of native money.

    Raises:
        InvalidValue: no salts, a wrong length, or more than `abi.MAX_ITEMS`.
    """
    if not salts:
        raise InvalidValue("flush: no forwarder")
    return encode_two_arrays(FLUSH, salts, [address_word(token) for token in tokens])


def decode_flush(calldata: bytes) -> Flush:
    """Read what `flush_calldata` writes, and nothing else. Raises InvalidValue."""
    salts, tokens = decode_two_arrays(calldata, FLUSH)
    if not salts:
        raise InvalidValue("flush: no forwarder")
    return Flush(tuple(salts), tuple(word_address(token) for token in tokens))
