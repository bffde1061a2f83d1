"""Connections and transactions: commits, rollbacks, errors that say whether a retry can help, locks that fence."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from custody.errors import Conflict, DatabaseUnavailable
from custody.storage.db import Database, Isolation, Session
from ops.devnet.process import free_port, release_port, wait_until


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(database, application="test", pool_size=4) as opened:
        yield opened


def names(db: Database) -> list[str]:
    with db.snapshot() as tx:
        return [row["id"] for row in tx.all("SELECT id FROM customers ORDER BY id")]


INSERT = "INSERT INTO customers (id) VALUES (%s)"


def test_a_transaction_commits_on_normal_exit_and_rolls_back_on_any_exception(db: Database) -> None:
    with db.transaction() as tx:
        assert tx.execute(INSERT, ["ada"]) == 1

    class Lost(Exception):
        pass

    def lose() -> None:
        with db.transaction() as tx:
            tx.execute(INSERT, ["ben"])
            raise Lost

    with pytest.raises(Lost):
        lose()
    assert names(db) == ["ada"]


def test_a_savepoint_undoes_only_what_is_inside(db: Database) -> None:
    with db.transaction() as tx:
        tx.execute(INSERT, ["ada"])
        try:
            with tx.savepoint():
                tx.execute(INSERT, ["ben"])
                tx.execute(INSERT, ["ada"])
        except psycopg.errors.UniqueViolation:
            tx.execute(INSERT, ["cy"])
    assert names(db) == ["ada", "cy"]


def test_rows_come_as_dicts_and_one_means_exactly_one(db: Database) -> None:
    with db.transaction() as tx:
        assert tx.executemany(INSERT, [["ada"], ["ben"]]) == 2
        tx.copy(b"COPY customers (id, reason) FROM STDIN", [("cy", "copied"), ("dee", "")])
        assert tx.one("SELECT reason FROM customers WHERE id = 'cy'") == {"reason": "copied"}
        assert tx.optional("SELECT id FROM customers WHERE id = 'zoe'") is None
        with pytest.raises(LookupError):
            tx.one("SELECT id FROM customers WHERE id = 'zoe'")
        with pytest.raises(LookupError):
            tx.optional("SELECT id FROM customers")
        assert tx.execute("UPDATE customers SET state = 'frozen' WHERE state = 'frozen'") == 0


def test_a_snapshot_sees_one_moment_and_cannot_write(db: Database) -> None:
    with db.snapshot() as before:
        assert before.all("SELECT id FROM customers") == []
        with db.transaction() as tx:
            tx.execute(INSERT, ["ada"])
        assert before.all("SELECT id FROM customers") == []
        with pytest.raises(DatabaseUnavailable, match="read-only"), db.snapshot() as tx:
            tx.execute(INSERT, ["ben"])
    with db.transaction() as tx:  # the pooled connection is not read-only ever after
        tx.execute(INSERT, ["ben"])
    assert names(db) == ["ada", "ben"]


def test_times_come_in_utc(db: Database) -> None:
    with db.snapshot() as tx:
        assert str(tx.one("SELECT now() AS now")["now"].tzinfo) in {"UTC", "Etc/UTC"}


def test_a_serialization_failure_is_a_conflict(db: Database) -> None:
    with db.transaction() as tx:
        tx.execute(INSERT, ["ada"])
    with pytest.raises(Conflict) as caught, db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:  # noqa: PT012
        tx.all("SELECT * FROM customers")
        with db.transaction() as other:
            other.execute("UPDATE customers SET reason = 'a'")
        tx.execute("UPDATE customers SET reason = 'b'")
    assert caught.value.transient


def test_one_of_two_in_a_deadlock_gets_a_conflict_and_the_other_goes_on(db: Database) -> None:
    with db.transaction() as tx:
        tx.executemany(INSERT, [["ada"], ["ben"]])
    both = threading.Barrier(2)

    def go(first: str, second: str) -> str:
        try:
            with db.transaction() as tx:
                tx.execute("UPDATE customers SET reason = 'x' WHERE id = %s", [first])
                both.wait(timeout=20)
                tx.execute("UPDATE customers SET reason = 'x' WHERE id = %s", [second])
        except Conflict:
            return "conflict"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        found = [f.result(timeout=30) for f in (pool.submit(go, "ada", "ben"), pool.submit(go, "ben", "ada"))]
    assert sorted(found) == ["conflict", "done"]


def test_no_answer_is_a_transient_error(database: str) -> None:
    port = free_port()
    try:
        dsn = make_conninfo(database, port=port)
        with Database(dsn, application="test") as db, pytest.raises(DatabaseUnavailable) as caught:  # noqa: SIM117
            with db.transaction():
                pass
        assert caught.value.transient
    finally:
        release_port(port)


def test_a_connection_that_is_cut_in_a_transaction_is_a_transient_error_and_is_replaced(db: Database) -> None:
    with pytest.raises(DatabaseUnavailable), db.transaction() as tx:  # noqa: PT012
        own = tx.one("SELECT pg_backend_pid() AS pid")["pid"]
        with db.session() as session, session.transaction() as other:
            other.execute("SELECT pg_terminate_backend(%s)", [own])
        tx.execute(INSERT, ["ada"])
    assert names(db) == []


def test_an_idle_connection_that_was_cut_costs_nobody_an_error(db: Database) -> None:
    with db.snapshot() as tx:
        idle = tx.one("SELECT pg_backend_pid() AS pid")["pid"]
    with db.session() as session:

        def gone() -> bool:
            with session.transaction() as tx:
                tx.execute("SELECT pg_terminate_backend(%s)", [idle])
                return tx.optional("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [idle]) is None

        wait_until(gone, timeout=20, what="the idle connection to end")
    assert names(db) == []


def test_a_leaders_lock_is_one_sessions_until_that_session_ends(db: Database) -> None:
    with db.session() as second:
        with db.session() as first:
            assert first.try_lock("monitor:bitcoin")
            assert first.try_lock("monitor:bitcoin")  # again changes nothing
            assert not second.try_lock("monitor:bitcoin")
            assert second.try_lock("monitor:other")
        wait_until(lambda: second.try_lock("monitor:bitcoin"), timeout=20, what="the lock to be free")


def test_a_session_that_lost_its_lock_cannot_commit_any_more(db: Database) -> None:
    with db.session() as old, db.session() as new:
        assert old.try_lock("monitor:bitcoin")

        def write(session: Session, name: str) -> None:
            with session.transaction() as tx:
                tx.execute(INSERT, [name])

        with old.transaction() as tx:
            pid = tx.one("SELECT pg_backend_pid() AS pid")["pid"]
        with new.transaction() as tx:
            tx.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(lambda: new.try_lock("monitor:bitcoin"), timeout=20, what="the lock to be free")
        with pytest.raises(DatabaseUnavailable):
            write(old, "from-the-old-leader")
        write(new, "from-the-new-leader")
    assert names(db) == ["from-the-new-leader"]


def test_a_child_after_a_fork_opens_connections_of_its_own(database: str) -> None:
    db = Database(database, application="test", pool_size=1)
    with db.snapshot() as tx:
        parents = tx.one("SELECT pg_backend_pid() AS pid")["pid"]
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of pytest may run here: answer and vanish.
        try:
            with db.snapshot() as tx:
                os.write(writable, str(tx.one("SELECT pg_backend_pid() AS pid")["pid"]).encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        childs = int(answer.read())
    os.waitpid(child, 0)
    assert childs != parents
    with db.snapshot() as tx:  # and the parent's own still works
        assert tx.one("SELECT pg_backend_pid() AS pid")["pid"] == parents
    db.close()


def test_sessions_say_who_they_are_and_never_wait_for_ever(db: Database) -> None:
    with db.snapshot() as tx:
        shown = {
            name: tx.one("SELECT current_setting(%s) AS value", [name])["value"]
            for name in ("application_name", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert shown["application_name"] == "test"
    assert "0" not in {shown["lock_timeout"], shown["idle_in_transaction_session_timeout"]}


def test_the_password_is_not_in_the_repr(database: str, db: Database) -> None:
    assert str(conninfo_to_dict(database)["password"]) not in repr(db)
