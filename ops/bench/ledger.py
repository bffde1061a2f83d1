"""Ledger transfers through one hot account in batches, beside the least a transfer and a commit can be."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Final

import psycopg

from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres

_BATCH: Final = 1_000
_COMMITS: Final = 300
_CUSTOMERS: Final = 200
_RICH_UNITS: Final = 10**15


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Transfers a second; every commit is on disk on both sides."""
    progress("ledger: starting PostgreSQL")
    directory = part_directory("strongroom-bench-")
    server = EmbeddedPostgres(directory / "pg", durability=Durability.FULL)
    try:
        server.start()
        server.create_database("bench")
        yield _compare(server.superuser_dsn("bench"), progress)
    finally:
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _compare(dsn: str, progress: Callable[[str], None]) -> Row:
    from custody.ledger.model import AccountKind, Created, Leg, LineType, Transfer, available, house
    from custody.ledger.service import post
    from custody.storage.db import Database
    from custody.storage.migrate import upgrade

    upgrade(dsn)
    names = [f"customer-{number}" for number in range(_CUSTOMERS)]
    with psycopg.connect(dsn) as connection:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO customers (id) VALUES (%s)", [(name,) for name in ["hot", *names]]
            )
        connection.execute("CREATE TABLE bare_accounts (id text PRIMARY KEY, balance bigint NOT NULL)")
        connection.execute(
            "CREATE TABLE bare_transfers (id uuid PRIMARY KEY, debit text, credit text, units bigint)"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO bare_accounts VALUES (%s, %s)", [(name, _RICH_UNITS) for name in ["hot", *names]]
            )
    database = Database(dsn, application="bench")
    hot, others = available("hot", "BTC"), [available(name, "BTC") for name in names]
    deposit = LineType.DEPOSIT
    assets = house(AccountKind.CHAIN_ASSETS, "BTC", wallet="bench")
    first = Transfer(uuid.uuid4(), (Leg(assets, -_RICH_UNITS, deposit), Leg(hot, _RICH_UNITS, deposit)))
    turn = itertools.cycle(others)

    def transfer() -> Transfer:
        move = LineType.TRANSFER
        return Transfer(uuid.uuid4(), (Leg(hot, -7, move), Leg(next(turn), 7, move)), "bench")

    def ours() -> None:
        with database.transaction() as tx:
            results = post(tx, [transfer() for _ in range(_BATCH)])
        if not all(isinstance(result, Created) for result in results):
            raise AssertionError("the ledger refused a transfer of the bench")

    bare = psycopg.connect(dsn, prepare_threshold=1)
    target = itertools.cycle(names)

    def peer() -> None:
        for _ in range(_COMMITS):
            name = next(target)
            bare.execute("UPDATE bare_accounts SET balance = balance - 7 WHERE id = 'hot'")
            bare.execute("UPDATE bare_accounts SET balance = balance + 7 WHERE id = %s", (name,))
            bare.execute("INSERT INTO bare_transfers VALUES (%s, 'hot', %s, 7)", (uuid.uuid4(), name))
            bare.commit()

    try:
        with database.transaction() as tx:
            post(tx, [first])
        progress("ledger: posting")
        ours_rate, peer_rate = interleave(Side(ours, _BATCH, runs=3), Side(peer, _COMMITS), repeats=7)
    finally:
        bare.close()
        database.close()
    name = "bare PostgreSQL: two UPDATEs and an INSERT, one transfer a commit"
    return Row("ledger", ours_rate, peer_rate, name, "transfers/s")
