"""Many at once: one id is posted once, batches over the same accounts never deadlock, nothing is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from custody.errors import Conflict
from custody.ledger import bookings, service
from custody.ledger.audit import audit
from custody.ledger.model import Code, Created, Exists, Rejected, Result
from custody.ledger.statements import balance
from custody.storage.db import Database, Isolation
from ops.devnet.process import wait_until
from tests.support.ledger import booked, credit, customers, move

NAMES = [f"c{number}" for number in range(8)]


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(database, application="test", pool_size=16) as opened:
        customers(opened, *NAMES)
        yield opened


def proven(db: Database) -> bool:
    with db.snapshot() as tx:
        return audit(tx) == []


def total(db: Database) -> int:
    with db.snapshot() as tx:
        return sum(balance(tx, name, "BTC").total for name in NAMES)


def wait_for_waiters(db: Database, number: int) -> None:
    """Wait until that many sessions of this database wait for a lock."""

    def waiting() -> bool:
        with db.snapshot() as tx:
            row = tx.one(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        return bool(row["n"] >= number)

    wait_until(waiting, timeout=20, what=f"{number} sessions to wait for a lock")


@pytest.mark.parametrize("known", ["accounts that exist", "accounts that nobody made yet"])
def test_one_id_posted_by_many_at_once_is_created_once_and_exists_for_the_others(
    db: Database, known: str
) -> None:
    if known == "accounts that exist":
        booked(db, credit("c0", 1))
    command = credit("c0", 10)
    everybody = threading.Barrier(8)

    def go() -> list[Result]:
        with db.transaction() as tx:
            tx.one("SELECT 1 AS connected")
            everybody.wait(timeout=30)
            return service.post(tx, [command])

    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(go) for _ in range(8)]]
    assert Counter(type(one) for (one,) in results) == {Created: 1, Exists: 7}
    with db.snapshot() as tx:
        assert balance(tx, "c0", "BTC").available == (11 if known == "accounts that exist" else 10)
    assert proven(db)


def test_the_second_of_two_waits_for_the_first_and_then_says_exists(db: Database) -> None:
    booked(db, credit("c0", 1))
    command = credit("c0", 10)
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            assert service.post(tx, [command]) == [Created(command.id)]
            second: Future[list[Result]] = pool.submit(booked, db, command)
            wait_for_waiters(db, 1)
            assert not second.done()
        assert second.result(timeout=20) == [Exists(command.id)]


def test_the_second_of_two_takes_over_when_the_first_rolls_back(db: Database) -> None:
    booked(db, credit("c0", 1))
    command = credit("c0", 10)

    class Lost(Exception):
        pass

    with ThreadPoolExecutor(1) as pool:
        second: Future[list[Result]]
        try:
            with db.transaction() as tx:
                service.post(tx, [command])
                second = pool.submit(booked, db, command)
                wait_for_waiters(db, 1)
                raise Lost
        except Lost:
            assert second.result(timeout=20) == [Created(command.id)]
    assert proven(db)


@pytest.mark.parametrize("first_ends", ["commits", "rolls back"])
def test_one_id_with_two_contents_on_accounts_that_nobody_shares_makes_one_transfer(
    db: Database, first_ends: str
) -> None:
    booked(db, credit("c0", 10, asset="X"), credit("c2", 10, asset="Y"))
    id = uuid4()
    first, other = move("c0", "c1", 1, asset="X", id=id), move("c2", "c3", 1, asset="Y", id=id)

    class Lost(Exception):
        pass

    with ThreadPoolExecutor(1) as pool:
        second: Future[list[Result]]
        try:
            with db.transaction() as tx:
                service.post(tx, [first])
                second = pool.submit(booked, db, other)
                wait_for_waiters(db, 1)  # it has found the id unknown, and hangs on the primary key
                if first_ends == "rolls back":
                    raise Lost
        except Lost:
            assert second.result(timeout=20) == [Created(id)]
            return
        with pytest.raises(Conflict) as caught:
            second.result(timeout=20)
    assert caught.value.transient
    (again,) = booked(db, other)  # what a caller does with a transient error
    assert isinstance(again, Rejected)
    assert again.code is Code.EXISTS_WITH_DIFFERENT_CONTENT
    assert proven(db)


def test_batches_over_the_same_accounts_in_any_order_never_deadlock(db: Database) -> None:
    booked(db, *(credit(name, 1000) for name in NAMES))
    workers, rounds = 8, 15

    def batches(seed: int) -> Counter[type]:
        choose, counted = random.Random(seed), Counter[type]()
        for _ in range(rounds):
            pairs = [choose.sample(NAMES, 2) for _ in range(6)]
            batch = [move(source, target, choose.randint(1, 900)) for source, target in pairs]
            counted.update(type(result) for result in booked(db, *batch))
        return counted

    with ThreadPoolExecutor(workers) as pool:
        counted = sum(
            (f.result() for f in [pool.submit(batches, n) for n in range(workers)]), Counter[type]()
        )
    assert counted.total() == workers * rounds * 6  # no Conflict, no deadlock: every batch got its answer
    assert counted[Created] > 0
    assert counted[Rejected] > 0
    assert total(db) == 8000
    assert proven(db)


def test_batches_that_make_the_same_new_accounts_in_opposite_orders_do_not_deadlock(db: Database) -> None:
    for turn in range(10):
        asset, everybody = f"N{turn}", threading.Barrier(4)

        def go(names: list[str], asset: str = asset, everybody: threading.Barrier = everybody) -> None:
            batch = [credit(name, 5, asset=asset) for name in names]
            with db.transaction() as tx:
                tx.one("SELECT 1 AS connected")
                everybody.wait(timeout=30)
                assert all(isinstance(result, Created) for result in service.post(tx, batch))

        with ThreadPoolExecutor(4) as pool:
            orders = [NAMES, NAMES[::-1], NAMES, NAMES[::-1]]
            for future in [pool.submit(go, order) for order in orders]:
                future.result()
    assert proven(db)


def test_the_same_money_is_held_once_however_many_ask(db: Database) -> None:
    booked(db, credit("c0", 100))
    everybody = threading.Barrier(8)

    def go(id: UUID) -> Result:
        everybody.wait(timeout=30)
        hold = bookings.hold_withdrawal(id, customer="c0", asset="BTC", units=60, fee_units=0)
        return booked(db, hold)[0]

    with ThreadPoolExecutor(8) as pool:
        results = [f.result() for f in [pool.submit(go, uuid4()) for _ in range(8)]]
    assert Counter(type(result) for result in results) == {Created: 1, Rejected: 7}
    refused = next(result for result in results if isinstance(result, Rejected))
    assert (refused.code, refused.available, refused.needed) == (Code.INSUFFICIENT_FUNDS, 40, 60)


def test_a_hold_is_either_posted_or_released_when_both_are_tried_at_once(db: Database) -> None:
    for _ in range(10):
        w, both = uuid4(), threading.Barrier(2)
        of = {"customer": "c0", "asset": "BTC", "units": 9, "fee_units": 1}
        booked(db, credit("c0", 10), bookings.hold_withdrawal(w, **of))  # type: ignore[arg-type]
        settle = bookings.settle_withdrawal(w, 1, wallet="hot", **of)  # type: ignore[arg-type]
        commands = (settle, bookings.release_withdrawal(w))

        def go(number: int, both: threading.Barrier = both, commands: tuple = commands) -> Result:  # type: ignore[type-arg]
            both.wait(timeout=30)
            return booked(db, commands[number])[0]

        with ThreadPoolExecutor(2) as pool:
            results = [f.result() for f in [pool.submit(go, n) for n in range(2)]]
        assert Counter(type(result) for result in results) == {Created: 1, Rejected: 1}
        (refused,) = (result for result in results if isinstance(result, Rejected))
        assert refused.code is Code.HOLD_NOT_PENDING
    assert proven(db)


def test_a_snapshot_that_is_too_old_ends_in_a_conflict_and_not_in_a_wrong_balance(db: Database) -> None:
    booked(db, credit("c0", 100))
    with pytest.raises(Conflict), db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:  # noqa: PT012
        tx.one("SELECT count(*) AS seen FROM ledger_accounts")
        booked(db, move("c0", "c1", 100))
        service.post(tx, [move("c0", "c2", 100)])
    with db.snapshot() as tx:
        assert balance(tx, "c2", "BTC").total == 0
    assert proven(db)
