"""The life of a refill (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class RefillState(StrEnum):
    """Where a refill is."""

    PROPOSED = "proposed"
    """Decided by the policy; people are asked about it."""
    APPROVED = "approved"
    """May be built: nobody is asked, or enough people have approved it."""
    SIGNING = "signing"
    """Its unsigned transaction is recorded: from here on only a conflicting version may do the same."""
    BROADCAST = "broadcast"
    """Signed bytes are recorded and handed to the node until they are final."""
    CONFIRMED = "confirmed"
    """Final in the best chain, and it did not fail: the books follow."""
    DECLINED = "declined"
    """Rejected, called off, or provably dead. What is still lacking is proposed anew."""


class RefillEvent(StrEnum):
    """What can happen to a refill."""

    APPROVE = "approve"
    LAPSE = "lapse"
    """Its approvals have expired before it was built: people are asked again."""
    DECLINE = "decline"
    RECORD = "record"
    """The unsigned transaction is recorded."""
    REFUSE = "refuse"
    """The signer refused and never signed: it is built anew, after a while."""
    SIGN = "sign"
    """The first version is signed."""
    FINALISE = "finalise"
    """A version is final, and succeeded."""
    UNDO = "undo"
    """A reorg took away what was final: the same bytes are broadcast again."""
    DIE = "die"
    """No version can do anything any more."""


S, E = RefillState, RefillEvent

OPEN: Final = (S.PROPOSED, S.APPROVED, S.SIGNING, S.BROADCAST)
"""States in which its money is as good as moved."""

REFILL: Final[Lifecycle[RefillState, RefillEvent]] = Lifecycle(
    "refill",
    {
        (S.PROPOSED, E.APPROVE): S.APPROVED,
        (S.PROPOSED, E.DECLINE): S.DECLINED,
        (S.APPROVED, E.LAPSE): S.PROPOSED,
        (S.APPROVED, E.DECLINE): S.DECLINED,
        (S.APPROVED, E.RECORD): S.SIGNING,
        (S.SIGNING, E.REFUSE): S.APPROVED,
        (S.SIGNING, E.SIGN): S.BROADCAST,
        # The signer may have signed even if its answer never came: only a final conflict ends it here too.
        (S.SIGNING, E.DIE): S.DECLINED,
        (S.BROADCAST, E.FINALISE): S.CONFIRMED,
        (S.BROADCAST, E.DIE): S.DECLINED,
        (S.CONFIRMED, E.UNDO): S.BROADCAST,
    },
)
