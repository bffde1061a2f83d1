"""Ledger transfers through one hot account in batches, beside one transfer a commit, and a bare COPY of the rows."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres

_BATCH: Final = 2_000
_COMMITS: Final = 200
_CUSTOMERS: Final = 200
_RICH_UNITS: Final = 10**15


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Transfers a second; every commit is on disk on all sides."""
    progress("ledger: starting PostgreSQL")
    directory = part_directory("strongroom-bench-")
    server = EmbeddedPostgres(directory / "pg", durability=Durability.FULL)
    try:
        server.start()
        server.create_database("bench")
        yield from _compare(server.superuser_dsn("bench"), progress)
    finally:
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _compare(dsn: str, progress: Callable[[str], None]) -> Iterator[Row]:
    from custody.storage.db import Database
    from custody.storage.migrate import upgrade

    upgrade(dsn)
    names = [f"customer-{number}" for number in range(_CUSTOMERS)]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO customers (id) VALUES (%s)", [(name,) for name in ["hot", *names]])
    with Database(dsn, application="bench") as database, psycopg.connect(dsn, prepare_threshold=1) as bare:
        ledger = _Ledger(database, names)
        loop, copied = _Loop(bare, names), _Copied(bare)
        progress("ledger: posting")
        ours, naive = interleave(Side(ledger.batch, _BATCH, runs=3), Side(loop.run, _COMMITS), repeats=7)
        yield Row(
            "ledger",
            ours,
            naive,
            "bare PostgreSQL: two UPDATEs and an INSERT, one transfer a commit",
            "transfers/s",
        )
        progress("ledger: one transfer a commit, and a bare COPY")
        batched, single = interleave(
            Side(ledger.batch, _BATCH, runs=2), Side(ledger.singles, _COMMITS), repeats=5
        )
        yield Row("ledger-batched", batched, single, "this ledger, one transfer a commit", "transfers/s")
        checked, copy = interleave(
            Side(ledger.batch, _BATCH, runs=2), Side(copied.run, _BATCH, runs=2), repeats=5
        )
        about = "COPY of the same rows into the same tables without checks, indexes, balances and hashes"
        yield Row("ledger-copy", checked, copy, about, "transfers/s")


class _Ledger:
    """The ledger, one account of which is in every transfer."""

    def __init__(self, database: Any, names: list[str]) -> None:
        from custody.ledger.model import AccountKind, Leg, LineType, Transfer, available, house
        from custody.ledger.service import post

        self._database, self._post = database, post
        hot = available("hot", "BTC")
        turn = itertools.cycle([available(name, "BTC") for name in names])
        assets = house(AccountKind.CHAIN_ASSETS, "BTC", wallet="bench")
        move, came = LineType.TRANSFER, LineType.DEPOSIT
        self._transfer: Callable[[], Any] = lambda: Transfer(
            uuid.uuid4(), (Leg(hot, -7, move), Leg(next(turn), 7, move)), "bench"
        )
        self._book([Transfer(uuid.uuid4(), (Leg(assets, -_RICH_UNITS, came), Leg(hot, _RICH_UNITS, came)))])

    def _book(self, transfers: list[Any]) -> None:
        from custody.ledger.model import Created

        with self._database.transaction() as tx:
            results = self._post(tx, transfers)
        if not all(isinstance(result, Created) for result in results):
            raise AssertionError("the ledger refused a transfer of the bench")

    def batch(self) -> None:
        """One commit."""
        self._book([self._transfer() for _ in range(_BATCH)])

    def singles(self) -> None:
        """As many commits as transfers."""
        for _ in range(_COMMITS):
            self._book([self._transfer()])


class _Loop:
    """The least that a transfer and a commit can be."""

    def __init__(self, connection: psycopg.Connection[Any], names: list[str]) -> None:
        self._connection, self._target = connection, itertools.cycle(names)
        run = connection.execute
        run("CREATE TABLE bare_accounts (id text PRIMARY KEY, balance bigint NOT NULL)")
        run("CREATE TABLE bare_transfers (id uuid PRIMARY KEY, debit text, credit text, units bigint)")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO bare_accounts VALUES (%s, %s)", [(name, _RICH_UNITS) for name in ["hot", *names]]
            )
        connection.commit()

    def run(self) -> None:
        """Some of them."""
        for _ in range(_COMMITS):
            name = next(self._target)
            self._connection.execute("UPDATE bare_accounts SET balance = balance - 7 WHERE id = 'hot'")
            self._connection.execute("UPDATE bare_accounts SET balance = balance + 7 WHERE id = %s", (name,))
            self._connection.execute(
                "INSERT INTO bare_transfers VALUES (%s, 'hot', %s, 7)", (uuid.uuid4(), name)
            )
            self._connection.commit()


class _Copied:
    """The rows of a batch, as they are, into tables without anything."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE copied_transfers (LIKE ledger_transfers)")
        connection.execute("CREATE TABLE copied_lines (LIKE ledger_lines)")
        connection.commit()
        self._rows: tuple[bytes, bytes] | None = None

    def run(self) -> None:
        """One commit."""
        transfers, lines = self._rows = self._rows or self._taken()
        with self._connection.cursor() as cursor:
            for table, data in ((b"copied_transfers", transfers), (b"copied_lines", lines)):
                with cursor.copy(b"COPY " + table + b" FROM STDIN") as sink:
                    sink.write(data)
        self._connection.commit()

    def _taken(self) -> tuple[bytes, bytes]:
        found = []
        for query in (
            b"COPY (SELECT * FROM ledger_transfers WHERE reference = 'bench' LIMIT %d) TO STDOUT" % _BATCH,
            b"COPY (SELECT * FROM ledger_lines ORDER BY id DESC LIMIT %d) TO STDOUT" % (2 * _BATCH),
        ):
            with self._connection.cursor() as cursor, cursor.copy(query) as source:
                found.append(b"".join(bytes(row) for row in source))
        self._connection.commit()
        return found[0], found[1]
