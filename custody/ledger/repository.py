"""The ledger's SQL. Rows in, values out; no rules here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from uuid import UUID

from custody.ledger.chain import Stamp, line_rows, transfer_rows, transfer_text
from custody.ledger.lifecycle import HoldState
from custody.ledger.model import AccountKey, AccountKind, Leg, LineType, TransferKind
from custody.ledger.posting import Account, HoldRecord, Outcome, TransferRecord
from custody.storage.db import Row, Tx, units

COPY_LINES: Final = (
    b"COPY ledger_lines (id, account_id, seq, transfer_id, leg, type, amount, balance_before, balance_after, at, hash)"
    b" FROM STDIN"
)
"""For what `chain.line_rows` gives."""


def ensure_accounts(tx: Tx, keys: Collection[AccountKey]) -> dict[AccountKey, int]:
    """Database ids of the accounts, made where missing; without those of customers that do not exist."""
    found = _account_ids(tx, keys)
    # Sorted, so that two batches that make the same accounts wait for each other in one order only.
    missing = sorted(set(keys) - found.keys(), key=str)
    if not missing:
        return found
    tx.execute(
        """INSERT INTO ledger_accounts (customer_id, kind, asset, wallet)
           SELECT k.customer, k.kind, k.asset, k.wallet
           FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY
                AS k (customer, kind, asset, wallet, position)
           WHERE k.customer IS NULL OR EXISTS (SELECT 1 FROM customers c WHERE c.id = k.customer)
           ORDER BY k.position
           ON CONFLICT DO NOTHING""",
        _columns(missing),
    )
    # Read anew and not RETURNING: what another batch made in the meantime is not returned.
    return found | _account_ids(tx, missing)


def _account_ids(tx: Tx, keys: Collection[AccountKey]) -> dict[AccountKey, int]:
    # Two joins, because no index serves `IS NOT DISTINCT FROM`.
    rows = tx.all(
        """WITH k AS MATERIALIZED (
               SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
                    AS k (customer, kind, asset, wallet))
           SELECT a.id, a.customer_id, a.kind, a.asset, a.wallet FROM k JOIN ledger_accounts a
             ON a.customer_id = k.customer AND a.kind = k.kind AND a.asset = k.asset AND a.wallet = k.wallet
           UNION ALL
           SELECT a.id, a.customer_id, a.kind, a.asset, a.wallet FROM k JOIN ledger_accounts a
             ON a.customer_id IS NULL AND a.kind = k.kind AND a.asset = k.asset AND a.wallet = k.wallet
           WHERE k.customer IS NULL""",
        _columns(keys),
    )
    return {_key(row): row["id"] for row in rows}


def _columns(keys: Iterable[AccountKey]) -> list[list[str | None]]:
    columns: list[list[str | None]] = [[], [], [], []]
    for key in keys:
        for column, value in zip(columns, (key.customer, key.kind.value, key.asset, key.wallet), strict=True):
            column.append(value)
    return columns


def _key(row: Row) -> AccountKey:
    return AccountKey(row["customer_id"], AccountKind(row["kind"]), row["asset"], row["wallet"])


def lock_accounts(tx: Tx, ids: Mapping[AccountKey, int]) -> dict[AccountKey, Account]:
    """Lock the accounts until the transaction ends, in order of id, and read them as they are then."""
    rows = tx.all("SELECT id, balance, last_seq, hash FROM ledger_lock(%s)", [list(ids.values())])
    by_id = {
        row["id"]: Account(row["id"], units(row["balance"]), row["last_seq"], bytes(row["hash"]))
        for row in rows
    }
    return {key: by_id[id] for key, id in ids.items()}


def transfers(tx: Tx, ids: Collection[UUID]) -> dict[UUID, TransferRecord]:
    """Those of the transfers that exist."""
    rows = tx.all(
        "SELECT id, kind, content_hash, parent_id, reference FROM ledger_transfers WHERE id = ANY (%s)",
        [list(ids)],
    )
    return {
        row["id"]: TransferRecord(
            row["id"],
            TransferKind(row["kind"]),
            bytes(row["content_hash"]),
            row["parent_id"],
            row["reference"],
        )
        for row in rows
    }


def reversed_among(tx: Tx, ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of the transfers that were reversed."""
    rows = tx.all(
        "SELECT parent_id FROM ledger_transfers WHERE kind = 'reverse' AND parent_id = ANY (%s)", [list(ids)]
    )
    return frozenset(row["parent_id"] for row in rows)


