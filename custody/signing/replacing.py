"""What a replacement needs of its transaction, whatever its family: when it is planned, and when it is recorded."""

from __future__ import annotations

from uuid import UUID

from custody.signing import repository
from custody.signing.errors import BumpRefused, Raced
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction, VersionState
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


def lock_as_it_was(tx: Tx, site: Site, planned: OurTransaction) -> OurTransaction:
    """The transaction, locked, if it still is as the replacement was planned for.

    Raises:
        Raced: it was confirmed or replaced, or paying was halted, meanwhile.
    """
    current, newest = repository.lock(tx, planned.id), planned.versions[-1].version
    if current.state is not TransactionState.BROADCAST or current.versions[-1].version != newest:
        raise Raced(f"transaction {planned.id} was confirmed or replaced meanwhile")
    if current.kind not in site.allowed(tx):
        raise Raced("paying was halted meanwhile")
    return current
