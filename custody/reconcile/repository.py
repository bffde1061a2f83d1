"""SQL of reconciliation: one snapshot in, facts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString

from chains.types import BlockRef
from custody.reconcile import records
from custody.reconcile.model import Coin, InFlight, Lost, Offence, Waiting, WalletFacts, WalletKey
from custody.reconcile.offences import MINED, ROTATED, offences
from custody.storage.db import Tx, units
from policies.bundle import Bundle

_WAITING: Final[Sequence[tuple[str, LiteralString]]] = (
    (
        "deposit.not_credited",
        """SELECT d.id::text AS subject, format('deposit %s has %s confirmations and needs %s, and is in no'
                  ' balance', d.resource, t.anchor - d.height + 1, d.confirmations) AS detail
           FROM deposits d JOIN cursors t ON t.chain = d.chain
           WHERE d.state = 'confirming' AND t.anchor - d.height + 1 >= d.confirmations
             AND d.updated_at < now() - interval '10 minutes'""",
    ),
    (
        "deposit.held",
        """SELECT d.id::text AS subject, format('deposit %s is held', d.resource) AS detail
           FROM deposits d WHERE d.state = 'held'""",
    ),
    (
        "withdrawal.waiting",
        """SELECT w.id::text AS subject, format('withdrawal %s is %s since %s: %s', w.id, w.state, w.updated_at,
                  w.reason) AS detail
           FROM withdrawals w
           WHERE w.state NOT IN ('settled', 'rejected', 'cancelled', 'expired', 'failed')
             AND (CASE WHEN w.state = 'cooling' THEN w.not_before ELSE w.updated_at END) < now() - CASE
                 WHEN w.state IN ('broadcast', 'confirming') THEN interval '12 hours'
                 ELSE interval '1 hour' END
             AND NOT EXISTS (SELECT 1 FROM alerts x WHERE x.resolved_at IS NULL
                             AND x.subject IN (w.transaction_id::text, w.customer_id))""",
    ),
)


def offences_of(tx: Tx, bundle: Bundle) -> list[Offence]:
    """Every row that breaks a rule, and what the ledger has in wallets that the bundle does not name.

    Args:
        tx: a snapshot.
        bundle: names all wallets.
    """
    found = offences(tx, {wallet.id for wallet in bundle.wallets if wallet.state == "compromised"})
    listed = {
        (wallet.id, asset.id)
        for wallet in bundle.wallets
        for asset in bundle.assets
        if asset.chain == wallet.chain
    }
    found += [
        Offence(4, f"the ledger has {bundle.told(asset, amount)} in wallet {wallet}, which the bundle lacks")
        for (wallet, asset), amount in _ledger(tx).items()
        if amount and (wallet, asset) not in listed
    ]
    return found


def wallets(tx: Tx, bundle: Bundle, keys: Iterable[WalletKey]) -> tuple[WalletFacts, ...]:
    """Everything that the database says about some wallets, of the moment that `tx` (a snapshot) sees."""
    ledger = _ledger(tx)
    return tuple(_wallet(tx, bundle, key, ledger.get((key.wallet, key.asset), 0)) for key in keys)


def _wallet(tx: Tx, bundle: Bundle, key: WalletKey, ledger_units: int) -> WalletFacts:
    evm = bundle.wallet(key.wallet).family == "evm"
    return WalletFacts(
        key=key,
        ledger_units=ledger_units,
        uncredited=_uncredited(tx, key),
        in_flight=_in_flight(tx, key, bundle.network(key.chain).native_asset),
        lost=_lost(tx, key),
        coins=() if evm else _coins(tx, key),
        records=records.records(tx, bundle, key) if evm else None,
    )


def cursors(tx: Tx) -> Mapping[str, BlockRef]:
    """Where the monitor is on each chain."""
    rows = tx.all("SELECT chain, height, hash FROM cursors")
    return {row["chain"]: BlockRef(row["height"], row["hash"]) for row in rows}


def last_indexes(tx: Tx, keyset: str) -> dict[int, int]:
    """The next index of each branch of a key-set: how far its addresses may be in use."""
    rows = tx.all("SELECT branch, next FROM address_indexes WHERE keyset = %s", [keyset])
    return {row["branch"]: row["next"] for row in rows}


def _ledger(tx: Tx) -> dict[tuple[str, str], int]:
    rows = tx.all("SELECT wallet, asset, balance FROM ledger_accounts WHERE kind = 'chain_assets'")
    return {(row["wallet"], row["asset"]): -units(row["balance"]) for row in rows}


def _uncredited(tx: Tx, key: WalletKey) -> dict[str, int]:
    rows = tx.all(
        "SELECT d.state, sum(r.units) AS units FROM deposits d"
        " JOIN addresses a ON a.id = d.address_id"
        " JOIN receipts r ON r.chain = d.chain AND r.resource = d.resource"
        " WHERE d.chain = %s AND a.keyset = %s AND d.asset = %s AND d.state NOT IN ('credited', 'swept')"
        " GROUP BY d.state ORDER BY d.state",
        [key.chain, key.wallet, key.asset],
    )
    return {row["state"]: units(row["units"]) for row in rows}


def _coins(tx: Tx, key: WalletKey) -> tuple[Coin, ...]:
    rows = tx.all(
        "SELECT r.resource, r.units FROM receipts r JOIN addresses a ON a.id = r.address_id"
        " WHERE r.chain = %s AND a.keyset = %s AND r.asset = %s AND NOT EXISTS"
        " (SELECT 1 FROM consumptions c WHERE c.chain = r.chain AND c.resource = r.resource)",
        [key.chain, key.wallet, key.asset],
    )
    return tuple(Coin(row["resource"], units(row["units"])) for row in rows)


def _in_flight(tx: Tx, key: WalletKey, native: str) -> tuple[InFlight, ...]:
    rows = tx.all(
        f"""WITH {MINED}, {ROTATED}, fees AS (
                SELECT g.reference, sum(l.amount) AS units
                FROM ledger_lines l
                JOIN ledger_accounts a ON a.id = l.account_id AND a.kind = 'chain_assets'
                JOIN ledger_transfers g ON g.id = l.transfer_id
                WHERE a.wallet = %(wallet)s AND a.asset = %(asset)s AND g.reference LIKE 'transaction:%%'
                GROUP BY g.reference),
            paid AS (
                SELECT w.transaction_id, sum(w.units) AS units,
                       coalesce(sum(w.units) FILTER (WHERE w.state = 'settled'), 0) AS settled
                FROM withdrawals w WHERE w.asset = %(asset)s AND w.transaction_id IS NOT NULL
                GROUP BY w.transaction_id),
            turns AS (
                SELECT t.id, t.state,
                       coalesce((SELECT CASE WHEN t.keyset = %(wallet)s THEN x.units ELSE -x.units END
                                 FROM mined m JOIN rotated x USING (transaction_id, content)
                                 WHERE m.transaction_id = t.id AND m.succeeded AND x.asset = %(asset)s), 0) AS mined,
                       coalesce((SELECT sum(l.amount) FROM ledger_transfers g
                                 JOIN ledger_lines l ON l.transfer_id = g.id
                                 JOIN ledger_accounts a ON a.id = l.account_id
                                 WHERE g.reference IN (SELECT x.reference FROM rotated x WHERE x.transaction_id = t.id)
                                   AND a.wallet = %(wallet)s AND a.asset = %(asset)s), 0) AS booked
                FROM transactions t
                WHERE t.chain = %(chain)s AND t.kind IN ('rotation', 'refill')
                  AND (t.keyset = %(wallet)s OR EXISTS (
                       SELECT 1 FROM rotated x WHERE x.transaction_id = t.id AND x.target = %(wallet)s)))
            SELECT * FROM (
                SELECT id, state, mined, booked FROM turns
                UNION ALL
                SELECT t.id, t.state,
                       CASE WHEN m.succeeded THEN coalesce(p.units, 0) ELSE 0 END
                           + CASE WHEN %(asset)s = %(native)s THEN coalesce(m.fee_units, 0) ELSE 0 END AS mined,
                       coalesce(p.settled, 0) + coalesce(f.units, 0) AS booked
                FROM transactions t
                LEFT JOIN mined m ON m.transaction_id = t.id
                LEFT JOIN paid p ON p.transaction_id = t.id
                LEFT JOIN fees f ON f.reference = 'transaction:' || t.id
                WHERE t.chain = %(chain)s AND t.keyset = %(wallet)s) x
            WHERE mined <> booked ORDER BY id""".encode(),
        {"chain": key.chain, "wallet": key.wallet, "asset": key.asset, "native": native},
    )
    return tuple(
        InFlight(str(row["id"]), row["state"], units(row["mined"]), units(row["booked"])) for row in rows
    )


def _lost(tx: Tx, key: WalletKey) -> tuple[Lost, ...]:
    rows = tx.all(
        """WITH spent AS (
               SELECT r.resource, r.units FROM consumptions c
               JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
               JOIN addresses a ON a.id = r.address_id
               WHERE c.chain = %(chain)s AND a.keyset = %(wallet)s AND r.asset = %(asset)s
                 AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = c.content)),
           booked AS (
               SELECT resource, units FROM losses
               WHERE chain = %(chain)s AND keyset = %(wallet)s AND asset = %(asset)s AND state = 'booked')
           SELECT resource, coalesce(s.units, 0) AS spent, coalesce(b.units, 0) AS booked
           FROM spent s FULL JOIN booked b USING (resource)
           WHERE s.units IS DISTINCT FROM b.units ORDER BY resource""",
        {"chain": key.chain, "wallet": key.wallet, "asset": key.asset},
    )
    return tuple(Lost(row["resource"], units(row["spent"]), units(row["booked"])) for row in rows)


def waiting(tx: Tx) -> tuple[Waiting, ...]:
    """What has waited for long, and no open alert tells of."""
    found = []
    for kind, query in _WAITING:
        rows = tx.all(
            b"SELECT * FROM (" + query.encode() + b") q WHERE NOT EXISTS (SELECT 1 FROM alerts x"
            b" WHERE x.resolved_at IS NULL AND x.subject = q.subject) ORDER BY subject LIMIT 1000"
        )
        found += [Waiting(kind, row["subject"], row["detail"]) for row in rows]
    return tuple(found)
