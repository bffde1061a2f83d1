"""schemathesis reads the OpenAPI document and asks for everything that it says may be asked, and for much that may not.

Against the API as it is served, on a real database, with a good token on every request. Whatever is sent: no answer is
a 5xx, each has a status, a content type and a body that the document promises, and what the schema forbids is refused.
`FUZZ_EXAMPLES` sets how much is tried for each operation, `FUZZ_SEED` another course (`make fuzz`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
import requests
import schemathesis
from requests.auth import AuthBase
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from chains.errors import InvalidValue
from ops.devnet.postgres import EmbeddedPostgres
from policies.intent import Order
from policies.token import Request
from tests.fakes.api import BTC, RunningApi, authorization, running_api

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "20"))
PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
SEED: Final = int(os.environ.get("FUZZ_SEED", "41"))


class Signed(AuthBase):
    """Signs each request as it is about to be sent, whatever became of it."""

    def __init__(self, api: RunningApi) -> None:
        self._api = api

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        body = prepared.body or b""
        assert isinstance(body, str | bytes)
        raw = body.encode() if isinstance(body, str) else body
        path, _, query = prepared.path_url.partition("?")
        request = Request(prepared.method or "", path, query, raw)
        with suppress(InvalidValue):  # a path that no token can name has none
            prepared.headers["Authorization"] = authorization(self._api, request)
        return prepared


@pytest.fixture(scope="module")
def api(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has 1000 BTC, an address, and a withdrawal."""
    name = f"api_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    with running_api(
        postgres.superuser_dsn(name), unauthenticated_per_second=100_000, requests_per_second=100_000
    ) as running:
        client = running.client()
        client.create_customer("alice")
        running.fund("alice", 1000 * BTC)
        running.others_run(ago="-1 day")  # so that they stay fresh, however long it takes
        client.new_address("alice", "BTC")
        client.withdraw(running.order())
        yield running
    postgres.drop_database(name)


def findings(api: RunningApi, phase: str) -> tuple[list[str], int]:
    """What schemathesis finds wrong in one of its phases, and how many requests it made."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "max-failures": 20,
            "workers": 1,
            "generation": {"max-examples": EXAMPLES, "mode": "all"},
            "phases": {name: {"enabled": name == phase} for name in PHASES},
            "checks": {
                # That a route asks for a token, and what it takes for one, is in test_api_access.
                "ignored_auth": {"enabled": False},
                # A cursor, an asset or a signature of the right form may still be none of ours: that is a 400.
                "positive_data_acceptance": {"enabled": False},
            },
        }
    )
    document = api.raw().get("/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)  # the token is ours to give: it is no parameter to be left out
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.config.update(base_url=api.url)

    def sign(_: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
        kwargs["auth"] = Signed(api)
        if case.operation.label == "POST /v1/withdrawals":
            case.body = perhaps_signed(api, case.body)

    found: list[str] = []
    requests_made = 0
    schemathesis.hook("before_call")(sign)
    try:
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                requests_made += len(event.recorder.interactions)
                for checks in event.recorder.checks.values():
                    for check in checks:
                        if check.failure_info is not None:
                            failure = check.failure_info.failure
                            found.append(
                                f"{event.label} {check.name}: {failure.title}: {failure.message}\n"
                                f"    {check.failure_info.code_sample}"
                            )
            elif isinstance(event, events.NonFatalError | events.FatalError):
                found.append(repr(event))
    finally:
        schemathesis.hooks.unregister(sign)
    return found, requests_made


def perhaps_signed(api: RunningApi, body: Any) -> Any:
    """Every other order that is one is made good but for its amounts and id, and signed: otherwise none gets far."""
    order = body.get("order") if isinstance(body, dict) else None
    if not isinstance(order, dict) or not isinstance(order.get("amount"), str) or len(order["amount"]) % 2:
        return body
    good = api.order().to_object()
    try:
        signed = api.signed(
            Order.from_object({**good, **{k: order[k] for k in ("amount", "fee_ceiling", "id")}})
        )
    except (InvalidValue, KeyError):
        return body
    return {**body, **signed}


@pytest.mark.parametrize("phase", PHASES)
def test_whatever_is_asked_the_answer_is_one_that_the_document_promises(api: RunningApi, phase: str) -> None:
    found, made = findings(api, phase)
    assert found == [], f"seed {SEED}"
    assert made >= 5
