"""SQL of whitelists, and of since when destinations are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from custody.storage.db import Row, Tx
from custody.storage.sealing import Place
from custody.whitelist.lifecycle import WHITELIST, EntryEvent, EntryState
from custody.whitelist.model import Entry
from policies.rules import HOUSE
from policies.statements import SignedWhitelistEntry

_COLUMNS: Final = (
    "id, owner, chain, address, label, provenance, requested_by, state, document, signature, listed_at, removed_by,"
    " created_at, updated_at"
)


def place_of(entry: UUID) -> Place:
    """Where an entry's label belongs."""
    return Place("whitelist", "label", str(entry))


def insert(
    tx: Tx,
    entry: UUID,
    *,
    owner: str,
    chain: str,
    address: str,
    label: bytes | None,
    provenance: str,
    requested_by: str,
) -> bool:
    """Ask for an entry; False if its id, or the owner's place for this address, is taken."""
    return bool(
        tx.execute(
            "INSERT INTO whitelist (id, owner, chain, address, label, provenance, requested_by)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [entry, owner, chain, address, label, provenance, requested_by],
        )
    )


def find(tx: Tx, entry: UUID) -> Entry | None:
    """The entry, or None."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM whitelist WHERE id = %s", [entry])
    return None if row is None else _entry(row)


def lock(tx: Tx, entry: UUID) -> Entry | None:
    """The entry, locked until this transaction ends; or None."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM whitelist WHERE id = %s FOR UPDATE", [entry])
    return None if row is None else _entry(row)


def present(tx: Tx, owner: str, chain: str, address: str) -> Entry | None:
    """The owner's entry for this very address that is not removed."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM whitelist WHERE owner = %s AND chain = %s AND address = %s AND state <> 'removed'",
        [owner, chain, address],
    )
    return None if row is None else _entry(row)


def page(tx: Tx, *, owner: str, after: UUID | None, limit: int) -> Sequence[Entry]:
    """At most `limit` entries of an owner, by id, removed ones too, beginning after `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM whitelist WHERE owner = %(owner)s AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"owner": owner, "after": after, "limit": limit},
    )
    return [_entry(row) for row in rows]


def unlisted(tx: Tx, *, limit: int) -> Sequence[UUID]:
    """Customers' entries that a caller has signed and no worker has listed."""
    rows = tx.all(
        "SELECT id FROM whitelist WHERE state = 'confirmed' AND owner <> %s ORDER BY id LIMIT %s",
        [HOUSE, limit],
    )
    return [row["id"] for row in rows]


def confirm(tx: Tx, entry: Entry, signed: SignedWhitelistEntry) -> Entry:
    """Keep what a caller has signed. Raises ImpossibleTransition."""
    return _move(
        tx,
        entry,
        EntryEvent.CONFIRM,
        "document = %(document)s, signature = %(signature)s",
        {"document": signed.entry.canonical().decode(), "signature": signed.signature},
    )


def mark_listed(tx: Tx, entry: Entry, *, now: int) -> Entry:
    """From `now` on (UNIX seconds) it cools. Raises ImpossibleTransition."""
    return _move(tx, entry, EntryEvent.LIST, "listed_at = to_timestamp(%(now)s)", {"now": now})


def remove(tx: Tx, entry: Entry, *, by: str) -> Entry:
    """It is no entry any more. Raises ImpossibleTransition."""
    return _move(tx, entry, EntryEvent.REMOVE, "removed_by = %(by)s", {"by": by})


def _move(tx: Tx, entry: Entry, event: EntryEvent, changes: str, values: dict[str, object]) -> Entry:
    target = WHITELIST.next(entry.state, event)
    row = tx.one(
        f"UPDATE whitelist SET state = %(state)s, updated_at = now(), {changes} WHERE id = %(id)s RETURNING {_COLUMNS}",
        {**values, "state": target, "id": entry.id},
    )
    return _entry(row)


def note(tx: Tx, owner: str, chain: str, address: str, *, now: int) -> None:
    """A destination is known from `now` on (UNIX seconds), unless it is known longer."""
    tx.execute(
        "INSERT INTO destinations (owner, chain, address, since) VALUES (%s, %s, %s, to_timestamp(%s))"
        " ON CONFLICT DO NOTHING",
        [owner, chain, address, now],
    )


def known_since(tx: Tx, owner: str, chain: str, address: str) -> int | None:
    """Since when (UNIX seconds) an owner's destination is known; None: it is new."""
    row = tx.optional(
        "SELECT since FROM destinations WHERE owner = %s AND chain = %s AND address = %s",
        [owner, chain, address],
    )
    return None if row is None else int(row["since"].timestamp())


def known(tx: Tx, owner: str, chain: str, tail: str, *, until: int | None) -> list[str]:
    """An owner's destinations that end so, upper and lower case aside.

    Args:
        tx: a transaction.
        owner: a customer, or `house`.
        chain: its chain.
        tail: last characters.
        until: only those that were known then (UNIX seconds); None: all.
    """
    rows = tx.all(
        "SELECT address FROM destinations WHERE owner = %(owner)s AND chain = %(chain)s"
        "  AND right(lower(address), length(%(tail)s)) = lower(%(tail)s)"
        "  AND (%(until)s::bigint IS NULL OR since < to_timestamp(%(until)s::bigint + 1))"
        " UNION SELECT address FROM whitelist WHERE owner = %(owner)s AND chain = %(chain)s"
        "  AND state IN ('requested', 'confirmed')"  # what is listed is known
        "  AND right(lower(address), length(%(tail)s)) = lower(%(tail)s)",
        {"owner": owner, "chain": chain, "tail": tail, "until": until},
    )
    return [row["address"] for row in rows]


def _entry(row: Row) -> Entry:
    return Entry(**{**row, "state": EntryState(row["state"])})
