"""Transfers between funding and trading, on the disk before anything is asked of custody: SQLite, one small file.

```
to trading    asked -> moved (the ledger has) -> done (the engine has, too)      asked -> refused
to funding    debited (the engine has) -> done (the ledger has, too)             debited -> refused -> returned
```

What is not at an end is taken up again at every start; ledger and engine each do a transfer's id once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, cast

from custody.trading.failures import TransferConflict
from custody.trading.ports import Target, Transfer

State = Literal["asked", "moved", "debited", "refused", "done", "returned"]

_NEXT: Final[dict[tuple[Target, State], frozenset[State]]] = {
    ("trading", "asked"): frozenset({"moved", "refused"}),
    ("trading", "moved"): frozenset({"done"}),
    ("funding", "debited"): frozenset({"done", "refused"}),
    ("funding", "refused"): frozenset({"returned"}),
}
"""What follows what; all else is an end."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS transfers (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    customer TEXT NOT NULL,
    asset TEXT NOT NULL,
    units TEXT NOT NULL,
    target TEXT NOT NULL CHECK (target IN ('trading', 'funding')),
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    at INTEGER NOT NULL,
    UNIQUE (id, target)
) STRICT;
CREATE INDEX IF NOT EXISTS transfers_open ON transfers (number)
    WHERE state IN ('asked', 'moved', 'debited') OR (state = 'refused' AND target = 'funding');
CREATE INDEX IF NOT EXISTS transfers_of ON transfers (customer, number);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A transfer and how far it is."""

    number: int
    transfer: Transfer
    state: State
    reason: str
    """Why it was refused, as custody said; empty otherwise."""
    at: int
    """When it was asked for, microseconds since 1970."""


class TransferBook:
    """The file. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def begin(self, transfer: Transfer, at: int) -> Entry:
        """Write a transfer down: `asked` of custody, or `debited` by the engine. The same again changes nothing.

        Raises:
            TransferConflict: its id was used for another one in this direction.
        """
        state: State = "asked" if transfer.to == "trading" else "debited"
        self._db.execute(
            "INSERT INTO transfers (id, customer, asset, units, target, state, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (transfer.id, transfer.customer, transfer.asset, str(transfer.units), transfer.to, state, at),
        )
        found = self.find(transfer.id, transfer.to)
        assert found is not None
        if found.transfer != transfer:
            raise TransferConflict(transfer.id)
        return found

    def follow(self, transfer: Transfer, state: State, reason: str = "") -> Entry:
        """Go on to a state that may follow the present one; from any other nothing changes. Returns what is
        there then."""
        before = [
            known for (target, known), after in _NEXT.items() if target == transfer.to and state in after
        ]
        marks = ", ".join("?" * len(before))
        self._db.execute(
            f"UPDATE transfers SET state = ?, reason = reason || ? WHERE id = ? AND target = ? AND state IN ({marks})",
            (state, reason, transfer.id, transfer.to, *before),
        )
        found = self.find(transfer.id, transfer.to)
        assert found is not None
        return found

    def find(self, id: str, to: Target) -> Entry | None:
        """A transfer by id and direction."""
        row = self._db.execute(f"{_SELECT} WHERE id = ? AND target = ?", (id, to)).fetchone()
        return None if row is None else _entry(row)

    def open(self) -> list[Entry]:
        """All that are not at an end, in the order in which they began."""
        rows = self._db.execute(
            f"{_SELECT} WHERE state IN ('asked', 'moved', 'debited') OR (state = 'refused' AND target = 'funding')"
            " ORDER BY number"
        )
        return [_entry(row) for row in rows]

    def page(self, customer: str, *, after: int, limit: int) -> list[Entry]:
        """A customer's transfers behind number `after`, oldest first."""
        rows = self._db.execute(
            f"{_SELECT} WHERE customer = ? AND number > ? ORDER BY number LIMIT ?", (customer, after, limit)
        )
        return [_entry(row) for row in rows]


_SELECT: Final = "SELECT number, id, customer, asset, units, target, state, reason, at FROM transfers"


def _entry(row: Sequence[object]) -> Entry:
    number, id, customer, asset, units, target, state, reason, at = row
    transfer = Transfer(str(id), str(customer), str(asset), int(str(units)), cast(Target, target))
    return Entry(int(str(number)), transfer, cast(State, state), str(reason), int(str(at)))
