"""SQL of settlements and moves. Rows in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from custody.storage.db import Row, Tx, units
from custody.trades.model import Batch, Cursor, Evidence, Move, Target


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that was made."""

    move: Move
    at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """What a customer has in trading, as the ledger says."""

    customer: str
    asset: str
    units: int


def lock(tx: Tx, core: UUID) -> None:
    """Settle for a core one at a time, until the transaction ends."""
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('trading_settlements'), hashtext(%s))", [str(core)])


def cursor(tx: Tx, core: UUID) -> Cursor:
    """How far a core is settled; of one never heard of, the beginning."""
    row = tx.optional(
        "SELECT number, last, complete, fill_sequence, fill_index FROM trading_settlements"
        " WHERE core = %s ORDER BY number DESC LIMIT 1",
        [core],
    )
    if row is None:
        return Cursor()
    fill = (row["fill_sequence"], row["fill_index"])
    return Cursor(row["number"], row["last"], row["complete"], fill)


def settled(tx: Tx, batch: Batch) -> bool:
    """Whether this very batch was settled before."""
    found = tx.optional(
        "SELECT 1 AS found FROM trading_settlements WHERE core = %s AND content_hash = %s",
        [batch.core, batch.content_hash()],
    )
    return found is not None


def other_cores(tx: Tx, core: UUID) -> bool:
    """Whether any other core has settled something."""
    found = tx.optional("SELECT 1 AS found FROM trading_settlements WHERE core <> %s LIMIT 1", [core])
    return found is not None


def insert_settlement(tx: Tx, batch: Batch, after: Cursor, evidence: Evidence) -> None:
    """Record a batch as the core's next one; what the ledger books of it must follow in this transaction."""
    tx.execute(
        "INSERT INTO trading_settlements (core, number, first, last, complete, fill_sequence, fill_index, fills,"
        " content_hash, caller, document, token, signature)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            batch.core,
            after.batches,
            batch.first,
            batch.last,
            batch.complete,
            *after.fill,
            len(batch.fills),
            batch.content_hash(),
            evidence.caller,
            evidence.document,
            evidence.token,
            evidence.signature,
        ],
    )


def move(tx: Tx, id: UUID) -> Moved | None:
    """The move with this id, if it was made."""
    row = tx.optional(
        "SELECT id, customer_id, asset, units, target, at FROM trading_transfers WHERE id = %s", [id]
    )
    return None if row is None else _moved(row)


def insert_move(tx: Tx, move: Move, evidence: Evidence) -> Moved | None:
    """Record a move, whose ledger transfer must follow in this transaction; None if its id is taken."""
    row = tx.optional(
        "INSERT INTO trading_transfers (id, customer_id, asset, units, target, caller, document, token, signature)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
        " RETURNING id, customer_id, asset, units, target, at",
        [
            move.id,
            move.customer,
            move.asset,
            move.units,
            move.target,
            evidence.caller,
            evidence.document,
            evidence.token,
            evidence.signature,
        ],
    )
    return None if row is None else _moved(row)


def balances(tx: Tx, *, after: tuple[str, str], limit: int) -> list[Balance]:
    """Trading accounts that are not empty, by customer and asset, behind `after`."""
    rows = tx.all(
        "SELECT customer_id, asset, balance FROM ledger_accounts"
        " WHERE kind = 'trading' AND balance <> 0 AND (customer_id, asset) > (%s, %s)"
        " ORDER BY customer_id, asset LIMIT %s",
        [*after, limit],
    )
    return [Balance(row["customer_id"], row["asset"], units(row["balance"])) for row in rows]


def _moved(row: Row) -> Moved:
    target = cast(Target, row["target"])
    return Moved(Move(row["id"], row["customer_id"], row["asset"], units(row["units"]), target), row["at"])
