"""Sealing anew: in batches, again after an interruption, while the service goes on, and from the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier
from typer.testing import Result

from custody.console import sealed
from custody.console.operator import operator
from custody.ids import new_id
from custody.storage.db import Database
from custody.storage.resealing import COLUMNS, reseal, under
from custody.storage.sealing import CannotOpen, Keys, add_key, read_ring
from custody.travelrule.ivms101 import read
from custody.travelrule.repository import place_of
from tests.fakes.api import as_role
from tests.fakes.operators import Office
from tests.support.ivms import travel_rule

[COLUMN] = [each for each in COLUMNS if each.table == "travel_rule"]
OLD = Keys({"old": b"\1" * 32})
NEW = Keys({"old": b"\1" * 32, "new": b"\2" * 32})
SECRET = "Kaltenbrunner"
DATA = read(travel_rule("bc1qdestination", family=SECRET))


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO customers (id) VALUES ('alice')")
        yield connection


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    with Database(as_role(database, "strongroom_worker"), application="worker", pool_size=4) as db:
        yield db


def insert(owner: psycopg.Connection, keys: Keys, rows: int) -> list[UUID]:
    ids = [new_id() for _ in range(rows)]
    for each in ids:
        owner.execute(
            "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units, order_json,"
            " order_signature, order_hash, state, expires_at)"
            " VALUES (%s, 'x', 'alice', 'c', 'BTC', 'bc1qdestination', 5, 1, '{}', 's', %s, 'requested', now())",
            [each, str(each)],
        )
        place = place_of(each)
        key, digest = keys.fingerprint(place, DATA.canonical())
        owner.execute(
            "INSERT INTO travel_rule (withdrawal_id, data, fingerprint, fingerprint_key, attached_by, state)"
            " VALUES (%s, %s, %s, %s, 'x', 'kept')",
            [each, keys.seal(place, DATA.canonical()), digest, key],
        )
    return ids


def stored(owner: psycopg.Connection, row: UUID) -> bytes:
    found = owner.execute("SELECT data FROM travel_rule WHERE withdrawal_id = %s", [row]).fetchone()
    assert found is not None
    return bytes(found[0])


def flip_a_bit(owner: psycopg.Connection, row: UUID) -> None:
    owner.execute(
        "UPDATE travel_rule SET data = set_byte(data, length(data) - 1, get_byte(data, length(data) - 1) # 1)"
        " WHERE withdrawal_id = %s",
        [row],
    )


def counts(db: Database) -> dict[str, int]:
    with db.snapshot() as tx:
        return under(tx, COLUMN)


def test_everything_is_sealed_anew_in_batches_and_again_changes_nothing(
    owner: psycopg.Connection, db: Database
) -> None:
    ids = insert(owner, OLD, 7)
    steps: list[int] = []
    assert reseal(db, NEW, COLUMN, batch=3, progress=steps.append).sealed == 7
    assert (steps, counts(db)) == ([3, 6, 7], {"new": 7})
    only_new = Keys({"new": b"\2" * 32})
    assert {only_new.open(place_of(each), stored(owner, each)) for each in ids} == {DATA.canonical()}
    before = [stored(owner, each) for each in ids]
    assert reseal(db, NEW, COLUMN).sealed == 0
    assert [stored(owner, each) for each in ids] == before


def test_what_was_interrupted_goes_on_where_it_was(owner: psycopg.Connection, db: Database) -> None:
    insert(owner, OLD, 7)

    class Killed(Exception):
        pass

    def die(done: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        reseal(db, NEW, COLUMN, batch=3, progress=die)
    assert counts(db) == {"new": 3, "old": 4}
    assert reseal(db, NEW, COLUMN, batch=3).sealed == 4
    assert counts(db) == {"new": 7}


def test_what_cannot_be_opened_stays_as_it_is_and_stops_nothing_else(
    owner: psycopg.Connection, db: Database
) -> None:
    ids = insert(owner, OLD, 4)
    flip_a_bit(owner, ids[1])
    done = reseal(db, NEW, COLUMN, batch=1)
    assert done.sealed == 3
    assert [row.split(":")[0] for row in done.broken] == [str(ids[1])]
    assert counts(db) == {"new": 3, "old": 1}


def test_rows_that_come_and_two_who_reseal_at_once_harm_nothing(
    owner: psycopg.Connection, db: Database
) -> None:
    insert(owner, OLD, 40)
    results: list[int] = []

    def work() -> None:
        results.append(reseal(db, NEW, COLUMN, batch=5).sealed)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    fresh = insert(owner, NEW, 10)
    late = insert(owner, OLD, 5)
    for thread in threads:
        thread.join(30)
    reseal(db, NEW, COLUMN)
    assert counts(db) == {"new": 55}
    assert sum(results) <= 45
    for each in (*fresh, *late):
        assert NEW.open(place_of(each), stored(owner, each)) == DATA.canonical()


def test_the_api_can_store_and_not_read_and_nobody_can_change_what_was_attached(
    owner: psycopg.Connection, database: str
) -> None:
    [row] = insert(owner, OLD, 1)

    def connect(role: str) -> psycopg.Connection:
        connection = psycopg.connect(database, autocommit=True)
        connection.execute(SQL("SET SESSION AUTHORIZATION {}").format(Identifier(role)))
        return connection

    for role in ("strongroom_api", "strongroom_monitor", "strongroom_read"):
        with connect(role) as connection, pytest.raises(pg.InsufficientPrivilege):
            connection.execute("SELECT data FROM travel_rule")
    for attack in ("UPDATE travel_rule SET data = '\\x01'", "DELETE FROM travel_rule"):
        with connect("strongroom_api") as api, pytest.raises(pg.InsufficientPrivilege):
            api.execute(attack)
    for attack in (
        "UPDATE travel_rule SET attached_by = 'y'",
        "UPDATE travel_rule SET fingerprint = decode(repeat('00', 32), 'hex')",
    ):
        with pytest.raises(pg.CheckViolation):
            owner.execute(attack)
    with pytest.raises(pg.InsufficientPrivilege, match="append-only"):
        owner.execute("DELETE FROM travel_rule")
    with pytest.raises(CannotOpen):
        NEW.open(place_of(new_id()), stored(owner, row))


def test_an_operator_adds_a_key_seals_anew_and_reads_with_a_reason(
    owner: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    assert sealed.sealing_key in [command.callback for command in operator.registered_commands]
    ring = tmp_path / "ring"
    office = Office(database, tmp_path)

    def run(*arguments: str) -> Result:
        return office.run("operator", *arguments, STRONGROOM_SEALING_KEYS_PATH=str(ring))

    assert run("reseal").exit_code == 2, "there is no ring yet"
    assert run("sealing-key", str(ring), "--id", "first").exit_code == 0
    keys, _ = read_ring(ring)
    [row] = insert(owner, keys, 1)
    add_key(ring, "second")
    done = json.loads(run("reseal", "--json").stdout)
    assert (done["key"], done["sealed"]["travel_rule.data"]) == ("second", 1)
    assert done["under"]["travel_rule.data"] == {"second": 1}
    shown = run("travel-rule", str(row), "--reason", "a request of the court", "--json")
    assert SECRET in shown.stdout
    [(data,)] = owner.execute("SELECT data FROM events WHERE type = 'operator.read_travel_rule'").fetchall()
    assert data["reason"] == "a request of the court"
    assert data["by"] == "otto"
    assert run("travel-rule", str(new_id()), "--reason", "x").exit_code == 1
    owner.execute(
        "UPDATE travel_rule SET data = set_byte(data, length(data) - 1, get_byte(data, length(data) - 1) # 1)"
    )
    add_key(ring, "third")
    assert run("reseal").exit_code == 1
    ring.chmod(0o644)
    assert run("reseal").exit_code == 1
    assert "chmod 600" in run("reseal").stderr
