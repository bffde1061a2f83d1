"""SQL of what waits for a verifier's word, and of when there last was one. Belongs to the journal's single writer."""

from __future__ import annotations

import sqlite3

from signers.ports import Unresolved


def note_resolved(connection: sqlite3.Connection, chain: str, content: str, *, now: int) -> None:
    """Remember that a verifier's word on a journaled transaction was taken at `now`, UNIX seconds."""
    connection.execute(
        "INSERT OR REPLACE INTO resolved SELECT keyset, chain, ? FROM transactions WHERE chain = ? AND content = ?",
        (now, chain, content),
    )


def unresolved(connection: sqlite3.Connection) -> tuple[Unresolved, ...]:
    """By wallet and chain, of those that have signed anything that was resolved, or waits for it."""
    resolved = {
        (keyset, chain): int(at)
        for keyset, chain, at in connection.execute("SELECT keyset, chain, at FROM resolved")
    }
    waiting = {
        (keyset, chain): (int(count), int(oldest))
        for keyset, chain, count, oldest in connection.execute(
            "SELECT keyset, chain, count(*), min(at) FROM transactions WHERE outcome IS NULL GROUP BY keyset, chain"
        )
    }
    found = []
    for keyset, chain in sorted(resolved.keys() | waiting.keys()):
        count, oldest = waiting.get((keyset, chain), (0, None))
        found.append(
            Unresolved(
                keyset=keyset,
                chain=chain,
                count=count,
                oldest_at=oldest,
                resolved_at=resolved.get((keyset, chain)),
            )
        )
    return tuple(found)
