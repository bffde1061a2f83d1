"""SQL of the API's own records: nonces of tokens, answers under idempotency keys, requests to bump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from custody.storage.db import Row, Tx

_LOCK_SPACE: Final = 0x41504931
"""Namespace of the advisory locks taken here (two-integer form)."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered under a key, and to what."""

    request_hash: bytes
    """SHA-256 (32 bytes) of method, path, query and body."""
    status: int
    body: str


def spend_nonce(tx: Tx, caller: str, nonce: str, expires_at: int) -> bool:
    """Remember a nonce until `expires_at` (UNIX seconds). False if it was used before."""
    return (
        tx.optional(
            "INSERT INTO token_nonces (caller, nonce, expires_at) VALUES (%s, %s, to_timestamp(%s))"
            " ON CONFLICT DO NOTHING RETURNING true AS fresh",
            (caller, nonce, expires_at),
        )
        is not None
    )


def begin(tx: Tx, caller: str, nonce: str, expires_at: int, key: str) -> tuple[bool, StoredAnswer | None]:
    """`spend_nonce`, `lock_key` and `stored_answer` in one round trip: whether the nonce was fresh, and the answer."""
    row = tx.optional(
        "SELECT request_hash, status, body FROM begin_request(%s, %s, %s, %s, %s)",
        (caller, nonce, expires_at, _LOCK_SPACE, key),
    )
    if row is None:
        return False, None
    return True, None if row["status"] is None else _answer(row)


def lock_key(tx: Tx, caller: str, key: str) -> None:
    """Wait for every other transaction that works on the same idempotency key."""
    tx.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK_SPACE, f"{caller}\n{key}"))


def commit_without_waiting(tx: Tx) -> None:
    """Let this transaction's commit not wait for the disk; for what may be forgotten in a crash."""
    tx.execute("SET LOCAL synchronous_commit = off")


def forget_expired_nonces(tx: Tx, now: int) -> None:
    """Delete the nonces of tokens that are refused by their time anyway (`now`: UNIX seconds)."""
    tx.execute("DELETE FROM token_nonces WHERE expires_at < to_timestamp(%s)", (now - 60,))


def stored_answer(tx: Tx, caller: str, key: str) -> StoredAnswer | None:
    """The answer under a key, if there is one."""
    row = tx.optional(
        "SELECT request_hash, status, body FROM idempotency_keys WHERE caller = %s AND key = %s",
        (caller, key),
    )
    return None if row is None else _answer(row)


def _answer(row: Row) -> StoredAnswer:
    return StoredAnswer(bytes(row["request_hash"]), row["status"], row["body"])


def store_answer(tx: Tx, caller: str, key: str, answer: StoredAnswer) -> None:
    """Keep an answer, in the transaction of its effect."""
    tx.execute(
        "INSERT INTO idempotency_keys (caller, key, request_hash, status, body) VALUES (%s, %s, %s, %s, %s)",
        (caller, key, answer.request_hash, answer.status, answer.body),
    )


def request_bump(tx: Tx, request_id: UUID, transaction_id: UUID, feerate: int | None, caller: str) -> bool:
    """Ask the workers for a replacement (`feerate`: BTC sat/kvB, EVM wei/gas). False if one is asked for already."""
    return (
        tx.optional(
            "INSERT INTO bump_requests (id, transaction_id, feerate, requested_by) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (transaction_id) WHERE done_at IS NULL DO NOTHING RETURNING id",
            (request_id, transaction_id, feerate, caller),
        )
        is not None
    )
