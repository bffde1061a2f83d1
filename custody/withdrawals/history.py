"""What was decided about withdrawals, and what became of them, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from custody.storage.db import Tx
from custody.withdrawals.lifecycle import WithdrawalEvent
from policies.backtest import Ended, Event
from policies.records import read

_BATCH: Final = 5_000
_DECIDING: Final = (
    WithdrawalEvent.REJECT,
    WithdrawalEvent.ROUTE_TO_APPROVAL,
    WithdrawalEvent.ROUTE_TO_COOLING,
    WithdrawalEvent.ROUTE_TO_QUEUE,
)
"""Out of screening."""


def history(tx: Tx, *, since: int = 0) -> Iterator[Event]:
    """Decisions with their records, and ends, from the events of withdrawals.

    Decisions are made one at a time, so the order of their events is theirs. A withdrawal that was decided again,
    because it waited or a bundle changed, has its last decision only. One whose payment left the chain again counts
    as paid from the first time on.

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
            "SELECT e.id, e.withdrawal_id, e.to_state, floor(extract(epoch FROM e.at))::bigint AS at, d.last,"
            " CASE WHEN e.id = d.last THEN w.decision END AS decision"
            " FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id"
            " LEFT JOIN LATERAL (SELECT max(l.id) AS last FROM withdrawal_events l"
            "   WHERE l.withdrawal_id = e.withdrawal_id AND l.from_state = 'screening'"
            "   AND l.event = ANY (%(deciding)s)) d ON e.from_state = 'screening' AND e.event = ANY (%(deciding)s)"
            " WHERE e.id > %(after)s AND e.at >= to_timestamp(%(since)s)"
            " AND (d.last IS NOT NULL OR e.to_state IN ('settled', 'rejected', 'cancelled', 'expired', 'failed'))"
            " ORDER BY e.id LIMIT %(limit)s",
            {"after": after, "since": since, "deciding": list(_DECIDING), "limit": _BATCH},
        )
        if not rows:
            return
        for row in rows:
            if row["last"] is not None:
                if row["decision"] is not None:
                    yield read(row["decision"])
            else:
                settled = row["to_state"] == "settled"
                yield Ended(str(row["withdrawal_id"]), int(row["at"]), "settled" if settled else "released")
        after = rows[-1]["id"]
