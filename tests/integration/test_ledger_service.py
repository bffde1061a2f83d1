"""Posting on a real PostgreSQL: the same answers as the simple model, once only, and with a proof afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from custody.errors import LedgerRejected
from custody.ledger import bookings, service, statements
from custody.ledger.audit import Flaw, audit
from custody.ledger.model import (
    AccountKind,
    Code,
    Command,
    Created,
    Exists,
    Hold,
    Rejected,
    VoidHold,
    frozen,
    house,
)
from custody.storage.db import Database, units
from tests.support.ledger import booked, credit, customers, login, move
from tests.support.ledger_commands import CUSTOMERS, commands
from tests.support.ledger_model import LedgerModel


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(database, application="test", pool_size=12) as opened:
        customers(opened, *CUSTOMERS)
        yield opened


def findings(db: Database) -> list[object]:
    with db.snapshot() as tx:
        return list(audit(tx))


def balance(db: Database, customer: str, asset: str = "BTC") -> statements.Balances:
    with db.snapshot() as tx:
        return statements.balance(tx, customer, asset)


# ----------------------------------------------------------------------------------------------- properties

_numbers = iter(range(10**9))


class LedgerAgainstModel(RuleBasedStateMachine):
    """Batches go to the database and to the model; after each, both must tell the same."""

    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.asset = f"A{next(_numbers)}"  # every example has an asset, and so a ledger, of its own
        self.model = LedgerModel()

    @rule(data=st.data())
    def post_a_batch(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(commands(self.asset), min_size=1, max_size=12))
        expected = [self.model.apply(command) for command in batch]
        found = [
            result.code.value if isinstance(result, Rejected) else type(result).__name__.lower()
            for result in booked(self.db, *batch)
        ]
        assert found == expected

    @rule(data=st.data())
    def post_again_what_was_posted(self, data: st.DataObject) -> None:
        if self.model.done:
            done = data.draw(st.sampled_from(sorted(self.model.done.values(), key=lambda d: str(d[0].id))))
            assert booked(self.db, done[0]) == [Exists(done[0].id)]

    @rule()
    def change_the_mind_and_roll_back(self) -> None:
        before = dict(self.balances())
        with contextlib.suppress(ZeroDivisionError), self.db.transaction() as tx:
            service.post(tx, [credit("ada", 5, asset=self.asset)])
            raise ZeroDivisionError
        assert self.balances() == before

    @invariant()
    def balances_are_the_models(self) -> None:
        found = self.balances()
        assert {k: v for k, v in found.items() if v} == {
            str(key): value for key, value in self.model.balances.items() if value
        }
        assert sum(found.values()) == 0

    def balances(self) -> dict[str, int]:
        with self.db.snapshot() as tx:
            rows = tx.all(
                """SELECT concat_ws(':', coalesce(customer_id, 'house'), kind, nullif(wallet, ''), asset) AS key,
                          balance FROM ledger_accounts WHERE asset = %s""",
                [self.asset],
            )
        return {row["key"]: units(row["balance"]) for row in rows}

    def teardown(self) -> None:
        with self.db.snapshot() as tx:
            assert audit(tx) == []


def test_whatever_is_posted_the_database_and_the_model_agree(db: Database) -> None:
    class Machine(LedgerAgainstModel):
        pass

    Machine.db = db
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=25, stateful_step_count=10, deadline=None)
    )


def test_every_account_of_the_statement_replays_from_zero_to_its_balance(db: Database) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def replay(data: st.DataObject) -> None:
        asset = f"S{next(_numbers)}"
        booked(db, *data.draw(st.lists(commands(asset), min_size=5, max_size=30)))
        size = data.draw(st.integers(1, 10))
        for customer in CUSTOMERS:
            running = dict.fromkeys(AccountKind, 0)
            cursor, more = None, True
            with db.snapshot() as tx:
                while more:
                    page = statements.statement(tx, customer, asset, after=cursor, limit=size)
                    assert len(page.lines) <= size
                    for line in page.lines:
                        assert line.balance_before == running[line.account]
                        assert line.balance_after == line.balance_before + line.amount >= 0
                        running[line.account] = line.balance_after
                    cursor, more = page.cursor, page.more
                now = statements.balance(tx, customer, asset)
            assert (now.available, now.frozen) == (
                running[AccountKind.AVAILABLE],
                running[AccountKind.FROZEN],
            )

    replay()


# ---------------------------------------------------------------------------------------------------- posting


def test_a_batch_is_judged_one_by_one_and_its_repetition_changes_nothing(db: Database) -> None:
    batch = [credit("ada", 100), move("ada", "ben", 60), move("ada", "ben", 60), move("ada", "ben", 40)]
    first = booked(db, *batch)
    assert [type(result) for result in first] == [Created, Created, Rejected, Created]
    assert (balance(db, "ada").total, balance(db, "ben").total) == (0, 100)
    again = booked(db, *batch)
    assert [type(result) for result in again] == [Exists, Exists, Rejected, Exists]
    assert (balance(db, "ada").total, balance(db, "ben").total) == (0, 100)
    assert findings(db) == []


def test_nothing_is_posted_for_nothing(db: Database) -> None:
    assert booked(db) == []


def test_post_all_refuses_the_whole_batch_with_the_numbers(db: Database) -> None:
    with pytest.raises(LedgerRejected) as caught, db.transaction() as tx:
        service.post_all(tx, [credit("ada", 10), move("ada", "ben", 11)])
    (refused,) = caught.value.rejected
    assert (refused.code, refused.available, refused.needed) == (Code.INSUFFICIENT_FUNDS, 10, 11)
    assert balance(db, "ada").total == 0


def test_money_of_an_unknown_customer_is_rejected_and_the_rest_goes_on(db: Database) -> None:
    results = booked(db, credit("nobody", 5), credit("ada", 5), Hold(uuid4(), "nobody", "BTC", 1))
    assert [getattr(result, "code", None) for result in results] == [
        "unknown_customer",
        None,
        "unknown_customer",
    ]
    assert balance(db, "ada").available == 5


def test_a_hold_is_made_posted_undone_and_released_over_separate_transactions(db: Database) -> None:
    w = uuid4()
    of = {"customer": "ada", "asset": "BTC"}
    hold = bookings.hold_withdrawal(w, units=90, fee_units=10, **of)
    settle = bookings.settle_withdrawal(w, 1, wallet="hot", units=80, fee_units=10, **of)
    steps: list[tuple[Command, tuple[int, int]]] = [
        (credit("ada", 100), (100, 0)),
        (hold, (0, 100)),
        (settle, (10, 0)),  # 10 of the hold was not needed
        (bookings.unsettle_withdrawal(w, 1), (0, 100)),
        (bookings.unsettle_withdrawal(w, 1), (0, 100)),
        (bookings.release_withdrawal(w), (100, 0)),
        (bookings.release_withdrawal(w), (100, 0)),
    ]
    for command, expected in steps:
        (result,) = booked(db, command)
        assert not isinstance(result, Rejected), result
        now = balance(db, "ada")
        assert (now.available, now.frozen) == expected
        assert findings(db) == []
    late = bookings.settle_withdrawal(w, 2, wallet="hot", units=80, fee_units=10, **of)
    (result,) = booked(db, late)
    assert isinstance(result, Rejected)
    assert result.code is Code.HOLD_NOT_PENDING


def test_an_internal_settlement_changes_hands_and_earns_the_fee_and_can_be_undone(db: Database) -> None:
    w = uuid4()
    booked(db, credit("ada", 100))
    booked(db, bookings.hold_withdrawal(w, customer="ada", asset="BTC", units=95, fee_units=5))
    booked(
        db,
        bookings.settle_internally(
            w, 1, customer="ada", to_customer="ben", asset="BTC", units=95, fee_units=5
        ),
    )
    assert (balance(db, "ada").total, balance(db, "ben").available) == (0, 95)
    assert isinstance(booked(db, bookings.unsettle_withdrawal(w, 1))[0], Created)
    assert (balance(db, "ada").frozen, balance(db, "ben").total) == (100, 0)
    assert findings(db) == []


def test_a_reversal_that_the_customer_cannot_cover_is_rejected(db: Database) -> None:
    w = uuid4()
    booked(
        db,
        credit("ada", 100),
        bookings.hold_withdrawal(w, customer="ada", asset="BTC", units=95, fee_units=5),
    )
    paid = bookings.settle_internally(
        w, 1, customer="ada", to_customer="ben", asset="BTC", units=95, fee_units=5
    )
    booked(db, paid, move("ben", "ada", 20))
    (result,) = booked(db, bookings.unsettle_withdrawal(w, 1))
    assert isinstance(result, Rejected)
    assert (result.code, result.available, result.needed) == (Code.INSUFFICIENT_FUNDS, 75, 95)


def test_a_network_fee_is_the_houses_and_is_unbooked_when_its_block_is_undone(db: Database) -> None:
    t = uuid4()
    fee = bookings.book_network_fee(t, 1, asset="BTC", wallet="hot", fee_units=7)
    booked(db, fee, fee, bookings.unbook_network_fee(t, 1))
    again = bookings.book_network_fee(t, 2, asset="BTC", wallet="hot", fee_units=9)
    booked(db, again)
    with db.snapshot() as tx:
        rows = tx.all("SELECT kind, balance FROM ledger_accounts ORDER BY kind")
    assert {row["kind"]: units(row["balance"]) for row in rows} == {"chain_assets": 9, "network_fees": -9}


def test_the_shortfall_of_a_claw_back_is_known_until_a_credit_repays_it(db: Database) -> None:
    d = uuid4()
    of = {"customer": "ada", "asset": "BTC", "wallet": "hot", "units": 100}
    booked(db, bookings.credit_deposit(d, 1, **of), move("ada", "ben", 70))  # type: ignore[arg-type]
    reference = bookings.deposit_reference(d)
    with db.transaction() as tx:
        assert service.shortfall(tx, reference, "BTC") == 0
        service.post_all(tx, [bookings.claw_back(d, 1, **of)])  # type: ignore[arg-type]
        assert service.shortfall(tx, reference, "BTC") == 70
        service.post_all(tx, [bookings.credit_deposit(d, 2, shortfall_units=70, **of)])  # type: ignore[arg-type]
        assert service.shortfall(tx, reference, "BTC") == 0
    assert balance(db, "ada").available == 30
    assert findings(db) == []


def test_expired_holds_are_released_once_and_others_are_left_alone(db: Database) -> None:
    now = datetime.now(UTC)
    over = Hold(uuid4(), "ada", "BTC", 10, "", now - timedelta(seconds=1))
    later = Hold(uuid4(), "ada", "BTC", 20, "", now + timedelta(hours=1))
    booked(db, credit("ada", 100), over, later, Hold(uuid4(), "ada", "BTC", 30))
    with db.transaction() as tx:
        assert service.void_expired(tx) == [over.id]
        assert service.void_expired(tx) == []
    assert (balance(db, "ada").available, balance(db, "ada").frozen) == (50, 50)


def test_the_worker_the_monitor_and_the_api_post_with_no_more_than_their_rights(
    db: Database, database: str
) -> None:
    with Database(login(database, "strongroom_monitor"), application="monitor") as monitor:
        assert isinstance(booked(monitor, credit("ada", 100))[0], Created)
    w = uuid4()
    with Database(login(database, "strongroom_api"), application="api") as api:
        hold = bookings.hold_withdrawal(w, customer="ada", asset="BTC", units=40, fee_units=1)
        assert isinstance(booked(api, hold)[0], Created)
        assert isinstance(booked(api, bookings.release_withdrawal(uuid4()))[0], Rejected)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            booked(api, credit("ada", 100))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            booked(api, move("ada", "ben", 1))
    with Database(login(database, "strongroom_worker"), application="worker") as worker:
        settle = bookings.settle_withdrawal(
            w, 1, customer="ada", asset="BTC", wallet="hot", units=40, fee_units=1
        )
        assert isinstance(booked(worker, settle)[0], Created)
    with Database(login(database, "strongroom_read"), application="read") as reader:
        assert findings(reader) == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            booked(reader, credit("ada", 1))
    assert balance(db, "ada").total == 59


def test_a_cancelled_withdrawal_is_released_by_the_api_itself(db: Database, database: str) -> None:
    w = uuid4()
    booked(db, credit("ada", 100))
    with Database(login(database, "strongroom_api"), application="api") as api:
        booked(api, bookings.hold_withdrawal(w, customer="ada", asset="BTC", units=40, fee_units=1))
        with db.transaction() as tx:
            tx.execute(
                "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
                " order_json, order_signature, order_hash, state, expires_at)"
                " VALUES (%s, 'x', 'ada', 'c', 'BTC', 'd', 40, 1, '{}', 's', 'h', 'cancelled', now())",
                [w],
            )
        assert isinstance(booked(api, bookings.release_withdrawal(w))[0], Created)
    assert balance(db, "ada").available == 100


# ----------------------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize(
    ("damage", "flaws"),
    [
        (
            "UPDATE ledger_accounts SET balance = balance + 1 WHERE customer_id = 'ada' AND kind = 'available'",
            {Flaw.SUM_NOT_ZERO, Flaw.BALANCE_NOT_REPLAYED},
        ),
        (
            "UPDATE ledger_lines SET amount = amount + 1, balance_after = balance_after + 1 WHERE id = 1 << 24",
            {Flaw.TRANSFER_OUT_OF_BALANCE, Flaw.BALANCE_NOT_REPLAYED},
        ),
        (
            "UPDATE ledger_lines SET balance_before = 101, balance_after = 61 WHERE seq = 2",
            {Flaw.HISTORY_BROKEN},
        ),
        ("UPDATE ledger_accounts SET last_seq = 7 WHERE kind = 'frozen'", {Flaw.BALANCE_NOT_REPLAYED}),
        ("UPDATE ledger_holds SET state = 'voided'", {Flaw.FROZEN_NOT_HELD}),
        ("DELETE FROM ledger_transfers WHERE kind = 'immediate'", {Flaw.TRANSFER_AND_LINES}),
        (
            "INSERT INTO ledger_transfers (id, kind, content_hash, legs)"  # noqa: ISC004
            " SELECT gen_random_uuid(), 'hold', sha256(''), 2",
            {Flaw.TRANSFER_AND_LINES},
        ),
        ("UPDATE ledger_holds SET customer_id = 'ben'", {Flaw.FROZEN_NOT_HELD}),
    ],
)
def test_the_audit_finds_one_unit_changed_behind_the_databases_back(
    db: Database, database: str, damage: str, flaws: set[Flaw]
) -> None:
    booked(db, credit("ada", 100), Hold(uuid4(), "ada", "BTC", 40), VoidHold(uuid4(), uuid4()))
    assert findings(db) == []
    with psycopg.connect(database) as connection:
        connection.execute("SET session_replication_role = replica")  # as somebody with the disk could
        connection.execute(damage.encode())
    with db.snapshot() as tx:
        assert {finding.flaw for finding in audit(tx)} == flaws


def test_accounts_have_names_that_people_can_read() -> None:
    assert str(frozen("ada", "BTC")) == "ada:frozen:BTC"
    assert str(house(AccountKind.CHAIN_ASSETS, "BTC", wallet="hot")) == "house:chain_assets:hot:BTC"
