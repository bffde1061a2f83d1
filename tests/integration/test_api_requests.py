"""What is wrong with a request is said in a problem, and changes nothing in the database."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from custody.api.gate import MAX_BODY_BYTES
from custody.ids import new_id
from ops.devnet.postgres import EmbeddedPostgres
from policies.token import Request
from tests.fakes.api import BTC, RunningApi, authorization, kind, post_raw, running_api


@pytest.fixture(scope="module")
def api(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has 1 BTC. One for all tests: they are about what changes nothing."""
    name = f"api_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    with running_api(postgres.superuser_dsn(name)) as running:
        running.client().create_customer("alice")
        running.fund("alice", BTC)
        yield running
    postgres.drop_database(name)


def refused(api: RunningApi, body: dict[str, Any]) -> tuple[int, str]:
    """Status and kind of the refusal of a withdrawal; the database must be as before."""
    before = api.contents()
    response = api.client().send("POST", "/v1/withdrawals", None, body, idempotency_key=str(new_id()))
    found = (response.status_code, kind(response))
    assert api.contents() == before
    return found


@pytest.mark.parametrize(
    "amount",
    ["-1", "NaN", "1e8", "0.01", "1.0", "", " 1", "1 ", "+1", "01", "Infinity", "0x10", "١", "9" * 79, "9" * 5000],
)  # fmt: skip
def test_an_amount_that_is_no_number_of_base_units_is_refused(api: RunningApi, amount: str) -> None:
    body = api.signed(api.order())
    body["order"]["amount"] = amount
    assert refused(api, body) == (400, "invalid-request")


@pytest.mark.parametrize("amount", [1000000, 0.01, True, None, [], {"amount": "1"}])
def test_an_amount_that_is_no_string_is_refused(api: RunningApi, amount: object) -> None:
    body = api.signed(api.order())
    body["order"]["amount"] = amount
    status, _ = refused(api, body)
    assert status == 400


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", (400, "order-mismatch")),
        ("1", (400, "order-mismatch")),
        ("9" * 77, (409, "insufficient-funds")),
        ("9" * 78, (400, "invalid-value")),
    ],
)
def test_an_amount_too_small_or_too_large_is_refused(
    api: RunningApi, amount: str, expected: tuple[int, str]
) -> None:
    before = {name: rows for name, rows in api.contents().items() if name != "idempotency_keys"}
    response = api.client().send(
        "POST", "/v1/withdrawals", None, api.signed(api.order(amount=amount)), idempotency_key=str(new_id())
    )
    assert (response.status_code, kind(response)) == expected
    assert {name: rows for name, rows in api.contents().items() if name != "idempotency_keys"} == before


@pytest.mark.parametrize(
    "destination",
    [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",  # main network
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",  # test network
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081",  # checksum
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",  # main network, base58
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "not an address",
    ],
)
def test_an_address_of_elsewhere_or_with_a_typo_is_refused(api: RunningApi, destination: str) -> None:
    assert refused(api, api.signed(api.order(destination=destination))) == (400, "invalid-address")


