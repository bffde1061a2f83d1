"""What our transactions do to the withdrawals they serve, and to the ledger. Each runs in its caller's
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.deposits.lifecycle import DEPOSIT, DepositEvent
from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.ledger.model import Command
from custody.signing import repository
from custody.signing.btc import footprint
from custody.signing.model import OurTransaction
from custody.storage.db import Tx
from custody.withdrawals import repository as withdrawals
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.service import release_command


def signed(tx: Tx, transaction_id: UUID) -> None:
    """The first version is signed and recorded: its withdrawals are being broadcast."""
    for withdrawal in withdrawals.of_transaction(tx, transaction_id):
        if withdrawal.state is WithdrawalState.SIGNING:
            withdrawals.apply(tx, withdrawal, WithdrawalEvent.SIGN)


def refused(tx: Tx, transaction_id: UUID, reason: str, *, seconds: int) -> None:
    """The signer refused and has never signed: the withdrawals are free to be built anew, after a while."""
    for withdrawal in withdrawals.of_transaction(tx, transaction_id):
        moved = withdrawals.apply(tx, withdrawal, WithdrawalEvent.REFUSE, reason=reason)
        withdrawals.attach(tx, moved.id, None)
        withdrawals.set_delay(tx, moved.id, seconds)
    repository.release_reservations(tx, transaction_id)


def mined(tx: Tx, transaction_id: UUID, txid: str, height: int) -> None:
    """A version is in the best chain."""
    for withdrawal in withdrawals.of_transaction(tx, transaction_id):
        if withdrawal.state is WithdrawalState.BROADCAST:
            withdrawals.apply(tx, withdrawal, WithdrawalEvent.MINE, detail={"txid": txid, "height": height})


def undone(tx: Tx, transaction_id: UUID) -> None:
    """The confirmed version left the best chain before it was final."""
    for withdrawal in withdrawals.of_transaction(tx, transaction_id):
        if withdrawal.state is WithdrawalState.CONFIRMING:
            withdrawals.apply(tx, withdrawal, WithdrawalEvent.UNDO, reason="reorg: its block was undone")


def settle(tx: Tx, transaction: OurTransaction, asset: str, txid: str, resources: Sequence[str]) -> None:
    """The version `txid` is final: settle what it pays, book its own fee, mark the deposits it spent.

    Args:
        resources: what that version has used; everything else reserved becomes free.
    """
    commands: list[Command] = []
    for withdrawal in withdrawals.of_transaction(tx, transaction.id):
        n = withdrawals.count_settlement(tx, withdrawal.id)
        withdrawals.apply(tx, withdrawal, WithdrawalEvent.SETTLE, detail={"txid": txid, "settlement": n})
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
    fee_units = fee_of(transaction, txid)
    n = repository.count_finalisation(tx, transaction.id)
    if fee_units:
        commands.append(
            bookings.book_network_fee(
                transaction.id, n, asset=asset, wallet=transaction.keyset, fee_units=fee_units
            )
        )
    ledger.post_all(tx, commands)
    _move_deposits(tx, transaction.chain, resources, DepositEvent.SWEEP)
    repository.release_reservations(tx, transaction.id, keep=resources)


def unsettle(tx: Tx, transaction: OurTransaction, txid: str, resources: Sequence[str]) -> None:
    """The version `txid` was final and is no longer: undo exactly what `settle` did."""
    commands: list[Command] = []
    for withdrawal in withdrawals.of_transaction(tx, transaction.id):
        if withdrawal.state is not WithdrawalState.SETTLED:
            continue
        withdrawals.apply(
            tx, withdrawal, WithdrawalEvent.UNDO, reason="reorg: its settled payment was undone"
        )
        commands.append(bookings.unsettle_withdrawal(withdrawal.id, withdrawal.settlements))
    if fee_of(transaction, txid):
        commands.append(bookings.unbook_network_fee(transaction.id, transaction.finalisations))
    ledger.post_all(tx, commands)
    _move_deposits(tx, transaction.chain, resources, DepositEvent.UNSWEEP)


def dead(tx: Tx, transaction_id: UUID, reason: str) -> Sequence[UUID]:
    """No version can confirm any more: the withdrawals have failed, their holds are released."""
    ended = []
    commands: list[Command] = []
    for withdrawal in withdrawals.of_transaction(tx, transaction_id):
        withdrawals.apply(tx, withdrawal, WithdrawalEvent.DIE, reason=reason)
        commands.append(release_command(withdrawal))
        ended.append(withdrawal.id)
    ledger.post_all(tx, commands)
    repository.release_reservations(tx, transaction_id)
    return ended


def fee_of(transaction: OurTransaction, txid: str) -> int:
    """Network fee of the version with this txid: the one that confirmed is booked, whichever was sent
    last."""
    for version in transaction.versions:
        if footprint(version).txid == txid:
            return version.fee_units
    raise LookupError(f"transaction {transaction.id} has no version {txid}")


def _move_deposits(tx: Tx, chain: str, resources: Sequence[str], event: DepositEvent) -> None:
    """Mark deposits whose coins a final transaction of ours spent (or no longer did). Clawed-back ones
    stay."""
    sources = DEPOSIT.sources(event)
    for source in sources:
        target = DEPOSIT.next(source, event)
        rows = tx.all(
            "UPDATE deposits SET state = %s, updated_at = now() WHERE chain = %s AND resource = ANY (%s)"
            " AND state = %s RETURNING id",
            [target, chain, list(resources), source],
        )
        tx.executemany(
            "INSERT INTO deposit_events (deposit_id, event, from_state, to_state, detail)"
            " VALUES (%s, %s, %s, %s, %s)",
            [[row["id"], event, source, target, Jsonb({})] for row in rows],
        )
