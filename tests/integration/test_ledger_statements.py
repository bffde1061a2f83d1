"""Statements page by cursor: nothing is lost or shown twice, whatever commits when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from chains.errors import InvalidValue
from custody.ledger import bookings, service
from custody.ledger.model import AccountKey, AccountKind, Hold, Leg, LineType, Transfer, available
from custody.ledger.statements import Balances, StatementLine, balance, balances, period, statement
from custody.storage.db import Database
from tests.support.ledger import booked, credit, customers, move


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(database, application="test") as opened:
        customers(opened, "ada", "ben")
        yield opened


def test_a_page_shows_each_line_with_balance_before_and_after_type_and_reference(db: Database) -> None:
    w = uuid4()
    booked(db, credit("ada", 100), move("ada", "ben", 30))
    booked(db, bookings.hold_withdrawal(w, customer="ada", asset="BTC", units=50, fee_units=5))
    with db.snapshot() as tx:
        page = statement(tx, "ada", "BTC")
    shown = [
        (n.account, n.seq, n.type, n.amount, n.balance_before, n.balance_after, n.reference)
        for n in page.lines
    ]
    reference = f"withdrawal:{w}"
    assert shown == [
        (AccountKind.AVAILABLE, 1, LineType.DEPOSIT, 100, 0, 100, "test"),
        (AccountKind.AVAILABLE, 2, LineType.TRANSFER, -30, 100, 70, "test"),
        (AccountKind.AVAILABLE, 3, LineType.FREEZE, -55, 70, 15, reference),
        (AccountKind.FROZEN, 1, LineType.FREEZE, 55, 0, 55, reference),
    ]
    assert not page.more
    assert [n.at for n in page.lines] == sorted(n.at for n in page.lines)


def test_pages_of_any_size_show_every_line_once_and_then_nothing_more(db: Database) -> None:
    booked(db, *(credit("ada", 10) for _ in range(5)), *(Hold(uuid4(), "ada", "BTC", 1) for _ in range(4)))
    with db.snapshot() as tx:
        whole = statement(tx, "ada", "BTC", limit=1000)
        assert len(whole.lines) == 5 + 8
        for size in (1, 2, 3, 12, 13, 14):
            lines: list[StatementLine] = []
            cursor, more = None, True
            while more:
                page = statement(tx, "ada", "BTC", after=cursor, limit=size)
                lines += page.lines
                cursor, more = page.cursor, page.more
            assert tuple(lines) == whole.lines
            assert cursor == whole.cursor
            assert statement(tx, "ada", "BTC", after=cursor).lines == ()
    booked(db, credit("ada", 7))
    with db.snapshot() as tx:
        assert [n.amount for n in statement(tx, "ada", "BTC", after=whole.cursor).lines] == [7]


def test_a_line_whose_transaction_commits_late_is_not_passed_over(db: Database) -> None:
    def trading(customer: str) -> AccountKey:
        return AccountKey(customer, AccountKind.TRADING, "BTC")

    def between(source: AccountKey, target: AccountKey) -> Transfer:
        kind = LineType.TRANSFER
        return Transfer(uuid4(), (Leg(source, -5, kind), Leg(target, 5, kind)))

    booked(db, credit("ada", 100), between(available("ada", "BTC"), trading("ada")))
    with db.snapshot() as tx:
        cursor = statement(tx, "ada", "BTC").cursor
    with db.transaction() as slow:
        service.post(slow, [move("ada", "ben", 7)])  # its line has the lower id, and comes to light later
        booked(db, between(trading("ada"), trading("ben")))
        with db.snapshot() as tx:
            page = statement(tx, "ada", "BTC", after=cursor)
        assert [n.amount for n in page.lines] == [-5]
    with db.snapshot() as tx:
        late = statement(tx, "ada", "BTC", after=page.cursor)
    assert [n.amount for n in late.lines] == [-7]


def test_balances_are_by_asset_and_zero_where_there_never_was_any(db: Database) -> None:
    booked(db, credit("ada", 100), credit("ada", 7, asset="ETH"), Hold(uuid4(), "ada", "BTC", 40))
    with db.snapshot() as tx:
        assert balances(tx, "ada") == [Balances("BTC", 60, 40, 0), Balances("ETH", 7, 0, 0)]
        assert balance(tx, "ada", "BTC").total == 100
        assert balances(tx, "ben") == []
        assert balance(tx, "ben", "BTC") == Balances("BTC", 0, 0, 0)
        assert statement(tx, "ben", "BTC").lines == ()


@pytest.mark.parametrize(
    "cursor", ["", "x", "1-2", "1-2-3-4", "-1-0-0", "1-2-3 ", "01-0-0", "9" * 30 + "-0-0"]
)
def test_a_cursor_that_no_statement_gave_is_refused(db: Database, cursor: str) -> None:
    with db.snapshot() as tx, pytest.raises(InvalidValue):
        statement(tx, "ada", "BTC", after=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_1_to_1000_lines(db: Database, limit: int) -> None:
    with db.snapshot() as tx, pytest.raises(InvalidValue):
        statement(tx, "ada", "BTC", limit=limit)


def test_a_period_has_the_balances_at_both_ends_and_periods_join_without_a_gap(db: Database) -> None:
    booked(db, credit("ada", 100), move("ada", "ben", 30))
    booked(db, Hold(uuid4(), "ada", "BTC", 50))
    booked(db, credit("ada", 7))
    with db.snapshot() as tx:
        every = statement(tx, "ada", "BTC").lines
        begin, end = every[0].at - timedelta(hours=1), every[-1].at + timedelta(hours=1)
        whole = period(tx, "ada", "BTC", since=begin, until=end)
        assert (whole.lines, whole.opening) == (every, Balances("BTC", 0, 0, 0))
        assert whole.closing == balance(tx, "ada", "BTC") == Balances("BTC", 27, 50, 0)
        moments = [begin, *sorted({line.at for line in every}), end]
        parts = [
            period(tx, "ada", "BTC", since=since, until=until)
            for since, until in itertools.pairwise(moments)
            if since < until
        ]
        assert [line for part in parts for line in part.lines] == list(every)
        for before, after in itertools.pairwise(parts):
            assert after.opening == before.closing
        assert period(tx, "ben", "ETH", since=begin, until=end).lines == ()
        for since, until in ((end, begin), (begin.replace(tzinfo=None), end)):
            with pytest.raises(InvalidValue):
                period(tx, "ada", "BTC", since=since, until=until)
