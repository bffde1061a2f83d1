"""The brake: while a halt is in force for an asset, for a chain or for all, nothing is paid there.

So it is with what an officer has frozen: that, nobody lifts here, but the quorum by a higher bundle.

A halt of an asset keeps its withdrawals out of new transactions. What has a nonce already goes on: payments of other
assets wait behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from custody.storage import events
from custody.storage.db import Row, Tx

_TOUCHED: Final = (
    "'all', 'chain:' || w.chain, 'asset:' || w.asset, 'tier:' || w.tier, 'customer:' || w.customer_id"
)
NOT_FROZEN: Final = f"NOT frozen({_TOUCHED})"
"""SQL: no officer has frozen what a withdrawal `w` touches."""
NOT_HALTED: Final = (
    "NOT EXISTS (SELECT 1 FROM halts h WHERE h.scope IN ('all', w.chain, 'asset:' || w.asset))"
    f" AND {NOT_FROZEN}"
)
"""SQL: nothing stops a withdrawal `w`."""
_FROZEN: Final = (
    "SELECT scope, 'an officer has frozen ' || scope AS reason"
    " FROM unnest(string_to_array(current_setting('strongroom.frozen', true), ' ')) scope"
)
WHY_HALTED: Final = (
    "SELECT reason FROM (SELECT scope, reason FROM halts WHERE scope IN ('all', w.chain, 'asset:' || w.asset)"
    f" UNION ALL SELECT scope, reason FROM ({_FROZEN}) f WHERE scope IN ({_TOUCHED})) stopped"
    " ORDER BY scope = 'all' DESC LIMIT 1"
)
"""SQL: what stops a withdrawal `w`, if anything does."""
ALL: Final = "all"
"""The scope that stops paying on every chain."""


def of_asset(asset: str) -> str:
    """The scope that stops the paying of one asset. No chain has a colon in its id."""
    return f"asset:{asset}"


def halted(
    tx: Tx,
    chain: str,
    asset: str | None = None,
    *,
    customer: str | None = None,
    tier: str | None = None,
    wallet: str | None = None,
    fees: str | None = None,
) -> str | None:
    """Why paying on `chain`, and of what else is named, is stopped; None if it is not.

    Args:
        tx: any transaction.
        chain: id of the chain.
        asset: what is paid.
        customer: whose money.
        tier: which pays.
        wallet: key-set or vault that pays.
        fees: asset in which fees are paid: a halt of it stops its own payments only, officers who freeze it stop all.
    """
    scopes = [ALL, chain] if asset is None else [ALL, chain, of_asset(asset)]
    named = {"chain": chain, "customer": customer, "tier": tier, "wallet": wallet}
    frozen = [ALL, *(f"{kind}:{name}" for kind, name in named.items() if name is not None)]
    frozen += [of_asset(each) for each in (asset, fees) if each is not None]
    row = tx.optional(
        "SELECT reason FROM (SELECT scope, reason FROM halts WHERE scope = ANY (%s)"
        f" UNION ALL SELECT scope, reason FROM ({_FROZEN}) f WHERE scope = ANY (%s)) stopped"
        " ORDER BY scope = %s DESC LIMIT 1",
        [scopes, frozen, ALL],
    )
    return None if row is None else str(row["reason"])


def stopped(tx: Tx, scopes: Sequence[str], *, customer: str | None = None) -> tuple[str, str] | None:
    """The first of some scopes, and of a customer's, that is halted or frozen, with the reason; None if none is.

    For what happens in the ledger alone: `halted` asks for payments, which a chain's halt stops, too.
    """
    named = [*scopes, *([] if customer is None else [f"customer:{customer}"])]
    row = tx.optional(
        "SELECT scope, reason FROM (SELECT scope, reason FROM halts"
        f" UNION ALL SELECT scope, reason FROM ({_FROZEN}) f) stopped WHERE scope = ANY (%s)"
        " ORDER BY scope = %s DESC, scope LIMIT 1",
        [named, ALL],
    )
    return None if row is None else (str(row["scope"]), str(row["reason"]))


def in_force(tx: Tx) -> list[Row]:
    """All halts and what officers have frozen: scope, reason, at (of a freeze: now)."""
    return tx.all(
        f"SELECT scope, reason, at FROM halts UNION ALL SELECT scope, reason, now() FROM ({_FROZEN}) f"
        " ORDER BY scope"
    )


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
