"""What tests of the ledger share: a migrated database, logins as each role, short ways to write commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from custody.ledger.chain import Stamp, line_rows, transfer_text
from custody.ledger.model import (
    AccountKind,
    Command,
    Leg,
    Line,
    LineType,
    Result,
    Transfer,
    TransferKind,
    available,
    house,
)
from custody.ledger.posting import TransferRecord
from custody.ledger.repository import COPY_LINES
from custody.ledger.service import post
from custody.storage.db import Database
from custody.storage.migrate import set_role_password

ASSET = "BTC"
WALLET = "btc-hot"
_ROLE_PASSWORD = "only-for-throw-away-clusters"


def login(superuser_dsn: str, role: str) -> str:
    """Connection string of `role` for the same database."""
    set_role_password(superuser_dsn, role, _ROLE_PASSWORD)
    return make_conninfo(superuser_dsn, user=role, password=_ROLE_PASSWORD)


def customers(db: Database, *names: str) -> None:
    """Make customers."""
    with db.transaction() as tx:
        tx.executemany("INSERT INTO customers (id) VALUES (%s)", [[name] for name in names])


def booked(db: Database, *commands: Command) -> list[Result]:
    """Post the commands in one transaction."""
    with db.transaction() as tx:
        return post(tx, commands)


def credit(customer: str, units: int, *, asset: str = ASSET, id: UUID | None = None) -> Transfer:
    """Give a customer money that came from the chain."""
    legs = (
        Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=WALLET), -units, LineType.DEPOSIT),
        Leg(available(customer, asset), units, LineType.DEPOSIT),
    )
    return Transfer(id or uuid4(), legs, "test")


def move(source: str, target: str, units: int, *, asset: str = ASSET, id: UUID | None = None) -> Transfer:
    """Move money from one customer to another."""
    legs = (
        Leg(available(source, asset), -units, LineType.TRANSFER),
        Leg(available(target, asset), units, LineType.TRANSFER),
    )
    return Transfer(id or uuid4(), legs, "test")


def write_lines(
    connection: psycopg.Connection[Any],
    lines: Sequence[tuple[UUID, int, int, LineType, int, int]],
    *,
    first_leg: int = 1,
) -> None:
    """Add lines (transfer, account, seq, type, amount, balance before) in one statement: without the ledger's code,
    but numbered and chained as by it."""
    made = [
        Line(t, a, seq, kind, amount, before, before + amount) for t, a, seq, kind, amount, before in lines
    ]
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "SELECT nextval('ledger_batches') AS batch, c.at::text, (extract(epoch FROM c.at) * 1000000)::bigint AS us"
            " FROM clock_timestamp() AS c (at)"
        ).fetchone()
        assert row is not None
        stamp = Stamp(row["batch"], row["at"], row["us"])
        cursor.execute(
            "SELECT id, hash FROM public.ledger_accounts WHERE id = ANY (%s)", [[m.account_id for m in made]]
        )
        last = {m.account_id: bytes(32) for m in made} | {row["id"]: bytes(row["hash"]) for row in cursor}
        cursor.execute(
            "SELECT id, kind, content_hash, parent_id, reference, legs FROM ledger_transfers WHERE id = ANY (%s)",
            [[m.transfer_id for m in made]],
        )
        texts = {m.transfer_id: "" for m in made}
        for row in cursor:
            kind, content = TransferKind(row["kind"]), bytes(row["content_hash"])
            record = TransferRecord(row["id"], kind, content, row["parent_id"], row["reference"])
            texts[row["id"]] = transfer_text(record, row["legs"])
        with cursor.copy(COPY_LINES) as sink:
            for chunk in line_rows(made, texts, last, stamp, first_leg=first_leg):
                sink.write(chunk)
