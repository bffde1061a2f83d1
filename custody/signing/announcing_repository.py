"""SQL of what a signer is shown early: orders, and entries of whitelists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from custody.storage.db import Row, Tx

_UNSHOWN: Final = (
    "NOT EXISTS (SELECT 1 FROM announcements a WHERE a.wallet = %(wallet)s AND a.subject = w.id)"
)


def orders(tx: Tx, chain: str, wallet: str, tier: str, *, now: int, limit: int) -> Sequence[Row]:
    """Orders (order_json, order_signature, order_hash) that a wallet may have to pay some day and was not shown.

    Rejected ones too: who is told that a destination is too new orders again when it is old enough.
    """
    return tx.all(
        "SELECT w.id, w.order_json, w.order_signature FROM withdrawals w WHERE w.chain = %(chain)s"
        " AND w.state IN ('awaiting_approval', 'cooling', 'queued', 'rejected')"
        " AND w.expires_at > to_timestamp(%(now)s)"
        f" AND (w.tier = %(tier)s OR w.tier IS NULL) AND {_UNSHOWN} ORDER BY w.created_at, w.id LIMIT %(limit)s",
        {"chain": chain, "wallet": wallet, "tier": tier, "now": now, "limit": limit},
    )


def entries(tx: Tx, chain: str, wallet: str, *, limit: int) -> Sequence[Row]:
    """Entries (document, signature) that are listed and that a wallet was not shown."""
    return tx.all(
        "SELECT w.id, w.document, w.signature FROM whitelist w WHERE w.chain = %(chain)s AND w.state = 'listed'"
        f" AND {_UNSHOWN} ORDER BY w.listed_at, w.id LIMIT %(limit)s",
        {"chain": chain, "wallet": wallet, "limit": limit},
    )


def mark_shown(tx: Tx, wallet: str, subjects: Iterable[UUID]) -> None:
    """These need not be shown again."""
    tx.executemany(
        "INSERT INTO announcements (wallet, subject) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [[wallet, subject] for subject in subjects],
    )
