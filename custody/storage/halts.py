"""The brake: while a halt is in force for a chain or for all, nothing is paid."""

from __future__ import annotations

from typing import Final

from custody.storage import events
from custody.storage.db import Row, Tx

ALL: Final = "all"
"""The scope that stops paying on every chain."""


def halted(tx: Tx, chain: str) -> str | None:
    """Why paying on `chain` is stopped, or None if it is not."""
    row = tx.optional(
        "SELECT reason FROM halts WHERE scope IN (%s, %s) ORDER BY scope = %s DESC LIMIT 1", [ALL, chain, ALL]
    )
    return None if row is None else str(row["reason"])


def in_force(tx: Tx) -> list[Row]:
    """All halts: scope, reason, at."""
    return tx.all("SELECT scope, reason, at FROM halts ORDER BY scope")


def halt(tx: Tx, scope: str, reason: str) -> None:
    """Stop paying on a chain, or everywhere (`ALL`). The first reason stays while it is in force."""
    if tx.execute(
        "INSERT INTO halts (scope, reason) VALUES (%s, %s) ON CONFLICT DO NOTHING", [scope, reason]
    ):
        events.emit(tx, "paying.halted", scope, {"reason": reason})


def lift(tx: Tx, scope: str) -> bool:
    """Let paying go on and return True; where it was not stopped, nothing changes."""
    lifted = tx.execute("DELETE FROM halts WHERE scope = %s", [scope]) > 0
    if lifted:
        events.emit(tx, "paying.resumed", scope, {})
    return lifted
