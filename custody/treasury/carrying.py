"""What building a refill's transaction begins and ends with, whatever the family."""

from __future__ import annotations

from uuid import UUID

from chains.errors import PermanentError
from custody.approvals import refills as approvals
from custody.signing.errors import Raced
from custody.signing.site import Site
from custody.storage.db import Tx
from custody.treasury import repository
from custody.treasury.lifecycle import RefillEvent, RefillState
from custody.treasury.model import Refill


class Unready(PermanentError):
    """Why it cannot be built now; it is looked at again."""


def begin(tx: Tx, site: Site, refill: Refill, *, now: int) -> None:
    """Lock a refill that is about to be recorded, if it is still to be carried out.

    Raises:
        Raced: it is not, or paying is halted.
    """
    if site.halted(tx, refill.asset) is not None:
        raise Raced("paying was halted meanwhile")
    claimed = repository.claim(tx, refill.id, [RefillState.APPROVED])
    if claimed is None or claimed.policy_version != site.bundle.version:
        raise Raced(f"refill {refill.id} was taken, called off or decided again meanwhile")
    if not approvals.is_approved(tx, claimed, site.bundle, now=now):
        raise Raced(f"refill {refill.id} lacks approvals now")


def finish(tx: Tx, refill: Refill, transaction_id: UUID) -> None:
    """Note which transaction carries it out."""
    repository.attach(tx, refill.id, transaction_id)
    repository.apply(tx, refill, RefillEvent.RECORD, detail={"transaction": str(transaction_id)})
