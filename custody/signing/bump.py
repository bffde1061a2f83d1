"""Replacing an unconfirmed transaction by a version with a higher fee: an operator asks, or blocks go by without it.

A replacement conflicts with every earlier version, so at most one of all can confirm, and does the same. It is
recorded as the next version and goes to the signer like the first.
"""

from __future__ import annotations

from uuid import UUID

from chains.errors import PermanentError
from custody.signing import repository
from custody.signing.errors import BumpRefused, Raced
from custody.signing.families import steps_of
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database


def bump(db: Database, site: Site, transaction_id: UUID, feerate: int | None) -> int:
    """Record a replacement; returns its version number.

    Args:
        db: the database, as the worker's role.
        site: the wallet that signed the transaction.
        transaction_id: the transaction.
        feerate: BTC: sat/kvB; EVM: wei per gas, at most. None: what the network asks for now. In any case at least
            what nodes demand of a replacement.

    Raises:
        BumpRefused: not broadcast, a version waits for the signer, or the fee would be above a limit.
        Raced: something changed meanwhile; nothing was recorded.
        NodeUnavailable, DatabaseUnavailable, Conflict: nothing was recorded.
    """
    return steps_of(site).replace(db, site, transaction_id, feerate)


def bump_requested(db: Database, site: Site) -> int:
    """Carry out operators' requests for a higher fee; each gets an outcome. Returns how many were made."""
    with db.snapshot() as tx:
        requests = repository.open_bump_requests(tx, site.chain, site.wallet.id)
    made = 0
    for request_id, transaction_id, feerate in requests:
        try:
            number = bump(db, site, transaction_id, feerate)
            outcome = f"version {number} was built"
            made += 1
        except PermanentError as error:
            outcome = f"refused: {error}"
        except Raced:
            continue
        with db.transaction() as tx:
            repository.close_bump_request(tx, request_id, outcome)
    return made


def bump_stuck(db: Database, site: Site) -> int:
    """Replace what has waited for blocks below the present fees; above the caps: wait, and alert."""
    made = 0
    for transaction_id, feerate in steps_of(site).stuck(db, site):
        try:
            bump(db, site, transaction_id, feerate)
            made += 1
        except BumpRefused as error:
            with db.transaction() as tx:
                alerts.raise_alert(
                    tx,
                    Severity.WARNING,
                    "transaction.bump_capped",
                    str(transaction_id),
                    f"unconfirmed for {site.pace.bump_after_blocks} blocks and more, and not replaced: {error}",
                    {"chain": site.chain},
                )
        except Raced:
            continue
    return made
