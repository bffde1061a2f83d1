"""The life of one of our transactions, all its versions together."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle


class TransactionState(StrEnum):
    """Where a transaction is."""

    BUILT = "built"
    """Unsigned bytes and signing request recorded; nothing may leave yet."""
    BROADCAST = "broadcast"
    """At least one version signed and recorded; sent again until one confirms."""
    CONTESTED = "contested"
    """A rescue takes what it uses, or a block has taken part of that: not sent any more, nor replaced, nor is anything
    reserved for it. But what was signed may still confirm, so only a final conflict is its end."""
    CONFIRMING = "confirming"
    """One version is in the best chain."""
    FINAL = "final"
    """That version is as deep as the network's `settle_blocks`."""
    REFUSED = "refused"
    """The signer refused version 1: nothing was ever signed."""
    DEAD = "dead"
    """A transaction that is no version of this one used one of its resources, and is final; or a version of this one is
    final, and its receipt says that it failed (EVM)."""


class TransactionEvent(StrEnum):
    """What can happen to a transaction."""

    SIGN = "sign"
    REFUSE = "refuse"
    CONTEST = "contest"
    MINE = "mine"
    UNDO = "undo"
    FINALISE = "finalise"
    DIE = "die"


S, E = TransactionState, TransactionEvent

TRANSACTION: Final[Lifecycle[TransactionState, TransactionEvent]] = Lifecycle(
    "transaction",
    {
        (S.BUILT, E.SIGN): S.BROADCAST,
        (S.BUILT, E.REFUSE): S.REFUSED,
        (S.BUILT, E.DIE): S.DEAD,
        (S.BUILT, E.MINE): S.CONFIRMING,
        (S.BROADCAST, E.SIGN): S.BROADCAST,
        (S.BROADCAST, E.MINE): S.CONFIRMING,
        (S.BROADCAST, E.DIE): S.DEAD,
        (S.BUILT, E.CONTEST): S.CONTESTED,
        (S.BROADCAST, E.CONTEST): S.CONTESTED,
        (S.CONTESTED, E.SIGN): S.CONTESTED,
        (S.CONTESTED, E.REFUSE): S.REFUSED,
        (S.CONTESTED, E.MINE): S.CONFIRMING,
        (S.CONTESTED, E.DIE): S.DEAD,
        (S.CONFIRMING, E.SIGN): S.CONFIRMING,
        (S.CONFIRMING, E.MINE): S.CONFIRMING,
        (S.CONFIRMING, E.UNDO): S.BROADCAST,
        (S.CONFIRMING, E.FINALISE): S.FINAL,
        (S.CONFIRMING, E.DIE): S.DEAD,
        (S.FINAL, E.UNDO): S.BROADCAST,
    },
)
