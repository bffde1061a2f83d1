"""SQL of the sweeps slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.deposits.lifecycle import DEPOSIT, DepositEvent
from custody.errors import Conflict
from custody.storage import events
from custody.storage.db import Row, Tx, units
from custody.sweeps.lifecycle import SWEEP, SweepEvent, SweepState
from custody.sweeps.model import Candidate, Item, Pile, Rotated
from custody.sweeps.settling import Arrived
from policies.intent import Kind

OPEN_STATES: Final = (SweepState.PLANNED, SweepState.SIGNING, SweepState.BROADCAST)
"""A sweep that is not final."""


Claim = Literal["addresses", "coins"]
"""What a sweep keeps from others while it is open: what it empties as a whole, or only the coins reserved for it
(BTC)."""


def record_decision(tx: Tx, sweep_id: UUID, decision: Mapping[str, Any]) -> None:
    """Keep what the policy said, as it was decided."""
    tx.execute("UPDATE sweeps SET decision = %s WHERE id = %s", [Jsonb(dict(decision)), sweep_id])


def insert(
    tx: Tx,
    sweep_id: UUID,
    chain: str,
    keyset: str,
    kind: Kind,
    reason: str,
    items: Iterable[Item],
    *,
    claim: Claim = "addresses",
) -> bool:
    """Add a sweep in its first state; False if another open one empties one of its items. Roll back then."""
    tx.execute(
        "INSERT INTO sweeps (id, chain, keyset, kind, state, reason) VALUES (%s, %s, %s, %s, %s, %s)",
        [sweep_id, chain, keyset, kind, SweepState.PLANNED, reason],
    )
    open_ = claim == "addresses"
    rows = [[sweep_id, item.address_id, item.asset, item.units, open_] for item in items]
    inserted = tx.executemany(
        "INSERT INTO sweep_items (sweep_id, address_id, asset, units, open) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (address_id, asset) WHERE open DO NOTHING",
        rows,
    )
    return inserted == len(rows)


def claimed(tx: Tx, address_id: int) -> frozenset[str]:
    """Assets of which open sweeps empty an address."""
    rows = tx.all("SELECT asset FROM sweep_items WHERE address_id = %s AND open", [address_id])
    return frozenset(row["asset"] for row in rows)


def attach(tx: Tx, sweep_id: UUID, transaction_id: UUID) -> None:
    """Note which transaction does it."""
    tx.execute("UPDATE sweeps SET transaction_id = %s WHERE id = %s", [transaction_id, sweep_id])


def record_rotated(tx: Tx, transaction_id: UUID, version: int, moved: Rotated) -> None:
    """Note what a version of a rotation moves, in the database transaction that records it."""
    tx.execute(
        "INSERT INTO rotations (transaction_id, version, target, asset, units) VALUES (%s, %s, %s, %s, %s)",
        [transaction_id, version, moved.target, moved.asset, moved.units],
    )


def rotated(tx: Tx, transaction_id: UUID, content: str | None = None) -> Rotated:
    """What the version of a rotation with a content moves, or its newest (None).

    Raises:
        LookupError: it has no such version.
    """
    row = tx.optional(
        "SELECT r.target, r.asset, r.units FROM rotations r"
        " JOIN transaction_versions v ON v.transaction_id = r.transaction_id AND v.version = r.version"
        " WHERE r.transaction_id = %s AND (%s::text IS NULL OR v.content = %s) ORDER BY r.version DESC LIMIT 1",
        [transaction_id, content, content],
    )
    if row is None:
        raise LookupError(f"rotation {transaction_id} has no version {content}")
    return Rotated(row["target"], row["asset"], units(row["units"]))


def state_of(tx: Tx, transaction_id: UUID) -> tuple[UUID, SweepState] | None:
    """Id and state of the sweep that a transaction does, locked until the end of `tx`; None if it does none."""
    row = tx.optional("SELECT id, state FROM sweeps WHERE transaction_id = %s FOR UPDATE", [transaction_id])
    return None if row is None else (row["id"], SweepState(row["state"]))


def apply(
    tx: Tx,
    sweep_id: UUID,
    state: SweepState,
    event: SweepEvent,
    *,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> SweepState:
    """Move a sweep by `event`, with its row of history and its event in the feed.

    Args:
        tx: the caller's transaction.
        sweep_id: which.
        state: in which the caller saw it.
        event: what happened.
        reason: replaces the one it has; None keeps it.
        detail: for the history, JSON values.

    Raises:
        ImpossibleTransition: the event cannot happen in this state.
        Conflict: it has left the state that the caller saw.
    """
    target = SWEEP.next(state, event)
    row = tx.optional(
        "UPDATE sweeps SET state = %s, reason = coalesce(%s, reason), updated_at = now()"
        " WHERE id = %s AND state = %s RETURNING chain, kind, reason, transaction_id",
        [target, reason, sweep_id, state],
    )
    if row is None:
        raise Conflict(f"sweep {sweep_id} is no longer {state}")
    tx.execute(
        "INSERT INTO sweep_events (sweep_id, event, from_state, to_state, detail) VALUES (%s, %s, %s, %s, %s)",
        [sweep_id, event, state, target, Jsonb(dict(detail or {}))],
    )
    transaction = None if row["transaction_id"] is None else str(row["transaction_id"])
    told = {"chain": row["chain"], "kind": row["kind"], "reason": row["reason"], "transaction": transaction}
    events.emit(tx, f"sweep.{target}", str(sweep_id), told)
    return target


def close_items(tx: Tx, sweep_id: UUID) -> None:
    """Let other sweeps empty what this one was to empty."""
    tx.execute("UPDATE sweep_items SET open = false WHERE sweep_id = %s AND open", [sweep_id])


def reopen_items(tx: Tx, sweep_id: UUID) -> None:
    """Claim its items again, except those that another sweep has claimed meanwhile."""
    tx.execute(
        "UPDATE sweep_items i SET open = true, left_behind = false WHERE sweep_id = %s AND NOT EXISTS ("
        " SELECT 1 FROM sweep_items o WHERE o.address_id = i.address_id AND o.asset = i.asset AND o.open)",
        [sweep_id],
    )


def close_item(tx: Tx, sweep_id: UUID, address_id: int, asset: str, *, left_units: int) -> None:
    """Note that we have looked at what a final sweep left of one item: zero units, or all that it was to take."""
    tx.execute(
        "UPDATE sweep_items SET open = false, left_behind = %s WHERE sweep_id = %s AND address_id = %s AND asset = %s",
        [left_units > 0, sweep_id, address_id, asset],
    )


def to_look_at(tx: Tx, chain: str, keyset: str) -> Sequence[tuple[UUID, Item, str]]:
    """Items of final sweeps at which we have not looked yet: sweep, item, and the address's text."""
    rows = tx.all(
        "SELECT s.id, i.address_id, i.asset, i.units, a.address FROM sweeps s"
        " JOIN sweep_items i ON i.sweep_id = s.id AND i.open JOIN addresses a ON a.id = i.address_id"
        " WHERE s.chain = %s AND s.keyset = %s AND s.state = 'confirmed' ORDER BY s.id, i.address_id, i.asset",
        [chain, keyset],
    )
    return [
        (row["id"], Item(row["address_id"], row["asset"], units(row["units"])), row["address"])
        for row in rows
    ]


