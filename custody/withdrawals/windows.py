"""The policy's rolling windows, kept as rows: what each withdrawal that was let through adds to which window."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from custody.storage.db import Tx, units
from policies.decision import LimitKey
from policies.rules import Limit


class Spent:
    """What windows hold, for one decision; `asked` remembers all that was looked up, for its record.

    A withdrawal counts while it is unpaid, and for the length of the window after it was settled.
    """

    def __init__(self, tx: Tx, *, now: int) -> None:
        self._tx, self._now = tx, datetime.fromtimestamp(now, UTC)
        self.asked: dict[LimitKey, int] = {}

    def __call__(self, key: LimitKey, limit: Limit) -> int:
        """What is let through already under this key."""
        row = self._tx.one(
            "SELECT coalesce(sum(amount), 0) AS total FROM policy_counts"
            " WHERE rule = %s AND bucket = %s AND (settled_at IS NULL OR settled_at > %s)",
            [key.rule, key.bucket, self._now - timedelta(seconds=limit.window_seconds)],
        )
        self.asked[key] = total = units(row["total"])
        return total


def count(tx: Tx, withdrawal_id: UUID, counts: Iterable[tuple[LimitKey, int]]) -> None:
    """Count a withdrawal that is let through. The database closes or removes the rows when it ends."""
    for key, amount in counts:
        tx.execute(
            "INSERT INTO policy_counts (withdrawal_id, rule, bucket, amount) VALUES (%s, %s, %s, %s)",
            [withdrawal_id, key.rule, key.bucket, amount],
        )
