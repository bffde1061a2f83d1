"""What our transactions do to the withdrawals that they pay, and to the ledger. See `custody.signing.effects`."""

from __future__ import annotations

from collections.abc import Sequence

from custody.ledger import bookings
from custody.ledger.model import Command
from custody.signing.effects import Ended
from custody.signing.model import ConsumptionFact, OurTransaction
from custody.storage.db import Tx
from custody.withdrawals import repository as withdrawals
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.service import release_command


class PaymentEffects:
    """Withdrawals, which move with the transaction that pays them."""

    def signed(self, tx: Tx, transaction: OurTransaction) -> None:
        """The first version is signed and recorded: its withdrawals are being broadcast."""
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            if withdrawal.state is WithdrawalState.SIGNING:
                withdrawals.apply(tx, withdrawal, WithdrawalEvent.SIGN)

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """The withdrawals are free to be built anew, after a while."""
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            moved = withdrawals.apply(tx, withdrawal, WithdrawalEvent.REFUSE, reason=reason)
            withdrawals.attach(tx, moved.id, None)
            withdrawals.wait(tx, moved.id, reason, seconds=seconds)

    def contested(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """The holds stay: it may be paid all the same."""
        self.waits(tx, transaction, reason)

    def waits(self, tx: Tx, transaction: OurTransaction, reason: str) -> None:
        """Each withdrawal says so."""
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            withdrawals.explain(tx, withdrawal.id, reason)

    def mined(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
        """Paid, unless the receipt says that it failed: then the holds stay until that is final."""
        detail = {"txid": fact.txid, "height": fact.height}
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            if fact.succeeded and withdrawal.state is WithdrawalState.BROADCAST:
                withdrawals.apply(tx, withdrawal, WithdrawalEvent.MINE, detail=detail)
            elif not fact.succeeded:
                reason = f"reverted: {fact.txid} is in block {fact.height} and paid nothing; unpaid once that is final"
                if withdrawal.state is WithdrawalState.CONFIRMING:
                    withdrawals.apply(tx, withdrawal, WithdrawalEvent.UNDO, reason=reason, detail=detail)
                else:
                    withdrawals.explain(tx, withdrawal.id, reason)

    def undone(self, tx: Tx, transaction: OurTransaction) -> None:
        """The confirmed version left the best chain before it was final."""
        reason = "reorg: its block was undone"
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            if withdrawal.state is WithdrawalState.CONFIRMING:
                withdrawals.apply(tx, withdrawal, WithdrawalEvent.UNDO, reason=reason)
            else:
                withdrawals.explain(tx, withdrawal.id, reason)

    def final(self, tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> Sequence[Command]:
        """Settle every withdrawal that it pays."""
        commands: list[Command] = []
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            n = withdrawals.count_settlement(tx, withdrawal.id)
            withdrawals.apply(
                tx, withdrawal, WithdrawalEvent.SETTLE, detail={"txid": fact.txid, "settlement": n}
            )
            commands.append(
                bookings.settle_withdrawal(
                    withdrawal.id,
                    n,
                    customer=withdrawal.customer,
                    asset=withdrawal.asset,
                    wallet=transaction.keyset,
                    units=withdrawal.units,
                    fee_units=withdrawal.fee_units,
                )
            )
        return commands

    def unfinal(self, tx: Tx, transaction: OurTransaction) -> Sequence[Command]:
        """Undo the settlements."""
        commands: list[Command] = []
        for withdrawal in withdrawals.of_transaction(tx, transaction.id):
            if withdrawal.state is WithdrawalState.SETTLED:
                withdrawals.apply(
                    tx, withdrawal, WithdrawalEvent.UNDO, reason="reorg: its settled payment was undone"
                )
                commands.append(bookings.unsettle_withdrawal(withdrawal.id, withdrawal.settlements))
        return commands

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """The withdrawals have failed; their holds are released."""
        failed = withdrawals.of_transaction(tx, transaction.id)
        for withdrawal in failed:
            withdrawals.apply(tx, withdrawal, WithdrawalEvent.DIE, reason=reason)
        return Ended(
            tuple(release_command(withdrawal) for withdrawal in failed),
            f"its {len(failed)} withdrawals failed and their holds were released"
            if len(failed) != 1
            else "its withdrawal failed and its hold was released",
            {"withdrawals": [str(withdrawal.id) for withdrawal in failed]},
        )