def arrived(tx: Tx, addresses: Iterable[int], anchor: int) -> dict[tuple[int, str], list[Arrived]]:
    """By address and asset: deposits in blocks up to the anchor that are not known to be gone, in the chain's order.

    Locked until the end of `tx`, so that their states stay.
    """
    rows = tx.all(
        "SELECT id, address_id, asset, units FROM deposits WHERE address_id = ANY (%s) AND height <= %s"
        " AND state NOT IN ('swept', 'clawed_back', 'orphaned', 'seen') ORDER BY height, resource FOR UPDATE",
        [sorted(set(addresses)), anchor],
    )
    found: dict[tuple[int, str], list[Arrived]] = {}
    for row in rows:
        deposit = Arrived(row["id"], units(row["units"]))
        found.setdefault((row["address_id"], row["asset"]), []).append(deposit)
    return found


def move_deposits(
    tx: Tx, ids: Iterable[UUID], event: DepositEvent, detail: Mapping[str, Any]
) -> frozenset[UUID]:
    """Mark credited deposits as swept, or swept ones as credited again; returns which. Others stay as they are."""
    moved: set[UUID] = set()
    for source in DEPOSIT.sources(event):
        target = DEPOSIT.next(source, event)
        rows = tx.all(
            "UPDATE deposits SET state = %s, updated_at = now() WHERE id = ANY (%s) AND state = %s RETURNING id",
            [target, list(ids), source],
        )
        tx.executemany(
            "INSERT INTO deposit_events (deposit_id, event, from_state, to_state, detail) VALUES (%s, %s, %s, %s, %s)",
            [[row["id"], event, source, target, Jsonb(dict(detail))] for row in rows],
        )
        moved.update(row["id"] for row in rows)
    return frozenset(moved)


