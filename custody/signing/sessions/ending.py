"""Sessions of a transaction that a block has decided: nobody is asked any more; what was signed past us is known."""

from __future__ import annotations

from uuid import UUID

from custody.signing.model import OurTransaction, VersionState
from custody.signing.sessions import repository
from custody.signing.sessions.lifecycle import SessionEvent, SessionState
from custody.storage.db import Tx

_LIVE = (SessionState.OPEN, SessionState.COLLECTING)


def end(tx: Tx, transaction_id: UUID, mined: int | None) -> None:
    """End what is still open about a transaction. Again changes nothing.

    Args:
        tx: the caller's transaction, which has locked the transaction's row.
        transaction_id: of a vault, or of a key-set, which has no sessions.
        mined: the version that a block holds: enough members have signed it, whoever put their signatures together;
            None: no version can be in a block any more.
    """
    for session in repository.of_transaction(tx, transaction_id):
        signed = session.version == mined
        if session.state in _LIVE or (signed and session.state is SessionState.EXPIRED):
            repository.apply(tx, session, SessionEvent.COMPLETE if signed else SessionEvent.EXPIRE)


def resume(tx: Tx, transaction: OurTransaction) -> None:
    """Ask for signatures again where only a block, which a reorg undid, had them. Again changes nothing.

    Args:
        tx: the caller's transaction, which has locked the transaction's row.
        transaction: with its versions.
    """
    unsigned = {each.version for each in transaction.versions if each.state is VersionState.BUILT}
    for session in repository.of_transaction(tx, transaction.id):
        if session.state is SessionState.COMPLETE and session.version in unsigned:
            repository.apply(tx, session, SessionEvent.REOPEN)
            if session.signed:
                repository.apply(tx, repository.get(tx, session.id), SessionEvent.COLLECT)
