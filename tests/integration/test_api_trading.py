"""What the trading core asks of custody: fills are settled exactly once, all of a batch or nothing; a customer's money
moves between funding and trading once for each id, and not at all while it is frozen or halted.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from ops.devnet.postgres import EmbeddedPostgres
from tests.fakes.api import kind
from tests.fakes.trading_desk import DOLLAR, TradingDesk, fill, funded, shared_desk, trading_desk


@pytest.fixture(scope="module")
def still(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[TradingDesk]:
    """For what changes nothing."""
    with shared_desk(postgres, migrated_template) as made:
        yield made


@pytest.fixture
def desk(database: str) -> Iterator[TradingDesk]:
    with trading_desk(database) as made:
        yield funded(made)


def test_a_fill_moves_both_sides_and_the_house_takes_the_charge_less_the_rebate(desk: TradingDesk) -> None:
    answer = desk.settle(fill())
    assert (answer.status_code, answer.json()["settled"]) == (201, "now"), answer.text
    assert desk.balances() == {
        ("alice", "trading", "BTC"): 80_000_000,
        ("alice", "trading", "USDX"): 100_000 * DOLLAR - 48_240 * DOLLAR - 48_240_000,
        ("bob", "trading", "BTC"): 120_000_000,
        ("bob", "trading", "USDX"): 48_240 * DOLLAR + 9_648_000,
        ("house", "fees_earned", "USDX"): 48_240_000 - 9_648_000,
        ("house", "chain_assets", "BTC"): -200_000_000,
        ("house", "chain_assets", "USDX"): -100_000 * DOLLAR,
    }
    lines = desk.api.query(
        "SELECT l.type, l.amount FROM ledger_lines l JOIN ledger_accounts a ON a.id = l.account_id"
        " JOIN ledger_transfers t ON t.id = l.transfer_id WHERE t.reference LIKE 'trade:%%'"
        " AND a.customer_id = 'bob' ORDER BY l.id"
    )
    assert lines == [
        ("trade_buy", 48_240 * DOLLAR),
        ("trade_sell", -80_000_000),
        ("fee", 9_648_000),
    ]


def test_fault_41_the_very_same_batch_again_changes_nothing_under_any_key(desk: TradingDesk) -> None:
    body = desk.batch(fill())
    first = desk.post("/v1/trading/settlements", body, key="k")
    assert first.status_code == 201
    before = desk.balances()
    again = desk.post("/v1/trading/settlements", body, key="k")
    other = desk.post("/v1/trading/settlements", body)
    assert again.content == first.content
    assert (other.status_code, other.json()["settled"]) == (201, "before")
    assert desk.balances() == before
    assert desk.api.query("SELECT count(*) FROM trading_settlements") == [(1,)]


def test_the_same_batch_from_many_at_once_is_settled_once(desk: TradingDesk) -> None:
    body = desk.batch(fill())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: desk.post("/v1/trading/settlements", body), range(6)))
    assert sorted(answer.json()["settled"] for answer in answers) == ["before"] * 5 + ["now"]
    assert desk.trading("alice", "BTC") == 80_000_000


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("a gap", {"first": 3, "last": 3}),
        ("settled with another content", {"first": 1, "last": 1}),
        ("an overlap", {"first": 1, "last": 2}),
    ],
)
def test_a_batch_that_does_not_follow_the_one_before_it_is_refused(
    still: TradingDesk, what: str, changes: dict[str, Any]
) -> None:
    before = still.balances()
    last = changes["last"]
    answer = still.settle(**changes, fills=[{**fill(base_units="1"), "sequence": last, "index": 0}])
    assert (answer.status_code, kind(answer)) == (409, "settlement-out-of-order"), what
    assert (answer.json()["expected"], answer.json()["first"]) == (2, changes["first"])
    assert still.balances() == before


def test_one_fill_that_the_ledger_refuses_undoes_its_batch_and_the_cursor_stays(desk: TradingDesk) -> None:
    before = desk.balances()
    answer = desk.settle(fill(), fill(base_units="120000001", quote_units="1", buyer_fee="0", seller_fee="0"))
    assert (answer.status_code, kind(answer)) == (409, "ledger-rejected")
    (rejected,) = answer.json()["rejected"]
    assert rejected["code"] == "insufficient_funds"
    assert desk.balances() == before
    alerts = "SELECT type, severity, subject FROM alerts WHERE resolved_at IS NULL"
    assert desk.api.query(alerts) == [("trading.settlement_refused", "critical", str(desk.core))]
    assert desk.settle(fill()).status_code == 201
    assert desk.api.query(alerts) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"seller_fee": "-48240001"},  # the house would give
        {"buyer_fee": str(48_241 * DOLLAR)},  # more than the trade
        {"seller": "alice"},
        {"quote": "BTC"},
        {"base_units": "0"},
        {"quote_units": "-1"},
        {"buyer_fee": "0.5"},
        {"base": "DOGE"},
        {"buyer": "house"},
        {"buyer": "nobody"},
        {"sequence": 9},
        {"account": "available"},
    ],
)
def test_a_fill_that_is_none_is_refused_and_nothing_is_settled(
    still: TradingDesk, wrong: dict[str, Any]
) -> None:
    before = still.api.contents()
    body = still.batch(fill())
    body["fills"][0].update(wrong)
    answer = still.post("/v1/trading/settlements", body)
    assert 400 <= answer.status_code < 500
    kind(answer)
    after = still.api.contents()
    for table in ("ledger_lines", "ledger_accounts", "trading_settlements", "ledger_transfers"):
        assert after[table] == before[table]


def test_fills_of_one_command_may_come_in_two_batches(desk: TradingDesk) -> None:
    small = fill(base_units="1", quote_units="603", buyer_fee="1", seller_fee="0")
    first = {**desk.batch(small), "complete": False}
    assert desk.post("/v1/trading/settlements", first).status_code == 201
    repeated = desk.post("/v1/trading/settlements", {**first, "complete": True})
    assert kind(repeated) == "settlement-out-of-order"
    rest = {**first, "complete": True, "fills": [{**small, "sequence": 1, "index": 1}]}
    assert desk.post("/v1/trading/settlements", rest).status_code == 201
    assert desk.trading("alice", "BTC") == 2
    told = desk.client.get("/v1/trading/balances", {"core": str(desk.core)})
    assert told["settled"] == {"last": 1, "complete": True, "fill_sequence": 1, "fill_index": 1}


def test_an_empty_batch_moves_the_cursor_alone(desk: TradingDesk) -> None:
    before = desk.balances()
    assert desk.settle(last=100).status_code == 201
    assert desk.balances() == before
    assert desk.settle(fill()).json()["first"] == 101


def test_balances_and_the_cursor_are_told_page_by_page(desk: TradingDesk) -> None:
    desk.settle(fill())
    pages, after = [], None
    while True:
        page = desk.client.get("/v1/trading/balances", {"core": str(desk.core), "limit": 1, "after": after})
        pages += page["items"]
        after = page["next"]
        if after is None:
            break
    assert [(each["customer"], each["asset"]) for each in pages] == [
        ("alice", "BTC"),
        ("alice", "USDX"),
        ("bob", "BTC"),
        ("bob", "USDX"),
    ]
    unknown = desk.client.get("/v1/trading/balances", {"core": str(uuid4())})
    assert unknown["settled"]["last"] == 0


# ------------------------------------------------------------------------------------------------------ moves


def test_a_move_there_and_back_leaves_all_as_it_was(desk: TradingDesk) -> None:
    assert desk.move("alice", "USDX", 100_000 * DOLLAR, "funding").status_code == 201
    assert desk.balances()["alice", "available", "USDX"] == 100_000 * DOLLAR
    assert desk.trading("alice", "USDX") == 0


def test_fault_41_a_move_happens_once_for_each_id_and_another_content_is_refused(desk: TradingDesk) -> None:
    id = uuid4()
    answers = [desk.move("alice", "USDX", 5, "funding", id=id) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.content for answer in answers}) == 1
    other = desk.move("alice", "USDX", 6, "funding", id=id)
    assert (other.status_code, kind(other)) == (409, "transfer-exists")
    assert desk.balances()["alice", "available", "USDX"] == 5


def test_a_move_with_the_id_of_another_transfer_of_the_ledger_is_refused(desk: TradingDesk) -> None:
    desk.settle(fill())
    ((taken,),) = desk.api.query("SELECT id FROM ledger_transfers WHERE reference LIKE 'trade:%%'")
    answer = desk.move("alice", "USDX", 6, "funding", id=UUID(str(taken)))
    assert kind(answer) == "transfer-exists"


def test_nobody_moves_more_than_he_has_on_that_side(desk: TradingDesk) -> None:
    before = desk.balances()
    for to in ("trading", "funding"):
        answer = desk.move("alice", "USDX", 100_001 * DOLLAR, to)
        assert (answer.status_code, kind(answer)) == (409, "insufficient-funds")
    unknown = desk.move("nobody", "USDX", 1)
    assert (unknown.status_code, kind(unknown)) == (404, "unknown-customer")
    assert desk.balances() == before


def test_a_frozen_customers_money_stays_where_it_is_and_his_fills_are_settled(desk: TradingDesk) -> None:
    with psycopg.connect(desk.api.superuser_dsn) as connection:
        connection.execute("UPDATE customers SET state = 'frozen', reason = 'court order' WHERE id = 'bob'")
    for to in ("trading", "funding"):
        answer = desk.move("bob", "BTC", 1, to)
        assert (answer.status_code, kind(answer)) == (409, "customer-frozen")
    assert desk.settle(fill()).status_code == 201
    assert kind(desk.move("bob", "USDX", 1, "funding")) == "customer-frozen"


@pytest.mark.parametrize("scope", ["all", "asset:USDX", "bitcoin-regtest"])
def test_while_something_is_halted_it_neither_moves_nor_is_settled(desk: TradingDesk, scope: str) -> None:
    assert desk.move("alice", "USDX", 10, "funding").status_code == 201
    halt(desk, scope)
    before = desk.balances()
    answer = desk.move("alice", "USDX", 1, "trading")
    assert (answer.status_code, kind(answer), answer.json()["retryable"]) == (503, "halted", True)
    if scope == "bitcoin-regtest":  # nothing of the ledger's is on a chain
        assert desk.move("alice", "USDX", 1, "funding").status_code == 201
        assert desk.settle(fill()).status_code == 201
        return
    assert kind(desk.move("alice", "USDX", 1, "funding")) == "halted"
    assert kind(desk.settle(fill())) == "halted"
    assert desk.balances() == before
    with psycopg.connect(desk.api.superuser_dsn) as connection:
        connection.execute("DELETE FROM halts")
    assert desk.settle(fill()).status_code == 201


def test_a_halted_asset_stops_no_batch_without_it(desk: TradingDesk) -> None:
    halt(desk, "asset:ETH")
    assert desk.settle(fill()).status_code == 201


def halt(desk: TradingDesk, scope: str) -> None:
    with psycopg.connect(desk.api.superuser_dsn) as connection:
        connection.execute("INSERT INTO halts (scope, reason) VALUES (%s, 'a difference')", [scope])
