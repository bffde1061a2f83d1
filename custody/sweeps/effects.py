"""What our transactions do to the sweeps that they carry out. See `custody.signing.effects`.

Sweeps move money within one wallet: the ledger knows nothing of them but their network fee, which every transaction
books in the same way. Rotations move it into another wallet of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from custody.deposits.lifecycle import DepositEvent
from custody.ledger import bookings
from custody.ledger.model import Command
from custody.signing.effects import Ended
from custody.signing.model import ConsumptionFact, OurTransaction
from custody.storage.db import Tx
from custody.sweeps import repository
from custody.sweeps.lifecycle import SweepEvent, SweepState
from policies.intent import Kind


class SweepEffects:
    """Forwarders flushed into the treasury, and coins gathered into one.

    The coins of a consolidation are its inputs: once it is final they are spent, and their deposits swept, like those
    of a payment. A flush says nothing of what it moved: its items stay open until a worker has asked the node what is
    left of them (`custody.sweeps.evm`).
    """

    def signed(self, tx: Tx, transaction: OurTransaction) -> None:
        """The first version is signed and recorded: it is being broadcast."""
        found = repository.state_of(tx, transaction.id)
        if found is not None and found[1] is SweepState.SIGNING:
            repository.apply(tx, *found, SweepEvent.SIGN)

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """Never signed, so over: what it was to empty is planned again, in halves and ever later (`planner`)."""
        self._abandon(tx, transaction, SweepEvent.REFUSE, reason)

    def contested(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """Others may empty what it was to empty."""
        found = repository.state_of(tx, transaction.id)
        if found is not None:
            repository.close_items(tx, found[0])

    def waits(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """The history of its transaction says why."""

    def mined(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
        """Nothing follows before it is final."""

    def undone(self, tx: Tx, transaction: OurTransaction) -> None:
        """Nothing had followed."""

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """Confirmed."""
        found = repository.state_of(tx, transaction.id)
        if found is not None:
            detail = {"txid": fact.txid, "height": fact.height}
            repository.apply(tx, *found, SweepEvent.FINALISE, detail=detail)
            if transaction.kind != Kind.SWEEP:
                repository.close_items(tx, found[0])
        return ()

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """Broadcast again; deposits that it may have taken are no longer marked as swept."""
        found = repository.state_of(tx, transaction.id)
        if found is not None:
            detail = {"txid": transaction.confirmed_txid, "height": transaction.height}
            repository.apply(tx, *found, SweepEvent.UNDO, detail=detail)
            if transaction.kind == Kind.SWEEP and transaction.height is not None:
                # Another flush may have taken one of them before. Then the node still has nothing of it, and the next
                # look marks it again.
                deposits = repository.swept_by(tx, found[0], transaction.height)
                repository.move_deposits(tx, deposits, DepositEvent.UNSWEEP, {"sweep": str(found[0])})
            repository.reopen_items(tx, found[0])
        return ()

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """Over: what it was to empty may be planned again."""
        sweep_id = self._abandon(tx, transaction, SweepEvent.DIE, reason)
        return Ended(note=f"The {transaction.kind} is abandoned and planned anew", data={"sweep": sweep_id})

    def _abandon(self, tx: Tx, transaction: OurTransaction, event: SweepEvent, reason: str) -> str | None:
        found = repository.state_of(tx, transaction.id)
        if found is None:
            return None
        repository.apply(tx, *found, event, reason=reason[:500])
        repository.close_items(tx, found[0])
        return str(found[0])


class RotationEffects(SweepEffects):
    """What a key-set that is no longer active held, moved to the one that follows it."""

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """Confirmed: the other wallet has it."""
        super().final(tx, transaction, fact)
        moved = repository.rotated(tx, transaction.id, fact.content)
        return (
            bookings.book_rotation(
                transaction.id,
                transaction.finalisations + 1,
                asset=moved.asset,
                source=transaction.keyset,
                target=moved.target,
                units=moved.units,
            ),
        )

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """Broadcast again: the first wallet has it still."""
        super().unfinal(tx, transaction)
        return (bookings.unbook_rotation(transaction.id, transaction.finalisations),)
