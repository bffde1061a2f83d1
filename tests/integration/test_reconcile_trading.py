"""The trading core's balances and the ledger's, on a real ledger: what differs raises the alarm and stops its asset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from custody.reconcile import trading
from custody.reconcile.core import compare
from custody.reconcile.model import Facts, Report
from custody.reconcile.service import enforce, with_trading
from custody.reconcile.trading import CoreBalance, CoreUnavailable, Settled
from custody.storage.db import Database
from tests.fakes.api import kind
from tests.fakes.trading_desk import TradingDesk, fill, funded, trading_desk


class Core:
    """A trading core that says what the ledger has, and what else a test wants it to say."""

    def __init__(self, desk: TradingDesk) -> None:
        self._desk = desk
        self.change: Callable[[Settled], Settled] = lambda told: told
        self.before: Callable[[], None] = lambda: None
        self._kept: Settled | None = None

    def settled(self) -> Settled:
        told = self._kept or self.now()
        self.before()
        return self.change(told)

    def now(self) -> Settled:
        found = self._desk.client.get("/v1/trading/balances", {"core": str(self._desk.core), "limit": 500})
        at = found["settled"]
        balances = tuple(CoreBalance(**each) for each in found["items"])
        return Settled(
            self._desk.core,
            at["last"],
            at["complete"],
            at["fill_sequence"],
            at["fill_index"],
            balances,
        )

    def keep(self) -> None:
        """Say the same from now on, whatever is settled meanwhile."""
        self._kept = self.now()


@pytest.fixture
def desk(database: str) -> Iterator[TradingDesk]:
    with trading_desk(database) as made:
        yield funded(made)


@pytest.fixture
def db(desk: TradingDesk) -> Iterator[Database]:
    with Database(desk.api.superuser_dsn, application="test") as opened:
        yield opened


def no_pause(_: float) -> None:
    pass


def report_of(db: Database, core: Any) -> Report:
    nothing = compare(Facts(cursors={}, wallets=(), offences=(), waiting=()), {})
    return with_trading(db, nothing, core)


def test_a_core_at_the_ledgers_place_or_behind_it_agrees(desk: TradingDesk, db: Database) -> None:
    core = Core(desk)
    assert trading.look(db, core, pause=no_pause) == trading.Outcome()
    desk.settle(fill())
    core.keep()
    desk.settle(fill(base_units="3", quote_units="7", buyer_fee="2", seller_fee="-1"))
    desk.settle(last=50)
    assert trading.look(db, core, pause=no_pause) == trading.Outcome()


def test_fault_49_one_unit_between_core_and_ledger_is_an_alarm_and_its_asset_stops(
    desk: TradingDesk, db: Database
) -> None:
    desk.settle(fill())
    core = Core(desk)

    def one_more(told: Settled) -> Settled:
        first, *rest = told.balances
        assert (first.customer, first.asset) == ("alice", "BTC")
        return replace_balances(told, [CoreBalance("alice", "BTC", str(int(first.units) + 1)), *rest])

    core.change = one_more
    report = report_of(db, core)
    assert not report.ok
    assert list(report.trading) == ["BTC"]
    enforce(db, report)
    enforce(db, report)
    assert desk.api.query("SELECT scope FROM halts") == [("asset:BTC",)]
    assert desk.api.query("SELECT type, severity FROM alerts") == [("reconcile.difference", "critical")]
    assert kind(desk.settle(fill(base_units="1", quote_units="1", buyer_fee="0", seller_fee="0"))) == "halted"
    assert kind(desk.move("alice", "BTC", 1, "funding")) == "halted"
    assert desk.move("alice", "USDX", 1, "funding").status_code == 201


def test_a_ledger_that_has_lost_what_the_core_saw_settled_stops_everything(
    desk: TradingDesk, db: Database
) -> None:
    core = Core(desk)
    core.change = lambda told: Settled(told.core, 99, True, 99, 0, told.balances)
    report = report_of(db, core)
    enforce(db, report)
    assert desk.api.query("SELECT scope FROM halts") == [("all",)]


def test_what_differs_for_a_moment_only_is_no_difference(desk: TradingDesk, db: Database) -> None:
    core = Core(desk)
    looks = iter([1, 0, 0, 0])

    def moving(told: Settled) -> Settled:
        return replace_balances(told, told.balances[next(looks) :])

    core.change = moving
    assert trading.look(db, core, pause=no_pause) == trading.Outcome()


def test_a_core_that_does_not_answer_is_absent_and_halts_nothing(desk: TradingDesk, db: Database) -> None:
    class Silent:
        def settled(self) -> Settled:
            raise CoreUnavailable("no answer")

    report = report_of(db, Silent())
    assert report.absent == {"trading": "no answer"}
    enforce(db, report)
    assert desk.api.query("SELECT scope FROM halts") == []
    open_ones = "SELECT type FROM alerts WHERE resolved_at IS NULL"
    assert desk.api.query(open_ones) == [("trading.unavailable",)]
    enforce(db, report_of(db, Core(desk)))
    assert desk.api.query(open_ones) == []


def test_trading_money_that_sql_has_invented_is_found(desk: TradingDesk, db: Database) -> None:
    core = Core(desk)
    core.keep()
    with psycopg.connect(desk.api.superuser_dsn) as connection:
        connection.execute("ALTER TABLE ledger_accounts DISABLE TRIGGER ALL")
        connection.execute(
            "UPDATE ledger_accounts SET balance = balance + 1 WHERE customer_id = 'bob' AND kind = 'trading'"
        )
    (found,) = trading.look(db, core, pause=no_pause).differences
    assert (found.customer, found.asset, found.ledger_units - found.core_units) == ("bob", "BTC", 1)


def replace_balances(told: Settled, balances: Any) -> Settled:
    return Settled(
        told.core,
        told.sequence,
        told.complete,
        told.fill_sequence,
        told.fill_index,
        tuple(balances),
        told.moves,
    )
