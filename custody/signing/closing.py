"""The end of a transaction in the books, its undoing, and its being contested: what it served, its network fee, the
coins it spent, and its reservations. Each runs in its caller's transaction, after the transaction itself has been
moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg.types.json import Jsonb

from custody.deposits.lifecycle import DEPOSIT, DepositEvent
from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.ledger.model import Command
from custody.signing import repository, reservations
from custody.signing.effects import Ended
from custody.signing.kinds import effects_of
from custody.signing.lifecycle import TransactionEvent
from custody.signing.model import ConsumptionFact, OurTransaction, Version
from custody.signing.site import Site
from custody.storage import alerts, events
from custody.storage.db import Tx

ABOUT_SENDING: Final = (
    "transaction.not_relayed",
    "transaction.input_vanished",
    "transaction.bump_capped",
    "rotation.capped",
    "execution.waits",
)
"""Alerts that are over once a transaction is no longer sent."""


def contest(tx: Tx, transaction: OurTransaction, reason: str) -> None:
    """A rescue takes what it uses, or cannot rely on it any more: it is neither sent nor replaced from here on, and its
    resources are free for what takes its place. What was signed may confirm all the same, as long as no conflict is
    final: holds stay.

    Args:
        tx: the caller's transaction, which has locked the transaction's row.
        transaction: built or broadcast.
        reason: a sentence for those who look.
    """
    repository.apply(tx, transaction, TransactionEvent.CONTEST)
    effects_of(transaction.kind).contested(tx, transaction, reason)
    reservations.release(tx, transaction.id)
    repository.note_error(tx, transaction.id, reason)
    for alert in ABOUT_SENDING:
        alerts.resolve_alert(tx, alert, str(transaction.id))
    events.emit(
        tx, "transaction.contested", str(transaction.id), {"chain": transaction.chain, "reason": reason}
    )


def settle(tx: Tx, site: Site, transaction: OurTransaction, fact: ConsumptionFact) -> None:
    """The version in the chain is final: settle what it serves, book its own fee, mark the deposits that it spent."""
    version = version_of(transaction, fact)
    commands = [
        *effects_of(transaction.kind).final(tx, transaction, fact),
        *_fee(tx, site, transaction, version, fact),
    ]
    ledger.post_all(tx, commands)
    used = sorted(version.resources)
    _move_deposits(tx, transaction.chain, used, DepositEvent.SWEEP)
    reservations.take(tx, transaction.chain, used, transaction.id)


def unsettle(tx: Tx, transaction: OurTransaction) -> None:
    """What was final is no longer: undo exactly what `settle` did."""
    commands = list(effects_of(transaction.kind).unfinal(tx, transaction))
    if ledger.posted(tx, bookings.network_fee_id(transaction.id, transaction.finalisations)):
        commands.append(bookings.unbook_network_fee(transaction.id, transaction.finalisations))
    ledger.post_all(tx, commands)
    kept = reservations.of_transaction(
        tx, transaction.id
    )  # of the version that was final: `settle` freed all others
    _move_deposits(tx, transaction.chain, kept, DepositEvent.UNSWEEP)


def fail(tx: Tx, site: Site, transaction: OurTransaction, fact: ConsumptionFact) -> Ended:
    """The version in the chain is final, and failed: nothing was done, its fee was paid, its resources are used."""
    version = version_of(transaction, fact)
    reason = f"reverted: {fact.txid} is final and paid nothing"
    ended = effects_of(transaction.kind).dead(tx, transaction, reason)
    ledger.post_all(tx, [*ended.commands, *_fee(tx, site, transaction, version, fact)])
    reservations.take(tx, transaction.chain, sorted(version.resources), transaction.id)
    return ended


def bury(tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
    """No version can confirm any more: what it served has failed."""
    ended = effects_of(transaction.kind).dead(tx, transaction, reason[:500])
    ledger.post_all(tx, list(ended.commands))
    reservations.release(tx, transaction.id)
    return ended


def version_of(transaction: OurTransaction, fact: ConsumptionFact) -> Version:
    """The version that is in the chain. Raises LookupError: it is none of them."""
    for version in transaction.versions:
        if version.content == fact.content:
            return version
    raise LookupError(f"transaction {transaction.id} has no version {fact.content}")


def _fee(
    tx: Tx, site: Site, transaction: OurTransaction, version: Version, fact: ConsumptionFact
) -> Sequence[Command]:
    """The version that confirmed is booked, whichever was sent last, and what it really paid where blocks say so."""
    n = repository.count_finalisation(tx, transaction.id)
    fee_units = version.fee_units if fact.fee_units is None else fact.fee_units
    if not fee_units:
        return ()
    return (
        bookings.book_network_fee(
            transaction.id, n, asset=site.asset.id, wallet=transaction.keyset, fee_units=fee_units
        ),
    )


def _move_deposits(tx: Tx, chain: str, resources: Sequence[str], event: DepositEvent) -> None:
    """Mark deposits whose coins a final transaction of ours spent (or no longer did). Clawed-back ones
    stay. An account's money is no coin: on EVM chains this finds nothing."""
    for source in DEPOSIT.sources(event):
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
