"""SQL of reservations: each coin and nonce in use belongs to one transaction, the one that is to use it now.

What has used it before, or would have, may still confirm: who contests whom is in the lifecycle, and blocks decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from custody.storage.db import Tx


def reserve(tx: Tx, chain: str, resources: Sequence[str], transaction_id: UUID) -> bool:
    """Reserve resources for a transaction; False if another has one of them. Roll back then."""
    inserted = tx.executemany(
        "INSERT INTO reservations (chain, resource, transaction_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [[chain, resource, transaction_id] for resource in sorted(resources)],
    )
    return inserted == len(resources)


def release(tx: Tx, transaction_id: UUID, *, keep: Sequence[str] = ()) -> None:
    """Free the transaction's resources, except those to keep."""
    tx.execute(
        "DELETE FROM reservations WHERE transaction_id = %s AND resource <> ALL (%s)",
        [transaction_id, list(keep)],
    )


def take(tx: Tx, chain: str, resources: Sequence[str], transaction_id: UUID) -> None:
    """What a final version has used is reserved for its transaction alone, whoever contested it; all else is freed."""
    release(tx, transaction_id, keep=resources)
    tx.execute(
        "DELETE FROM reservations WHERE chain = %s AND resource = ANY (%s) AND transaction_id <> %s",
        [chain, list(resources), transaction_id],
    )
    reserve(tx, chain, resources, transaction_id)


def of_transaction(tx: Tx, transaction_id: UUID) -> Sequence[str]:
    """What is reserved for a transaction."""
    rows = tx.all(
        "SELECT resource FROM reservations WHERE transaction_id = %s ORDER BY resource", [transaction_id]
    )
    return [row["resource"] for row in rows]
