"""Ports that several slices share: the clock, and the bell that wakes workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

Clock = Callable[[], int]
"""The present, in whole UNIX seconds."""


def system_clock() -> int:
    """This machine's clock, whole UNIX seconds."""
    return int(time.time())


class Step(StrEnum):
    """A step of the workers. Each finds all its work in the database, so ringing for it is never needed
    twice."""

    ROUTE = "route"
    EXPIRE = "expire"
    SETTLE_INTERNAL = "settle_internal"
    ANNOUNCE = "announce"
    """Signers are shown what they have to know for a while before they pay."""
    BUILD = "build"
    SIGN = "sign"
    BROADCAST = "broadcast"
    TRACK = "track"
    BUMP = "bump"
    BOOK_LOSSES = "book_losses"
    SWEEP = "sweep"
    TREASURY = "treasury"
    """Money that should be in another tier is proposed, and what is approved is built."""
    RECONCILE = "reconcile"
    WATCH_SIGNERS = "watch_signers"
    SEAL = "seal"
    """Where the ledger's chains end is signed, so that its past stays as it is."""
    TELL_OTHERS = "tell_others"
    """Travel-rule data goes to the services whose customers are paid."""


class Wake(Protocol):
    """The bell: tells workers that there is something to do. Best effort; without it the next beat finds
    it."""

    def __call__(self, step: Step) -> None:
        """Ring for `step` and return soon. Never raises."""


def wake_nobody(step: Step) -> None:
    """A bell that nobody hears."""
