"""SQL of nonces. They belong to this database: a node's word on the next one may be stale, and leaves holes.

A nonce is taken under the lock of its sender's row: the lowest one that is neither reserved for a transaction of ours
nor used by a mined one. So what a signer refused, which was never signed, leaves a hole that the next one fills.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from custody.signing.errors import Raced
from custody.storage.db import Tx

_STEP: Final = 256
"""So many nonces are looked at in one query."""

_UNCONFIRMED: Final = (
    " FROM transactions t JOIN LATERAL (SELECT substring(v.resources[1] FROM '[0-9]+$')::bigint AS nonce"
    "  FROM transaction_versions v WHERE v.transaction_id = t.id LIMIT 1) n ON true"
    " WHERE t.chain = %(chain)s AND t.keyset = %(keyset)s AND t.state IN ('built', 'broadcast')"
)


def take(tx: Tx, chain: str, account: str, *, used: int) -> int:
    """The nonce of the next transaction; the caller reserves it before `tx` ends. One caller at a time.

    Args:
        tx: the transaction that records what uses the nonce.
        chain: the chain.
        account: whose nonce, as in resources: `AccountSite.account`.
        used: how many of its nonces the chain has used, by the node's word of this moment.

    Raises:
        Raced: the chain has used the nonce, and the monitor has not read that block yet.
    """
    first = _forget_final(tx, chain, account, _lock(tx, chain, account, used))
    nonce = _lowest(tx, chain, account, first, _FREE)
    if nonce < used:
        raise Raced(f"nonce {nonce} of {account} is used, and the monitor has not seen by what")
    return nonce


def to_rescue(tx: Tx, chain: str, account: str, *, first: int) -> int:
    """The lowest nonce from `first` on that no block and no rotation uses, whatever else has reserved it.

    Args:
        tx: any; one that takes the nonce holds its lock (`lock`).
        chain: the chain.
        account: whose.
        first: at least what the chain has used, by the node's word of this moment.
    """
    return _lowest(tx, chain, account, first, _NOT_RESCUED)


def highest(tx: Tx, chain: str, keyset: str) -> int:
    """The highest nonce of what we may have signed and no block has, contested or not; -1 if there is nothing."""
    row = tx.one(
        "SELECT coalesce(max(substring(v.resources[1] FROM '[0-9]+$')::bigint), -1) AS nonce FROM transactions t"
        " JOIN transaction_versions v ON v.transaction_id = t.id WHERE t.chain = %s AND t.keyset = %s"
        " AND t.state IN ('built', 'broadcast', 'contested')",
        [chain, keyset],
    )
    return int(row["nonce"])


def lock(tx: Tx, chain: str, account: str, *, used: int) -> None:
    """Keep others from taking nonces of an account until `tx` ends; `used` as for `take`."""
    _lock(tx, chain, account, used)


def hole(tx: Tx, chain: str, keyset: str, account: str, *, older_than_seconds: int) -> int | None:
    """The lowest nonce that nothing of ours uses while a higher one has been broadcast for so long; None without.

    One that the signer has just refused to fill does not count, as long as it is not that old, too.
    """
    row = tx.optional("SELECT first FROM nonces WHERE chain = %s AND sender = %s", [chain, account])
    if row is None:
        return None
    params = {"chain": chain, "keyset": keyset, "seconds": older_than_seconds}
    highest = tx.one(
        "SELECT max(n.nonce) AS nonce"
        + _UNCONFIRMED
        + " AND t.state = 'broadcast' AND t.created_at <= now() - make_interval(secs => %(seconds)s)",
        params,
    )
    refused = tx.one(
        "SELECT EXISTS (SELECT 1 FROM transactions WHERE chain = %(chain)s AND keyset = %(keyset)s"
        " AND kind IN ('nonce_fill', 'cancellation') AND state = 'refused'"
        " AND updated_at > now() - make_interval(secs => %(seconds)s)) AS found",
        params,
    )
    if highest["nonce"] is None or refused["found"]:
        return None
    lowest = _lowest(tx, chain, account, int(row["first"]), _FREE)
    return lowest if lowest < highest["nonce"] else None


def unconfirmed(tx: Tx, chain: str, keyset: str) -> int:
    """How many transactions of ours are in no block yet, signed or not."""
    row = tx.one("SELECT count(*) AS n" + _UNCONFIRMED, {"chain": chain, "keyset": keyset})
    return int(row["n"])


def head(tx: Tx, chain: str, keyset: str) -> UUID | None:
    """The unconfirmed transaction with the lowest nonce: all others wait for it. None if nothing waits."""
    row = tx.optional(
        "SELECT t.id" + _UNCONFIRMED + " ORDER BY n.nonce LIMIT 1", {"chain": chain, "keyset": keyset}
    )
    return None if row is None else row["id"]


_FREE: Final = (
    "NOT EXISTS (SELECT 1 FROM reservations r WHERE r.chain = %(chain)s"
    "  AND r.resource = %(sender)s || ':' || n)"
    " AND NOT EXISTS (SELECT 1 FROM consumptions c WHERE c.chain = %(chain)s"
    "  AND c.resource = %(sender)s || ':' || n)"
)
_NOT_RESCUED: Final = (
    "NOT EXISTS (SELECT 1 FROM reservations r JOIN transactions t ON t.id = r.transaction_id"
    "  WHERE r.chain = %(chain)s AND r.resource = %(sender)s || ':' || n AND t.kind = 'rotation')"
    " AND NOT EXISTS (SELECT 1 FROM consumptions c WHERE c.chain = %(chain)s"
    "  AND c.resource = %(sender)s || ':' || n)"
)
_NOT_FINAL: Final = (
    "NOT EXISTS (SELECT 1 FROM consumptions c JOIN cursors k ON k.chain = c.chain"
    "  WHERE c.chain = %(chain)s AND c.resource = %(sender)s || ':' || n AND c.height <= k.anchor)"
)


def _lock(tx: Tx, chain: str, sender: str, used: int) -> int:
    tx.execute(
        "INSERT INTO nonces (chain, sender, first) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [chain, sender, used],
    )
    row = tx.one("SELECT first FROM nonces WHERE chain = %s AND sender = %s FOR UPDATE", [chain, sender])
    return int(row["first"])


def _lowest(tx: Tx, chain: str, sender: str, first: int, condition: str) -> int:
    while True:
        row = tx.one(
            f"SELECT min(n) AS nonce FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n WHERE {condition}",
            {"chain": chain, "sender": sender, "first": first, "last": first + _STEP - 1},
        )
        if row["nonce"] is not None:
            return int(row["nonce"])
        first += _STEP


def _forget_final(tx: Tx, chain: str, sender: str, first: int) -> int:
    """Begin after the nonces whose use is final: those need not be looked at again."""
    begin = _lowest(tx, chain, sender, first, _NOT_FINAL)
    if begin > first:
        tx.execute(
            "UPDATE nonces SET first = %s WHERE chain = %s AND sender = %s",
            [begin, chain, sender],
        )
    return begin
