"""Recording a rotation, of whatever family."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from custody.ids import new_id
from custody.signing.errors import Raced
from custody.signing.recording import record_first
from custody.signing.requests import Built
from custody.signing.site import Site
from custody.storage.db import Tx
from custody.sweeps import repository
from custody.sweeps.lifecycle import SweepEvent, SweepState
from custody.sweeps.model import Item, Reason, Rotated
from custody.sweeps.repository import Claim
from policies.intent import Kind


def record(
    tx: Tx,
    site: Site,
    sweep_id: UUID,
    items: Sequence[Item],
    built: Built,
    moved: Rotated,
    *,
    claim: Claim = "addresses",
) -> UUID:
    """The sweep, its items, its transaction, its request, and what it moves, in the caller's transaction.

    Returns:
        The transaction's id.

    Raises:
        Raced: another worker was quicker: roll back.
    """
    transaction_id = new_id()
    kind = Kind.ROTATION
    if not repository.insert(
        tx, sweep_id, site.chain, site.wallet.id, kind, Reason.RETIRED, items, claim=claim
    ):
        raise Raced("another sweep has claimed one of its addresses")
    record_first(tx, site, transaction_id, kind, built)
    repository.record_rotated(tx, transaction_id, 1, moved)
    repository.attach(tx, sweep_id, transaction_id)
    detail = {"transaction": str(transaction_id), "target": moved.target}
    repository.apply(tx, sweep_id, SweepState.PLANNED, SweepEvent.RECORD, detail=detail)
    return transaction_id
