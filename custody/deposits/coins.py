"""Repository of spendable coins: what the hot wallet may pay from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from custody.storage.db import Tx, units

COINBASE_MATURITY_BLOCKS: Final = 100
"""New coins can be spent in the 100th block after their own (`COINBASE_MATURITY`, a consensus rule)."""


@dataclass(frozen=True, slots=True)
class SpendableCoin:
    """An unspent output that may be an input of a payment."""

    resource: str
    """`txid:vout`."""
    txid: str
    units: int
    keyset: str
    branch: int
    index: int
    address_id: int
    script: bytes
    height: int
    block_hash: str
    deposit_id: UUID | None
    """The credited deposit that it is; None for our own change."""


def spendable(tx: Tx, chain: str, keyset: str) -> list[SpendableCoin]:
    """Coins of a key-set that nobody has used or reserved, largest first.

    A coin is spendable if its receipt is in the best chain that we have committed, no mined transaction
    consumes it, no transaction of ours has reserved it, it is mature, and it is a *credited* deposit or
    change of a transaction of ours (so at least one confirmation). Held, quarantined, too small or not yet
    deep enough deposits are none.
    """
    rows = tx.all(
        """
        SELECT r.resource, r.txid, r.units, a.keyset, a.branch, a.index, a.id AS address_id, a.script,
               r.height, r.block_hash, d.id AS deposit_id
        FROM receipts r
        JOIN addresses a ON a.id = r.address_id
        JOIN cursors t ON t.chain = r.chain
        LEFT JOIN deposits d ON d.chain = r.chain AND d.resource = r.resource
        WHERE r.chain = %(chain)s AND a.keyset = %(keyset)s AND r.units > 0
          AND (NOT r.coinbase OR t.height - r.height + 1 >= %(maturity)s)
          AND (d.state = 'credited'
               OR (d.id IS NULL AND a.purpose = 'change'
                   AND EXISTS (SELECT 1 FROM transaction_versions v WHERE v.txid = r.txid)))
          AND NOT EXISTS (SELECT 1 FROM consumptions c WHERE c.chain = r.chain AND c.resource = r.resource)
          AND NOT EXISTS (SELECT 1 FROM reservations s WHERE s.chain = r.chain AND s.resource = r.resource)
        ORDER BY r.units DESC, r.resource
        """,
        {"chain": chain, "keyset": keyset, "maturity": COINBASE_MATURITY_BLOCKS},
    )
    return [
        SpendableCoin(
            resource=row["resource"],
            txid=row["txid"],
            units=units(row["units"]),
            keyset=row["keyset"],
            branch=row["branch"],
            index=row["index"],
            address_id=row["address_id"],
            script=bytes(row["script"]),
            height=row["height"],
            block_hash=row["block_hash"],
            deposit_id=row["deposit_id"],
        )
        for row in rows
    ]
