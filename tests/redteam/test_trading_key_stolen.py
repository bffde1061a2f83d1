"""Somebody has the trading core's key, or the API's own role in the database: what of that reaches whose money."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from fastapi.routing import APIRoute
from psycopg import errors as pg

from custody.api.app import ROUTERS
from custody.api.openapi import scope_of
from custody.ids import new_id
from custody.ledger import service as ledger
from custody.ledger.model import AccountKind, Leg, LineType, Transfer, available, house, trading
from custody.storage.db import Tx
from custody.trades import repository
from custody.trades.model import Batch, Evidence, Move
from ops.devnet.postgres import EmbeddedPostgres
from tests.fakes.api import kind
from tests.fakes.trading_desk import CORE, DOLLAR, TradingDesk, fill, funded, shared_desk, trading_desk

FORGED = Evidence("trading", "{}", "{}", "nobody's")


@pytest.fixture(scope="module")
def still(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[TradingDesk]:
    """For attacks that change nothing."""
    with shared_desk(postgres, migrated_template) as made:
        yield made


@pytest.fixture
def desk(database: str) -> Iterator[TradingDesk]:
    with trading_desk(database) as made:
        yield funded(made)


# ------------------------------------------------------------------------------------------------- the key alone


def test_it_opens_no_door_but_the_trading_cores(still: TradingDesk) -> None:
    """No withdrawal, no customer, no address, nobody's statement, no approval."""
    before = still.balances()
    asked = 0
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            if not route.path.startswith("/v1/") or scope_of(route) == "trading":
                continue
            path = route.path
            for name in route.param_convertors:
                path = path.replace("{" + name + "}", "alice" if name == "customer" else str(uuid4()))
            for method in route.methods or ():
                key = str(new_id()) if method == "POST" else None
                answer = still.client.send(method, path, None, {} if key else None, idempotency_key=key)
                assert (answer.status_code, kind(answer)) in {
                    (403, "missing-scope"),
                    (403, "operators-only"),
                }, (method, path, answer.text)
                asked += 1
    assert asked > 25
    order = still.api.order(caller="trading")
    signed = still.api.signed(order, by="trading")
    answer = still.api.client().send("POST", "/v1/withdrawals", None, signed, idempotency_key="k")
    assert answer.status_code >= 400
    assert still.balances() == before


def test_who_moved_nothing_into_trading_loses_nothing(desk: TradingDesk) -> None:
    """Bob's funding money is out of reach: only what he moved into trading himself can be traded away."""
    assert desk.move("bob", "BTC", 150_000_000, "funding").status_code == 201
    before = desk.balances()
    theft = fill(buyer="mallory", quote_units="1", base_units="50000001", buyer_fee="0", seller_fee="0")
    desk.move("alice", "USDX", 1, "funding")
    answer = desk.settle(theft)
    assert kind(answer) == "ledger-rejected"
    assert desk.trading("mallory", "BTC") == 0
    after = desk.balances()
    assert {place: units for place, units in after.items() if place[2] == "BTC"} == {
        place: units for place, units in before.items() if place[2] == "BTC"
    }


def test_it_can_move_trading_money_between_customers_and_no_further(desk: TradingDesk) -> None:
    """What this key is for, and so what its thief can do: stated in the README. A withdrawal asks for another key."""
    desk.settle(fill(buyer="mallory", seller="alice", base="USDX", quote="BTC", quote_units="1",
                     base_units=str(DOLLAR), buyer_fee="0", seller_fee="0"))  # fmt: skip
    assert desk.trading("mallory", "USDX") == 0, "even this costs a counterpart that mallory has not"
    desk.settle(fill(buyer="mallory", seller="bob", base="BTC", quote="USDX", quote_units="1",
                     base_units="100000000", buyer_fee="0", seller_fee="0"))  # fmt: skip
    assert desk.trading("mallory", "BTC") == 0
    # With a dust of USDX, mallory buys bob's bitcoin for a millionth of a dollar.
    desk.api.fund("mallory", 1, asset="USDX")
    assert desk.move("mallory", "USDX", 1).status_code == 201
    answer = desk.settle(fill(buyer="mallory", quote_units="1", base_units="100000000",
                              buyer_fee="0", seller_fee="0"))  # fmt: skip
    assert answer.status_code == 201
    assert desk.move("mallory", "BTC", 100_000_000, "funding").status_code == 201
    total = sum(units for (_, _, asset), units in desk.balances().items() if asset == "BTC")
    assert total == 0, "nothing was made"
    order = desk.api.order(caller="trading", customer="mallory")
    answer = desk.client.send(
        "POST", "/v1/withdrawals", None, desk.api.signed(order, by="trading"), idempotency_key="k"
    )
    assert kind(answer) == "missing-scope"


def test_a_core_that_nobody_knows_raises_the_alarm_with_its_first_batch(desk: TradingDesk) -> None:
    desk.settle(fill())
    assert desk.api.query("SELECT type FROM alerts") == []
    desk.settle(last=1, core=str(uuid4()), first=1)
    assert desk.api.query("SELECT type, severity FROM alerts") == [("trading.new_core", "critical")]


# --------------------------------------------------------------------------------------- the API's role alone


def lines(tx: Tx, *legs: Leg, id: UUID | None = None, reference: str = "trade:x") -> None:
    ledger.post_all(tx, [Transfer(id or uuid4(), legs, reference)])


