"""What was decided about withdrawals, and what became of them, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from custody.storage.db import Tx
from policies.backtest import Ended, Event
from policies.records import read

_BATCH: Final = 5_000


def history(tx: Tx, *, since: int = 0) -> Iterator[Event]:
    """Decisions with their records, and ends, from the events of withdrawals.

    Decisions are made one at a time, so the order of their events is theirs. A withdrawal that waited and was decided
    again has its last decision only. One whose payment left the chain again counts as paid from the first time on.

    Args:
        tx: open until the last event.
        since: UNIX seconds of the first event.

    Raises:
        DatabaseUnavailable: no answer.
        InvalidValue: a record that is none.
    """
    after = 0
    while True:
        rows = tx.all(
            "SELECT e.id, e.withdrawal_id, e.to_state, floor(extract(epoch FROM e.at))::bigint AS at,"
            " e.from_state = 'screening' AND e.event IN"
            "  ('reject', 'route_to_approval', 'route_to_cooling', 'route_to_queue') AS decided,"
            " w.decision FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id"
            " WHERE e.id > %s AND e.at >= to_timestamp(%s) AND (e.from_state = 'screening'"
            "  OR e.to_state IN ('settled', 'rejected', 'cancelled', 'expired', 'failed'))"
            " ORDER BY e.id LIMIT %s",
            [after, since, _BATCH],
        )
        if not rows:
            return
        for row in rows:
            if row["decided"]:
                if row["decision"] is not None:
                    yield read(row["decision"])
            else:
                settled = row["to_state"] == "settled"
                yield Ended(str(row["withdrawal_id"]), int(row["at"]), "settled" if settled else "released")
        after = rows[-1]["id"]
