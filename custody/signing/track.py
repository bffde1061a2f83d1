"""Tracking: what the monitor has committed about the chain moves our transactions and their withdrawals.

One transaction of ours is moved in one database transaction, at REPEATABLE READ: consumptions and cursor are
of one moment, and of two workers one wins.
"""

from __future__ import annotations

from uuid import UUID

from chains.errors import PermanentError
from chains.types import BlockRef
from custody.errors import Conflict
from custody.signing import closing, repository, reservations
from custody.signing.effects import Ended
from custody.signing.kinds import effects_of
from custody.signing.lifecycle import TransactionEvent, TransactionState
from custody.signing.model import ConsumptionFact, OurTransaction
from custody.signing.sessions import ending
from custody.signing.site import Site
from custody.signing.tracking import Dead, Failed, Final, Mined, Moved, Stay, Undone, Verdict, judge
from custody.storage import alerts, events
from custody.storage.alerts import Severity
from custody.storage.db import Database, Isolation, Tx

_ALIVE = (
    TransactionState.BUILT,
    TransactionState.BROADCAST,
    TransactionState.CONTESTED,
    TransactionState.CONFIRMING,
)
_OPEN_ALERTS = (*closing.ABOUT_SENDING, "transaction.not_tracked")


def track(db: Database, site: Site) -> int:
    """Move every transaction as far as the facts go; returns how many were moved.

    Raises:
        DatabaseUnavailable: nothing of the transaction at hand is known; the others are done.
    """
    with db.snapshot() as tx:
        ids = [
            *repository.in_states(tx, site.chain, _ALIVE),
            *repository.moved_since_final(tx, site.chain),
        ]
    return sum(_track_one(db, site, transaction_id) for transaction_id in ids)


def _track_one(db: Database, site: Site, transaction_id: UUID) -> int:
    try:
        with db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:
            return _move(tx, site, transaction_id)
    except Conflict:
        return 0  # another worker moves it, or it was signed just now: the next call sees to it
    except PermanentError as error:
        # What the books say does not fit the chain. That stops this transaction, never the others.
        with db.transaction() as tx:
            alerts.raise_alert(
                tx,
                Severity.CRITICAL,
                "transaction.not_tracked",
                str(transaction_id),
                f"the chain moved it, and the books refuse to follow: {error}"[:1000],
                {"chain": site.chain},
            )
        return 0


def _move(tx: Tx, site: Site, transaction_id: UUID) -> int:
    anchor = repository.anchor(tx, site.chain)
    if anchor is None:
        return 0
    moved = 0
    while True:
        transaction = repository.lock(tx, transaction_id)
        verdict = _verdict(tx, site, transaction, anchor)
        if isinstance(verdict, Stay):
            _watch_inputs(tx, site, transaction)
            return min(moved, 1)
        _apply(tx, site, transaction, verdict)
        moved += 1


def _verdict(tx: Tx, site: Site, transaction: OurTransaction, anchor: int) -> Verdict:
    resources = sorted(frozenset[str]().union(*(version.resources for version in transaction.versions)))
    facts = repository.consumptions(tx, transaction.chain, resources)
    place = None
    if transaction.confirmed_txid is not None and transaction.height is not None:
        assert transaction.block_hash is not None
        place = (transaction.confirmed_txid, transaction.height, transaction.block_hash)
    return judge(
        transaction.state,
        place,
        transaction.versions,
        {fact.resource: fact for fact in facts},
        anchor=anchor,
        settle_blocks=site.network.settle_blocks,
    )


