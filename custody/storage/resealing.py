"""Sealing everything anew under the newest key, in batches, while the service runs.

What is sealed under an older key is found by its key's id, so whatever was interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from custody.storage import events
from custody.storage.db import Database, Tx
from custody.storage.sealing import CannotOpen, Keys, Place

BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column with sealed values; `key` is a column generated from it, the id of its key."""

    table: LiteralString
    row: LiteralString
    """Its primary key."""
    column: LiteralString
    key: LiteralString

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.table}.{self.column}"


COLUMNS: Final = (
    SealedColumn("travel_rule", "withdrawal_id", "data", "data_key"),
    SealedColumn("whitelist", "id", "label", "label_key"),
)
"""All sealed columns: whoever adds one names it here."""


@dataclass(frozen=True, slots=True)
class Resealed:
    """What a pass over one column did."""

    column: SealedColumn
    sealed: int
    """Values that are under the newest key now and were not before."""
    broken: tuple[str, ...]
    """Rows whose value could not be opened, each with why: they are as they were."""


def reseal(
    db: Database,
    keys: Keys,
    column: SealedColumn,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> Resealed:
    """Seal every value of a column that is under an older key anew, a batch a transaction. Again changes nothing.

    Args:
        db: as the workers' role.
        keys: the ring; all keys that are in use must be in it.
        column: which.
        batch: values of one transaction.
        progress: called with the number done after each.
    """
    done, broken, after = 0, list[str](), ""
    while True:
        with db.transaction() as tx:
            rows = _older(tx, keys, column, after, batch)
            for row, sealed in rows:
                place = Place(column.table, column.column, row)
                try:
                    fresh = keys.seal(place, keys.open(place, sealed))
                except CannotOpen as error:
                    broken.append(f"{row}: {error}")
                    continue
                done += tx.execute(
                    f"UPDATE {column.table} SET {column.column} = %s"
                    f" WHERE {column.row}::text = %s AND {column.column} = %s",
                    [fresh, row, sealed],
                )
            if rows:
                events.emit(tx, "operator.resealed", column.name, {"key": keys.newest, "rows": len(rows)})
        if not rows:
            return Resealed(column, done, tuple(broken))
        after = rows[-1][0]
        progress(done)


def _older(tx: Tx, keys: Keys, column: SealedColumn, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
    rows = tx.all(
        f"SELECT {column.row}::text AS row, {column.column} AS sealed FROM {column.table}"
        f" WHERE {column.key} <> %s AND {column.row}::text > %s ORDER BY {column.row}::text LIMIT %s FOR UPDATE",
        [keys.newest, after, limit],
    )
    return [(row["row"], bytes(row["sealed"])) for row in rows]


def under(tx: Tx, column: SealedColumn) -> dict[str, int]:
    """How many values are sealed under each key: one that is not named may leave the ring."""
    rows = tx.all(f"SELECT {column.key} AS key, count(*) AS n FROM {column.table} GROUP BY 1 ORDER BY 1")
    return {row["key"]: int(row["n"]) for row in rows}
