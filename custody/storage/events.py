"""The ordered feed of what changed. Written in the change's own transaction; read without missing one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from chains.errors import InvalidValue
from custody.storage.db import Tx

MAX_PAGE: Final = 1000
_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Event:
    """One change."""

    cursor: str
    """Its place in the feed, opaque: give it as `after` to read on from behind it."""
    type: str
    """E.g. `deposit.credited`."""
    subject: str
    """Id of what changed."""
    data: Mapping[str, Any]
    at: datetime


def emit(tx: Tx, type: str, subject: str, data: Mapping[str, Any]) -> None:
    """Record an event; it becomes visible with the transaction's commit.

    Args:
        tx: the transaction of the change.
        type: dotted, e.g. `withdrawal.settled`.
        subject: id of what changed.
        data: JSON values; amounts as decimal strings of base units, never as JSON numbers.
    """
    tx.execute(
        "INSERT INTO events (type, subject, data) VALUES (%s, %s, %s)", [type, subject, Jsonb(dict(data))]
    )


def after(tx: Tx, cursor: str | None, limit: int) -> tuple[list[Event], str | None]:
    """Events behind `cursor`, in the feed's order.

    Ids are given before commits, so a reader that goes by ids alone would pass over the event of a
    transaction that commits late. Here an event is shown only when every transaction that began before its
    own has ended: then nothing can appear in front of it any more.

    Args:
        tx: a READ COMMITTED transaction or a fresh snapshot.
        cursor: of the last event seen; None: from the beginning.
        limit: 1 to 1000.

    Returns:
        The events, and the cursor to go on from (the given one if there are none).

    Raises:
        InvalidValue: a cursor that is none of ours, or a limit outside 1 to 1000.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidValue(f"limit {limit}: expected 1 to {MAX_PAGE}")
    match = _CURSOR.fullmatch("0-0" if cursor is None else cursor)
    if match is None:
        raise InvalidValue(f"cursor {str(cursor)[:80]!r} is not one that this feed gave")
    rows = tx.all(
        """SELECT xid::text || '-' || id AS cursor, type, subject, data, at FROM events
           WHERE (xid, id) > (%s::xid8, %s::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot())
           ORDER BY xid, id LIMIT %s""",
        [match.group(1), match.group(2), limit],
    )
    events = [Event(**row) for row in rows]
    return events, events[-1].cursor if events else cursor
