"""Health, readiness, metrics, logs and the OpenAPI document of a running API; and what it does without its parts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from custody.api.examples import ANSWERS
from custody.api.schemas import Out, ProblemOut
from custody.storage.migrate import upgrade
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import wait_until
from tests.fakes.api import BTC, RunningApi, kind, running_api


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    with running_api(database) as running:
        yield running


def test_health_says_only_that_the_process_runs(api: RunningApi) -> None:
    api.trusted, api.signer.down = False, True
    assert api.raw().get("/healthz").json() == {"status": "ok"}


def test_readiness_names_the_part_that_is_missing(api: RunningApi) -> None:
    def missing() -> list[str]:
        answer = api.raw().get("/readyz")
        parts = answer.json()["parts"]
        names = [name for name, part in parts.items() if not part["ok"]]
        assert (answer.status_code, answer.json()["ready"]) == ((503, False) if names else (200, True))
        return names

    others = ["monitor bitcoin-regtest", "node bitcoin-regtest", "workers", "beat"]
    assert missing() == others
    api.others_run(ago="2 hours")
    assert missing() == others
    api.others_run()
    assert missing() == []
    api.signer.down = True
    assert missing() == ["signer hot-btc", "verifier"]
    api.trusted = False
    assert missing() == ["bundle"]


def test_without_a_bundle_nothing_is_decided(api: RunningApi) -> None:
    api.trusted = False
    answer = api.client().send("GET", "/v1/assets")
    assert (answer.status_code, kind(answer)) == (503, "bundle-not-trusted")
    assert answer.json()["retryable"] is True


def test_metrics_show_chains_states_alerts_and_requests(api: RunningApi) -> None:
    client = api.client()
    client.create_customer("alice")
    api.fund("alice", BTC)
    client.withdraw(api.order())
    api.others_run(ago="5 seconds")
    counted = 'strongroom_api_request_seconds_count{method="POST",route="/v1/withdrawals"} 1.0'
    wait_until(
        lambda: counted in api.raw().get("/metrics").text,
        timeout=5,
        what="the count, which follows the answer",
    )
    text = api.raw().get("/metrics").text
    for line in (
        'strongroom_chain_tip_height{chain="bitcoin-regtest"} 7.0',
        'strongroom_withdrawals{asset="BTC",state="requested"} 1.0',
        'strongroom_open_alerts{severity="critical"} 0.0',
        "strongroom_database_up 1.0",
        'strongroom_chain_final_height{chain="bitcoin-regtest"} 7.0',
        'strongroom_node_tip_height{chain="bitcoin-regtest"} 7.0',
        'strongroom_api_requests_total{method="POST",route="/v1/customers",status="201"} 1.0',
    ):
        assert line in text
    assert 'strongroom_chain_monitor_age_seconds{chain="bitcoin-regtest"}' in text
    assert 'strongroom_process_age_seconds{instance="host:1",process="worker"}' in text
    assert "alice" not in text


def test_no_body_token_key_or_query_is_logged(api: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = api.client()
    with capture_logs() as lines:
        client.create_customer("secretive-customer")
        body = api.signed(api.order(customer="secretive-customer"))
        refused = client.send("POST", "/v1/withdrawals", None, body, idempotency_key="secretive-key")
        assert refused.status_code == 409
        assert client.send("GET", "/v1/withdrawals", {"customer": "secretive-customer"}).status_code == 200
        bad = client.send("POST", "/v1/customers", None, {"id": "secretive customer"}, idempotency_key="k")
        assert bad.status_code == 400
        wait_until(lambda: len(lines) == 4, timeout=5, what="the last line, which follows the answer")
    assert [line["status"] for line in lines] == [201, 409, 200, 400]
    assert all(line["caller"] == "exchange" and line["request_id"] for line in lines)
    everything = json.dumps(lines) + "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    )
    for private in ("secretive", body["signature"], body["order"]["destination"], "Strongroom "):
        assert private not in everything


def test_an_unexpected_error_is_a_problem_and_its_message_is_not_shown(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a message with secretive content")

    monkeypatch.setattr("custody.customers.repository.find", broken)
    with capture_logs() as lines:
        answer = api.client().send("GET", "/v1/customers/alice")
        wait_until(lambda: len(lines) == 2, timeout=5, what="the last line, which follows the answer")
    assert (answer.status_code, kind(answer)) == (500, "internal")
    assert "secretive" not in answer.text + json.dumps(lines)
    error = next(line for line in lines if line["event"] == "unexpected error")
    assert error["error"] == "RuntimeError"
    assert error["request_id"] == answer.headers["x-request-id"]


def test_a_lost_database_is_a_retryable_503_and_service_resumes(tmp_path: Path) -> None:
    """kill -9 on PostgreSQL; the same request, repeated after the restart, has one effect."""
    with EmbeddedPostgres(tmp_path / "postgres", durability=Durability.FULL) as server:
        server.create_database("strongroom")
        upgrade(server.superuser_dsn("strongroom"))
        with running_api(server.superuser_dsn("strongroom")) as api:
            client = api.client()
            assert (
                client.send("POST", "/v1/customers", None, {"id": "a"}, idempotency_key="k").status_code
                == 201
            )
            server.kill()
            begun = time.monotonic()
            away = client.send("POST", "/v1/customers", None, {"id": "b"}, idempotency_key="l")
            assert time.monotonic() - begun < 5
            assert away.headers["retry-after"] == "1"
            assert (away.status_code, kind(away)) == (503, "database-unavailable")
            assert away.json()["retryable"] is True
            assert "127.0.0.1" not in away.text
            assert api.raw().get("/readyz").json()["parts"]["database"]["ok"] is False
            assert "strongroom_database_up 0.0" in api.raw().get("/metrics").text
            server.start()

            def again() -> bool:
                return (
                    client.send("POST", "/v1/customers", None, {"id": "b"}, idempotency_key="l").status_code
                    == 201
                )

            wait_until(again, timeout=30, what="the API to find its database again")
            assert [c["id"] for c in client.items("/v1/customers")] == ["a", "b"]
        server.remove()


def test_expired_nonces_are_forgotten(database: str) -> None:
    with running_api(database) as api:
        with psycopg.connect(api.superuser_dsn) as connection:
            connection.execute(
                "INSERT INTO token_nonces VALUES ('exchange', 'old', now() - interval '1 hour')"
            )
        api.client().get("/v1/assets")
    with running_api(database) as api:
        wait_until(
            lambda: api.query("SELECT count(*) FROM token_nonces WHERE nonce = 'old'") == [(0,)],
            timeout=10,
            what="the old nonce to be forgotten",
        )
        assert api.query("SELECT count(*) FROM token_nonces") == [(1,)]


def test_every_answer_of_the_openapi_document_has_an_example_that_is_one(api: RunningApi) -> None:
    document: dict[str, Any] = api.raw().get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                where = f"{method} {path} {status}"
                assert response["content"], where
                for form, media in response["content"].items():
                    if status in ("4XX", "5XX"):
                        assert form == "application/problem+json", where
                        ProblemOut.model_validate(media["example"])
                    elif form != "text/plain":
                        assert media["example"], where
    unused = set(ANSWERS) - set(document["components"]["schemas"])
    assert not unused
    schemas = {model.__name__: model for model in _models(Out)}
    for name, example in ANSWERS.items():
        model = schemas[name.removeprefix("Page_").removesuffix("_")]
        items = example["items"] if name.startswith("Page_") else [example]
        for item in items:
            model.model_validate_json(json.dumps(item))


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def test_the_openapi_document_is_complete(api: RunningApi) -> None:
    document: dict[str, Any] = api.raw().get("/openapi.json").json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/v1/")
    }
    assert len(operations) >= 18
    for (method, path), operation in operations.items():
        assert operation["security"] == [{"token": []}], path
        assert operation["x-scope"], path
        assert len(operation["description"]) > 10, path
        headers = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "header"]
        assert headers == (["Idempotency-Key"] if method == "post" else []), path
        assert "4XX" in operation["responses"], path
    for name in ("NewCustomer", "NewAddress", "NewWithdrawal", "NewBump"):
        schema = document["components"]["schemas"][name]
        assert schema["additionalProperties"] is False
        assert schema["examples"]