def test_an_address_not_in_its_canonical_form_is_refused(api: RunningApi) -> None:
    order = api.order(destination="BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080")
    assert refused(api, api.signed(order)) == (400, "order-mismatch")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"asset": "DOGE"}, (400, "invalid-value")),
        ({"chain": "bitcoin"}, (400, "order-mismatch")),
        ({"caller": "other"}, (400, "order-mismatch")),
    ],
)
def test_an_order_for_something_else_is_refused(
    api: RunningApi, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refused(api, api.signed(api.order(**changes))) == expected


def test_an_order_signed_by_another_key_is_refused(api: RunningApi) -> None:
    assert refused(api, api.signed(api.order(), by="other")) == (400, "bad-signature")


def test_an_order_changed_after_signing_is_refused(api: RunningApi) -> None:
    body = api.signed(api.order())
    body["order"]["amount"] = "1000001"
    assert refused(api, body) == (400, "bad-signature")


@pytest.mark.parametrize("where", ["", "order"])
def test_an_unknown_field_is_refused(api: RunningApi, where: str) -> None:
    body = api.signed(api.order())
    (body[where] if where else body)["priority"] = "high"
    assert refused(api, body) == (400, "invalid-request")


def test_a_missing_field_is_named(api: RunningApi) -> None:
    body = api.signed(api.order())
    del body["order"]["fee_ceiling"]
    response = api.client().send("POST", "/v1/withdrawals", None, body, idempotency_key=str(new_id()))
    assert response.json()["errors"] == [{"field": "order.fee_ceiling", "message": "Field required"}]


def test_an_order_without_end_names_the_field(api: RunningApi) -> None:
    """2**53 - 1 seconds are a number that JSON carries and no calendar has."""
    assert refused(api, api.signed(api.order(expires_at=2**53 - 1))) == (400, "invalid-request")


def test_an_unknown_customer_and_an_expired_order_are_decisions(api: RunningApi) -> None:
    client = api.client()
    for order, expected in (
        (api.order(customer="bob"), (404, "unknown-customer")),
        (api.order(expires_at=int(time.time()) - 1), (409, "order-expired")),
    ):
        response = client.send("POST", "/v1/withdrawals", None, api.signed(order), idempotency_key=order.id)
        assert (response.status_code, kind(response)) == expected
    assert api.query("SELECT count(*) FROM withdrawals") == [(0,)]


def test_insufficient_funds_carry_the_numbers_with_their_asset(api: RunningApi) -> None:
    order = api.order(amount=str(BTC))
    response = api.client().send(
        "POST", "/v1/withdrawals", None, api.signed(order), idempotency_key=str(new_id())
    )
    assert (response.status_code, kind(response)) == (409, "insufficient-funds")
    problem = response.json()
    assert problem["available"] == {"asset": "BTC", "amount": "1.00000000"}
    assert problem["needed"] == {"asset": "BTC", "amount": "1.00050000"}
    assert problem["retryable"] is False
    assert "1.00050000 BTC" in problem["detail"]
    assert api.client().balances("alice")[0]["available"] == "1.00000000"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"id"',
        b"null",
        b'{"id":"bob"} x',
        b'{"id":"bob","id":"bob"}',
        b'{"id":NaN}',
        b'{"id":Infinity}',
        b'{"id":1.5}',
        b'{"id":1e3}',
        b'{"id":' + b"9" * 5000 + b"}",
        b'{"id":"\xff"}',
        b'{"id":"\\ud800"}',
        b'{"id":"bob\\u0000"}',
        b'{"id":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'\xef\xbb\xbf{"id":"bob"}',
        b'{"id":"bob","x":1}',
        b'{"id":"../../etc"}',
        b'{"id":""}',
        b'{"id":"bob\\n"}',
        json.dumps({"id": "a" * 65}).encode(),
        b'{"id":7}',
    ],
)
def test_a_body_that_is_not_exactly_one_good_object_is_refused(api: RunningApi, body: bytes) -> None:
    before = api.contents()
    response = post_raw(api, "/v1/customers", body)
    assert (response.status_code, kind(response) in ("malformed-body", "invalid-request")) == (400, True)
    assert api.contents() == before


def test_an_oversized_body_is_refused_however_it_is_sent(api: RunningApi) -> None:
    before = api.contents()
    body = b'{"id":"' + b"a" * MAX_BODY_BYTES + b'"}'
    response = post_raw(api, "/v1/customers", body)
    assert (response.status_code, kind(response)) == (413, "body-too-large")

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 8192

    chunked = api.raw().post("/v1/customers", content=chunks(), headers={"Authorization": "x"})
    assert (chunked.status_code, kind(chunked)) == (413, "body-too-large")
    assert api.contents() == before


def test_a_body_of_another_media_type_is_refused(api: RunningApi) -> None:
    response = post_raw(api, "/v1/customers", b'{"id":"bob"}', Content_Type="text/plain")
    assert (response.status_code, kind(response)) == (400, "malformed-body")


