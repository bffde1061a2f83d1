"""SQL of refills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.errors import Conflict
from custody.storage import events
from custody.storage.db import Row, Tx, units
from custody.treasury.lifecycle import OPEN, REFILL, RefillEvent, RefillState
from custody.treasury.model import Refill

_COLUMNS: Final = (
    "r.id, r.chain, r.asset, r.source, r.tier, r.target, r.destination, r.place, r.units, r.why, r.about,"
    " r.proposed_by, r.state, r.reason, r.decision, r.policy_version, r.not_before, r.transaction_id,"
    " r.created_at, r.updated_at"
)

Way = tuple[str, str, str]
"""Source, target and asset."""


def insert(tx: Tx, refill: Refill, previous: UUID | None) -> bool:
    """Keep a new refill after the newest one of its way; False if another one follows that already."""
    return bool(
        tx.execute(
            "INSERT INTO refills (id, chain, asset, source, tier, target, destination, place, units, why, about,"
            " proposed_by, state, reason, decision, policy_version, not_before, previous)"
            " VALUES (%(id)s, %(chain)s, %(asset)s, %(source)s, %(tier)s, %(target)s, %(destination)s, %(place)s,"
            " %(units)s, %(why)s, %(about)s, %(proposed_by)s, %(state)s, %(reason)s, %(decision)s, %(policy_version)s,"
            " %(not_before)s, %(previous)s) ON CONFLICT (source, target, asset, previous) DO NOTHING",
            {
                "id": refill.id,
                "chain": refill.chain,
                "asset": refill.asset,
                "source": refill.source,
                "tier": refill.tier,
                "target": refill.target,
                "destination": refill.destination,
                "place": refill.place,
                "units": refill.units,
                "why": refill.why,
                "about": refill.about,
                "proposed_by": refill.proposed_by,
                "state": refill.state,
                "reason": refill.reason,
                "decision": Jsonb(refill.decision),
                "policy_version": refill.policy_version,
                "not_before": refill.not_before,
                "previous": previous,
            },
        )
    )


def newest(tx: Tx) -> Mapping[Way, UUID]:
    """The newest refill of each way, whatever became of it."""
    rows = tx.all(
        "SELECT source, target, asset, id FROM refills r"
        " WHERE NOT EXISTS (SELECT 1 FROM refills n WHERE n.previous = r.id)"
    )
    return {(row["source"], row["target"], row["asset"]): row["id"] for row in rows}


def under_way(tx: Tx, source: str, target: str, asset: str) -> Sequence[Refill]:
    """The open refills of one way, oldest first."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM refills r WHERE source = %s AND target = %s AND asset = %s AND state = ANY (%s)"
        " ORDER BY id",
        [source, target, asset, list(OPEN)],
    )
    return [_refill(row) for row in rows]


def said_no(tx: Tx, source: str, target: str, asset: str, *, seconds: int) -> bool:
    """Whether people have rejected, or called off, the last refill of this way within so many seconds."""
    row = tx.optional(
        "SELECT state = 'declined' AND (reason LIKE 'approval-rejected:%%' OR reason LIKE 'operator:%%')"
        " AND updated_at > now() - make_interval(secs => %s) AS no"
        " FROM refills WHERE source = %s AND target = %s AND asset = %s ORDER BY id DESC LIMIT 1",
        [seconds, source, target, asset],
    )
    return row is not None and bool(row["no"])


def coming(tx: Tx, target: str, asset: str) -> Refill | None:
    """The oldest open refill that brings an asset to a wallet; None if there is none."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM refills r WHERE target = %s AND asset = %s AND state = ANY (%s) ORDER BY id LIMIT 1",
        [target, asset, list(OPEN)],
    )
    return None if row is None else _refill(row)


def find(tx: Tx, refill_id: UUID) -> Refill | None:
    """A refill, or None."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM refills r WHERE id = %s", [refill_id])
    return None if row is None else _refill(row)


def claim(tx: Tx, refill_id: UUID, states: Sequence[RefillState]) -> Refill | None:
    """Lock a refill in one of these states; None if it is in another, or another worker has it."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM refills r WHERE id = %s AND state = ANY (%s) FOR UPDATE SKIP LOCKED",
        [refill_id, list(states)],
    )
    return None if row is None else _refill(row)


def of_transaction(tx: Tx, transaction_id: UUID) -> Refill | None:
    """The refill that a transaction carries out, locked until the end of `tx`; None if it does none."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM refills r WHERE transaction_id = %s FOR UPDATE", [transaction_id]
    )
    return None if row is None else _refill(row)


