"""The life of a withdrawal (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class WithdrawalState(StrEnum):
    """Where a withdrawal is. Its hold exists from REQUESTED until SETTLED or one of the ends."""

    REQUESTED = "requested"
    SCREENING = "screening"
    AWAITING_APPROVAL = "awaiting_approval"
    COOLING = "cooling"
    """Approved; its delay runs and the customer may still cancel."""
    QUEUED = "queued"
    """May be paid; `reason` says what it waits for."""
    BUILDING = "building"
    """A worker has claimed it for a transaction that is not recorded yet."""
    SIGNING = "signing"
    """Its unsigned transaction is recorded: from here on only a conflicting version may pay it."""
    BROADCAST = "broadcast"
    """Signed bytes are recorded and handed to the node until they confirm."""
    CONFIRMING = "confirming"
    SETTLED = "settled"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    """Provably dead: a conflicting transaction is final. The hold was released."""


class WithdrawalEvent(StrEnum):
    """What can happen to a withdrawal."""

    SCREEN = "screen"
    REJECT = "reject"
    ROUTE_TO_APPROVAL = "route_to_approval"
    ROUTE_TO_COOLING = "route_to_cooling"
    ROUTE_TO_QUEUE = "route_to_queue"
    APPROVE = "approve"
    """Enough people have approved it."""
    LAPSE = "lapse"
    """Their approvals have expired before it was signed: people are asked again."""
    RECONSIDER = "reconsider"
    """Another bundle is in force than the one under which it was let through: it is decided again."""
    COOLED = "cooled"
    CANCEL = "cancel"
    EXPIRE = "expire"
    WAIT = "wait"
    """Cannot be paid now (no funds in its tier, a cap, fees): stays queued with the reason."""
    SETTLE_INTERNALLY = "settle_internally"
    """The destination is one of our own addresses: settled in the ledger."""
    CLAIM = "claim"
    UNCLAIM = "unclaim"
    """The claiming worker gave up, or died, before a transaction was recorded."""
    RECORD = "record"
    """The unsigned transaction that pays it is recorded."""
    REFUSE = "refuse"
    """The signer refused and never signed: free to be built anew."""
    SIGN = "sign"
    MINE = "mine"
    UNDO = "undo"
    """The block left the best chain: the same bytes are broadcast again."""
    SETTLE = "settle"
    DIE = "die"


S, E = WithdrawalState, WithdrawalEvent

_BEFORE_QUEUE = (S.REQUESTED, S.SCREENING, S.AWAITING_APPROVAL, S.COOLING)

WITHDRAWAL: Final[Lifecycle[WithdrawalState, WithdrawalEvent]] = Lifecycle(
    "withdrawal",
    {
        (S.REQUESTED, E.SCREEN): S.SCREENING,
        (S.SCREENING, E.REJECT): S.REJECTED,
        (S.SCREENING, E.ROUTE_TO_APPROVAL): S.AWAITING_APPROVAL,
        (S.SCREENING, E.ROUTE_TO_COOLING): S.COOLING,
        (S.SCREENING, E.ROUTE_TO_QUEUE): S.QUEUED,
        (S.AWAITING_APPROVAL, E.APPROVE): S.COOLING,
        (S.AWAITING_APPROVAL, E.REJECT): S.REJECTED,
        (S.COOLING, E.REJECT): S.REJECTED,
        (S.COOLING, E.COOLED): S.QUEUED,
        (S.COOLING, E.LAPSE): S.AWAITING_APPROVAL,
        (S.QUEUED, E.LAPSE): S.AWAITING_APPROVAL,
        **{(state, E.RECONSIDER): S.SCREENING for state in (S.AWAITING_APPROVAL, S.COOLING, S.QUEUED)},
        **{(state, E.CANCEL): S.CANCELLED for state in (*_BEFORE_QUEUE, S.QUEUED)},
        **{(state, E.EXPIRE): S.EXPIRED for state in (*_BEFORE_QUEUE, S.QUEUED)},
        (S.QUEUED, E.WAIT): S.QUEUED,
        (S.QUEUED, E.REJECT): S.REJECTED,
        (S.QUEUED, E.SETTLE_INTERNALLY): S.SETTLED,
        (S.QUEUED, E.CLAIM): S.BUILDING,
        (S.BUILDING, E.UNCLAIM): S.QUEUED,
        (S.BUILDING, E.RECORD): S.SIGNING,
        (S.SIGNING, E.REFUSE): S.QUEUED,
        (S.SIGNING, E.SIGN): S.BROADCAST,
        (S.BROADCAST, E.MINE): S.CONFIRMING,
        (S.CONFIRMING, E.UNDO): S.BROADCAST,
        (S.CONFIRMING, E.SETTLE): S.SETTLED,
        (S.SETTLED, E.UNDO): S.BROADCAST,
        # The signer may have signed even if its answer never came: only a final conflict ends it here too.
        (S.SIGNING, E.DIE): S.FAILED,
        (S.BROADCAST, E.DIE): S.FAILED,
        (S.CONFIRMING, E.DIE): S.FAILED,
    },
)
