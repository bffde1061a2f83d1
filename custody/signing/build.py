"""Building: queued withdrawals become one recorded, unsigned transaction. See `custody.signing.paying`."""

from __future__ import annotations

from uuid import UUID

from custody.signing.families import steps_of
from custody.signing.site import Site
from custody.storage.db import Database


def build(db: Database, site: Site, *, now: int) -> UUID | None:
    """Record one transaction that pays what can be paid; None if there is nothing to pay, or nothing can be.

    Args:
        db: the database, as the worker's role.
        site: the hot wallet to pay from.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    return steps_of(site).build(db, site, now)


def fill_gap(db: Database, site: Site) -> UUID | None:
    """Record a transaction that only fills a gap for which others wait; None if there is none.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    fill = steps_of(site).fill
    return None if fill is None else fill(db, site)
