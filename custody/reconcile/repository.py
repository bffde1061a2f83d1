"""SQL of reconciliation: one snapshot in, facts out. Offenders are looked for in SQL: millions of rows stay there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString

from chains.types import BlockRef
from custody.ledger.audit import Flaw, audit
from custody.reconcile.model import Coin, Facts, InFlight, Lost, Offence, Waiting, WalletFacts, WalletKey
from custody.storage.db import Tx, units

_BOOKED: Final[LiteralString] = """
    booked AS (
        SELECT t.reference, sum(l.amount) AS net
        FROM ledger_transfers t
        JOIN ledger_lines l ON l.transfer_id = t.id
        JOIN ledger_accounts a ON a.id = l.account_id AND a.kind = 'chain_assets'
        GROUP BY t.reference)"""
"""What each object's bookings have done to chain assets; negative: we own more."""

_MINED: Final[LiteralString] = """
    mined AS (
        SELECT DISTINCT v.transaction_id, v.txid, v.fee_units
        FROM transaction_versions v
        JOIN transactions t ON t.id = v.transaction_id
        JOIN consumptions c ON c.chain = t.chain AND c.txid = v.txid)"""
"""Versions of our transactions that are in the best chain, by what the monitor has committed."""

_OFFENDERS: Final[Sequence[tuple[int, LiteralString]]] = (
    (
        2,
        """SELECT format('withdrawal %s is %s, its hold %s of %s; it asks for %s', w.id, w.state,
                         coalesce(h.state, 'missing'), h.units, w.units + w.fee_units) AS detail
           FROM withdrawals w
           LEFT JOIN ledger_transfers t ON t.reference = 'withdrawal:' || w.id AND t.kind = 'hold'
           LEFT JOIN ledger_holds h ON h.id = t.id
           WHERE h.id IS NULL OR h.units <> w.units + w.fee_units
              OR h.state <> CASE WHEN w.state = 'settled' THEN 'posted'
                                 WHEN w.state IN ('rejected', 'cancelled', 'expired', 'failed') THEN 'voided'
                                 ELSE 'pending' END
           ORDER BY w.id""",
    ),
    (
        2,
        """SELECT format('hold %s of %s for %s is pending, and no withdrawal has it', h.id, h.units, t.reference)
                  AS detail
           FROM ledger_holds h JOIN ledger_transfers t ON t.id = h.id
           WHERE h.state = 'pending'
             AND NOT EXISTS (SELECT 1 FROM withdrawals w WHERE 'withdrawal:' || w.id = t.reference)
           ORDER BY h.id""",
    ),
    (
        4,
        f"""WITH {_BOOKED}
           SELECT format('%s base units of chain assets are booked for %s, which we do not know', -b.net,
                         coalesce(nullif(b.reference, ''), 'nothing')) AS detail
           FROM booked b
           WHERE b.net <> 0
             AND NOT EXISTS (SELECT 1 FROM deposits d WHERE 'deposit:' || d.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM withdrawals w WHERE 'withdrawal:' || w.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM transactions t WHERE 'transaction:' || t.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM losses l WHERE 'loss:' || l.chain || ':' || l.resource = b.reference)
           ORDER BY b.reference""",
    ),
    (
        5,
        f"""WITH {_BOOKED}
           SELECT format('deposit %s (%s) of %s is %s, booked are %s', d.id, d.resource, d.units, d.state,
                         -coalesce(b.net, 0)) AS detail
           FROM deposits d LEFT JOIN booked b ON b.reference = 'deposit:' || d.id
           WHERE -coalesce(b.net, 0) <> CASE WHEN d.state IN ('credited', 'swept') THEN d.units ELSE 0 END
           ORDER BY d.id""",
    ),
    (
        5,
        """SELECT format('deposit %s (%s) of %s is %s in block %s, the receipts say %s in block %s', d.id,
                         d.resource, d.units, d.state, coalesce(d.block_hash, 'none'),
                         coalesce(r.units::text, 'nothing'), coalesce(r.block_hash, 'none')) AS detail
           FROM deposits d
           LEFT JOIN receipts r ON r.chain = d.chain AND r.resource = d.resource
           WHERE r.block_hash IS DISTINCT FROM d.block_hash OR r.units <> d.units
              OR r.address_id <> d.address_id
           ORDER BY d.id""",
    ),
    (
        6,
        f"""WITH {_BOOKED}
           SELECT format('withdrawal %s of %s is %s, booked are %s', w.id, w.units, w.state,
                         coalesce(b.net, 0)) AS detail
           FROM withdrawals w LEFT JOIN booked b ON b.reference = 'withdrawal:' || w.id
           WHERE coalesce(b.net, 0) <>
                 CASE WHEN w.state = 'settled' AND w.transaction_id IS NOT NULL THEN w.units ELSE 0 END
           ORDER BY w.id""",
    ),
    (
        6,
        f"""WITH {_BOOKED}
           SELECT format('transaction %s is %s, its version pays a fee of %s, booked are %s', t.id, t.state,
                         coalesce(v.fee_units::text, 'nothing'), coalesce(b.net, 0)) AS detail
           FROM transactions t
           LEFT JOIN transaction_versions v ON v.transaction_id = t.id AND v.txid = t.confirmed_txid
           LEFT JOIN booked b ON b.reference = 'transaction:' || t.id
           WHERE coalesce(b.net, 0) <> CASE WHEN t.state = 'final' THEN coalesce(v.fee_units, -1) ELSE 0 END
           ORDER BY t.id""",
    ),
    (
        6,
        f"""WITH {_MINED}
           SELECT format('transaction %s is %s, and %s of its versions are mined', t.id, t.state, count(*)) AS detail
           FROM transactions t JOIN mined m ON m.transaction_id = t.id
           GROUP BY t.id, t.state
           HAVING count(*) > 1 OR t.state IN ('built', 'refused', 'dead') ORDER BY t.id""",
    ),
    (
        6,
        f"""WITH {_MINED}, moved AS (
               SELECT m.transaction_id, m.txid, m.fee_units,
                      (SELECT coalesce(sum(r.units), 0) FROM consumptions c
                       JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
                       WHERE c.chain = t.chain AND c.txid = m.txid) AS spent,
                      (SELECT coalesce(sum(r.units), 0) FROM receipts r
                       WHERE r.chain = t.chain AND r.txid = m.txid AND NOT EXISTS (
                           SELECT 1 FROM deposits d WHERE d.chain = r.chain AND d.resource = r.resource)) AS change,
                      (SELECT coalesce(sum(w.units), 0) FROM withdrawals w
                       WHERE w.transaction_id = m.transaction_id) AS paid
               FROM mined m JOIN transactions t ON t.id = m.transaction_id)
           SELECT format('%s of transaction %s spends %s, returns %s, pays %s and a fee of %s: %s are missing', txid,
                         transaction_id, spent, change, paid, fee_units, spent - change - paid - fee_units) AS detail
           FROM moved WHERE spent - change <> paid + fee_units ORDER BY txid""",
    ),
    (
        7,
        f"""WITH {_BOOKED}
           SELECT format('the loss of %s of %s is %s, booked are %s', l.resource, l.units, l.state,
                         coalesce(b.net, 0)) AS detail
           FROM losses l LEFT JOIN booked b ON b.reference = 'loss:' || l.chain || ':' || l.resource
           WHERE coalesce(b.net, 0) <> CASE WHEN l.state = 'booked' THEN l.units ELSE 0 END
           ORDER BY l.resource""",
    ),
    (
        7,
        """SELECT format('%s of %s was used in block %s by %s, which is not ours', r.resource, r.units, c.height,
                         c.txid) AS detail
           FROM consumptions c JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
           WHERE r.units > 0 AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.txid = c.txid)
             AND NOT EXISTS (SELECT 1 FROM losses l WHERE l.chain = c.chain AND l.resource = c.resource
                             AND l.state = 'booked' AND l.txid = c.txid AND l.units = r.units)
           ORDER BY r.resource""",
    ),
    (
        7,
        """SELECT format('%s of %s is neither a deposit nor change of ours', r.resource, r.units) AS detail
           FROM receipts r JOIN addresses a ON a.id = r.address_id
           WHERE r.units > 0
             AND NOT EXISTS (SELECT 1 FROM deposits d WHERE d.chain = r.chain AND d.resource = r.resource)
             AND (a.purpose <> 'change'
                  OR NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.txid = r.txid))
           ORDER BY r.resource""",
    ),
)

