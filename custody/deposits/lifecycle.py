"""The life of a deposit (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class DepositState(StrEnum):
    """Where a deposit is."""

    SEEN = "seen"
    """In the mempool of our node; in no block. Nothing is promised."""
    CONFIRMING = "confirming"
    """In the best chain, not yet deep enough."""
    CREDITED = "credited"
    """In the customer's balance; spendable input of the hot wallet."""
    HELD = "held"
    """Deep enough, stopped by screening; not in the balance, not spendable."""
    QUARANTINED = "quarantined"
    """Held for good by an operator's decision."""
    BELOW_MINIMUM = "below_minimum"
    """Deep enough, but smaller than the asset's minimum: not credited."""
    SWEPT = "swept"
    """Credited, and moved on by a final transaction of ours: its coin was spent, or its forwarder flushed."""
    ORPHANED = "orphaned"
    """Neither in the best chain nor in our mempool: replaced, double-spent or forgotten."""
    CLAWED_BACK = "clawed_back"
    """Was credited; a reorg took it away and the credit was reversed."""


class DepositEvent(StrEnum):
    """What can happen to a deposit."""

    SIGHTED = "sighted"
    """Found in the mempool (again)."""
    MINED = "mined"
    """Found in a block of the best chain."""
    UNDONE = "undone"
    """Its block left the best chain and it is not deep enough in the new one."""
    VANISHED = "vanished"
    """No longer in the mempool and in no block."""
    CREDIT = "credit"
    """Deep enough, of sufficient size, screening clear."""
    TOO_SMALL = "too_small"
    """Deep enough, below the minimum."""
    HOLD = "hold"
    """Deep enough, screening says no or does not answer."""
    RELEASE = "release"
    """An operator released a held deposit: it is credited."""
    QUARANTINE = "quarantine"
    """An operator keeps a held deposit out for good."""
    SWEEP = "sweep"
    """A final transaction of ours spent its coin, or flushed its forwarder."""
    UNSWEEP = "unsweep"
    """That transaction is no longer final."""


S, E = DepositState, DepositEvent

DEPOSIT: Final[Lifecycle[DepositState, DepositEvent]] = Lifecycle(
    "deposit",
    {
        (S.SEEN, E.SIGHTED): S.SEEN,
        (S.SEEN, E.MINED): S.CONFIRMING,
        (S.SEEN, E.VANISHED): S.ORPHANED,
        (S.ORPHANED, E.SIGHTED): S.SEEN,
        (S.ORPHANED, E.MINED): S.CONFIRMING,
        (S.CONFIRMING, E.MINED): S.CONFIRMING,
        (S.CONFIRMING, E.UNDONE): S.SEEN,
        (S.CONFIRMING, E.CREDIT): S.CREDITED,
        (S.CONFIRMING, E.TOO_SMALL): S.BELOW_MINIMUM,
        (S.CONFIRMING, E.HOLD): S.HELD,
        (S.HELD, E.MINED): S.HELD,
        (S.HELD, E.RELEASE): S.CREDITED,
        (S.HELD, E.QUARANTINE): S.QUARANTINED,
        (S.HELD, E.UNDONE): S.SEEN,
        (S.QUARANTINED, E.MINED): S.QUARANTINED,
        (S.QUARANTINED, E.UNDONE): S.SEEN,
        (S.BELOW_MINIMUM, E.MINED): S.BELOW_MINIMUM,
        (S.BELOW_MINIMUM, E.UNDONE): S.SEEN,
        (S.CREDITED, E.MINED): S.CREDITED,
        (S.CREDITED, E.SWEEP): S.SWEPT,
        (S.CREDITED, E.UNDONE): S.CLAWED_BACK,
        (S.SWEPT, E.MINED): S.SWEPT,
        (S.SWEPT, E.UNSWEEP): S.CREDITED,
        (S.SWEPT, E.UNDONE): S.CLAWED_BACK,
        (S.CLAWED_BACK, E.SIGHTED): S.CLAWED_BACK,
        (S.CLAWED_BACK, E.MINED): S.CONFIRMING,
    },
)
"""`(CREDITED, MINED)` and its like: found in another block of equal merit, nothing changes but the block."""