@pytest.mark.parametrize("key", ["", "a" * 129, "with blank"])
def test_a_post_needs_a_usable_idempotency_key(api: RunningApi, key: str) -> None:
    before = api.contents()
    response = post_raw(api, "/v1/customers", b'{"id":"bob"}', Idempotency_Key=key)
    assert (response.status_code, kind(response)) == (400, "idempotency-key-missing")
    assert api.contents() == before


@pytest.mark.parametrize("first", [b'{"id":"carol"}', b'{"id":"alice"}'])
def test_a_token_is_good_once_for_writing_whatever_the_first_answer_was(
    api: RunningApi, first: bytes
) -> None:
    headers = {
        "Authorization": authorization(api, Request("POST", "/v1/customers", "", first)),
        "Content-Type": "application/json",
        "Idempotency-Key": f"first {first!r}".replace(" ", "-"),
    }
    assert api.raw().post("/v1/customers", content=first, headers=headers).status_code in (201, 409)
    before = api.contents()
    for key in (headers["Idempotency-Key"], "second"):
        again = api.raw().post("/v1/customers", content=first, headers={**headers, "Idempotency-Key": key})
        assert (again.status_code, kind(again)) == (401, "token-replayed")
    assert api.contents() == before


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/customers", {"limit": "0"}),
        ("/v1/customers", {"limit": "501"}),
        ("/v1/customers", {"limit": "x"}),
        ("/v1/customers", {"color": "red"}),
        ("/v1/withdrawals", {"state": "lost"}),
        ("/v1/withdrawals", {"customer": "../x"}),
        ("/v1/withdrawals/1", None),
        ("/v1/withdrawals/0192F0C1-5B7E-7C3A-9D2E-3F4A5B6C7D8E", None),
        ("/v1/customers/alice/statement", None),
    ],
)
def test_a_wrong_parameter_is_refused(api: RunningApi, path: str, query: dict[str, str] | None) -> None:
    response = api.client().send("GET", path, query)
    assert (response.status_code, kind(response)) == (400, "invalid-request")


def test_a_parameter_given_twice_is_refused(api: RunningApi) -> None:
    request = Request("GET", "/v1/customers", "limit=5&limit=6", b"")
    response = api.raw().get(
        "/v1/customers?limit=5&limit=6", headers={"Authorization": authorization(api, request)}
    )
    assert (response.status_code, kind(response)) == (400, "invalid-request")


@pytest.mark.parametrize("cursor", ["x", "!!!", "Y3VzdG9tZXJz", "ZXZlbnRzOjA"])
def test_a_foreign_cursor_is_refused(api: RunningApi, cursor: str) -> None:
    response = api.client().send("GET", "/v1/customers", {"after": cursor})
    assert (response.status_code, kind(response)) == (400, "invalid-cursor")


def test_what_does_not_exist_is_said_so(api: RunningApi) -> None:
    client = api.client()
    some_id = str(new_id())
    for method, path, expected in (
        ("GET", "/v1/customers/bob", (404, "unknown-customer")),
        ("GET", "/v1/customers/bob/balances", (404, "unknown-customer")),
        ("GET", "/v1/customers/bob/addresses", (404, "unknown-customer")),
        ("GET", f"/v1/deposits/{some_id}", (404, "not-found")),
        ("GET", f"/v1/withdrawals/{some_id}", (404, "not-found")),
        ("POST", f"/v1/withdrawals/{some_id}/cancel", (404, "not-found")),
        ("GET", "/v1/nothing", (404, "no-such-path")),
        ("DELETE", "/v1/customers", (405, "method-not-allowed")),
    ):
        response = client.send(method, path, idempotency_key="k" + path if method == "POST" else None)
        assert (response.status_code, kind(response)) == expected, path
    assert kind(api.raw().get("/favicon.ico")) == "no-such-path"


def test_a_caller_above_its_rate_is_slowed_down(database: str) -> None:
    with running_api(database, requests_per_second=1) as api:
        client = api.client()
        answers = [client.send("GET", "/v1/assets") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert kind(answers[-1]) == "too-many-requests"
        assert answers[-1].json()["retryable"] is True
        assert answers[-1].headers["retry-after"] == "1"
        assert api.client("other").send("GET", "/v1/assets").status_code == 200
