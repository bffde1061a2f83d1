"""Broadcasting: recorded, signed bytes go to the node again and again until a version confirms.

Whatever the node says, or does not say, changes nothing about money: only blocks do. The newest signed
version goes first; if the node takes no notice of it, older ones are sent too, since any of them pays.
"""

from __future__ import annotations

from uuid import UUID

from chains.errors import NodeUnavailable, PermanentError
from chains.ports import BroadcastState, Presence
from chains.types import TxId
from custody.signing import repository
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction, Version, VersionState
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database

BATCH = 100
_NO_ONE_ELSE_SECONDS = 30


def broadcast(db: Database, site: Site) -> int:
    """Send every transaction of the wallet that is due; returns how many were looked at.

    Raises:
        NodeUnavailable: the node does not answer. What was due comes again.
    """
    if not site.sends:
        return 0
    with db.transaction() as tx:
        due = repository.due_broadcasts(
            tx,
            site.chain,
            site.wallet.id,
            site.allowed(tx),
            except_for=site.held(tx),
            lease_seconds=_NO_ONE_ELSE_SECONDS,
            limit=BATCH,
        )
    for transaction_id in due:
        _send(db, site, transaction_id)
    return len(due)


def _send(db: Database, site: Site, transaction_id: UUID) -> None:
    with db.snapshot() as tx:
        transaction = repository.find(tx, transaction_id)
    if transaction is None or transaction.state is not TransactionState.BROADCAST:
        return
    try:
        error = _offer(site, transaction)
    except (NodeUnavailable, PermanentError) as failure:
        # Lost, late or odd: the node may have taken it all the same.
        _schedule(db, site, transaction, f"broadcast: {failure}")
        if isinstance(failure, NodeUnavailable):
            raise
        return
    _schedule(db, site, transaction, error)


def _offer(site: Site, transaction: OurTransaction) -> str:
    """Offer versions, newest first, until the node has one in its mempool; returns what is wrong, or
    nothing."""
    trouble = ""
    for version in reversed(transaction.versions):
        if version.state is not VersionState.SIGNED:
            continue
        problem = _offer_version(site, version)
        if not problem:
            return ""
        trouble = trouble or problem
    return trouble


def _offer_version(site: Site, version: Version) -> str:
    assert version.signed is not None
    assert version.txid is not None
    objection = site.objection(version.signed)
    if objection is not None:
        return f"version {version.version} would be rejected: {objection}"
    result = site.node.broadcast(version.signed)
    if result.state is BroadcastState.REJECTED:
        return f"version {version.version} rejected: {result.reason}"
    # A node's yes is no proof either: is the transaction there?
    if site.node.presence(TxId(version.txid)) is Presence.UNKNOWN:
        return f"version {version.version}: the node said {result.state}, but does not have it"
    return ""


def _schedule(db: Database, site: Site, transaction: OurTransaction, error: str) -> None:
    seconds = site.pace.retry_seconds if error else site.pace.resend_seconds
    with db.transaction() as tx:
        repository.schedule_broadcast(tx, transaction.id, seconds, error)
        if error:
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "transaction.not_relayed",
                str(transaction.id),
                f"our node has no version of it in its mempool: {error}"[:1000],
                {"chain": transaction.chain},
            )
        else:
            alerts.resolve_alert(tx, "transaction.not_relayed", str(transaction.id))