def page(
    tx: Tx,
    *,
    states: Sequence[RefillState] | None = None,
    source: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> Sequence[Refill]:
    """Refills by id, which is by age: at most `limit`, beginning after `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM refills r WHERE (%(states)s::text[] IS NULL OR state = ANY (%(states)s))"
        " AND (%(source)s::text IS NULL OR source = %(source)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {
            "states": None if states is None else list(states),
            "source": source,
            "after": after,
            "limit": limit,
        },
    )
    return [_refill(row) for row in rows]


def history(tx: Tx, refill_id: UUID) -> Sequence[Row]:
    """What happened to a refill, oldest first: event, from_state, to_state, detail, at."""
    return tx.all(
        "SELECT event, from_state, to_state, detail, at FROM refill_events WHERE refill_id = %s ORDER BY id",
        [refill_id],
    )


def buildable(tx: Tx, source: str, *, now: int) -> Sequence[Refill]:
    """Approved refills out of a wallet whose time has come by `now` (UNIX seconds), oldest first."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM refills r WHERE source = %s AND state = 'approved'"
        " AND not_before < to_timestamp(%s) ORDER BY created_at, id",
        [source, now + 1],  # whatever is to come within the present second has come
    )
    return [_refill(row) for row in rows]


def undecided_by(tx: Tx, version: int) -> Sequence[UUID]:
    """Refills that wait, and were decided under another version of the bundle."""
    rows = tx.all(
        "SELECT id FROM refills WHERE state IN ('proposed', 'approved') AND policy_version <> %s ORDER BY id",
        [version],
    )
    return [row["id"] for row in rows]


def refusals(tx: Tx, refill_id: UUID) -> int:
    """How often signers have refused it."""
    row = tx.one(
        "SELECT count(*) AS n FROM refill_events WHERE refill_id = %s AND event = 'refuse'", [refill_id]
    )
    return int(row["n"])


def apply(
    tx: Tx,
    refill: Refill,
    event: RefillEvent,
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Refill:
    """Move it by `event`, write the event down, and tell the feed.

    Raises:
        ImpossibleTransition: the event cannot happen in this state.
        Conflict: it has left the state that the caller saw; roll back and look again.
    """
    target = REFILL.next(refill.state, event)
    row = tx.optional(
        "UPDATE refills r SET state = %s, reason = %s, updated_at = now() WHERE id = %s AND state = %s"
        f" RETURNING {_COLUMNS}",
        [target, reason[:1000], refill.id, refill.state],
    )
    if row is None:
        raise Conflict(f"refill {refill.id} is no longer {refill.state}")
    tx.execute(
        "INSERT INTO refill_events (refill_id, event, from_state, to_state, detail) VALUES (%s, %s, %s, %s, %s)",
        [refill.id, event, refill.state, target, Jsonb({"reason": reason[:1000], **(detail or {})})],
    )
    moved = _refill(row)
    tell(tx, moved)
    return moved


def tell(tx: Tx, refill: Refill) -> None:
    """Write the refill's present state to the feed."""
    told = {
        "source": refill.source,
        "target": refill.target,
        "asset": refill.asset,
        "units": str(refill.units),
        "state": str(refill.state),
        "reason": refill.reason or refill.about,
    }
    events.emit(tx, f"refill.{refill.state}", str(refill.id), told)


def wait(tx: Tx, refill_id: UUID, reason: str, *, seconds: int) -> None:
    """Leave it where it is with the reason, for so long. No event row: it may wait many times."""
    tx.execute(
        "UPDATE refills SET reason = %s, not_before = greatest(not_before, now() + make_interval(secs => %s)),"
        " updated_at = now() WHERE id = %s AND state IN ('proposed', 'approved')",
        [reason[:1000], seconds, refill_id],
    )


def attach(tx: Tx, refill_id: UUID, transaction_id: UUID | None) -> None:
    """Name the one transaction that carries it out (None: refused, it gets another)."""
    tx.execute("UPDATE refills SET transaction_id = %s WHERE id = %s", [transaction_id, refill_id])


def _refill(row: Row) -> Refill:
    return Refill(**{**row, "units": units(row["units"]), "state": RefillState(row["state"])})
