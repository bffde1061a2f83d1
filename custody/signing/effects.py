"""What one of our transactions means for that which it serves: withdrawals, sweeps, or nothing beside itself.

A transaction's own life is the same for every kind: `sign`, `broadcast` and `track` move it, book what it paid for
being mined, and keep or free its reservations. Everything else is behind this Protocol, with one implementation for
each kind of intent (`custody.signing.kinds` knows them all).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from custody.ledger.model import Command
from custody.signing.model import ConsumptionFact, OurTransaction
from custody.storage.db import Tx


@dataclass(frozen=True, slots=True)
class Ended:
    """What the death of a transaction ended."""

    commands: tuple[Command, ...] = ()
    """What the ledger has to do, e.g. give holds back."""
    note: str = ""
    """A sentence for the alert."""
    data: Mapping[str, object] = field(default_factory=dict)
    """The ids of what ended, for the alert."""


class Effects(Protocol):
    """Each method runs in its caller's database transaction, which has locked the transaction's row.

    `transaction` is as it was before the event. Ledger commands that are returned are posted by the caller together
    with its own. Any exception rolls all of it back.
    """

    def signed(self, tx: Tx, transaction: OurTransaction) -> None:
        """A version is signed and recorded; also called for each further version."""

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """The signer refused version 1 and has never signed: free what it serves, to be tried again after `seconds`."""

    def contested(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """What it uses is taken by a rescue, or by others: it is not sent any more, and may confirm all the same."""

    def waits(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """It cannot go on by itself, and may confirm all the same: say why to those who wait for it."""

    def mined(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
        """A version is in the best chain, or in another block of it now. `fact.succeeded` says whether it did anything;
        one that failed (EVM) moved nothing but its fee, and is dead once it is final."""

    def undone(self, tx: Tx, transaction: OurTransaction) -> None:
        """The version left the best chain before it was final."""

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """The version is final, and succeeded."""

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """A reorg took away what was final (`transaction` says where it was): undo exactly what `final` did."""

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """No version can do anything any more."""


class NoEffects:
    """A transaction that serves nothing beside itself: what fills a gap between nonces."""

    def signed(self, tx: Tx, transaction: OurTransaction) -> None:
        """Nothing follows."""

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """Nothing follows."""

    def contested(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """Nothing follows."""

    def waits(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """Nobody does."""

    def mined(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
        """Nothing follows."""

    def undone(self, tx: Tx, transaction: OurTransaction) -> None:
        """Nothing follows."""

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """Nothing follows."""
        return ()

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """Nothing follows."""
        return ()

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """Nothing follows."""
        return Ended()