def _apply(tx: Tx, site: Site, transaction: OurTransaction, verdict: Verdict) -> None:
    match verdict:
        case Mined(fact):
            _to(tx, transaction, TransactionEvent.MINE, fact)
            if transaction.newest_signed is None:
                # Contested before the signer's answer came: it has signed, as everybody can see.
                effects_of(transaction.kind).signed(tx, transaction)
            effects_of(transaction.kind).mined(tx, transaction, fact)
            ending.end(tx, transaction.id, closing.version_of(transaction, fact).version)
            for alert in _OPEN_ALERTS:
                alerts.resolve_alert(tx, alert, str(transaction.id))
            if not fact.succeeded:
                _warn_of_failure(tx, transaction, fact)
            _tell(tx, transaction, "confirming", fact)
        case Final(fact):
            _to(tx, transaction, TransactionEvent.FINALISE, fact)
            closing.settle(tx, site, transaction, fact)
            alerts.resolve_alert(tx, "transaction.not_tracked", str(transaction.id))
            _tell(tx, transaction, "final", fact)
        case Failed(fact):
            _to(tx, transaction, TransactionEvent.DIE, fact)
            ended = closing.fail(tx, site, transaction, fact)
            _bury(tx, transaction, f"reverted: {fact.txid} is final and did nothing but pay its fee", ended)
        case Moved(fact):
            repository.relocate(tx, transaction.id, BlockRef(fact.height, fact.block_hash))
        case Undone():
            _undo(tx, transaction)
        case Dead(facts):
            killers = ", ".join(sorted({fact.txid for fact in facts}))
            ours = repository.are_ours(tx, [fact.content for fact in facts])
            what = "overtaken by another of ours" if ours else "double-spent"
            reason = f"{what}: {killers} used its coins or nonce and is final"
            repository.apply(tx, transaction, TransactionEvent.DIE)
            ending.end(tx, transaction.id, None)
            _bury(tx, transaction, reason, closing.bury(tx, transaction, reason))
        case Stay():
            raise AssertionError("nothing to apply")


def _undo(tx: Tx, transaction: OurTransaction) -> None:
    assert transaction.confirmed_txid is not None
    repository.apply(tx, transaction, TransactionEvent.UNDO)
    repository.schedule_broadcast(tx, transaction.id, 0, "reorg: its block was undone")
    ending.resume(tx, transaction)
    if transaction.state is TransactionState.FINAL:
        closing.unsettle(tx, transaction)
        alerts.raise_alert(
            tx,
            Severity.CRITICAL,
            "transaction.final_undone",
            str(transaction.id),
            f"a reorg undid {transaction.confirmed_txid}, which was final; its settlement is reversed",
            {"chain": transaction.chain},
        )
    else:
        effects_of(transaction.kind).undone(tx, transaction)
    if not reservations.of_transaction(tx, transaction.id):
        # It was contested before it confirmed, so something else has what it uses.
        closing.contest(
            tx,
            repository.lock(tx, transaction.id),
            "its block was undone, and another of ours takes its place",
        )
    alerts.resolve_alert(tx, "transaction.reverted", str(transaction.id))
    events.emit(
        tx,
        "transaction.undone",
        str(transaction.id),
        {"txid": transaction.confirmed_txid, "chain": transaction.chain},
    )


def _warn_of_failure(tx: Tx, transaction: OurTransaction, fact: ConsumptionFact) -> None:
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        "transaction.reverted",
        str(transaction.id),
        f"{fact.txid} is mined in block {fact.height}, and its receipt says that it failed: dead once that is final",
        {"chain": transaction.chain},
    )


def _bury(tx: Tx, transaction: OurTransaction, reason: str, ended: Ended) -> None:
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        "transaction.dead",
        str(transaction.id),
        f"{reason}. {ended.note}".strip(),
        {"chain": transaction.chain, **ended.data},
    )
    for alert in (*_OPEN_ALERTS, "transaction.reverted"):
        alerts.resolve_alert(tx, alert, str(transaction.id))


def _watch_inputs(tx: Tx, site: Site, transaction: OurTransaction) -> None:
    """A coin that a reorg took away, and nobody has spent, leaves a transaction that no block can hold:
    alert."""
    if transaction.state is not TransactionState.BROADCAST:
        return
    gone = site.vanished(tx, transaction)
    if not gone:
        alerts.resolve_alert(tx, "transaction.input_vanished", str(transaction.id))
        return
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        "transaction.input_vanished",
        str(transaction.id),
        f"a reorg removed {', '.join(gone)}, which it spends: it cannot confirm unless that comes back",
        {"chain": transaction.chain, "resources": list(gone)},
    )


def _to(tx: Tx, transaction: OurTransaction, event: TransactionEvent, fact: ConsumptionFact) -> None:
    block = BlockRef(fact.height, fact.block_hash)
    repository.apply(tx, transaction, event, confirmed_txid=fact.txid, block=block)


def _tell(tx: Tx, transaction: OurTransaction, what: str, fact: ConsumptionFact) -> None:
    events.emit(
        tx,
        f"transaction.{what}",
        str(transaction.id),
        {"txid": fact.txid, "height": fact.height, "chain": transaction.chain},
    )
