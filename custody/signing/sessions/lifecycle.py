"""The life of a signing session (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class SessionState(StrEnum):
    """Where a session is."""

    OPEN = "open"
    """No member's signature is here yet."""
    COLLECTING = "collecting"
    """Some are, and fewer than it takes."""
    COMPLETE = "complete"
    """As many as it takes have signed: the signed bytes are recorded, or a block has them, past us."""
    EXPIRED = "expired"
    """Its time is over before there were enough. Members may still have signed: see `Session.may_confirm`."""
    REFUSED = "refused"
    """So many members said no, and have not signed, that it can never be complete."""


class SessionEvent(StrEnum):
    """What can happen to a session."""

    COLLECT = "collect"
    """A member's verified signatures were kept."""
    COMPLETE = "complete"
    EXPIRE = "expire"
    REFUSE = "refuse"
    REOPEN = "reopen"
    """Members are asked anew for the very same; what they have signed is still there."""


S, E = SessionState, SessionEvent

SIGNING: Final[Lifecycle[SessionState, SessionEvent]] = Lifecycle(
    "signing",
    {
        (S.OPEN, E.COLLECT): S.COLLECTING,
        (S.OPEN, E.COMPLETE): S.COMPLETE,
        (S.COLLECTING, E.COLLECT): S.COLLECTING,
        (S.COLLECTING, E.COMPLETE): S.COMPLETE,
        (S.OPEN, E.EXPIRE): S.EXPIRED,
        (S.COLLECTING, E.EXPIRE): S.EXPIRED,
        (S.OPEN, E.REFUSE): S.REFUSED,
        # What a holder signed in time may arrive late.
        (S.EXPIRED, E.COLLECT): S.EXPIRED,
        (S.EXPIRED, E.COMPLETE): S.COMPLETE,
        (S.EXPIRED, E.REOPEN): S.OPEN,
        # A block had what was signed past us, and a reorg took it back.
        (S.COMPLETE, E.REOPEN): S.OPEN,
    },
)
