"""The life of a sweep (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class SweepState(StrEnum):
    """Where a sweep is."""

    PLANNED = "planned"
    """Chosen; its transaction is not recorded yet. Exists only inside the database transaction that records both."""
    SIGNING = "signing"
    """Its unsigned transaction is recorded: from here on only a conflicting version may do the same."""
    BROADCAST = "broadcast"
    """Signed bytes are recorded and handed to the node until they are final."""
    CONFIRMED = "confirmed"
    """Final in the best chain, and it did not fail."""
    ABANDONED = "abandoned"
    """Refused and never signed, or provably dead: what it was to empty may be planned again."""


class SweepEvent(StrEnum):
    """What can happen to a sweep."""

    RECORD = "record"
    """The unsigned transaction is recorded."""
    SIGN = "sign"
    """The first version is signed."""
    REFUSE = "refuse"
    """The signer refused and never signed."""
    FINALISE = "finalise"
    """A version is final, and succeeded."""
    UNDO = "undo"
    """A reorg took away what was final: the same bytes are broadcast again."""
    DIE = "die"
    """No version can do anything any more."""


S, E = SweepState, SweepEvent

SWEEP: Final[Lifecycle[SweepState, SweepEvent]] = Lifecycle(
    "sweep",
    {
        (S.PLANNED, E.RECORD): S.SIGNING,
        (S.SIGNING, E.SIGN): S.BROADCAST,
        (S.SIGNING, E.REFUSE): S.ABANDONED,
        # The signer may have signed even if its answer never came: only a final conflict ends it here too.
        (S.SIGNING, E.DIE): S.ABANDONED,
        (S.BROADCAST, E.FINALISE): S.CONFIRMED,
        (S.BROADCAST, E.DIE): S.ABANDONED,
        (S.CONFIRMED, E.UNDO): S.BROADCAST,
    },
)
