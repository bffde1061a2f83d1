"""EVM addresses: 20 bytes, written with the mixed-case checksum of EIP-55. Pure."""

from __future__ import annotations

import re
from typing import Final

from Crypto.Hash import keccak

from chains.errors import InvalidAddress
from chains.types import Address

ADDRESS_BYTES: Final = 20
_TEXT: Final = re.compile(r"0x[0-9a-fA-F]{40}")


def keccak256(data: bytes) -> bytes:
    """Keccak-256 (32 bytes) as Ethereum uses it, with the padding from before FIPS 202."""
    return keccak.new(digest_bits=256, data=data).digest()


def checksummed(address: bytes) -> str:
    """The canonical text of 20 bytes (EIP-55).

    Raises:
        InvalidAddress: not 20 bytes.
    """
    if len(address) != ADDRESS_BYTES:
        raise InvalidAddress(f"an EVM address has {ADDRESS_BYTES} bytes, not {len(address)}")
    digits = address.hex()
    hashed = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit
        for digit, nibble in zip(digits, hashed, strict=False)
    )


def is_checksummed(text: str) -> bool:
    """Whether a text is an address in its canonical form."""
    return _TEXT.fullmatch(text) is not None and checksummed(bytes.fromhex(text[2:])) == text


def parse_address(text: str, chain: str) -> Address:
    """Read an address: with its checksum, or all in lower case as many programs print it.

    Raises:
        InvalidAddress: not 0x and 40 hex digits, or its upper and lower case are not the checksum.
    """
    if _TEXT.fullmatch(text) is None:
        raise InvalidAddress(f"address {str(text)[:80]!r}: expected 0x and 40 hex digits")
    raw = bytes.fromhex(text[2:])
    canonical = checksummed(raw)
    if text not in (canonical, canonical.lower()):
        raise InvalidAddress(f"address {text}: wrong checksum: a digit, or its upper or lower case, is wrong")
    return Address(chain, canonical, raw, "evm")


def raw_address(text: str) -> bytes:
    """The 20 bytes of an address in its canonical form, as our own documents have it.

    Raises:
        InvalidAddress: anything else, the same address in lower case too.
    """
    if not is_checksummed(text):
        raise InvalidAddress(f"address {str(text)[:80]!r}: expected 0x and 40 hex digits with their checksum")
    return bytes.fromhex(text[2:])
