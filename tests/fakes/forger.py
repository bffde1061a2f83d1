"""Whoever owns the database: writes any row, numbered and added up as it has to be, past triggers and constraints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from custody.deposits.service import deposit_id
from custody.storage.db import Database, Row, Tx


@dataclass(frozen=True)
class Place:
    """An account."""

    customer: str | None
    kind: str
    asset: str = "BTC"
    wallet: str = ""


Leg = tuple[Place, int, str]


class Forger:
    """A superuser's session.

    Args:
        db: of the superuser.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    @contextmanager
    def session(self) -> Iterator[Tx]:
        """A transaction in which no trigger and no foreign key is looked at."""
        with self.db.transaction() as tx:
            tx.execute(b"SET LOCAL session_replication_role = replica")
            yield tx

    def run(self, sql: str, *values: Any) -> int:
        with self.session() as tx:
            return tx.execute(sql.encode(), values)

    def rows(self, sql: str, *values: Any) -> list[Row]:
        with self.session() as tx:
            return tx.all(sql.encode(), values)

    def book(
        self,
        reference: str,
        legs: Sequence[Leg],
        *,
        kind: str = "immediate",
        parent: UUID | None = None,
        id: UUID | None = None,
    ) -> UUID:
        """A transfer, as perfect as the ledger's own ones."""
        made = id or uuid4()
        with self.session() as tx:
            tx.execute(
                b"INSERT INTO ledger_transfers (id, kind, content_hash, parent_id, reference, legs)"
                b" VALUES (%s, %s, %s, %s, %s, %s)",
                [made, kind, bytes(32), parent, reference, len(legs)],
            )
            for leg, (place, amount, type_) in enumerate(legs, start=1):
                self._line(tx, made, leg, place, amount, type_)
        return made

    def credit(self, customer: str, units: int, *, wallet: str, reference: str, asset: str = "BTC") -> UUID:
        """The credit of a deposit."""
        return self.book(
            reference,
            [
                (Place(None, "chain_assets", asset, wallet), -units, "deposit"),
                (Place(customer, "available", asset), units, "deposit"),
            ],
        )

    def deposit(self, like: Row, **changes: Any) -> UUID:
        """A row of a deposit like another one, with the id that belongs to its resource unless `changes` name one."""
        row = {**like, **changes}
        row["id"] = changes.get("id") or deposit_id(row["chain"], row["resource"])
        with self.session() as tx:
            tx.execute(
                f"INSERT INTO deposits ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})".encode(),
                list(row.values()),
            )
        found: UUID = row["id"]
        return found

    def forget(self, transfers: Sequence[UUID]) -> None:
        """Delete transfers with their lines, and number and add up what is left as if they had never been."""
        with self.session() as tx:
            touched = tx.all(
                b"SELECT DISTINCT account_id FROM ledger_lines WHERE transfer_id = ANY (%s)",
                [list(transfers)],
            )
            tx.execute(b"DELETE FROM ledger_lines WHERE transfer_id = ANY (%s)", [list(transfers)])
            tx.execute(b"DELETE FROM ledger_holds WHERE id = ANY (%s)", [list(transfers)])
            tx.execute(b"DELETE FROM ledger_transfers WHERE id = ANY (%s)", [list(transfers)])
            for row in touched:
                self.recompute(tx, row["account_id"])

    def recompute(self, tx: Tx, account: int) -> None:
        """Number, add up and chain an account's lines anew."""
        lines = tx.all(b"SELECT id, amount FROM ledger_lines WHERE account_id = %s ORDER BY seq", [account])
        tx.execute(b"UPDATE ledger_lines SET seq = seq + 1000000 WHERE account_id = %s", [account])
        balance = 0
        for number, line in enumerate(lines, start=1):
            tx.execute(
                b"UPDATE ledger_lines SET seq = %s, balance_before = %s, balance_after = %s WHERE id = %s",
                [number, balance, balance + int(line["amount"]), line["id"]],
            )
            balance += int(line["amount"])
        tx.execute(
            b"UPDATE ledger_accounts SET balance = %s, last_seq = %s WHERE id = %s",
            [balance, len(lines), account],
        )
        self.chain(tx, account)

    def chain(self, tx: Tx, account: int) -> None:
        """Compute the hashes of an account's lines anew, as its rows are now."""
        row = tx.one(
            b"SELECT ledger_genesis(a) AS hash, 0::bigint AS id FROM ledger_accounts a WHERE id = %s",
            [account],
        )
        for line in tx.all(b"SELECT id FROM ledger_lines WHERE account_id = %s ORDER BY seq", [account]):
            row = tx.one(
                b"UPDATE ledger_lines l SET hash = ledger_line_hash(%s, l, t) FROM ledger_transfers t"
                b" WHERE l.id = %s AND t.id = l.transfer_id RETURNING l.hash, l.id",
                [row["hash"], line["id"]],
            )
        tx.execute(
            b"UPDATE ledger_accounts SET hash = %s, last_line = %s WHERE id = %s",
            [row["hash"], row["id"], account],
        )

    def _line(self, tx: Tx, transfer: UUID, leg: int, place: Place, amount: int, type_: str) -> None:
        key = [place.customer, place.kind, place.asset, place.wallet]
        found = (
            b"SELECT * FROM ledger_accounts WHERE customer_id IS NOT DISTINCT FROM %s"
            b" AND kind = %s AND asset = %s AND wallet = %s"
        )
        if tx.optional(found, key) is None:
            tx.execute(
                b"INSERT INTO ledger_accounts (customer_id, kind, asset, wallet, hash) VALUES (%s, %s, %s, %s, %s)",
                [*key, bytes(32)],
            )
            tx.execute(
                b"UPDATE ledger_accounts a SET hash = ledger_genesis(a) WHERE id = %s",
                [tx.one(found, key)["id"]],
            )
        row = tx.one(found, key)
        before = int(row["balance"])
        line = tx.one(
            b"INSERT INTO ledger_lines (id, transfer_id, leg, account_id, seq, type, amount, balance_before,"
            b" balance_after, at, hash) VALUES (nextval('ledger_batches') << 24, %s, %s, %s, %s, %s, %s, %s, %s, now(),"
            b" '') RETURNING id",
            [transfer, leg, row["id"], row["last_seq"] + 1, type_, amount, before, before + amount],
        )
        tx.execute(
            b"UPDATE ledger_lines l SET hash = ledger_line_hash(%s, l, t) FROM ledger_transfers t"
            b" WHERE l.id = %s AND t.id = l.transfer_id",
            [row["hash"], line["id"]],
        )
        tx.execute(
            b"UPDATE ledger_accounts a SET balance = %s, last_seq = %s, last_line = l.id, hash = l.hash"
            b" FROM ledger_lines l WHERE l.id = %s AND a.id = %s",
            [before + amount, row["last_seq"] + 1, line["id"], row["id"]],
        )