_WAITING: Final[Sequence[tuple[str, LiteralString]]] = (
    (
        "deposit.not_credited",
        """SELECT d.id::text AS subject, format('deposit %s has %s confirmations and needs %s, and is in no'
                  ' balance', d.resource, t.height - d.height + 1, d.confirmations) AS detail
           FROM deposits d JOIN cursors t ON t.chain = d.chain
           WHERE d.state = 'confirming' AND t.height - d.height + 1 >= d.confirmations
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


def facts(tx: Tx, wallets: Iterable[WalletKey]) -> Facts:
    """Everything that the database says about the wallets, of the moment that `tx` (a snapshot) sees."""
    known = list(wallets)
    offences = [
        Offence(
            2 if each.flaw is Flaw.FROZEN_NOT_HELD else 1,
            f"{each.flaw}: {each.where} is {each.found}, expected {each.expected}",
        )
        for each in audit(tx)
    ]
    for rule, query in _OFFENDERS:
        offences += [Offence(rule, row["detail"]) for row in tx.all(query.encode())]
    ledger = _ledger(tx)
    offences += [
        Offence(
            4, f"the ledger has {amount} base units of {asset} in wallet {wallet}, which the bundle lacks"
        )
        for (wallet, asset), amount in ledger.items()
        if amount and (wallet, asset) not in {(key.wallet, key.asset) for key in known}
    ]
    return Facts(
        cursors=cursors(tx),
        wallets=tuple(
            WalletFacts(
                key=key,
                ledger_units=ledger.get((key.wallet, key.asset), 0),
                uncredited=_uncredited(tx, key),
                in_flight=_in_flight(tx, key),
                lost=_lost(tx, key),
                coins=_coins(tx, key),
            )
            for key in known
        ),
        offences=tuple(offences),
        waiting=_waiting(tx),
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


def _in_flight(tx: Tx, key: WalletKey) -> tuple[InFlight, ...]:
    rows = tx.all(
        f"""WITH {_MINED}, final AS (
                SELECT v.transaction_id, v.txid, v.fee_units
                FROM transactions t JOIN transaction_versions v
                  ON v.transaction_id = t.id AND v.txid = t.confirmed_txid
                WHERE t.state = 'final')
            SELECT t.id, t.state, m.txid AS mined_txid, coalesce(m.fee_units, 0) AS mined_fee,
                   f.txid AS booked_txid, coalesce(f.fee_units, 0) AS booked_fee,
                   (SELECT coalesce(sum(w.units), 0) FROM withdrawals w
                    WHERE w.transaction_id = t.id AND w.asset = %s) AS paid
            FROM mined m FULL JOIN final f ON f.transaction_id = m.transaction_id
            JOIN transactions t ON t.id = coalesce(m.transaction_id, f.transaction_id)
            WHERE m.txid IS DISTINCT FROM f.txid AND t.chain = %s AND t.keyset = %s ORDER BY t.id""".encode(),
        [key.asset, key.chain, key.wallet],
    )
    return tuple(
        InFlight(
            transaction=str(row["id"]),
            state=row["state"],
            paid_units=units(row["paid"]),
            mined_txid=row["mined_txid"],
            mined_fee_units=units(row["mined_fee"]),
            booked_txid=row["booked_txid"],
            booked_fee_units=units(row["booked_fee"]),
        )
        for row in rows
    )


def _lost(tx: Tx, key: WalletKey) -> tuple[Lost, ...]:
    rows = tx.all(
        """WITH spent AS (
               SELECT r.resource, r.units FROM consumptions c
               JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
               JOIN addresses a ON a.id = r.address_id
               WHERE c.chain = %(chain)s AND a.keyset = %(wallet)s AND r.asset = %(asset)s
                 AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.txid = c.txid)),
           booked AS (
               SELECT resource, units FROM losses
               WHERE chain = %(chain)s AND keyset = %(wallet)s AND asset = %(asset)s AND state = 'booked')
           SELECT resource, coalesce(s.units, 0) AS spent, coalesce(b.units, 0) AS booked
           FROM spent s FULL JOIN booked b USING (resource)
           WHERE s.units IS DISTINCT FROM b.units ORDER BY resource""",
        {"chain": key.chain, "wallet": key.wallet, "asset": key.asset},
    )
    return tuple(Lost(row["resource"], units(row["spent"]), units(row["booked"])) for row in rows)


def _waiting(tx: Tx) -> tuple[Waiting, ...]:
    found = []
    for kind, query in _WAITING:
        rows = tx.all(
            b"SELECT * FROM (" + query.encode() + b") q WHERE NOT EXISTS (SELECT 1 FROM alerts x"
            b" WHERE x.resolved_at IS NULL AND x.subject = q.subject) ORDER BY subject LIMIT 1000"
        )
        found += [Waiting(kind, row["subject"], row["detail"]) for row in rows]
    return tuple(found)
