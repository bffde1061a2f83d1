"""SQL of EVM wallets: what the blocks that we have read say of them, and the variances that were booked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString
from uuid import UUID

from chains.types import BlockRef
from custody.deposits.addresses import EvmWallet, nonces_of
from custody.ids import derived_id
from custody.reconcile.model import Booking, Foreign, Records, StaleVariance, WalletKey
from custody.reconcile.offences import MINED, ROTATED
from custody.storage.db import Tx, units
from policies.bundle import Bundle

_IN_CHAIN: Final[LiteralString] = (
    "EXISTS (SELECT 1 FROM blocks b WHERE b.chain = v.chain AND b.height = v.height AND b.hash = v.block_hash)"
)
"""A variance counts while the block at which it was found is in the best chain, and no rescan has explained it."""


def records(tx: Tx, bundle: Bundle, key: WalletKey) -> Records:
    """What blocks have brought and taken of one asset of an EVM wallet, of the moment that `tx` sees."""
    wallet = bundle.wallet(key.wallet)
    assert isinstance(wallet, EvmWallet), "others have coins"
    anchor = _anchor(tx, key.chain)
    late = _explained_later(tx, key)
    params = {
        "late": late,
        "chain": key.chain,
        "wallet": key.wallet,
        "asset": key.asset,
        "native": bundle.network(key.chain).native_asset,
        "final": -1 if anchor is None else anchor.height,
    }
    moved = tx.one(
        f"""WITH {MINED}, {ROTATED}, paid AS (
                SELECT w.transaction_id, sum(w.units) AS units FROM withdrawals w
                WHERE w.asset = %(asset)s AND w.transaction_id IS NOT NULL GROUP BY w.transaction_id),
            moves AS (
                SELECT r.units, r.height FROM receipts r JOIN addresses a ON a.id = r.address_id
                WHERE r.chain = %(chain)s AND a.keyset = %(wallet)s AND r.asset = %(asset)s
                UNION ALL
                SELECT -(CASE WHEN m.succeeded THEN coalesce(p.units, 0) ELSE 0 END
                         + CASE WHEN %(asset)s = %(native)s THEN m.fee_units ELSE 0 END), m.height
                FROM mined m JOIN transactions t ON t.id = m.transaction_id LEFT JOIN paid p ON p.transaction_id = t.id
                WHERE t.chain = %(chain)s AND t.keyset = %(wallet)s
                UNION ALL
                SELECT CASE WHEN t.keyset = %(wallet)s THEN -x.units ELSE x.units END, m.height
                FROM mined m JOIN rotated x USING (transaction_id, content)
                JOIN transactions t ON t.id = m.transaction_id
                WHERE t.chain = %(chain)s AND x.asset = %(asset)s AND m.succeeded
                  AND %(wallet)s IN (t.keyset, x.target)
                UNION ALL
                SELECT v.units, v.height FROM variances v
                WHERE v.chain = %(chain)s AND v.keyset = %(wallet)s AND v.asset = %(asset)s AND v.state = 'booked'
                  AND v.id <> ALL (%(late)s) AND {_IN_CHAIN})
            SELECT coalesce(sum(units), 0) AS units,
                   coalesce(sum(units) FILTER (WHERE height <= %(final)s), 0) AS final FROM moves""".encode(),
        params,
    )
    booked = tx.one(
        "SELECT count(*) AS n,"
        " coalesce(max(v.height) FILTER (WHERE v.kind = 'loss' AND v.state = 'booked'), -1) AS lost"
        " FROM variances v WHERE v.chain = %(chain)s AND v.keyset = %(wallet)s AND v.asset = %(asset)s",
        params,
    )
    return Records(
        units=units(moved["units"]),
        final_units=units(moved["final"]),
        anchor=anchor,
        keeps_fees="fee-on-transfer" in bundle.asset(key.asset).traits,
        foreign=_foreign(tx, key.chain, nonces_of(wallet)),
        explained_to=booked["lost"],
        stale=_stale(tx, key, late),
        variances=booked["n"],
        is_token=bundle.asset(key.asset).contract is not None,
        compromised=wallet.state == "compromised",
    )


def addresses(tx: Tx, chain: str, keyset: str) -> Sequence[tuple[int, int, int, bytes]]:
    """Id, branch, index and script of every address of a wallet, as the database has it."""
    rows = tx.all(
        "SELECT id, branch, index, script FROM addresses WHERE chain = %s AND keyset = %s ORDER BY id",
        [chain, keyset],
    )
    return [(row["id"], row["branch"], row["index"], bytes(row["script"])) for row in rows]


def in_chain(tx: Tx, chain: str, block: BlockRef) -> bool:
    """Whether a block is in the best chain that the monitor has committed; it stays there until `tx` ends."""
    found = tx.optional(
        "SELECT 1 FROM blocks WHERE chain = %s AND height = %s AND hash = %s",
        [chain, block.height, block.hash],
    )
    return found is not None


def variance_id(booking: Booking) -> UUID:
    """Id of a variance and of its ledger transfer: its number within the wallet and asset."""
    return derived_id("variance", booking.key.chain, booking.key.wallet, booking.key.asset, booking.number)


def insert_variance(tx: Tx, booking: Booking) -> bool:
    """Store a variance; False if another worker has stored the one of this number."""
    key = booking.key
    return bool(
        tx.execute(
            "INSERT INTO variances (id, chain, keyset, asset, kind, units, height, block_hash)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                variance_id(booking),
                key.chain,
                key.wallet,
                key.asset,
                booking.kind,
                booking.units,
                booking.block.height,
                booking.block.hash,
            ],
        )
    )


def undo_variance(tx: Tx, id_: UUID) -> bool:
    """Note that a variance counts no longer; False if that was noted before."""
    return bool(
        tx.execute(
            "UPDATE variances SET state = 'undone', updated_at = now() WHERE id = %s AND state = 'booked'",
            [id_],
        )
    )


def _anchor(tx: Tx, chain: str) -> BlockRef | None:
    row = tx.optional(
        "SELECT b.height, b.hash FROM cursors c JOIN blocks b ON b.chain = c.chain AND b.height = c.anchor"
        " WHERE c.chain = %s",
        [chain],
    )
    return None if row is None else BlockRef(row["height"], row["hash"])


def _foreign(tx: Tx, chain: str, nonces: str) -> tuple[Foreign, ...]:
    rows = tx.all(
        "SELECT c.resource, c.txid, c.height FROM consumptions c"
        " WHERE c.chain = %s AND starts_with(c.resource, %s)"
        " AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = c.content) ORDER BY c.height",
        [chain, f"{nonces}:"],
    )
    return tuple(Foreign(row["resource"], row["txid"], row["height"]) for row in rows)


def _explained_later(tx: Tx, key: WalletKey) -> list[UUID]:
    """Booked surpluses that may contain a deposit which was found only after them, in a block up to theirs: a rescan
    reads old blocks with addresses and tokens that were not known then. What of them remains is found again.
    """
    # From the newest on: the lowest block of all deposits that were found after each surplus.
    rows = tx.all(
        "WITH surplus AS (SELECT id, height, at FROM variances WHERE chain = %(chain)s AND keyset = %(wallet)s"
        "  AND asset = %(asset)s AND kind = 'surplus' AND state = 'booked'),"
        " found AS (SELECT d.created_at AS at, d.height, NULL::uuid AS id, NULL::integer AS up_to FROM deposits d"
        "  JOIN addresses a ON a.id = d.address_id WHERE d.chain = %(chain)s AND a.keyset = %(wallet)s"
        "  AND d.asset = %(asset)s AND d.created_at > (SELECT min(at) FROM surplus)"
        "  UNION ALL SELECT at, NULL, id, height FROM surplus)"
        " SELECT id FROM (SELECT id, up_to, min(height) OVER (ORDER BY at DESC ROWS UNBOUNDED PRECEDING) AS lowest"
        "  FROM found) looked WHERE id IS NOT NULL AND lowest <= up_to",
        {"chain": key.chain, "wallet": key.wallet, "asset": key.asset},
    )
    return [row["id"] for row in rows]


def _stale(tx: Tx, key: WalletKey, late: Sequence[UUID]) -> tuple[StaleVariance, ...]:
    rows = tx.all(
        "SELECT v.id, v.units FROM variances v WHERE v.chain = %s AND v.keyset = %s AND v.asset = %s"
        f" AND v.state = 'booked' AND (v.id = ANY (%s) OR NOT {_IN_CHAIN}) ORDER BY v.id".encode(),
        [key.chain, key.wallet, key.asset, list(late)],
    )
    return tuple(StaleVariance(row["id"], units(row["units"])) for row in rows)
