"""SQL that looks for rows that break a rule. In SQL, as millions of rows stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, LiteralString

from custody.ledger.audit import Flaw, audit
from custody.reconcile.model import Offence
from custody.storage.db import Tx

BOOKED: Final[LiteralString] = """
    booked AS (
        SELECT t.reference, sum(l.amount) AS net
        FROM ledger_transfers t
        JOIN ledger_lines l ON l.transfer_id = t.id
        JOIN ledger_accounts a ON a.id = l.account_id AND a.kind = 'chain_assets'
        GROUP BY t.reference)"""
"""What each object's bookings have done to chain assets; negative: we own more."""

MINED: Final[LiteralString] = """
    mined AS (
        SELECT DISTINCT v.transaction_id, v.content, c.txid, c.succeeded, c.height,
                        coalesce(c.fee_units, v.fee_units) AS fee_units,
                        v.resources[1] !~ '^(0x|safe:)' AS spends_coins
        FROM transaction_versions v
        JOIN transactions t ON t.id = v.transaction_id
        JOIN consumptions c ON c.chain = t.chain AND c.content = v.content
        WHERE v.state <> 'refused' OR NOT EXISTS (
            SELECT 1 FROM transaction_versions o WHERE o.content = v.content AND o.state <> 'refused'))"""
"""Versions of our transactions that are in the best chain, by what the monitor has committed. Those of EVM chains spend
no coins: what they use is `0x...:nonce`, or a Safe's `safe:0x...:nonce`. A refused version may have been built again
just the same."""

ROTATED: Final[LiteralString] = """
    rotated AS (
        SELECT DISTINCT 'rotation:' || v.transaction_id AS reference, v.transaction_id, v.content, r.target, r.asset,
                        r.units
        FROM rotations r
        JOIN transaction_versions v ON v.transaction_id = r.transaction_id AND v.version = r.version
        UNION ALL
        SELECT DISTINCT 'refill:' || f.id, v.transaction_id, v.content, f.target, f.asset, f.units
        FROM refills f JOIN transaction_versions v ON v.transaction_id = f.transaction_id)"""
