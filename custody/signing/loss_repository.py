"""SQL of coins that strangers have spent, and of what is booked for them."""

from __future__ import annotations

from custody.errors import Conflict
from custody.signing.model import ForeignSpend, Loss
from custody.storage.db import Row, Tx, units


def foreign_spends(tx: Tx, chain: str) -> list[ForeignSpend]:
    """Coins of ours that mined transactions which are no versions of ours have used, and that are not booked.

    A coin whose own block was undone has no receipt, so it is not among them.
    """
    rows = tx.all(
        "SELECT r.chain, r.resource, a.keyset, r.asset, r.units, c.txid, c.height FROM consumptions c"
        " JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource JOIN addresses a ON a.id = r.address_id"
        " WHERE c.chain = %s AND r.units > 0"
        " AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = c.content)"
        " AND NOT EXISTS (SELECT 1 FROM losses l WHERE l.chain = c.chain AND l.resource = c.resource"
        "  AND l.state = 'booked') ORDER BY r.resource LIMIT 1000",
        [chain],
    )
    return [_spend(row) for row in rows]


def undone(tx: Tx, chain: str) -> list[Loss]:
    """Booked losses whose coin is gone, or that the foreign transaction no longer spends in the best chain."""
    rows = tx.all(
        "SELECT l.* FROM losses l WHERE l.chain = %s AND l.state = 'booked' AND NOT EXISTS ("
        " SELECT 1 FROM consumptions c JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource"
        " WHERE c.chain = l.chain AND c.resource = l.resource AND c.txid = l.txid) ORDER BY l.resource LIMIT 1000",
        [chain],
    )
    return [Loss(_spend(row), row["bookings"]) for row in rows]


def record(tx: Tx, spend: ForeignSpend) -> int:
    """Note that a foreign spend is being booked; returns the number of the booking: 1, 2, ...

    Raises:
        Conflict: another worker has booked it.
    """
    row = tx.optional(
        "INSERT INTO losses (chain, resource, keyset, asset, units, txid, height) VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (chain, resource) DO UPDATE SET state = 'booked', bookings = losses.bookings + 1,"
        "  units = excluded.units, txid = excluded.txid, height = excluded.height, updated_at = now()"
        " WHERE losses.state = 'undone' RETURNING bookings",
        [spend.chain, spend.resource, spend.keyset, spend.asset, spend.units, spend.txid, spend.height],
    )
    if row is None:
        raise Conflict(f"the loss of {spend.resource} is booked already")
    return int(row["bookings"])


def record_undone(tx: Tx, loss: Loss) -> None:
    """Note that the booking of a loss is reversed. Raises Conflict: another worker has done so."""
    moved = tx.execute(
        "UPDATE losses SET state = 'undone', updated_at = now() WHERE chain = %s AND resource = %s"
        " AND bookings = %s AND state = 'booked'",
        [loss.spend.chain, loss.spend.resource, loss.bookings],
    )
    if not moved:
        raise Conflict(f"the loss of {loss.spend.resource} is no longer booked")


def _spend(row: Row) -> ForeignSpend:
    return ForeignSpend(
        chain=row["chain"],
        resource=row["resource"],
        keyset=row["keyset"],
        asset=row["asset"],
        units=units(row["units"]),
        txid=row["txid"],
        height=row["height"],
    )
