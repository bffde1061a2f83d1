"""Change addresses: an index of branch 1 for each transaction, never used by two."""

from __future__ import annotations

from chains.btc.hd import CHANGE
from chains.btc.outputs import Outputs
from custody.storage.db import Tx
from policies.bundle import WalletEntry


def allocate(tx: Tx, wallet: WalletEntry, asset: str, outputs: Outputs) -> int:
    """Take a change index and make its address known before anything can be paid to it.

    An index that only a refused transaction used is taken again, so that a signer that refuses again and
    again is not asked for ever higher ones. The row of the branch is locked: one allocation at a time.

    Raises:
        DerivationDisagreement: two implementations derive different addresses; neither is used.
    """
    tx.execute(
        "INSERT INTO address_indexes (keyset, branch, next) SELECT %(keyset)s, %(branch)s, coalesce(max(index) + 1, 0)"
        " FROM addresses WHERE keyset = %(keyset)s AND branch = %(branch)s ON CONFLICT DO NOTHING",
        {"keyset": wallet.id, "branch": CHANGE},
    )
    row = tx.one(
        "SELECT next FROM address_indexes WHERE keyset = %s AND branch = %s FOR UPDATE", [wallet.id, CHANGE]
    )
    free = tx.optional(
        "SELECT a.index FROM addresses a WHERE a.keyset = %(keyset)s AND a.branch = %(branch)s"
        " AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.keyset = a.keyset AND t.change_index = a.index"
        "                 AND t.state <> 'refused')"
        " AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.address_id = a.id)"
        " AND NOT EXISTS (SELECT 1 FROM refills f WHERE f.target = a.keyset AND f.place = a.index"
        "                 AND f.state <> 'declined')"
        " ORDER BY a.index LIMIT 1",
        {"keyset": wallet.id, "branch": CHANGE},
    )
    if free is not None:
        return int(free["index"])
    index = int(row["next"])
    address = outputs.agreed_address(CHANGE, index)
    tx.execute(
        "UPDATE address_indexes SET next = next + 1 WHERE keyset = %s AND branch = %s", [wallet.id, CHANGE]
    )
    tx.execute(
        "INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
        " VALUES (%s, %s, %s, 'change', %s, %s, %s, %s)",
        [wallet.chain, wallet.id, asset, CHANGE, index, address, outputs.script(CHANGE, index)],
    )
    return index
