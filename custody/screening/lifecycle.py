"""The life of a case: it ends by a person's decision only."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class CaseState(StrEnum):
    """Where a case is."""

    OPEN = "open"
    """What it is about waits."""
    RELEASED = "released"
    """A person found nothing wrong: what was found no longer stops it."""
    REFUSED = "refused"
    """A person said no: the withdrawal is rejected, the deposit quarantined."""


class CaseEvent(StrEnum):
    """What can happen to a case."""

    RELEASE = "release"
    REFUSE = "refuse"


CASE: Final[Lifecycle[CaseState, CaseEvent]] = Lifecycle(
    "case",
    {
        (CaseState.OPEN, CaseEvent.RELEASE): CaseState.RELEASED,
        (CaseState.OPEN, CaseEvent.REFUSE): CaseState.REFUSED,
    },
)
