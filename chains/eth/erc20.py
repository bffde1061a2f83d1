"""ERC-20 as far as we use it: one call that pays, calls that ask, and the event. Pure (EIP-20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chains.eth.abi import (
    address_word,
    selector,
    topic,
    uint_word,
    word_address,
    word_uint,
    words,
)

TRANSFER: Final = selector("transfer(address,uint256)")
BALANCE_OF: Final = selector("balanceOf(address)")
DECIMALS: Final = selector("decimals()")

TRANSFER_TOPIC: Final = topic("Transfer(address,address,uint256)")
"""First topic of the event; sender and recipient are the second and third, the amount is its data."""


@dataclass(frozen=True, slots=True)
class TokenTransfer:
    """What `transfer` was called with."""

    to: bytes
    """Recipient, 20 bytes."""
    units: int


def transfer_calldata(to: bytes, units: int) -> bytes:
    """Calldata (68 bytes) that sends the caller's tokens. Raises InvalidValue: not 20 bytes, or not a uint256."""
    return TRANSFER + address_word(to) + uint_word(units)


def decode_transfer(calldata: bytes) -> TokenTransfer:
    """Read what `transfer_calldata` writes, and nothing else. Raises InvalidValue."""
    to, units = words(calldata, TRANSFER, 2)
    return TokenTransfer(word_address(to), word_uint(units))


def balance_of_calldata(holder: bytes) -> bytes:
    """Calldata (36 bytes) that asks for the balance of an address. Raises InvalidValue: not 20 bytes."""
    return BALANCE_OF + address_word(holder)
