"""The event feed misses nothing and keeps its order; alerts and halts are raised once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from chains.errors import InvalidValue
from custody.storage import alerts, events, halts
from custody.storage.alerts import Severity
from custody.storage.db import Database
from tests.support.ledger import login


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(database, application="test", pool_size=12) as opened:
        yield opened


def read(db: Database, cursor: str | None = None, limit: int = 100) -> tuple[list[str], str | None]:
    with db.snapshot() as tx:
        found, cursor = events.after(tx, cursor, limit)
    return [event.subject for event in found], cursor


def emit(db: Database, subject: str) -> None:
    with db.transaction() as tx:
        events.emit(tx, "test.happened", subject, {"units": "5"})


def test_events_are_read_page_by_page_in_their_order(db: Database) -> None:
    for number in range(7):
        emit(db, str(number))
    first, cursor = read(db, limit=3)
    second, cursor = read(db, cursor, limit=3)
    third, cursor = read(db, cursor, limit=3)
    assert first + second + third == [str(number) for number in range(7)]
    assert read(db, cursor) == ([], cursor)
    emit(db, "later")
    assert read(db, cursor)[0] == ["later"]


def test_an_event_carries_what_was_given_and_its_own_cursor(db: Database) -> None:
    emit(db, "a")
    emit(db, "b")
    with db.snapshot() as tx:
        (first, second), _ = events.after(tx, None, 10)
        assert (first.type, first.subject, first.data) == ("test.happened", "a", {"units": "5"})
        assert events.after(tx, first.cursor, 10)[0] == [second]


def test_the_event_of_a_transaction_that_commits_late_is_not_passed_over(db: Database) -> None:
    with db.transaction() as slow:
        events.emit(slow, "test.happened", "slow", {})
        emit(db, "quick")  # a higher id, committed first
        early, cursor = read(db)
        assert early == []  # "quick" waits: "slow" may yet appear in front of it
    late, cursor = read(db, cursor)
    assert late == ["slow", "quick"]


def test_an_event_that_is_rolled_back_never_appears(db: Database) -> None:
    class Lost(Exception):
        pass

    def lose() -> None:
        with db.transaction() as tx:
            events.emit(tx, "test.happened", "lost", {})
            raise Lost

    with pytest.raises(Lost):
        lose()
    emit(db, "kept")
    assert read(db)[0] == ["kept"]


def test_a_reader_beside_many_writers_sees_every_event_once_and_in_order(db: Database) -> None:
    writers, each = 6, 25
    done = threading.Event()

    def write(writer: int) -> None:
        choose = random.Random(writer)
        for number in range(each):
            with db.transaction() as tx:
                events.emit(tx, "test.happened", f"{writer}:{number}:a", {})
                if choose.random() < 0.5:
                    tx.execute("SELECT pg_sleep(%s)", [choose.random() / 100])
                with tx.savepoint():
                    events.emit(tx, "test.happened", f"{writer}:{number}:b", {})

    def follow() -> list[str]:
        seen: list[str] = []
        cursor: str | None = None
        while True:
            last_round = done.is_set()
            found, cursor = read(db, cursor, limit=7)
            seen += found
            if last_round and not found:
                return seen

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(follow)
        for future in [pool.submit(write, writer) for writer in range(writers)]:
            future.result(timeout=60)
        done.set()
        seen = reader.result(timeout=60)
    expected = [f"{w}:{n}:{x}" for w in range(writers) for n in range(each) for x in "ab"]
    assert sorted(seen) == sorted(expected)
    for writer in range(writers):
        own = [subject for subject in seen if subject.startswith(f"{writer}:")]
        assert own == [subject for subject in expected if subject.startswith(f"{writer}:")]
    assert read(db, None, limit=1000)[0] == seen  # and the order is the same for whoever comes later


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", "1-", "-1", "1-2-3", "1-2 ", "01-2", "1-2;--", "9" * 30 + "-1"]
)
def test_a_cursor_that_the_feed_never_gave_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidValue):
        read(db, cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_1_to_1000_events(db: Database, limit: int) -> None:
    with pytest.raises(InvalidValue):
        read(db, limit=limit)


# ---------------------------------------------------------------------------------------- alerts and halts


def raise_it(db: Database, message: str) -> None:
    with db.transaction() as tx:
        alerts.raise_alert(tx, Severity.CRITICAL, "ledger.differs", "BTC", message, {"units": "1"})


def open_messages(db: Database) -> list[str]:
    with db.snapshot() as tx:
        return [alert.message for alert in alerts.open_alerts(tx)]


def test_one_trouble_has_one_open_alert_and_one_event(db: Database) -> None:
    raise_it(db, "one satoshi is missing")
    raise_it(db, "one satoshi is still missing")
    assert open_messages(db) == ["one satoshi is missing"]
    with db.snapshot() as tx:
        found, _ = events.after(tx, None, 10)
    assert [(event.type, event.subject) for event in found] == [("alert.raised", "BTC")]
    assert found[0].data["severity"] == "critical"


def test_a_trouble_that_comes_back_after_it_was_resolved_is_a_new_alert(db: Database) -> None:
    raise_it(db, "first")
    for _ in range(2):  # again changes nothing
        with db.transaction() as tx:
            alerts.resolve_alert(tx, "ledger.differs", "BTC")
    assert open_messages(db) == []
    raise_it(db, "second")
    assert open_messages(db) == ["second"]
    with db.snapshot() as tx:
        kinds = [event.type for event in events.after(tx, None, 10)[0]]
    assert kinds == ["alert.raised", "alert.resolved", "alert.raised"]


def test_a_trouble_found_by_two_at_once_is_one_alert(db: Database) -> None:
    both = threading.Barrier(4)

    def go() -> None:
        both.wait(timeout=20)
        raise_it(db, "found")

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(go) for _ in range(4)]:
            future.result()
    assert open_messages(db) == ["found"]
    assert len(read(db)[0]) == 1


def why(db: Database, chain: str) -> str | None:
    with db.snapshot() as tx:
        return halts.halted(tx, chain)


def test_a_halt_stops_its_chain_or_all_until_it_is_lifted(db: Database) -> None:
    assert why(db, "bitcoin") is None
    with db.transaction() as tx:
        halts.halt(tx, "bitcoin", "the ledger differs from the chain")
        halts.halt(tx, "bitcoin", "again")
    assert why(db, "bitcoin") == "the ledger differs from the chain"
    assert why(db, "other") is None
    with db.transaction() as tx:
        halts.halt(tx, halts.ALL, "an operator pulled the brake")
    assert why(db, "other") == why(db, "bitcoin") == "an operator pulled the brake"
    for _ in range(2):
        with db.transaction() as tx:
            halts.lift(tx, halts.ALL)
    assert why(db, "other") is None
    assert why(db, "bitcoin") == "the ledger differs from the chain"
    with db.snapshot() as tx:
        kinds = [event.type for event in events.after(tx, None, 10)[0]]
    assert kinds == ["paying.halted", "paying.halted", "paying.resumed"]


def test_each_process_raises_alerts_with_its_own_role_and_workers_pull_the_brake_that_nobody_lifts_unrecorded(
    database: str,
) -> None:
    for role in ("strongroom_api", "strongroom_monitor", "strongroom_worker"):
        with Database(login(database, role), application="test") as db:
            raise_it(db, role)
            with db.transaction() as tx:
                alerts.resolve_alert(tx, "ledger.differs", "BTC")
    with Database(login(database, "strongroom_worker"), application="test") as db, db.transaction() as tx:
        halts.halt(tx, halts.ALL, "difference")
    # What operators do at the host is with the workers' role, and leaves a record (tests/redteam).
    for role in ("strongroom_api", "strongroom_worker"):
        with (
            Database(login(database, role), application="test") as db,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            db.transaction() as tx,
        ):
            halts.lift(tx, halts.ALL)
