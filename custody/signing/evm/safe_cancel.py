"""Giving up a Safe's transaction: nothing takes back what owners have signed, but of two transactions with one nonce
only one can ever be carried out. So its nonce goes to another: the next payment, or a transaction that does nothing.
"""

from __future__ import annotations

from uuid import UUID

from chains.eth.safe import parse_safe_resource
from custody.signing import closing, repository
from custody.signing.errors import BumpRefused, Raced
from custody.signing.evm import nonces
from custody.signing.evm.safe_nonce import record_nothing
from custody.signing.evm.safe_site import SafeSite
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction
from custody.signing.replacing import rebuildable
from custody.signing.requests import read_request
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.lifecycle import SessionEvent, SessionState
from custody.signing.sessions.model import EXPIRED
from custody.storage import alerts
from custody.storage.db import Database, Tx
from policies.intent import Kind

_LIVE = (SessionState.OPEN, SessionState.COLLECTING)
_OPEN = (TransactionState.BUILT, TransactionState.BROADCAST)


def abandon(db: Database, site: SafeSite, transaction_id: UUID, reason: str) -> None:
    """Give a transaction up: no owner is asked about it any more, nobody sends it, and its nonce is free for the next.

    It may be carried out all the same as long as that is not final, so what it serves stays as it is until then.

    Args:
        db: as the workers' role.
        site: the Safe.
        transaction_id: of the Safe, not yet in a block.
        reason: a sentence for those who look.

    Raises:
        BumpRefused: it is none of this Safe's, or no longer open.
        DatabaseUnavailable, Conflict: nothing was done.
    """
    with db.transaction() as tx:
        _abandon(tx, site, transaction_id, reason)


def cancel(db: Database, site: SafeSite, transaction_id: UUID, reason: str) -> UUID:
    """Give a transaction up, and record one with its nonce that does nothing; owners sign that one as any other. What
    was given up before, and nothing has taken the nonce of, can be cancelled, too.

    Returns:
        Id of the transaction that takes its place.

    Raises:
        BumpRefused: it is none of this Safe's, or no longer open; or its nonce is another's by now.
        Raced, DatabaseUnavailable, Conflict: nothing was done.
    """
    with db.transaction() as tx:
        found = repository.find(tx, transaction_id)
        if found is not None and found.kind == Kind.CANCELLATION:
            raise BumpRefused("it is a cancellation: ask for it anew instead")
        if found is not None and found.state is TransactionState.CONTESTED:
            transaction = _given_up(tx, site, transaction_id)
        else:
            transaction = _abandon(tx, site, transaction_id, reason)
        return record_nothing(tx, site, _nonce(transaction))


def ask_again(db: Database, site: SafeSite, transaction_id: UUID, *, now: int) -> UUID:
    """Ask owners anew for what they have not signed in time: the same transaction with the same nonce, so what some of
    them have signed counts, and nothing of it can be carried out twice.

    Args:
        db: as the workers' role.
        site: the Safe.
        transaction_id: of the Safe, neither complete nor given up.
        now: UNIX seconds.

    Returns:
        Id of the request.

    Raises:
        BumpRefused: see `custody.signing.replacing.rebuildable`; or a block has used its nonce.
        DatabaseUnavailable, Conflict: nothing was done.
    """
    with db.transaction() as tx:
        transaction = _locked(tx, site, transaction_id)
        if transaction.state is TransactionState.CONTESTED:
            raise BumpRefused("it was given up, and its nonce is for the next: cancel it")
        rebuildable(tx, site, transaction_id, now=now)
        if repository.consumptions(tx, site.chain, sorted(transaction.versions[0].resources)):
            raise BumpRefused("a block has used its nonce: nothing is left to ask for")
        session = sessions.lock(tx, sessions.of_transaction(tx, transaction_id)[-1].id)
        if session.state is not SessionState.EXPIRED:
            raise BumpRefused(f"its request is {session.state}: only one that is over is asked anew")
        orders = read_request(transaction.versions[0].request).evidence.orders
        left = min((signed.order.expires_at - now for signed in orders), default=site.pace.session_seconds)
        sessions.reopen(tx, session, seconds=min(left, site.pace.session_seconds))
        alerts.resolve_alert(tx, EXPIRED, str(transaction_id))
        return session.id


def fill(db: Database, site: SafeSite) -> UUID | None:
    """Record a transaction of nothing with the lowest unused nonce, if complete ones have waited for it; else None.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        halted = site.halted(tx)
        gap = nonces.hole(
            tx,
            site.chain,
            site.wallet.id,
            site.account,
            older_than_seconds=site.pace.fill_after_seconds,
        )
    if halted is not None or gap is None:
        return None
    used = site.node.safes.nonce(site.sender, site.node.tip())
    try:
        with db.transaction() as tx:
            if nonces.take(tx, site.chain, site.account, used=used) != gap:
                raise Raced("another transaction has taken the nonce meanwhile")
            return record_nothing(tx, site, gap)
    except Raced:
        return None


def _given_up(tx: Tx, site: SafeSite, transaction_id: UUID) -> OurTransaction:
    """What was given up, with a nonce that nothing has taken yet. Raises BumpRefused."""
    transaction = _locked(tx, site, transaction_id)
    if transaction.state is not TransactionState.CONTESTED:
        raise BumpRefused(f"it is {transaction.state}: only one that is in no block is cancelled")
    nonce = sorted(transaction.versions[0].resources)
    if repository.consumptions(tx, site.chain, nonce):
        raise BumpRefused("a block has used its nonce: nothing is left to cancel")
    for each in repository.contenders(tx, site.chain, nonce):
        if each.state in _OPEN:
            raise BumpRefused(f"{each.id} takes its nonce already")
    return transaction


def _locked(tx: Tx, site: SafeSite, transaction_id: UUID) -> OurTransaction:
    transaction = repository.lock(tx, transaction_id)
    if (transaction.chain, transaction.keyset) != (site.chain, site.wallet.id):
        raise BumpRefused(f"there is no transaction {transaction_id} of {site.wallet.id}")
    return transaction


def _abandon(tx: Tx, site: SafeSite, transaction_id: UUID, reason: str) -> OurTransaction:
    transaction = _locked(tx, site, transaction_id)
    if transaction.state not in _OPEN:
        raise BumpRefused(f"it is {transaction.state}: only one that is in no block is given up")
    for session in sessions.of_transaction(tx, transaction_id):
        if session.state in _LIVE:
            sessions.apply(tx, session, SessionEvent.EXPIRE)
    closing.contest(tx, transaction, reason)
    return transaction


def _nonce(transaction: OurTransaction) -> int:
    [resource] = transaction.versions[0].resources
    return parse_safe_resource(resource)[1]
