"""The treasury of a forwarders' factory: the three calls by which its admin changes it, and what it says. Pure.

Whom the forwarders pay changes in two steps, 48 hours apart: another treasury is proposed, and accepted later, or the
proposal is taken back. Each call has one form only. The admin can also hand over its office: for that there is no call
here, so nobody of ours makes or signs one.

Source: `chains/eth/contracts/ForwarderFactory.sol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

from chains.errors import InvalidValue
from chains.eth.abi import (
    WORD_BYTES,
    address_word,
    selector,
    word_address,
    word_uint,
    words,
)
from chains.eth.address import ADDRESS_BYTES

Step = Literal["propose", "accept", "cancel"]
"""Of a change of the treasury."""

DELAY_SECONDS: Final = 48 * 3600
"""From the proposal until it can be accepted."""
WINDOW_SECONDS: Final = 14 * 24 * 3600
"""After that, until it can't be any more."""

PROPOSE: Final = selector("proposeTreasury(address)")
ACCEPT: Final = selector("acceptTreasury()")
CANCEL: Final = selector("cancelTreasury()")
TREASURY: Final = selector("treasury()")
ADMIN: Final = selector("admin()")
PROPOSED_TREASURY: Final = selector("proposedTreasury()")
PROPOSED_ADMIN: Final = selector("proposedAdmin()")

_NOBODY: Final = bytes(ADDRESS_BYTES)
_WITHOUT_ARGUMENTS: Final[dict[bytes, Step]] = {ACCEPT: "accept", CANCEL: "cancel"}


@dataclass(frozen=True, slots=True)
class TreasuryCall:
    """One of the three calls.

    Raises:
        InvalidValue: a proposal of nobody, or another step that names somebody.
    """

    step: Step
    treasury: bytes | None = None
    """Whom a proposal names, 20 bytes; None of the other steps: their bytes don't say whom they are about."""

    def __post_init__(self) -> None:
        if (self.step == "propose") != (self.treasury is not None):
            raise InvalidValue(f"{self.step}: a proposal, and nothing else, names a treasury")
        if self.treasury is not None and (len(self.treasury) != ADDRESS_BYTES or self.treasury == _NOBODY):
            raise InvalidValue("a treasury has an address of 20 bytes, not all of them zero")

    def encode(self) -> bytes:
        """Calldata for the factory."""
        if self.treasury is not None:
            return PROPOSE + address_word(self.treasury)
        return ACCEPT if self.step == "accept" else CANCEL

    @classmethod
    def decode(cls, calldata: bytes) -> Self:
        """Read what `encode` writes, and nothing else. Raises InvalidValue."""
        step = _WITHOUT_ARGUMENTS.get(calldata)
        if step is not None:
            return cls(step)
        [candidate] = words(calldata, PROPOSE, 1)
        return cls("propose", word_address(candidate))


@dataclass(frozen=True, slots=True)
class Proposal:
    """What may come."""

    candidate: bytes
    """20 bytes."""
    not_before: int
    """UNIX seconds of the chain; from then on it can be accepted."""

    @property
    def not_after(self) -> int:
        """UNIX seconds of the chain; later it can't be accepted any more."""
        return self.not_before + WINDOW_SECONDS


@dataclass(frozen=True, slots=True)
class FactoryState:
    """What a factory says of itself."""

    treasury: bytes
    """Whom its forwarders pay, 20 bytes."""
    admin: bytes
    """Who may change that, 20 bytes."""
    proposed_treasury: Proposal | None
    proposed_admin: Proposal | None


def read_address(answer: bytes) -> bytes:
    """The 20 bytes that a view returned. Raises InvalidValue: something else."""
    if len(answer) != WORD_BYTES:
        raise InvalidValue(f"an answer of {len(answer)} bytes: expected an address in {WORD_BYTES}")
    return word_address(answer)


def read_proposal(answer: bytes) -> Proposal | None:
    """What `proposedTreasury()` or `proposedAdmin()` returned; None: nobody is proposed. Raises InvalidValue."""
    if len(answer) != 2 * WORD_BYTES:
        raise InvalidValue(f"an answer of {len(answer)} bytes: expected a proposal in {2 * WORD_BYTES}")
    candidate, not_before = word_address(answer[:WORD_BYTES]), word_uint(answer[WORD_BYTES:])
    return None if candidate == _NOBODY else Proposal(candidate, not_before)
