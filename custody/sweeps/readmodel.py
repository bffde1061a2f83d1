"""SQL of what people are shown of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from custody.storage.db import Row, Tx, units
from custody.sweeps.lifecycle import SweepState
from custody.sweeps.model import Sweep

_SHOWN: Final = """
    SELECT s.*, t.confirmed_txid, v.txid AS newest_txid, coalesce(c.fee_units, v.fee_units) AS fee_units,
           i.addresses, i.expected
    FROM sweeps s
    LEFT JOIN transactions t ON t.id = s.transaction_id
    LEFT JOIN LATERAL (SELECT txid, fee_units FROM transaction_versions w WHERE w.transaction_id = t.id
                       ORDER BY w.txid IS NOT DISTINCT FROM t.confirmed_txid DESC, w.version DESC LIMIT 1) v ON true
    LEFT JOIN LATERAL (SELECT max(u.fee_units) AS fee_units FROM consumptions u
                       WHERE u.chain = s.chain AND u.txid = t.confirmed_txid) c ON true
    CROSS JOIN LATERAL (SELECT count(DISTINCT address_id) AS addresses, jsonb_object_agg(asset, units) AS expected
                        FROM (SELECT address_id, asset, sum(sum(x.units)) OVER (PARTITION BY asset)::text AS units
                              FROM sweep_items x WHERE x.sweep_id = s.id GROUP BY address_id, asset) y) i
"""


def shown(
    tx: Tx, *, state: SweepState | None = None, after: UUID | None = None, limit: int
) -> Sequence[Sweep]:
    """Sweeps for showing, oldest first.

    Args:
        tx: a snapshot.
        state: only those in it.
        after: only those behind this one.
        limit: most of them.
    """
    rows = tx.all(
        _SHOWN + " WHERE (%(state)s::text IS NULL OR s.state = %(state)s)"
        " AND (%(after)s::uuid IS NULL OR s.id > %(after)s) ORDER BY s.id LIMIT %(limit)s",
        {"state": state, "after": after, "limit": limit},
    )
    return [_sweep(row) for row in rows]


def find(tx: Tx, sweep_id: UUID) -> Sweep | None:
    """One sweep for showing, or None."""
    row = tx.optional(_SHOWN + " WHERE s.id = %s", [sweep_id])
    return None if row is None else _sweep(row)


def _sweep(row: Row) -> Sweep:
    return Sweep(
        id=row["id"],
        chain=row["chain"],
        keyset=row["keyset"],
        kind=row["kind"],
        state=SweepState(row["state"]),
        reason=row["reason"],
        transaction_id=row["transaction_id"],
        txid=row["confirmed_txid"] or row["newest_txid"],
        fee_units=None if row["fee_units"] is None else units(row["fee_units"]),
        addresses=row["addresses"],
        units={asset: int(amount) for asset, amount in (row["expected"] or {}).items()},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
