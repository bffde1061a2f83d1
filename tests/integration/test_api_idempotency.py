"""FAULTS row 41: a client repeats a request, same body or other; and what is remembered with what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from custody.ids import new_id
from custody.ports import Step
from ops.devnet.process import wait_until
from tests.fakes.api import BTC, RunningApi, kind, post_raw, running_api


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has 1 BTC."""
    with running_api(database) as running:
        running.client().create_customer("alice")
        running.fund("alice", BTC)
        yield running


def at_once(number: int, act: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """The answers to `number` requests that start together."""
    start = threading.Barrier(number)

    def one() -> httpx.Response:
        start.wait(timeout=10)
        return act()

    with ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(number)]]


def test_row_41_the_same_request_again_gets_the_same_answer_and_has_one_effect(api: RunningApi) -> None:
    client = api.client()
    order = api.order()
    first = client.send("POST", "/v1/withdrawals", None, api.signed(order), idempotency_key="k")
    before = api.contents()
    again = client.send("POST", "/v1/withdrawals", None, api.signed(order), idempotency_key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert first.headers["idempotency-replayed"] == "false"
    assert again.headers["idempotency-replayed"] == "true"
    assert api.contents() == before
    assert client.balances("alice")[0]["frozen"] == "0.01050000"


def test_row_41_another_body_under_the_same_key_is_a_conflict(api: RunningApi) -> None:
    client = api.client()
    client.withdraw(api.order(), idempotency_key="k")
    before = api.contents()
    for path, body in (
        ("/v1/withdrawals", api.signed(api.order())),
        ("/v1/customers", {"id": "bob"}),
    ):
        response = client.send("POST", path, None, body, idempotency_key="k")
        assert (response.status_code, kind(response)) == (409, "idempotency-key-reused")
        assert response.json()["retryable"] is False
    assert api.contents() == before


def test_row_41_twenty_identical_requests_at_once_have_one_effect(api: RunningApi) -> None:
    body = api.signed(api.order())
    client = api.client()
    answers = at_once(20, lambda: client.send("POST", "/v1/withdrawals", None, body, idempotency_key="k"))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sorted(answer.headers["idempotency-replayed"] for answer in answers) == ["false"] + ["true"] * 19
    assert api.query("SELECT count(*) FROM withdrawals") == [(1,)]
    assert api.query("SELECT count(*) FROM ledger_holds") == [(1,)]
    assert client.balances("alice")[0]["frozen"] == "0.01050000"


def test_row_41_of_twenty_bodies_at_once_under_one_key_one_has_an_effect(api: RunningApi) -> None:
    client = api.client()
    orders = iter([api.order(amount=str(10_000 + number)) for number in range(20)])
    lock = threading.Lock()

    def act() -> httpx.Response:
        with lock:
            body = api.signed(next(orders))
        return client.send("POST", "/v1/withdrawals", None, body, idempotency_key="k")

    answers = at_once(20, act)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {kind(answer) for answer in answers if answer.status_code == 409} == {"idempotency-key-reused"}
    (first,) = (answer.json() for answer in answers if answer.status_code == 201)
    assert [str(id) for (id,) in api.query("SELECT id FROM withdrawals")] == [first["id"]]
    assert api.query("SELECT count(*) FROM ledger_holds") == [(1,)]
    assert api.query("SELECT count(*) FROM idempotency_keys WHERE key = 'k'") == [(1,)]


def test_row_41_the_same_body_at_once_by_two_callers_under_one_key_is_two_requests(api: RunningApi) -> None:
    """Keys belong to their caller; of two who create the same customer, one is told that it exists."""
    callers = iter(["exchange", "other"] * 5)
    lock = threading.Lock()

    def act() -> httpx.Response:
        with lock:
            client = api.client(next(callers))
        return client.send("POST", "/v1/customers", None, {"id": "bob"}, idempotency_key="k")

    answers = at_once(10, act)
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 5
    assert len({answer.content for answer in answers}) == 2
    assert api.query("SELECT count(*) FROM customers WHERE id = 'bob'") == [(1,)]


def test_row_41_twenty_requests_for_one_address_give_one_address(api: RunningApi) -> None:
    client = api.client()
    path = "/v1/customers/alice/addresses"
    answers = at_once(20, lambda: client.send("POST", path, None, {"asset": "BTC"}, idempotency_key="k"))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert api.query("SELECT count(*) FROM addresses") == [(1,)]
    assert [row["address"] for row in client.items(path)] == [answers[0].json()["address"]]


def test_the_same_order_under_two_keys_is_one_withdrawal(api: RunningApi) -> None:
    client = api.client()
    order = api.order()
    first, second = (client.withdraw(order, idempotency_key=key) for key in ("a", "b"))
    assert first["id"] == second["id"] == order.id
    assert client.balances("alice")[0]["frozen"] == "0.01050000"


def test_twenty_orders_at_once_never_take_more_than_there_is(api: RunningApi) -> None:
    """1 BTC covers four orders of 0.2 BTC and fee."""
    client = api.client()

    def act() -> httpx.Response:
        body = api.signed(api.order(amount=str(BTC // 5)))
        return client.send("POST", "/v1/withdrawals", None, body, idempotency_key=str(new_id()))

    answers = at_once(20, act)
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 16
    assert client.balances("alice") == [
        {"asset": "BTC", "available": "0.19800000", "frozen": "0.80200000", "trading": "0.00000000"}
    ]


def test_a_decision_is_remembered_even_when_the_state_has_changed(api: RunningApi) -> None:
    client = api.client()
    body = api.signed(api.order(amount=str(2 * BTC)))
    first = client.send("POST", "/v1/withdrawals", None, body, idempotency_key="k")
    assert (first.status_code, kind(first)) == (409, "insufficient-funds")
    api.fund("alice", 5 * BTC)
    again = client.send("POST", "/v1/withdrawals", None, body, idempotency_key="k")
    assert first.content == again.content
    assert again.headers["content-type"] == "application/problem+json"
    fresh = client.send("POST", "/v1/withdrawals", None, body, idempotency_key="another")
    assert fresh.status_code == 201


def test_what_is_wrong_with_the_request_itself_leaves_the_key_free(api: RunningApi) -> None:
    client = api.client()
    bad = client.send("POST", "/v1/customers", None, {"id": "b o b"}, idempotency_key="k")
    assert bad.status_code == 400
    assert client.send("POST", "/v1/customers", None, {"id": "bob"}, idempotency_key="k").status_code == 201


def test_a_transient_failure_is_not_remembered(api: RunningApi) -> None:
    client = api.client()
    api.signer.down = True
    path = "/v1/customers/alice/addresses"
    away = client.send("POST", path, None, {"asset": "BTC"}, idempotency_key="k")
    assert (away.status_code, kind(away)) == (503, "signer-unavailable")
    assert away.json()["retryable"] is True
    assert api.query("SELECT count(*) FROM addresses") == [(0,)]
    api.signer.down = False
    assert client.send("POST", path, None, {"asset": "BTC"}, idempotency_key="k").status_code == 201


def test_an_address_that_is_not_what_our_keys_give_is_never_shown(api: RunningApi) -> None:
    api.signer.lies = True
    answer = api.client().send(
        "POST", "/v1/customers/alice/addresses", None, {"asset": "BTC"}, idempotency_key="k"
    )
    assert (answer.status_code, kind(answer)) == (500, "address-not-trusted")
    assert "bcrt1" not in answer.text
    assert api.query("SELECT count(*) FROM addresses") == [(0,)]


def test_fault_44_an_address_edited_in_the_database_is_never_shown(api: RunningApi) -> None:
    client = api.client()
    client.new_address("alice", "BTC")
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute("UPDATE addresses SET address = 'bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080'")
    answer = client.send("GET", "/v1/customers/alice/addresses")
    assert (answer.status_code, kind(answer)) == (500, "address-not-trusted")
    assert "bcrt1" not in answer.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('regexp_replace(body, \'"address":"bcrt1[a-z0-9]*"\', \'"address":"bcrt1qelsewhere"\')', "address"),
        ("replace(body, '/0/0', '/0/1')", "path"),
        ("replace(body, '\"alice\"', '\"bob\"')", "customer"),
        ('regexp_replace(body, \'"attestation":.*,"created\', \'"attestation":{},"created\')', "attestation"),
    ],
)
def test_fault_44_a_remembered_address_that_was_edited_is_never_shown(
    api: RunningApi, old: str, new: str
) -> None:
    client = api.client()
    client.new_address("alice", "BTC", idempotency_key="k")
    with psycopg.connect(api.superuser_dsn) as connection:
        changed = connection.execute(f"UPDATE idempotency_keys SET body = {old} WHERE key = 'k'".encode())
        assert changed.rowcount == 1, new
    answer = client.send("POST", "/v1/customers/alice/addresses", None, {"asset": "BTC"}, idempotency_key="k")
    assert (answer.status_code, kind(answer)) == (500, "address-not-trusted")


def test_keys_of_two_callers_are_two_keys(api: RunningApi) -> None:
    assert api.client("exchange").create_customer("bob", idempotency_key="k")["id"] == "bob"
    assert api.client("other").create_customer("carol", idempotency_key="k")["id"] == "carol"


def test_blanks_and_order_of_keys_do_not_make_another_body(api: RunningApi) -> None:
    first = post_raw(api, "/v1/customers", b'{"id":"bob"}', Idempotency_Key="k")
    again = post_raw(api, "/v1/customers", b' { "id" : "\\u0062ob" } ', Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content


def test_cancelling_again_changes_nothing(api: RunningApi) -> None:
    client = api.client()
    order = api.order()
    client.withdraw(order)
    cancelled = client.cancel_withdrawal(order.id, idempotency_key="c")
    assert cancelled["state"] == "cancelled"
    before = api.contents()
    assert client.cancel_withdrawal(order.id, idempotency_key="c") == cancelled
    assert api.contents() == before
    assert client.balances("alice")[0]["available"] == "1.00000000"


def test_another_caller_cannot_cancel(api: RunningApi) -> None:
    order = api.order()
    api.client().withdraw(order)
    answer = api.client("other").send("POST", f"/v1/withdrawals/{order.id}/cancel", idempotency_key="k")
    assert (answer.status_code, kind(answer)) == (400, "order-mismatch")
    assert api.client().withdrawal(order.id)["state"] == "requested"


def test_a_withdrawal_without_a_transaction_has_nothing_to_bump(api: RunningApi) -> None:
    order = api.order()
    api.client().withdraw(order)
    answer = api.client("otto").send(
        "POST", f"/v1/withdrawals/{order.id}/bump", None, {}, idempotency_key="k"
    )
    assert (answer.status_code, kind(answer)) == (409, "not-bumpable")


def test_a_bump_is_recorded_once_for_the_worker(api: RunningApi) -> None:
    order = api.order()
    client = api.client()
    client.withdraw(order)
    with psycopg.connect(api.superuser_dsn) as connection:
        transaction = new_id()
        connection.execute(
            "INSERT INTO transactions (id, chain, keyset, kind, state)"
            " VALUES (%s, 'bitcoin-regtest', 'hot-btc', 'payment', 'broadcast')",
            [transaction],
        )
        for state in ("screening", "queued", "building", "signing", "broadcast"):
            connection.execute(
                "UPDATE withdrawals SET state = %s, screened_at = now() WHERE id = %s", [state, order.id]
            )
        connection.execute("UPDATE withdrawals SET transaction_id = %s", [transaction])
    client = api.client("otto")
    first = client.bump_withdrawal(order.id, feerate=25_000)
    assert first["transaction"] == str(transaction)
    wait_until(lambda: Step.BUMP in api.woken, timeout=5, what="the bell")
    again = client.send("POST", f"/v1/withdrawals/{order.id}/bump", None, {}, idempotency_key="k")
    assert (again.status_code, kind(again)) == (409, "bump-pending")
    assert api.query("SELECT feerate, requested_by, done_at FROM bump_requests") == [(25_000, "otto", None)]