"""What versions of rotations and refills move from the wallet that signs them into another one; and their bookings."""

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
        f"""WITH {BOOKED}
           SELECT format('%s base units of chain assets are booked for %s, which we do not know', -b.net,
                         coalesce(nullif(b.reference, ''), 'nothing')) AS detail
           FROM booked b
           WHERE b.net <> 0
             AND NOT EXISTS (SELECT 1 FROM deposits d WHERE 'deposit:' || d.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM withdrawals w WHERE 'withdrawal:' || w.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM transactions t WHERE 'transaction:' || t.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM rotations r WHERE 'rotation:' || r.transaction_id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM refills f WHERE 'refill:' || f.id = b.reference)
             AND NOT EXISTS (SELECT 1 FROM losses l WHERE 'loss:' || l.chain || ':' || l.resource = b.reference)
             AND NOT EXISTS (SELECT 1 FROM variances v WHERE 'variance:' || v.id = b.reference)
           ORDER BY b.reference""",
    ),
    (
        5,
        f"""WITH {BOOKED}
           SELECT format('deposit %s (%s) of %s is %s, booked are %s', d.id, d.resource, d.units, d.state,
                         -coalesce(b.net, 0)) AS detail
           FROM deposits d LEFT JOIN booked b ON b.reference = 'deposit:' || d.id
           WHERE -coalesce(b.net, 0) <> CASE WHEN d.state IN ('credited', 'swept') THEN d.units ELSE 0 END
           ORDER BY d.id""",
    ),
    (
        5,
        """SELECT format('deposit %s (%s) of %s %s is %s in block %s, the receipts say %s %s in block %s', d.id,
                         d.resource, d.units, d.asset, d.state, coalesce(d.block_hash, 'none'),
                         coalesce(r.units::text, 'nothing'), r.asset, coalesce(r.block_hash, 'none')) AS detail
           FROM deposits d
           LEFT JOIN receipts r ON r.chain = d.chain AND r.resource = d.resource
           WHERE r.block_hash IS DISTINCT FROM d.block_hash OR r.units <> d.units
              OR r.address_id <> d.address_id OR r.asset <> d.asset
           ORDER BY d.id""",
    ),
    (
        6,
        f"""WITH {BOOKED}
           SELECT format('withdrawal %s of %s is %s, booked are %s', w.id, w.units, w.state,
                         coalesce(b.net, 0)) AS detail
           FROM withdrawals w LEFT JOIN booked b ON b.reference = 'withdrawal:' || w.id
           WHERE coalesce(b.net, 0) <>
                 CASE WHEN w.state = 'settled' AND w.transaction_id IS NOT NULL THEN w.units ELSE 0 END
           ORDER BY w.id""",
    ),
    (
        6,
        # The fee of a reverted transaction (EVM) is booked when it is dead. Where only a block says the fee, and a
        # reorg has taken the block, it is at least not more than the version allows.
        f"""WITH {BOOKED}, fees AS (
               SELECT t.id, t.state, coalesce(b.net, 0) AS booked, v.fee_units AS at_most,
                      c.content IS NOT NULL AS mined, coalesce(c.fee_units, v.fee_units) AS paid, v.spends_coins
               FROM transactions t
               LEFT JOIN booked b ON b.reference = 'transaction:' || t.id
               LEFT JOIN LATERAL (
                   SELECT v.content, v.fee_units, v.resources[1] !~ '^(0x|safe:)' AS spends_coins
                   FROM transaction_versions v
                   LEFT JOIN consumptions u ON u.chain = t.chain AND u.content = v.content
                   WHERE v.transaction_id = t.id
                     AND (u.content IS NOT NULL OR v.txid = t.confirmed_txid)
                   ORDER BY v.txid IS NOT DISTINCT FROM t.confirmed_txid DESC LIMIT 1) v ON true
               LEFT JOIN LATERAL (
                   SELECT u.content, u.fee_units FROM consumptions u
                   WHERE u.chain = t.chain AND u.content = v.content LIMIT 1) c ON true)
           SELECT format('transaction %s is %s, its version pays a fee of %s, booked are %s', id, state,
                         coalesce(paid::text, 'nothing'), booked) AS detail
           FROM fees
           WHERE CASE
               WHEN state = 'final' OR state = 'dead' AND mined THEN
                   CASE WHEN mined OR spends_coins THEN booked IS DISTINCT FROM paid
                        ELSE booked <= 0 OR booked > coalesce(at_most, 0) END
               ELSE booked <> 0 END
           ORDER BY id""",
    ),
    (
        6,
        f"""WITH {MINED}
           SELECT format('transaction %s is %s, and %s of its versions are mined', t.id, t.state, count(*)) AS detail
           FROM transactions t JOIN mined m ON m.transaction_id = t.id
           GROUP BY t.id, t.state
           HAVING count(*) > 1 OR t.state = 'refused' OR t.state = 'dead' AND bool_or(m.succeeded) ORDER BY t.id""",
    ),
    (
        6,
        f"""WITH {MINED}, moved AS (
               SELECT m.transaction_id, m.txid, m.fee_units,
                      (SELECT coalesce(sum(r.units), 0) FROM consumptions c
                       JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
                       WHERE c.chain = t.chain AND c.content = m.content) AS spent,
                      (SELECT coalesce(sum(r.units), 0) FROM receipts r
                       WHERE r.chain = t.chain AND r.txid = m.content AND NOT EXISTS (
                           SELECT 1 FROM deposits d WHERE d.chain = r.chain AND d.resource = r.resource)) AS change,
                      (SELECT coalesce(sum(w.units), 0) FROM withdrawals w
                       WHERE w.transaction_id = m.transaction_id) AS paid
               FROM mined m JOIN transactions t ON t.id = m.transaction_id WHERE m.spends_coins)
           SELECT format('%s of transaction %s spends %s, returns %s, pays %s and a fee of %s: %s are missing', txid,
                         transaction_id, spent, change, paid, fee_units, spent - change - paid - fee_units) AS detail
           FROM moved WHERE spent - change <> paid + fee_units ORDER BY txid""",
    ),
    (
        6,
        f"""WITH {MINED}, {ROTATED}, entered AS (
               SELECT t.reference, a.wallet, a.asset, sum(l.amount) AS net
               FROM ledger_transfers t
               JOIN ledger_lines l ON l.transfer_id = t.id
               JOIN ledger_accounts a ON a.id = l.account_id
               WHERE t.reference LIKE 'rotation:%%' OR t.reference LIKE 'refill:%%'
               GROUP BY t.reference, a.wallet, a.asset),
            expected AS (
               SELECT x.reference, side.wallet, x.asset, side.units
               FROM transactions t
               JOIN mined m ON m.transaction_id = t.id
               JOIN rotated x ON x.transaction_id = t.id AND x.content = m.content
               CROSS JOIN LATERAL (VALUES (t.keyset, x.units), (x.target, -x.units)) side (wallet, units)
               WHERE t.state = 'final')
           SELECT format('%s in %s of %s: booked are %s, moved were %s', coalesce(b.reference, e.reference),
                         coalesce(b.wallet, e.wallet), coalesce(b.asset, e.asset), coalesce(b.net, 0),
                         coalesce(e.units, 0)) AS detail
           FROM (SELECT * FROM entered WHERE net <> 0) b FULL JOIN expected e USING (reference, wallet, asset)
           WHERE b.net IS DISTINCT FROM e.units
             AND (e.units IS NOT NULL OR NOT EXISTS (
                  SELECT 1 FROM rotated x JOIN transactions t ON t.id = x.transaction_id
                  WHERE x.reference = b.reference AND t.state = 'final'))
           ORDER BY 1""",
    ),
    (
        7,
        f"""WITH {BOOKED}
           SELECT format('the loss of %s of %s is %s, booked are %s', l.resource, l.units, l.state,
                         coalesce(b.net, 0)) AS detail
           FROM losses l LEFT JOIN booked b ON b.reference = 'loss:' || l.chain || ':' || l.resource
           WHERE coalesce(b.net, 0) <> CASE WHEN l.state = 'booked' THEN l.units ELSE 0 END
           ORDER BY l.resource""",
    ),
    (
        7,
        # Its columns say of which wallet: keys that are known to be compromised are used by strangers.
        """SELECT format('%s of %s was used in block %s by %s, which is not ours', r.resource, r.units, c.height,
                         c.txid) AS detail, a.keyset AS stolen_from
           FROM consumptions c JOIN receipts r ON r.chain = c.chain AND r.resource = c.resource
           JOIN addresses a ON a.id = r.address_id
           WHERE r.units > 0 AND NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = c.content)
             AND NOT EXISTS (SELECT 1 FROM losses l WHERE l.chain = c.chain AND l.resource = c.resource
                             AND l.state = 'booked' AND l.txid = c.txid AND l.units = r.units)
           ORDER BY r.resource""",
    ),
    (
        7,
        f"""WITH {BOOKED}
           SELECT format('the %s %s of %s %s in %s is %s, booked are %s', v.kind, v.id, v.units, v.asset, v.keyset,
                         v.state, -coalesce(b.net, 0)) AS detail
           FROM variances v LEFT JOIN booked b ON b.reference = 'variance:' || v.id
           WHERE -coalesce(b.net, 0) <> CASE WHEN v.state = 'booked' THEN v.units ELSE 0 END
           ORDER BY v.id""",
    ),
    (
        7,
        """SELECT format('%s of %s is neither a deposit nor change of ours', r.resource, r.units) AS detail
           FROM receipts r JOIN addresses a ON a.id = r.address_id
           WHERE r.units > 0
             AND NOT EXISTS (SELECT 1 FROM deposits d WHERE d.chain = r.chain AND d.resource = r.resource)
             AND (a.purpose <> 'change'
                  OR NOT EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = r.txid))
           ORDER BY r.resource""",
    ),
)


def offences(tx: Tx, compromised: Collection[str] = ()) -> list[Offence]:
    """Every row that breaks a rule, of the moment that `tx` (a snapshot) sees.

    Args:
        tx: a snapshot.
        compromised: key-sets of which it is known: what strangers take there is booked once it is final, and breaks
            no rule until then.
    """
    found = [
        Offence(
            2 if each.flaw is Flaw.FROZEN_NOT_HELD else 1,
            f"{each.flaw}: {each.where} is {each.found}, expected {each.expected}",
        )
        for each in audit(tx)
    ]
    for rule, query in _OFFENDERS:
        found += [
            Offence(rule, row["detail"])
            for row in tx.all(query.encode())
            if row.get("stolen_from") not in compromised
        ]
    return found
