"""What a replacement needs of its transaction, whatever its family: when it is planned, and when it is recorded."""

from __future__ import annotations

from uuid import UUID

from custody.signing import repository
from custody.signing.errors import BumpRefused, Raced
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction, VersionState
from custody.signing.requests import read_request
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.lifecycle import SessionState
from custody.signing.site import Site
from custody.storage.db import Tx


def replaceable(tx: Tx, site: Site, transaction_id: UUID) -> OurTransaction:
    """The transaction, if it may be replaced now.

    Raises:
        BumpRefused: not this wallet's, not broadcast, of keys that do not sign such any more, a version waits for the
            signer, or paying is halted.
    """
    transaction = repository.find(tx, transaction_id)
    if transaction is None or transaction.chain != site.chain or transaction.keyset != site.wallet.id:
        raise BumpRefused(f"there is no transaction {transaction_id} of {site.wallet.id}")
    if transaction.state is not TransactionState.BROADCAST:
        raise BumpRefused(f"it is {transaction.state}: only an unconfirmed, broadcast one is replaced")
    if not site.signs(transaction.kind):
        raise BumpRefused(f"its keys are {site.wallet.state}: they sign no {transaction.kind} any more")
    if any(version.state is VersionState.BUILT for version in transaction.versions):
        raise BumpRefused("a version of it still waits for the signer")
    if transaction.kind not in site.allowed(tx):
        raise BumpRefused(f"paying is halted: {site.halted(tx)}")
    return transaction


def rebuildable(tx: Tx, site: Site, transaction_id: UUID, *, now: int) -> OurTransaction:
    """A vault's transaction whose newest request was not signed in time, if it may be asked for anew.

    Raises:
        BumpRefused: not this wallet's, no longer open, still being signed, of an order that has expired, or paying is
            halted.
    """
    transaction = repository.find(tx, transaction_id)
    if transaction is None or (transaction.chain, transaction.keyset) != (site.chain, site.wallet.id):
        raise BumpRefused(f"there is no transaction {transaction_id} of {site.wallet.id}")
    if transaction.state not in (TransactionState.BUILT, TransactionState.BROADCAST):
        raise BumpRefused(f"it is {transaction.state}: only one that is in no block is asked for anew")
    found = sessions.of_transaction(tx, transaction_id)
    if any(session.state in (SessionState.OPEN, SessionState.COLLECTING) for session in found):
        raise BumpRefused("its request is open: export it, or abandon it first")
    if not any(version.state is VersionState.BUILT for version in transaction.versions):
        raise BumpRefused("nothing of it waits for signatures: ask for a higher fee instead")
    if not site.signs(transaction.kind):
        raise BumpRefused(f"its keys are {site.wallet.state}: they sign no {transaction.kind} any more")
    if transaction.kind not in site.allowed(tx):
        raise BumpRefused(f"paying is halted: {site.halted(tx)}")
    orders = read_request(transaction.versions[0].request).evidence.orders
    over = [signed.order.id for signed in orders if signed.order.expires_at <= now]
    if over:
        raise BumpRefused(f"order {over[0]} has expired, so nobody signs it any more: cancel it")
    return transaction


def lock_as_it_was(tx: Tx, site: Site, planned: OurTransaction) -> OurTransaction:
    """The transaction, locked, if it still is as the replacement was planned for.

    Raises:
        Raced: it was confirmed or replaced, or paying was halted, meanwhile.
    """
    current, newest = repository.lock(tx, planned.id), planned.versions[-1].version
    if current.state is not planned.state or current.versions[-1].version != newest:
        raise Raced(f"transaction {planned.id} was confirmed or replaced meanwhile")
    if current.kind not in site.allowed(tx):
        raise Raced("paying was halted meanwhile")
    return current
