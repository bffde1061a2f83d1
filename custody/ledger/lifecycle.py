"""The life of a hold: a customer's money, moved from available to frozen until posted or voided."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class HoldState(StrEnum):
    """Where a hold is."""

    PENDING = "pending"
    """The money is in the customer's frozen account."""
    POSTED = "posted"
    """It left the frozen account for good (as far as the post said); the rest went back."""
    VOIDED = "voided"
    """All of it went back to the available account."""


class HoldEvent(StrEnum):
    """What can happen to a hold."""

    POST = "post"
    VOID = "void"
    """Released: cancelled, failed, or its time is over."""
    REVERSE = "reverse"
    """Its post was undone (a settled payment left the best chain): the money is frozen again."""


S, E = HoldState, HoldEvent

HOLD: Final[Lifecycle[HoldState, HoldEvent]] = Lifecycle(
    "hold",
    {
        (S.PENDING, E.POST): S.POSTED,
        (S.PENDING, E.VOID): S.VOIDED,
        (S.POSTED, E.REVERSE): S.PENDING,
    },
)
