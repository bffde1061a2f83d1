"""Travel-rule data over the API, as a caller meets it; and that nothing of people is kept in clear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from custody.storage.sealing import Keys
from custody.travelrule.ivms101 import read
from custody.travelrule.repository import place_of
from custody.web.client import ApiRefused
from tests.fakes.api import BTC, FOREIGN_ADDRESS, RunningApi, running_api
from tests.support.ivms import travel_rule

SECRET = "Kaltenbrunner"
KEYS = Keys({"tests": b"\7" * 32})


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has 1 BTC."""
    with running_api(database, sealing=lambda: KEYS) as running:
        running.client().create_customer("alice")
        running.fund("alice", BTC)
        yield running


def test_data_is_attached_sealed_and_never_shown_again(api: RunningApi) -> None:
    withdrawal = api.client().withdraw(api.order())["id"]
    document = travel_rule(FOREIGN_ADDRESS, family=SECRET)
    with capture_logs() as logs:
        answer = api.client().attach_travel_rule(withdrawal, document)
    assert (answer["withdrawal"], answer["state"]) == (withdrawal, "pending")
    assert api.client().attach_travel_rule(withdrawal, document) == answer
    assert SECRET not in json.dumps(answer)
    assert SECRET not in str(logs)
    with psycopg.connect(api.superuser_dsn) as connection:
        [(sealed,)] = connection.execute("SELECT data FROM travel_rule").fetchall()
        kept = connection.execute("SELECT body, encode(request_hash, 'hex') FROM idempotency_keys").fetchall()
    assert read(KEYS.open(place_of(UUID(withdrawal)), bytes(sealed))) == read(document)
    assert len(kept) == 2, "the customer and the order: no hash of personal data"


def test_other_data_another_destination_and_what_is_not_whole_are_refused_without_quoting_it(
    api: RunningApi,
) -> None:
    client = api.client()
    withdrawal = client.withdraw(api.order())["id"]
    whole = travel_rule(FOREIGN_ADDRESS, family=SECRET)
    for document, status, kind in (
        (travel_rule("bc1qanother", family=SECRET), 400, "order-mismatch"),
        (whole | {"originator": {SECRET: 1}}, 400, "invalid-value"),
        ({SECRET: SECRET}, 400, "invalid-value"),
    ):
        with pytest.raises(ApiRefused) as caught:
            client.attach_travel_rule(withdrawal, document)
        assert caught.value.status == status
        assert caught.value.problem["type"].endswith(kind)
        assert SECRET not in json.dumps(caught.value.problem)
    client.attach_travel_rule(withdrawal, whole)
    with pytest.raises(ApiRefused) as caught:
        client.attach_travel_rule(withdrawal, travel_rule(FOREIGN_ADDRESS, family="Schmidt"))
    assert (caught.value.status, caught.value.problem["type"].rpartition(":")[2]) == (
        409,
        "travel-rule-attached",
    )
    with pytest.raises(ApiRefused) as caught:
        client.attach_travel_rule(str(uuid4()), whole)
    assert caught.value.status == 404


def test_another_caller_attaches_nothing(api: RunningApi) -> None:
    withdrawal = api.client().withdraw(api.order())["id"]
    with pytest.raises(ApiRefused) as caught:
        api.client("other").attach_travel_rule(withdrawal, travel_rule(FOREIGN_ADDRESS))
    assert caught.value.problem["type"].endswith("order-mismatch")
