"""What becomes of a wish to move money while refills of the same way are open. Pure.

Each refill costs people an approval and the wallet a fee, so what people have still to answer grows into one larger
question rather than into several. It grows by half at least each time, or nobody would ever have time to answer. What
is approved stays as it is; beside that, and beside what is being sent, comes only what somebody waits for, or what is
larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from custody.treasury.lifecycle import RefillState
from custody.treasury.model import ASKED, Refill
from custody.treasury.planner import Proposal, Why

OPEN_AT_MOST: Final = 5
"""Of one way: then the next waits until one of them is over."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What is asked for."""

    proposal: Proposal
    instead: Refill | None
    """Called off for it, and part of it."""


def join(under_way: Sequence[Refill], wanted: Proposal) -> Joined | None:
    """What to propose; None: it waits for what is open.

    Args:
        under_way: open refills of the same way: source, target and asset.
        wanted: beyond what they bring.
    """
    asked = next((each for each in under_way if _may_grow(each)), None)
    if asked is not None:
        if 2 * wanted.units < asked.units:
            return None
        return Joined(replace(wanted, units=wanted.units + asked.units), asked)
    if len(under_way) >= OPEN_AT_MOST:
        return None
    largest = max((each.units for each in under_way), default=0)
    return Joined(wanted, None) if wanted.why is Why.NEED or wanted.units > largest else None


def _may_grow(refill: Refill) -> bool:
    """Whether it is the treasury's own, and nobody has let it through yet."""
    return refill.state is RefillState.PROPOSED and refill.why != ASKED
