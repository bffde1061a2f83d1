"""The house's own whitelist: what a caller has confirmed waits for an operator."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest

import custody.console.whitelist  # noqa: F401 - adds its verbs
from custody.storage.db import Database
from custody.whitelist import service
from policies.keys import sign_entry
from policies.rules import HOUSE
from policies.statements import WhitelistEntry
from tests.fakes.api import as_role
from tests.fakes.operators import Office
from tests.fakes.signing import CHAIN, DESTINATION


@pytest.fixture
def office(database: str, tmp_path: Path) -> Office:
    return Office(database, tmp_path)


def confirmed(office: Office) -> uuid.UUID:
    bundle, entry_id = office.bundle(), uuid.uuid4()
    caller, now = bundle.caller("exchange"), int(time.time())
    api = Database(as_role(office.database, "strongroom_api"), application="api", pool_size=1)
    with api, api.transaction() as tx:
        service.request(
            tx,
            entry_id,
            owner=HOUSE,
            chain=CHAIN,
            address=DESTINATION,
            label=None,
            provenance="the plan",
            caller=caller,
            bundle=bundle,
            keys=None,
        )
        entry = WhitelistEntry(
            v=1,
            id=str(entry_id),
            caller="exchange",
            owner=HOUSE,
            chain=CHAIN,
            address=DESTINATION,
            issued_at=now,
        )
        service.confirm(tx, entry_id, sign_entry(entry, office.world.caller), caller, bundle, now=now)
    return entry_id


def test_an_operator_accepts_an_entry_of_the_house_which_then_cools_and_it_is_recorded(
    office: Office,
) -> None:
    entry = confirmed(office)
    for _ in range(2):
        result = office.run("whitelist", "accept", str(entry), "--reason", "checked by phone", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["state"] == "listed"
    assert [each["action"] for each in office.actions()] == ["accept-entry", "accept-entry"]
    with Database(office.database, application="tests", pool_size=1) as db, db.snapshot() as tx:
        found = service.get(tx, entry)
        assert service.standing_of(found, office.bundle(), now=int(time.time())) == "cooling"
        [row] = tx.all("SELECT count(*) AS n FROM events WHERE type = 'whitelist.listed'")
    assert row["n"] == 1


def test_who_has_not_the_role_accepts_nothing(office: Office) -> None:
    entry = confirmed(office)
    office.publish(office.bundle(2, operators=office.operators(otto=("support",))))
    result = office.run("whitelist", "accept", str(entry), "--reason", "please")
    assert result.exit_code == 1, result.output
    with Database(office.database, application="tests", pool_size=1) as db, db.snapshot() as tx:
        assert service.get(tx, entry).state == "confirmed"
