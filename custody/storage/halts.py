"""The brake: while a halt is in force for an asset, for a chain or for all, nothing is paid there.

A halt of an asset keeps its withdrawals out of new transactions. What has a nonce already goes on: payments of other
assets wait behind it.
"""

from __future__ import annotations

from typing import Final

from custody.storage import events
from custody.storage.db import Row, Tx

ALL: Final = "all"
"""The scope that stops paying on every chain."""


def of_asset(asset: str) -> str:
    """The scope that stops the paying of one asset. No chain has a colon in its id."""
    return f"asset:{asset}"


def halted(tx: Tx, chain: str, asset: str | None = None) -> str | None:
    """Why paying on `chain`, and of `asset` if one is named, is stopped; None if it is not."""
    scopes = [ALL, chain] if asset is None else [ALL, chain, of_asset(asset)]
    row = tx.optional(
        "SELECT reason FROM halts WHERE scope = ANY (%s) ORDER BY scope = %s DESC LIMIT 1", [scopes, ALL]
    )
    return None if row is None else str(row["reason"])


def in_force(tx: Tx) -> list[Row]:
    """All halts: scope, reason, at."""
    return tx.all("SELECT scope, reason, at FROM halts ORDER BY scope")


def halt(tx: Tx, scope: str, reason: str) -> None:
    """Stop paying on a chain, of an asset (`of_asset`), or everywhere (`ALL`). The first reason stays."""
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