def swept_by(tx: Tx, sweep_id: UUID, height: int) -> Sequence[UUID]:
    """Deposits marked as swept that a sweep mined at `height` may have taken."""
    rows = tx.all(
        "SELECT d.id FROM sweep_items i JOIN deposits d ON d.address_id = i.address_id AND d.asset = i.asset"
        " WHERE i.sweep_id = %s AND d.state = 'swept' AND d.height <= %s ORDER BY d.id",
        [sweep_id, height],
    )
    return [row["id"] for row in rows]


def open_count(tx: Tx, chain: str, keyset: str, kind: Kind) -> int:
    """How many sweeps of a wallet are not final."""
    row = tx.one(
        "SELECT count(*) AS n FROM sweeps WHERE chain = %s AND keyset = %s AND kind = %s AND state = ANY (%s)",
        [chain, keyset, kind, list(OPEN_STATES)],
    )
    return int(row["n"])


def last_trouble(tx: Tx, chain: str, keyset: str, kind: Kind) -> tuple[int, int]:
    """How many sweeps of a wallet were abandoned since one was confirmed, and when the last was (UNIX seconds; 0)."""
    row = tx.one(
        "SELECT count(*) AS n, coalesce(floor(extract(epoch FROM max(s.updated_at))), 0)::bigint AS at FROM sweeps s"
        " WHERE s.chain = %(chain)s AND s.keyset = %(keyset)s AND s.kind = %(kind)s AND s.state = 'abandoned'"
        " AND s.updated_at > coalesce((SELECT max(c.updated_at) FROM sweeps c WHERE c.chain = %(chain)s"
        "  AND c.keyset = %(keyset)s AND c.kind = %(kind)s AND c.state = 'confirmed'), '-infinity')",
        {"chain": chain, "keyset": keyset, "kind": kind},
    )
    return int(row["n"]), int(row["at"])


