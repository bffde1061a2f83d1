"""What our transactions do to the refills that they carry out, and to the ledger. See `custody.signing.effects`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from custody.ledger import bookings
from custody.ledger.model import Command
from custody.signing.effects import Ended
from custody.signing.model import ConsumptionFact, OurTransaction
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx
from custody.treasury import repository
from custody.treasury.lifecycle import RefillEvent, RefillState

REFUSED: Final = "refill.refused"
_LONGEST_SECONDS: Final = 3600
"""Between two tries of what a signer refuses again and again."""


class RefillEffects:
    """Money from one wallet of ours into another: nobody is richer or poorer, and every version moves the same."""

    def signed(self, tx: Tx, transaction: OurTransaction) -> None:
        """The first version is signed and recorded: it is being broadcast."""
        refill = repository.of_transaction(tx, transaction.id)
        if refill is not None and refill.state is RefillState.SIGNING:
            repository.apply(tx, refill, RefillEvent.SIGN)
            alerts.resolve_alert(tx, REFUSED, str(refill.id))

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """It may be built anew; ever later, for what is refused again."""
        refill = repository.of_transaction(tx, transaction.id)
        if refill is None:
            return
        times = repository.refusals(tx, refill.id)
        moved = repository.apply(tx, refill, RefillEvent.REFUSE, reason=reason)
        repository.attach(tx, refill.id, None)
        repository.wait(tx, refill.id, reason, seconds=min(_LONGEST_SECONDS, seconds * 2 ** min(times, 12)))
        message = f"the signer refuses to move money from {moved.source} to {moved.target}: {reason}"
        alerts.raise_alert(tx, Severity.WARNING, REFUSED, str(refill.id), message[:1000], {})

    def contested(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """It may confirm all the same; the history of its transaction says why it is not sent."""

    def waits(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """The history of its transaction says why."""

    def mined(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
        """Nothing follows before it is final."""

    def undone(self, tx: Tx, transaction: OurTransaction) -> None:
        """Nothing had followed."""

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """Confirmed: the other wallet has it."""
        refill = repository.of_transaction(tx, transaction.id)
        if refill is None:
            return ()
        n = transaction.finalisations + 1
        detail = {"txid": fact.txid, "height": fact.height, "booking": n}
        repository.apply(tx, refill, RefillEvent.FINALISE, detail=detail)
        return (
            bookings.book_refill(
                refill.id,
                n,
                asset=refill.asset,
                source=transaction.keyset,
                target=refill.target,
                units=refill.units,
            ),
        )

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """Broadcast again: the first wallet has it still."""
        refill = repository.of_transaction(tx, transaction.id)
        if refill is None or refill.state is not RefillState.CONFIRMED:
            return ()
        repository.apply(tx, refill, RefillEvent.UNDO, reason="reorg: what was final was undone")
        return (bookings.unbook_refill(refill.id, transaction.finalisations),)

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """Over. A signer that has signed for its intent signs for it no other transaction: what is still lacking is
        proposed anew."""
        refill = repository.of_transaction(tx, transaction.id)
        if refill is None:
            return Ended()
        repository.apply(tx, refill, RefillEvent.DIE, reason=f"dead: {reason}")
        alerts.resolve_alert(tx, REFUSED, str(refill.id))
        return Ended(
            note="Its refill is declined, and proposed anew if it is still needed",
            data={"refill": str(refill.id)},
        )