def legs_of(tx: Tx, ids: Collection[UUID]) -> dict[UUID, tuple[Leg, ...]]:
    """What the transfers did, in the order in which it was done."""
    rows = tx.all(
        """SELECT l.transfer_id, l.type, l.amount, a.customer_id, a.kind, a.asset, a.wallet
           FROM ledger_lines l JOIN ledger_accounts a ON a.id = l.account_id
           WHERE l.transfer_id = ANY (%s) ORDER BY l.transfer_id, l.leg""",
        [list(ids)],
    )
    legs: dict[UUID, list[Leg]] = {}
    for row in rows:
        leg = Leg(_key(row), units(row["amount"]), LineType(row["type"]))
        legs.setdefault(row["transfer_id"], []).append(leg)
    return {id: tuple(each) for id, each in legs.items()}


def holds(tx: Tx, ids: Collection[UUID]) -> dict[UUID, HoldRecord]:
    """Those of the holds that exist, as they are now."""
    rows = tx.all(
        "SELECT id, customer_id, asset, units, state, expires_at FROM ledger_holds WHERE id = ANY (%s)",
        [list(ids)],
    )
    return {row["id"]: _hold(row) for row in rows}


def expired_holds(tx: Tx, limit: int) -> list[HoldRecord]:
    """Pending holds whose time is over, by the database's clock; the longest over first."""
    rows = tx.all(
        """SELECT id, customer_id, asset, units, state, expires_at FROM ledger_holds
           WHERE state = 'pending' AND expires_at <= now() ORDER BY expires_at, id LIMIT %s""",
        [limit],
    )
    return [_hold(row) for row in rows]


def _hold(row: Row) -> HoldRecord:
    return HoldRecord(
        row["id"],
        row["customer_id"],
        row["asset"],
        units(row["units"]),
        HoldState(row["state"]),
        row["expires_at"],
    )


def suspense_of(tx: Tx, reference: str, asset: str) -> int:
    """What the transfers with this reference have left in suspense, in base units; negative is a loss."""
    row = tx.one(
        """SELECT coalesce(sum(l.amount), 0) AS total
           FROM ledger_transfers t JOIN ledger_lines l ON l.transfer_id = t.id
           JOIN ledger_accounts a ON a.id = l.account_id
           WHERE t.reference = %s AND a.kind = 'suspense' AND a.asset = %s""",
        [reference, asset],
    )
    return units(row["total"])


def write(tx: Tx, outcome: Outcome, accounts: Iterable[Account]) -> None:
    """Write what was decided: the transfers, then their lines (which move the balances), then holds.

    Args:
        tx: the transaction that has locked the accounts.
        outcome: what to write.
        accounts: that the lines are of, as they were when they were locked.
    """
    if not outcome.transfers:
        return
    legs = Counter(line.transfer_id for line in outcome.lines)
    tx.copy_text(
        b"COPY ledger_transfers (id, kind, content_hash, parent_id, reference, legs) FROM STDIN",
        transfer_rows(outcome.transfers, legs),
    )
    _copy_lines(tx, outcome, legs, {account.id: account.hash for account in accounts})
    if outcome.new_holds:
        tx.copy(
            b"COPY ledger_holds (id, customer_id, asset, units, expires_at) FROM STDIN",
            ((h.id, h.customer, h.asset, h.units, h.expires_at) for h in outcome.new_holds),
        )
    if outcome.hold_changes:
        changed = tx.executemany(
            "UPDATE ledger_holds SET state = %s, updated_at = now() WHERE id = %s AND state = %s",
            [(after.value, id, before.value) for id, before, after in outcome.hold_changes],
        )
        # The frozen account's lock guards the state; anything else is a bug, and must not be committed.
        if changed != len(outcome.hold_changes):
            raise AssertionError(f"{changed} of {len(outcome.hold_changes)} holds changed their state")


def _copy_lines(tx: Tx, outcome: Outcome, legs: Mapping[UUID, int], last: Mapping[int, bytes]) -> None:
    texts = {each.id: transfer_text(each, legs[each.id]) for each in outcome.transfers}
    tx.copy_text(COPY_LINES, line_rows(outcome.lines, texts, last, _stamp(tx)))


def _stamp(tx: Tx) -> Stamp:
    row = tx.one(
        """SELECT nextval('ledger_batches') AS batch, c.at::text AS at,
                  (extract(epoch FROM c.at) * 1000000)::bigint AS micros FROM clock_timestamp() AS c (at)"""
    )
    return Stamp(row["batch"], row["at"], row["micros"])