def doubtful(tx: Tx, addresses: Iterable[int], assets: Iterable[str]) -> bool:
    """Whether one of the addresses has a held deposit of one of the assets, or an officer has frozen either."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM deposits d JOIN addresses a ON a.id = d.address_id"
        " WHERE d.address_id = ANY (%s) AND d.asset = ANY (%s)"
        " AND (d.state = 'held' OR frozen('asset:' || d.asset, 'customer:' || a.customer_id))) AS found",
        [sorted(set(addresses)), sorted(set(assets))],
    )
    return bool(row["found"])


def needed(tx: Tx, chain: str) -> frozenset[str]:
    """Assets for which withdrawals of the hot tier wait for funds."""
    rows = tx.all(
        "SELECT DISTINCT asset FROM withdrawals WHERE chain = %s AND tier = 'hot' AND state = 'queued'"
        " AND reason LIKE 'insufficient-hot-funds%%'",
        [chain],
    )
    return frozenset(row["asset"] for row in rows)


def queued_units(tx: Tx, chain: str, asset: str) -> int:
    """What withdrawals of an asset that are on their way to the hot tier ask for together."""
    row = tx.one(
        "SELECT coalesce(sum(units), 0) AS n FROM withdrawals WHERE chain = %s AND asset = %s"
        " AND state IN ('requested', 'screening', 'awaiting_approval', 'cooling', 'queued', 'building')",
        [chain, asset],
    )
    return units(row["n"])


_CANDIDATES: Final = """
    WITH piles AS MATERIALIZED (
        SELECT d.address_id, d.asset, sum(d.units) AS units, min(d.updated_at) AS since
        FROM deposits d WHERE d.chain = %(chain)s AND d.state = 'credited' AND d.height <= %(anchor)s
        GROUP BY d.address_id, d.asset),
    -- Whoever floods us with dust costs one pass over it, and none over what else we know of each address.
    worthy AS MATERIALIZED (
        SELECT DISTINCT p.address_id FROM piles p
        JOIN unnest(%(assets)s::text[], %(least)s::numeric[]) AS t (asset, least)
          ON t.asset = p.asset AND p.units >= t.least)
    SELECT p.address_id, a.index, a.address, p.asset, p.units, floor(extract(epoch FROM p.since))::bigint AS since,
           h.doubtful, h.deployed, h.failures, h.failed_at, h.left_behind, h.left_at
    FROM worthy w JOIN addresses a ON a.id = w.address_id JOIN piles p ON p.address_id = w.address_id
    CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT DISTINCT x.asset FROM deposits x
                     WHERE x.address_id = p.address_id
                     AND (x.state = 'held' OR frozen('asset:' || x.asset))) AS doubtful,
               coalesce(bool_or(s.state = 'confirmed'), false) AS deployed,
               -- What went wrong counts until a later sweep of the same went well.
               count(*) FILTER (WHERE b.blamed AND s.updated_at > g.well) AS failures,
               coalesce(floor(extract(epoch FROM max(s.updated_at) FILTER (WHERE b.blamed))), 0)::bigint AS failed_at,
               count(*) FILTER (WHERE i.left_behind AND i.asset = p.asset AND s.updated_at > g.taken) AS left_behind,
               coalesce(floor(extract(epoch FROM max(s.updated_at)
                        FILTER (WHERE i.left_behind AND i.asset = p.asset))), 0)::bigint AS left_at
        FROM sweep_items i JOIN sweeps s ON s.id = i.sweep_id
        CROSS JOIN LATERAL (
            SELECT coalesce(max(c.updated_at), '-infinity') AS well,
                   coalesce(max(c.updated_at) FILTER (WHERE NOT k.left_behind), '-infinity') AS taken
            FROM sweep_items k JOIN sweeps c ON c.id = k.sweep_id AND c.state = 'confirmed'
            WHERE k.address_id = p.address_id AND k.asset = p.asset) g
        CROSS JOIN LATERAL (
            -- Every flush takes native money along: that spoilt none that was for tokens.
            SELECT s.state = 'abandoned' AND i.asset = p.asset AND i.units > 0 AND (
                       p.asset <> %(native)s OR NOT EXISTS (
                           SELECT 1 FROM sweep_items o WHERE o.sweep_id = i.sweep_id AND o.address_id = i.address_id
                           AND o.asset <> p.asset AND o.units > 0)) AS blamed) b
        WHERE i.address_id = p.address_id) h
    WHERE a.keyset = %(keyset)s AND a.purpose = 'deposit' AND NOT frozen('customer:' || a.customer_id)
      AND NOT EXISTS (SELECT 1 FROM sweep_items o WHERE o.address_id = p.address_id AND o.open)
    ORDER BY a.index, p.asset
"""


def candidates(
    tx: Tx, chain: str, keyset: str, anchor: int, least: Mapping[str, int], *, native: str
) -> Sequence[Candidate]:
    """Forwarders with credited deposits in blocks up to the anchor and in no open sweep, by salt.

    Args:
        tx: a snapshot.
        chain: whose deposits.
        keyset: of the forwarders.
        anchor: height of the newest final block.
        least: units by asset; forwarders that have less of everything are left out.
        native: the chain's native asset.
    """
    rows = tx.all(
        _CANDIDATES,
        {
            "chain": chain,
            "keyset": keyset,
            "anchor": anchor,
            "assets": list(least),
            "least": list(least.values()),
            "native": native,
        },
    )
    grouped: dict[int, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["address_id"], []).append(row)
    return [
        Candidate(
            address_id=address_id,
            index=piles[0]["index"],
            address=piles[0]["address"],
            piles=tuple(
                Pile(
                    asset=row["asset"],
                    units=units(row["units"]),
                    since=row["since"],
                    left_behind=row["left_behind"],
                    left_at=row["left_at"],
                    failures=row["failures"],
                    failed_at=row["failed_at"],
                )
                for row in piles
            ),
            deployed=piles[0]["deployed"],
            doubtful=frozenset(piles[0]["doubtful"]),
        )
        for address_id, piles in grouped.items()
    ]


def address_ids(tx: Tx, keyset: str, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Ids of addresses by branch and index."""
    wanted = set(places)
    rows = tx.all(
        "SELECT id, branch, index FROM addresses WHERE keyset = %s AND (branch, index) IN"
        " (SELECT * FROM unnest(%s::int[], %s::int[]))",
        [keyset, [branch for branch, _ in wanted], [index for _, index in wanted]],
    )
    return {(row["branch"], row["index"]): row["id"] for row in rows}
