"""The ledger checked against itself: what reconciliation asks before it looks at chains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from custody.storage.db import Tx, units


class Flaw(StrEnum):
    """What can be wrong with a ledger."""

    SUM_NOT_ZERO = "sum_not_zero"
    """The balances of an asset over all accounts do not sum to zero."""
    TRANSFER_OUT_OF_BALANCE = "transfer_out_of_balance"
    TRANSFER_AND_LINES = "transfer_and_lines"
    """A transfer without lines, or lines whose transfer or account does not exist."""
    BALANCE_NOT_REPLAYED = "balance_not_replayed"
    """Replaying an account's lines from zero does not give its balance, or the number of its lines."""
    HISTORY_BROKEN = "history_broken"
    """A line does not continue from the one before it."""
    FROZEN_NOT_HELD = "frozen_not_held"
    """A frozen account is not the sum of its pending holds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One flaw, where it is, and the two numbers (base units, or lines) that should be equal."""

    flaw: Flaw
    where: str
    expected: int
    found: int


_QUERIES = {
    Flaw.SUM_NOT_ZERO: """
        SELECT asset AS place, 0 AS expected, sum(balance) AS found
        FROM ledger_accounts GROUP BY asset HAVING sum(balance) <> 0 ORDER BY asset""",
    Flaw.TRANSFER_OUT_OF_BALANCE: """
        SELECT l.transfer_id || ':' || a.asset AS place, 0 AS expected, sum(l.amount) AS found
        FROM ledger_lines l JOIN ledger_accounts a ON a.id = l.account_id
        GROUP BY l.transfer_id, a.asset HAVING sum(l.amount) <> 0 ORDER BY 1""",
    Flaw.TRANSFER_AND_LINES: """
        SELECT coalesce(t.id, l.transfer_id)::text AS place, count(t.id) AS expected, count(a.id) AS found
        FROM ledger_transfers t FULL JOIN ledger_lines l ON l.transfer_id = t.id
        LEFT JOIN ledger_accounts a ON a.id = l.account_id
        GROUP BY 1 HAVING count(a.id) = 0 OR count(t.id) <> count(a.id) ORDER BY 1""",
    Flaw.BALANCE_NOT_REPLAYED: """
        SELECT concat_ws(':', coalesce(a.customer_id, 'house'), a.kind, nullif(a.wallet, ''), a.asset)
                   AS place,
               coalesce(s.total, 0) AS expected, a.balance AS found
        FROM ledger_accounts a
        LEFT JOIN (SELECT account_id, sum(amount) AS total, count(*) AS n, max(seq) AS last
                   FROM ledger_lines GROUP BY account_id) s ON s.account_id = a.id
        WHERE a.balance <> coalesce(s.total, 0)
           OR a.last_seq <> coalesce(s.n, 0) OR a.last_seq <> coalesce(s.last, 0) ORDER BY a.id""",
    Flaw.HISTORY_BROKEN: """
        SELECT account_id || '#' || seq AS place, want AS expected, balance_before AS found
        FROM (SELECT account_id, seq, balance_before,
                     coalesce(lag(balance_after) OVER w, 0) AS want, row_number() OVER w AS position
              FROM ledger_lines WINDOW w AS (PARTITION BY account_id ORDER BY seq)) x
        WHERE want <> balance_before OR position <> seq ORDER BY account_id, seq""",
    Flaw.FROZEN_NOT_HELD: """
        SELECT coalesce(a.customer_id, h.customer_id) || ':frozen:' || coalesce(a.asset, h.asset) AS place,
               coalesce(h.total, 0) AS expected, coalesce(a.balance, 0) AS found
        FROM (SELECT * FROM ledger_accounts WHERE kind = 'frozen') a
        FULL JOIN (SELECT customer_id, asset, sum(units) AS total FROM ledger_holds
                   WHERE state = 'pending' GROUP BY customer_id, asset) h
          ON h.customer_id = a.customer_id AND h.asset = a.asset
        WHERE coalesce(h.total, 0) <> coalesce(a.balance, 0) ORDER BY 1""",
}


def audit(tx: Tx) -> list[Finding]:
    """Everything that is wrong with the ledger; an empty list is the proof that it holds together.

    Reads all lines: give it a `Database.snapshot()`, so that all queries see one moment.
    """
    return [
        Finding(flaw, row["place"], units(row["expected"]), units(row["found"]))
        for flaw, query in _QUERIES.items()
        for row in tx.all(query)
    ]
