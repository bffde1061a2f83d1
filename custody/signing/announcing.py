"""Showing orders to their signer while they wait: where the policy asks for a delay, the signer's begins with that.

It counts by its own first sight. Shown only when it is to sign, a payment would wait out its delay a second time, and
what people have approved would be over meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from chains.errors import PermanentError
from custody.signing.site import Site
from custody.storage.db import Database
from custody.withdrawals import repository as withdrawals
from policies.intent import SignedOrder
from signers.ports import AnnounceRequest, Announcing, Refused, Signer

MAX_ANNOUNCED: Final = 500
"""Most orders in one announcement."""


def announce_waiting(db: Database, site: Site, signer: Signer) -> int:
    """Show it the orders of withdrawals that wait out a delay, each once; returns how many.

    Raises:
        SignerUnavailable: no answer; the next call shows the same again.
    """
    if not isinstance(signer, Announcing):
        return 0
    with db.snapshot() as tx:
        waiting = withdrawals.unannounced(tx, site.chain, site.keyset.tier, limit=MAX_ANNOUNCED)
    orders: list[SignedOrder] = []
    for withdrawal in waiting:
        with suppress(PermanentError):  # what is wrong with it is said where it is paid
            orders.append(withdrawal.signed_order)
    announce(signer, orders)
    if waiting:
        with db.transaction() as tx:
            withdrawals.mark_announced(tx, [withdrawal.id for withdrawal in waiting])
    return len(orders)


def announce(signer: Announcing, orders: Sequence[SignedOrder]) -> None:
    """Show orders to a signer, as many as it takes. One that it refuses keeps none of the others.

    Raises:
        SignerUnavailable: no answer.
    """
    for start in range(0, len(orders), MAX_ANNOUNCED):
        batch = tuple(orders[start : start + MAX_ANNOUNCED])
        try:
            signer.announce(AnnounceRequest(orders=batch))
        except Refused:
            for order in batch if len(batch) > 1 else ():
                # Too many of them, or one that is over meanwhile: it is shown again when it is to be signed.
                with suppress(Refused):
                    signer.announce(AnnounceRequest(orders=(order,)))
