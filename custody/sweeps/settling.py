"""Which deposits have left the forwarder that they came to. Pure.

A flush takes all of an asset that a forwarder has. So what is there now came last, and what came before it is gone,
whoever flushed: anyone may, since the money can go to the treasury only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Arrived:
    """A deposit at a forwarder, in whatever state."""

    id: UUID
    units: int


def gone(deposits: Sequence[Arrived], balance_units: int) -> tuple[UUID, ...]:
    """Ids of the deposits of one asset that its forwarder has no longer, in the order given.

    Args:
        deposits: all that arrived, in the order of the chain, oldest first, except those known to be gone.
        balance_units: what the forwarder has, at a block that has all of them.
    """
    left = balance_units
    for place in range(len(deposits) - 1, -1, -1):
        left -= deposits[place].units
        if left < 0:
            return tuple(each.id for each in deposits[: place + 1])
    return ()
