"""Officers' statements handed to the API: who signed counts, whoever brings them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from custody.web.client import ApiRefused
from ops.devnet.postgres import EmbeddedPostgres
from policies.keys import SigningKey
from policies.statements import Freeze, Lowering, Veto
from tests.fakes.api import RunningApi, running_api


@pytest.fixture
def api(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[RunningApi]:
    name = f"api_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    with running_api(postgres.superuser_dsn(name)) as running:
        yield running
    postgres.drop_database(name)


def body(api: RunningApi, kind: str, key: SigningKey | None = None, **changes: Any) -> dict[str, Any]:
    """A statement of olga's."""
    common: dict[str, Any] = {"v": 1, "officer": "olga", "reason": "odd", "issued_at": int(time.time())}
    document: Freeze | Lowering | Veto
    match kind:
        case "freeze":
            document = Freeze(**(common | {"scope": "customer:alice", "bundle_version": 1} | changes))
        case "lowering":
            target: dict[str, Any] = {
                "target": "cap:hot:BTC:payment_below",
                "value": "5",
                "bundle_version": 1,
            }
            document = Lowering(**(common | target | changes))
        case _:
            document = Veto(**(common | {"bundle": "ab" * 32} | changes))
    return {"kind": kind, "statement": document.to_object(), "signature": (key or api.officer).sign(document)}


def stored(api: RunningApi) -> int:
    return int(api.query("SELECT count(*) FROM statements")[0][0])


def test_each_kind_is_taken_once_and_the_feed_tells_of_it(api: RunningApi) -> None:
    client = api.client()
    answer = client.post("/v1/statements", body(api, "freeze"))
    assert (answer["kind"], answer["frozen"]) == ("freeze", ["customer:alice"])
    assert len(answer["digest"]) == 64
    assert client.post("/v1/statements", body(api, "lowering"))["kind"] == "lowering"
    assert client.post("/v1/statements", body(api, "veto"))["kind"] == "veto"
    again = body(api, "freeze", scope="all")
    client.post("/v1/statements", again)
    client.post("/v1/statements", again)
    assert stored(api) == 4, "again changes nothing"
    types = [row[0] for row in api.query("SELECT type FROM events WHERE type LIKE 'officer.%%' ORDER BY id")]
    assert types == ["officer.freeze", "officer.lowering", "officer.veto", "officer.freeze"]


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("freeze", {"officer": "mallory"}, "no officer"),
        ("freeze", {"scope": "chain:nowhere"}, "no chain:nowhere"),
        ("freeze", {"bundle_version": 5_000}, "at most 1000 above"),
        ("freeze", {"issued_at": int(time.time()) + 10**8}, "ended"),
        ("lowering", {"value": "9" * 30}, "not lower"),
        ("lowering", {"bundle_version": 2}, "version 1 is in force"),
    ],
)
def test_what_no_signer_takes_is_refused_and_kept_nowhere(
    api: RunningApi, kind: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ApiRefused, match=told):
        api.client().post("/v1/statements", body(api, kind, **changes))
    assert stored(api) == 0


def test_what_the_officer_did_not_sign_so_is_refused(api: RunningApi) -> None:
    client = api.client()
    changed = body(api, "freeze")
    changed["statement"]["scope"] = "all"
    as_other = {**body(api, "veto"), "kind": "freeze"}
    extra = body(api, "freeze")
    extra["statement"]["surprise"] = 1
    for wrong in (body(api, "freeze", SigningKey.generate()), changed, as_other, extra):
        with pytest.raises(ApiRefused) as refused:
            client.post("/v1/statements", wrong)
        assert refused.value.status == 400
    assert stored(api) == 0
