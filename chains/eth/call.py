"""A call that is asked about before it is signed: how much gas it would take, or why it would fail. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from chains.errors import InvalidValue
from chains.eth.address import ADDRESS_BYTES


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an address by another.

    Raises:
        InvalidValue: an address that isn't 20 bytes, or a negative value.
    """

    sender: bytes
    """20 bytes."""
    to: bytes
    """20 bytes."""
    value_wei: int
    data: bytes = b""

    def __post_init__(self) -> None:
        if len(self.sender) != ADDRESS_BYTES or len(self.to) != ADDRESS_BYTES:
            raise InvalidValue(f"call: expected addresses of {ADDRESS_BYTES} bytes")
        if type(self.value_wei) is not int or self.value_wei < 0:
            raise InvalidValue(f"call: expected a value from 0, not {self.value_wei!r}")


@dataclass(frozen=True, slots=True)
class Reverted:
    """A call that would fail, by the node's word."""

    reason: str
    """What the contract or the node says; may be empty."""
