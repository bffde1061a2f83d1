"""FAULTS row 37: the database dies in a batch. All of it is there afterwards, or none, and it can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from chains.errors import TransientError
from custody.errors import DatabaseUnavailable
from custody.ledger import repository, service
from custody.ledger.audit import audit
from custody.ledger.model import Created, Exists, Transfer
from custody.ledger.statements import balance
from custody.storage.db import Database
from custody.storage.migrate import upgrade
from ops.devnet.errors import StartFailed
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import wait_until
from tests.support.ledger import booked, credit, customers

BATCH = 1000


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A cluster of its own, on which every commit is on disk, to be killed."""
    directory: Path = part_directory("strongroom-crash-")
    cluster = EmbeddedPostgres(directory / "pg", durability=Durability.FULL)
    cluster.start()
    try:
        cluster.create_database("ledger")
        upgrade(cluster.superuser_dsn("ledger"))
        yield cluster
    finally:
        cluster.remove()
        directory.rmdir()


@pytest.fixture
def db(server: EmbeddedPostgres) -> Iterator[Database]:
    with Database(server.superuser_dsn("ledger"), application="test", pool_size=4) as opened:
        customers(opened, "ada", "ben")
        booked(opened, credit("ada", 5))
        yield opened


def state(db: Database) -> tuple[int, int]:
    """(transfers, ada's balance), after the audit has found nothing."""
    with db.snapshot() as tx:
        assert audit(tx) == []
        return tx.one("SELECT count(*) AS n FROM ledger_transfers")["n"], balance(tx, "ada", "BTC").available


def restart(server: EmbeddedPostgres) -> None:
    """Start the killed cluster again; recovery may have to wait for the old processes to notice."""

    def up() -> bool:
        try:
            server.start()
        except StartFailed:
            return False
        return True

    wait_until(up, timeout=60, what="PostgreSQL to start again")


@pytest.mark.parametrize("moment", ["lines written", "transfers written", "before the commit"])
def test_row_37_database_dies_in_a_batch(
    server: EmbeddedPostgres, db: Database, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [credit("ada", 10) for _ in range(BATCH)]
    if moment == "lines written":
        monkeypatch.setattr(repository, "_copy_lines", _dying_after(repository._copy_lines, server))

    def attempt() -> None:
        with db.transaction() as tx:
            service.post(tx, batch if moment != "transfers written" else batch[: BATCH // 2])
            server.kill()
            if moment == "transfers written":
                service.post(tx, batch[BATCH // 2 :])

    with pytest.raises(DatabaseUnavailable) as caught:
        attempt()
    assert isinstance(caught.value, TransientError)
    monkeypatch.undo()
    restart(server)
    assert state(db) == (1, 5)  # none
    results = booked(db, *batch)  # what a caller does with a transient error
    assert all(isinstance(result, Created) for result in results)
    assert state(db) == (1 + BATCH, 5 + 10 * BATCH)  # all
    assert all(isinstance(result, Exists) for result in booked(db, *batch))
    assert state(db) == (1 + BATCH, 5 + 10 * BATCH)


def _dying_after(write: object, server: EmbeddedPostgres) -> object:
    def dying(*arguments: object) -> None:
        write(*arguments)  # type: ignore[operator]
        server.kill()

    return dying


def test_row_37_killed_at_any_time_among_many_batches(server: EmbeddedPostgres, db: Database) -> None:
    """Batches run while the server is killed: those that were answered are there, the others wholly or not at all."""
    batches = [[credit("ada", 1) for _ in range(50)] for _ in range(400)]
    answered: list[int] = []

    def run() -> int | None:
        for number, batch in enumerate(batches):
            try:
                booked(db, *batch)
            except DatabaseUnavailable:
                return number
            answered.append(number)
        return None

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        wait_until(lambda: len(answered) >= 20, timeout=60, what="some batches")
        server.kill()
        died_at = running.result(timeout=60)
    assert died_at is not None, "the server was killed too late"
    restart(server)
    with db.snapshot() as tx:
        known = repository.transfers(tx, [command.id for batch in batches for command in batch])
    for number, batch in enumerate(batches):
        found = {command.id in known for command in batch}
        assert len(found) == 1, f"batch {number} is there in part"
        if number in answered:
            assert found == {True}, f"batch {number} was answered, and is lost"
        if number > died_at:
            assert found == {False}
    for batch in batches:
        booked(db, *batch)
    assert state(db) == (1 + 50 * 400, 5 + 50 * 400)


def test_a_database_that_is_away_is_a_transient_error_and_comes_back_by_itself(
    server: EmbeddedPostgres, db: Database
) -> None:
    command: Transfer = credit("ada", 1)
    server.stop()
    with pytest.raises(DatabaseUnavailable):
        booked(db, command)
    server.start()
    assert booked(db, command) == [Created(command.id)]


def test_a_password_does_not_appear_in_the_error_of_a_failed_connection(server: EmbeddedPostgres) -> None:
    dsn = server.superuser_dsn("ledger")
    password = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
    server.stop()
    with Database(dsn, application="test") as away, pytest.raises(DatabaseUnavailable) as caught:
        booked(away, credit("ada", 1))
    assert str(password) not in f"{caught.value!r} {caught.value.__cause__!r} {away!r}"
