"""Lists page without gaps; the feed misses nothing, whatever order transactions commit in."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from custody.api import schemas, views
from custody.console.client import ApiClient
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database
from custody.storage.events import emit
from custody.web.client import ApiRefused
from ops.devnet.process import wait_until
from tests.fakes.api import BTC, RunningApi, running_api


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    with running_api(database) as running:
        yield running


def followed(
    client: ApiClient, after: str | None = None, *, limit: int = 100
) -> tuple[list[str], str | None]:
    """Subjects of everything that the feed has now, and the cursor behind it."""
    subjects: list[str] = []
    while True:
        found, after = client.events(after, limit=limit)
        if not found:
            return subjects, after
        subjects += [event["subject"] for event in found]


def test_an_event_that_commits_late_is_not_passed_over(api: RunningApi) -> None:
    """The first transaction begins first and commits last; the reader goes on from a cursor in between."""
    client = api.client()
    writing = "INSERT INTO events (type, subject, data) VALUES ('test', %s, '{}')"
    with psycopg.connect(api.superuser_dsn) as slow, psycopg.connect(api.superuser_dsn) as fast:
        slow.execute(writing, ["slow"])
        fast.execute(writing, ["fast"])
        fast.commit()
        seen, cursor = followed(client)
        assert seen == []
        slow.commit()
    later, cursor = followed(client, cursor)
    assert later == ["slow", "fast"]
    assert followed(client, cursor) == ([], cursor)


def test_a_reader_beside_many_writers_sees_every_event_once(api: RunningApi) -> None:
    """Six writers commit 300 events in random order while a reader follows with small pages."""
    client = api.client()
    dice = random.Random(41)
    plans = [[dice.random() < 0.2 for _ in range(50)] for _ in range(6)]

    def write(writer: int) -> None:
        with Database(api.superuser_dsn, application=f"writer-{writer}", pool_size=1) as db:
            for number, with_second in enumerate(plans[writer]):
                with db.transaction() as tx:
                    emit(tx, "test", f"{writer}-{number}", {})
                    if with_second:
                        # Widens the gap between taking an id and committing it.
                        tx.execute("SELECT pg_sleep(0.01)")

    seen: list[str] = []
    cursor: str | None = None
    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, writer) for writer in range(6)]

        def all_seen() -> bool:
            nonlocal cursor
            finished = all(writer.done() for writer in writers)
            found, cursor = followed(client, cursor, limit=7)
            seen.extend(found)
            return finished

        wait_until(all_seen, timeout=60, what="the writers to end")
        for ended in writers:
            ended.result()
    expected = [f"{writer}-{number}" for writer in range(6) for number in range(50)]
    assert sorted(seen) == sorted(expected)
    for writer in range(6):
        mine = [subject for subject in seen if subject.startswith(f"{writer}-")]
        assert mine == [f"{writer}-{number}" for number in range(50)]


def test_the_feed_says_amounts_as_decimals_with_their_asset(api: RunningApi) -> None:
    client = api.client()
    client.create_customer("alice")
    api.fund("alice", BTC)
    client.withdraw(api.order())
    events, _ = client.events()
    requested = next(event for event in events if event["type"] == "withdrawal.requested")
    assert requested["data"]["asset"] == "BTC"
    assert requested["data"]["amount"] == "0.01000000"
    assert "units" not in requested["data"]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
def test_pages_of_any_size_give_the_same_list(api: RunningApi, limit: int) -> None:
    client = api.client()
    ids = [f"customer-{number:02}" for number in range(7)]
    for customer in reversed(ids):
        client.create_customer(customer)
    api.fund(ids[0], BTC)
    orders = [client.withdraw(api.order(customer=ids[0]))["id"] for _ in range(4)]
    addresses = [client.new_address(ids[0], "BTC")["address"] for _ in range(3)]
    assert [c["id"] for c in client.items("/v1/customers", {"limit": limit})] == ids
    assert [w["id"] for w in client.items("/v1/withdrawals", {"limit": limit})] == sorted(orders)
    path = f"/v1/customers/{ids[0]}"
    assert [a["address"] for a in client.items(f"{path}/addresses", {"limit": limit})] == addresses
    lines = list(client.items(f"{path}/statement", {"asset": "BTC", "limit": limit}))
    assert len(lines) == 1 + 2 * len(orders)
    assert [line["seq"] for line in lines if line["account"] == "available"] == [1, 2, 3, 4, 5]


def test_a_statement_over_a_period_is_json_or_csv(api: RunningApi) -> None:
    client = api.client()
    client.create_customer("alice")
    api.fund("alice", BTC)
    client.withdraw(api.order(customer="alice"))
    query = {"asset": "BTC", "since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    path = "/v1/customers/alice/statement/period"
    found = client.get(path, query)
    assert found["lines"] == list(client.items("/v1/customers/alice/statement", {"asset": "BTC"}))
    assert {found["opening"][kind] for kind in ("available", "frozen", "trading")} == {"0.00000000"}
    (balance,) = client.balances("alice")
    assert found["closing"] == balance
    text = views.period_csv(schemas.PeriodOut.model_validate(found))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["type"] for row in rows] == [
        *["opening"] * 3,
        "deposit",
        "freeze",
        "freeze",
        *["closing"] * 3,
    ]
    assert rows[-3]["balance_after"] == balance["available"]
    with pytest.raises(ApiRefused):
        client.get(path, {**query, "until": query["since"]})


def test_lists_can_be_narrowed(api: RunningApi) -> None:
    client = api.client()
    for customer in ("alice", "bob"):
        client.create_customer(customer)
        api.fund(customer, BTC)
    kept = client.withdraw(api.order(customer="alice"))["id"]
    gone = client.withdraw(api.order(customer="alice"))["id"]
    client.withdraw(api.order(customer="bob"))
    client.cancel_withdrawal(gone)
    assert [w["id"] for w in client.withdrawals(customer="alice", state="requested")] == [kept]
    assert [w["id"] for w in client.withdrawals(state="cancelled")] == [gone]
    assert list(client.deposits(customer="alice", state="credited")) == []


def test_open_alerts_are_listed_until_they_are_resolved(api: RunningApi) -> None:
    client = api.client()
    with Database(api.superuser_dsn, application="test") as db:
        with db.transaction() as tx:
            raise_alert(tx, Severity.CRITICAL, "test.trouble", "x", "Look.", {"asset": "BTC", "units": "1"})
            raise_alert(tx, Severity.CRITICAL, "test.trouble", "x", "Look.", {"asset": "BTC", "units": "1"})
        (alert,) = client.items("/v1/alerts")
        assert (alert["severity"], alert["message"], alert["resolved_at"]) == ("critical", "Look.", None)
        assert alert["data"] == {"asset": "BTC", "amount": "0.00000001"}
        with db.transaction() as tx:
            resolve_alert(tx, "test.trouble", "x")
    assert list(client.items("/v1/alerts")) == []
    assert [a["id"] for a in client.items("/v1/alerts", {"state": "all"})] == [alert["id"]]


def test_a_deposit_shows_its_confirmations(api: RunningApi) -> None:
    client = api.client()
    client.create_customer("alice")
    address = client.new_address("alice", "BTC")["address"]
    txid, block = "a" * 64, "b" * 64
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO cursors (chain, height, hash, anchor) VALUES ('bitcoin-regtest', 102, %s, 102)",
            [block],
        )
        connection.execute(
            "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state, height,"
            " block_hash, confirmations) SELECT gen_random_uuid(), chain, %s, %s, id, customer_id, asset, 150000,"
            " 'confirming', 100, %s, 6 FROM addresses",
            [f"{txid}:0", txid, block],
        )
    (deposit,) = client.deposits(customer="alice")
    assert deposit == client.deposit(deposit["id"])
    assert (deposit["amount"], deposit["asset"], deposit["address"]) == ("0.00150000", "BTC", address)
    assert (deposit["confirmations"], deposit["confirmations_needed"], deposit["state"]) == (
        3,
        6,
        "confirming",
    )
