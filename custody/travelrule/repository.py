"""SQL of travel-rule data. What is read here is sealed; `service` opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from custody.storage.db import Row, Tx
from custody.storage.sealing import Place

_PAID: Final = ("queued", "building", "signing", "broadcast", "confirming", "settled")
"""States of withdrawals whose data is delivered: it was decided that they are paid, and no delay runs any more."""
_ATTACHED: Final = (
    "withdrawal_id, fingerprint, fingerprint_key, attached_by, attached_at, state, attempts, last_error,"
    " delivered_at"
)


@dataclass(frozen=True, slots=True)
class Attached:
    """That data is attached, without the data."""

    withdrawal: UUID
    fingerprint: bytes
    fingerprint_key: str
    attached_by: str
    attached_at: datetime
    state: str
    """`kept` (there is nobody to tell), `pending`, `delivered` or `refused`."""
    attempts: int
    last_error: str
    delivered_at: datetime | None


def place_of(withdrawal: UUID) -> Place:
    """Where a withdrawal's data belongs."""
    return Place("travel_rule", "data", str(withdrawal))


def find(tx: Tx, withdrawal: UUID) -> Attached | None:
    """What is attached to a withdrawal."""
    row = tx.optional(f"SELECT {_ATTACHED} FROM travel_rule WHERE withdrawal_id = %s", [withdrawal])
    return None if row is None else _attached(row)


def insert(
    tx: Tx, withdrawal: UUID, sealed: bytes, fingerprint: tuple[str, bytes], caller: str, state: str
) -> bool:
    """Attach data; False if there is some (waits for a concurrent one to end)."""
    key, digest = fingerprint
    return bool(
        tx.execute(
            "INSERT INTO travel_rule (withdrawal_id, data, fingerprint, fingerprint_key, attached_by, state)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [withdrawal, sealed, digest, key, caller, state],
        )
    )


def sealed(tx: Tx, withdrawal: UUID) -> bytes | None:
    """The data as it is stored; None if there is none."""
    row = tx.optional("SELECT data FROM travel_rule WHERE withdrawal_id = %s", [withdrawal])
    return None if row is None else bytes(row["data"])


def due(tx: Tx, limit: int) -> Sequence[UUID]:
    """Withdrawals whose data is to be delivered now, oldest attempt first."""
    rows = tx.all(
        "SELECT t.withdrawal_id FROM travel_rule t JOIN withdrawals w ON w.id = t.withdrawal_id"
        " WHERE t.state = 'pending' AND t.next_attempt_at <= now() AND w.state = ANY (%s)"
        " ORDER BY t.next_attempt_at LIMIT %s",
        [list(_PAID), limit],
    )
    return [row["withdrawal_id"] for row in rows]


def delivered(tx: Tx, withdrawal: UUID, reference: str) -> bool:
    """The other side has it; False if that was known."""
    return bool(
        tx.execute(
            "UPDATE travel_rule SET state = 'delivered', delivered_at = now(), reference = %s, last_error = '',"
            " attempts = attempts + 1 WHERE withdrawal_id = %s AND state = 'pending'",
            [reference[:200], withdrawal],
        )
    )


def failed(tx: Tx, withdrawal: UUID, error: str, *, seconds: int) -> int:
    """It was not delivered; tried again after so many seconds. Returns how often it has failed, 0 if it is not
    pending."""
    row = tx.optional(
        "UPDATE travel_rule SET attempts = attempts + 1, last_error = %s,"
        " next_attempt_at = now() + make_interval(secs => %s)"
        " WHERE withdrawal_id = %s AND state = 'pending' RETURNING attempts",
        [error, seconds, withdrawal],
    )
    return 0 if row is None else int(row["attempts"])


def refused(tx: Tx, withdrawal: UUID, error: str) -> None:
    """It will not be delivered."""
    tx.execute(
        "UPDATE travel_rule SET state = 'refused', attempts = attempts + 1, last_error = %s"
        " WHERE withdrawal_id = %s AND state = 'pending'",
        [error, withdrawal],
    )


def _attached(row: Row) -> Attached:
    return Attached(
        withdrawal=row["withdrawal_id"],
        fingerprint=bytes(row["fingerprint"]),
        fingerprint_key=row["fingerprint_key"],
        attached_by=row["attached_by"],
        attached_at=row["attached_at"],
        state=row["state"],
        attempts=row["attempts"],
        last_error=row["last_error"],
        delivered_at=row["delivered_at"],
    )
