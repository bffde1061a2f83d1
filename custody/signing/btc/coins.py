"""SQL of the coins that our transactions spend, and of those that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from custody.deposits.model import COINBASE_MATURITY_BLOCKS
from custody.signing.model import SpendableCoin
from custody.storage.db import Row, Tx, units

_SPENDABLE = """
    SELECT r.resource, r.txid, r.units, a.script, a.branch, a.index, r.block_hash
    FROM receipts r
    JOIN addresses a ON a.id = r.address_id
    JOIN cursors c ON c.chain = r.chain
    LEFT JOIN deposits d ON d.chain = r.chain AND d.resource = r.resource
    WHERE r.chain = %(chain)s AND a.keyset = %(keyset)s AND r.asset = %(asset)s AND r.units > 0
      AND NOT EXISTS (SELECT 1 FROM consumptions u WHERE u.chain = r.chain AND u.resource = r.resource)
      AND NOT EXISTS (SELECT 1 FROM reservations v JOIN transactions t ON t.id = v.transaction_id
                      WHERE v.chain = r.chain AND v.resource = r.resource
                        -- A rescue takes what payments have reserved. What another rescue has is as good as moved.
                        AND (t.kind = 'rotation' OR NOT %(rescue)s))
      -- What an officer has frozen stays where it came in, for whoever asks; a thief must not have it either.
      AND (%(rescue)s OR NOT frozen('customer:' || a.customer_id))
      AND (NOT r.coinbase OR c.height - r.height + 1 >= %(maturity)s)
      AND ((d.state = 'credited' OR %(rescue)s AND d.id IS NOT NULL)
           AND c.anchor - r.height + 1 >= %(settle_blocks)s
           -- A stranger's coin is final before others' payments depend on it, however early it was credited: if it is
           -- double-spent in a reorg, what spends it can neither confirm nor be replaced.
           OR d.id IS NULL AND a.purpose = 'change' AND EXISTS (
            -- Our own change. If its transaction has several versions, or another of ours contests it, a reorg could
            -- bring that one, and this coin would never have existed: then it has to be as deep as what we call final.
            SELECT 1 FROM transaction_versions o WHERE o.content = r.txid AND (
                c.anchor - r.height + 1 >= %(settle_blocks)s
                OR NOT EXISTS (SELECT 1 FROM transaction_versions s
                               WHERE s.resources && o.resources AND s.content <> o.content
                                 AND (s.transaction_id = o.transaction_id OR s.state <> 'refused')))))
"""


Taking = Literal["credited", "all"]
"""Which coins may be spent: of credited deposits, and free; or (by a rescue) also those that are in no balance, and
those that payments have reserved."""


def spendable(
    tx: Tx, chain: str, keyset: str, asset: str, settle_blocks: int, *, taking: Taking = "credited"
) -> Sequence[SpendableCoin]:
    """Coins that may be spent now: unspent, not reserved, mature, and final deposits or our own change."""
    params = _wanted(chain, keyset, asset, settle_blocks, taking)
    return [_coin(row) for row in tx.all(_SPENDABLE + " ORDER BY r.resource", params)]


def still_spendable(
    tx: Tx,
    chain: str,
    keyset: str,
    asset: str,
    settle_blocks: int,
    resources: Sequence[str],
    *,
    taking: Taking = "credited",
) -> bool:
    """Whether all of `resources` may be spent now."""
    params = {**_wanted(chain, keyset, asset, settle_blocks, taking), "resources": list(resources)}
    found = tx.all(_SPENDABLE + " AND r.resource = ANY (%(resources)s)", params)
    return len(found) == len(set(resources))


def _wanted(chain: str, keyset: str, asset: str, settle_blocks: int, taking: Taking) -> dict[str, object]:
    return {
        "chain": chain,
        "keyset": keyset,
        "asset": asset,
        "settle_blocks": settle_blocks,
        "maturity": COINBASE_MATURITY_BLOCKS,
        "rescue": taking == "all",
    }


def coins_of(tx: Tx, chain: str, resources: Sequence[str]) -> Sequence[SpendableCoin]:
    """The coins behind resources of ours, spent or not; those whose receipt is gone are missing."""
    rows = tx.all(
        "SELECT r.resource, r.txid, r.units, a.script, a.branch, a.index, r.block_hash FROM receipts r"
        " JOIN addresses a ON a.id = r.address_id WHERE r.chain = %s AND r.resource = ANY (%s)",
        [chain, list(resources)],
    )
    return [_coin(row) for row in rows]


def missing_receipts(tx: Tx, chain: str, resources: Sequence[str]) -> Sequence[str]:
    """Those of `resources` that no output of the best chain is."""
    rows = tx.all(
        "SELECT resource FROM unnest(%s::text[]) AS resource WHERE NOT EXISTS (SELECT 1 FROM receipts r"
        " WHERE r.chain = %s AND r.resource = resource.resource)",
        [list(resources), chain],
    )
    return [row["resource"] for row in rows]


def spends_outputs_of(tx: Tx, chain: str, txids: Sequence[str]) -> bool:
    """Whether any resource reserved for a transaction of ours is an output of one of `txids`."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM reservations WHERE chain = %s AND split_part(resource, ':', 1) = ANY (%s))"
        " AS found",
        [chain, list(txids)],
    )
    return bool(row["found"])


def _coin(row: Row) -> SpendableCoin:
    return SpendableCoin(
        resource=row["resource"],
        txid=row["txid"],
        units=units(row["units"]),
        script=bytes(row["script"]),
        branch=row["branch"],
        index=row["index"],
        block_hash=row["block_hash"],
    )