def theft(units: int = 1) -> tuple[Leg, Leg]:
    return (
        Leg(trading("bob", "BTC"), -units, LineType.TRADE_SELL),
        Leg(trading("mallory", "BTC"), units, LineType.TRADE_BUY),
    )


def recorded(tx: Tx) -> None:
    """A settlement as the thief writes it; no key has signed it, which the database cannot tell."""
    cursor = repository.cursor(tx, CORE)
    batch = Batch(CORE, cursor.expected, cursor.expected, True, ())
    repository.insert_settlement(tx, batch, batch.after(cursor), FORGED)


def test_it_books_no_trade_that_it_has_not_recorded(still: TradingDesk) -> None:
    before = still.balances()
    with pytest.raises(pg.InsufficientPrivilege), still.api.database.transaction() as tx:
        lines(tx, *theft())
    with still.api.database.transaction() as tx:
        recorded(tx)
    with pytest.raises(pg.InsufficientPrivilege), still.api.database.transaction() as tx:
        lines(tx, *theft())
    assert still.balances() == before


@pytest.mark.parametrize(
    "legs",
    [
        (
            Leg(available("alice", "USDX"), -1, LineType.TRADE_SELL),
            Leg(trading("mallory", "USDX"), 1, LineType.TRADE_BUY),
        ),
        (
            Leg(trading("bob", "BTC"), -1, LineType.TRADE_SELL),
            Leg(available("mallory", "BTC"), 1, LineType.TRADE_BUY),
        ),
        (
            Leg(house(AccountKind.FEES_EARNED, "USDX"), -1, LineType.FEE),
            Leg(trading("mallory", "USDX"), 1, LineType.FEE),
        ),
        (
            Leg(house(AccountKind.SUSPENSE, "BTC"), -1, LineType.TRADE_SELL),
            Leg(trading("mallory", "BTC"), 1, LineType.TRADE_BUY),
        ),
        (
            Leg(trading("bob", "BTC"), -1, LineType.DEPOSIT),
            Leg(trading("mallory", "BTC"), 1, LineType.DEPOSIT),
        ),
    ],
)
def test_even_with_a_record_it_books_nothing_but_the_form_of_a_trade(
    still: TradingDesk, legs: tuple[Leg, ...]
) -> None:
    before = still.balances()

    def book() -> None:
        with still.api.database.transaction() as tx:
            recorded(tx)
            lines(tx, *legs)

    with pytest.raises(pg.InsufficientPrivilege):
        book()
    assert still.balances() == before


@pytest.mark.parametrize(
    "moved",
    [
        (trading("alice", "USDX"), available("mallory", "USDX"), 5),
        (trading("alice", "USDX"), available("alice", "USDX"), 6),
        (available("alice", "USDX"), trading("alice", "USDX"), 5),
        (trading("bob", "BTC"), available("bob", "BTC"), 5),
    ],
)
def test_a_recorded_move_allows_that_move_only(still: TradingDesk, moved: tuple[Any, Any, int]) -> None:
    before = still.balances()
    source, target, units = moved

    def book() -> None:
        with still.api.database.transaction() as tx:
            move = Move(uuid4(), "alice", "USDX", 5, "funding")
            assert repository.insert_move(tx, move, FORGED) is not None
            legs = (Leg(source, -units, LineType.TRANSFER), Leg(target, units, LineType.TRANSFER))
            lines(tx, *legs, id=move.id, reference="move:x")

    with pytest.raises(psycopg.Error):
        book()
    assert still.balances() == before


def test_no_trading_account_goes_below_zero_whoever_writes_the_lines(still: TradingDesk) -> None:
    """Raw SQL that skips our own check: the database's own."""

    def overdraw() -> None:
        with still.api.database.transaction() as tx:
            recorded(tx)
            transfer = uuid4()
            tx.execute(
                "INSERT INTO ledger_transfers (id, kind, content_hash) VALUES (%s, 'immediate', %s)",
                [transfer, secrets.token_bytes(32)],
            )
            ids = {
                row["customer_id"]: row
                for row in tx.all(
                    "SELECT id, customer_id, balance, last_seq FROM ledger_accounts"
                    " WHERE kind = 'trading' AND asset = 'BTC' OR customer_id = 'alice' AND asset = 'USDX'"
                )
            }
            bob = ids["bob"]
            for amount in (-300_000_000, 300_000_000):
                tx.execute(
                    "INSERT INTO ledger_lines (transfer_id, account_id, seq, type, amount, balance_before,"
                    " balance_after) VALUES (%s, %s, %s, 'trade_sell', %s, %s, %s)",
                    [
                        transfer,
                        bob["id"],
                        bob["last_seq"] + 1,
                        amount,
                        bob["balance"],
                        bob["balance"] + amount,
                    ],
                )

    before = still.balances()
    with pytest.raises(psycopg.Error):
        overdraw()
    assert still.balances() == before


def test_what_was_asked_for_is_never_changed_or_taken_away(still: TradingDesk) -> None:
    for table in ("trading_settlements", "trading_transfers"):
        for statement in (f"UPDATE {table} SET caller = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(pg.InsufficientPrivilege), still.api.database.transaction() as tx:
                tx.execute(statement.encode())
            with pytest.raises(pg.InsufficientPrivilege), psycopg.connect(still.api.superuser_dsn) as owner:
                owner.execute(statement.encode())
