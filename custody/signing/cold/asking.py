"""What holders are asked: the requests that are open, what each would do, and who has signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from custody.errors import NotFound
from custody.signing import repository as transactions
from custody.signing.model import OurTransaction, Version
from custody.signing.requests import read_request
from custody.signing.sessions import repository
from custody.signing.sessions.lifecycle import SessionState
from custody.signing.sessions.model import Session
from custody.storage.db import Tx
from policies.intent import Intent


@dataclass(frozen=True, slots=True)
class Asking:
    """One request, and what it would do."""

    session: Session
    transaction: OurTransaction
    version: Version
    intents: tuple[Intent, ...]
    customers: tuple[str, ...]
    """Whose orders it pays, each once."""


def open_requests(tx: Tx) -> Sequence[Asking]:
    """What waits for signatures, and what ended without and may confirm all the same; oldest first."""
    return [_asking(tx, session) for session in repository.unsettled(tx)]


def page(
    tx: Tx, *, wallet: str | None, state: SessionState | None, after: UUID | None, limit: int
) -> Sequence[Asking]:
    """All that was ever asked of members of vaults, by age: at most `limit`, beginning after `after`."""
    return [
        _asking(tx, session)
        for session in repository.page(tx, wallet=wallet, state=state, after=after, limit=limit)
    ]


def request(tx: Tx, session_id: UUID) -> Asking:
    """One request. Raises NotFound."""
    return _asking(tx, repository.get(tx, session_id))


def _asking(tx: Tx, session: Session) -> Asking:
    transaction = transactions.find(tx, session.transaction_id)
    if transaction is None:
        raise NotFound("transaction", str(session.transaction_id))
    version = transaction.versions[session.version - 1]
    asked = read_request(version.request)
    customers = dict.fromkeys(signed.order.customer for signed in asked.evidence.orders)
    return Asking(session, transaction, version, asked.intents, tuple(customers))
