"""Whoever takes one process of the online side cannot decide a case, or undo what a person has decided."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

from custody.storage.migrate import ROLES

OPEN = "INSERT INTO cases (id, kind, subject, chain, address, findings) VALUES (%s, %s, %s, 'c', 'a', '[{}]')"
DECIDE = "UPDATE cases SET state = 'released', resolution = 'x', resolved_by = 'x', resolved_at = now()"


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def connect(database: str, role: str) -> psycopg.Connection:
    connection = psycopg.connect(database, autocommit=True)
    connection.execute(SQL("SET SESSION AUTHORIZATION {}").format(Identifier(role)))
    return connection


@pytest.fixture
def case(owner: psycopg.Connection) -> UUID:
    case = uuid4()
    owner.execute(OPEN, [case, "withdrawal", uuid4()])
    return case


@pytest.mark.parametrize("role", [role for role in ROLES if role != "strongroom_worker"])
@pytest.mark.parametrize(
    "attack", [DECIDE, "DELETE FROM cases", "UPDATE cases SET subject = gen_random_uuid()"]
)
def test_only_the_workers_role_which_operators_use_decides_cases(
    database: str, case: UUID, role: str, attack: str
) -> None:
    with connect(database, role) as connection, pytest.raises(pg.InsufficientPrivilege):
        connection.execute(attack)


@pytest.mark.parametrize("role", ["strongroom_api", "strongroom_read"])
def test_who_cannot_find_anything_opens_no_case(database: str, role: str) -> None:
    with connect(database, role) as connection, pytest.raises(pg.InsufficientPrivilege):
        connection.execute(OPEN, [uuid4(), "withdrawal", uuid4()])


@pytest.mark.parametrize(
    "attack",
    [
        'UPDATE cases SET findings = \'[{"reason": "harmless"}]\'',
        "UPDATE cases SET subject = gen_random_uuid()",
        "DELETE FROM cases",
        (
            "INSERT INTO cases"
            " (id, kind, subject, chain, address, findings, state, resolution, resolved_by, resolved_at)"
            " SELECT gen_random_uuid(), kind, subject, chain, address, findings, 'released', 'x', 'x', now() FROM cases"
        ),
    ],
)
def test_a_worker_changes_nothing_of_what_was_found(database: str, case: UUID, attack: str) -> None:
    with connect(database, "strongroom_worker") as connection, pytest.raises(pg.InsufficientPrivilege):
        connection.execute(attack)


def test_no_worker_releases_a_case_without_a_record_of_who_did_it(database: str, case: UUID) -> None:
    with connect(database, "strongroom_worker") as worker:
        with pytest.raises(pg.InsufficientPrivilege, match="release-case without a record"):
            worker.execute(DECIDE)
        assert worker.execute("SELECT state FROM cases").fetchall() == [("open",)]


def test_what_a_person_has_decided_is_not_decided_again_by_anybody(
    owner: psycopg.Connection, database: str, case: UUID
) -> None:
    with connect(database, "strongroom_worker") as worker:
        with pytest.raises(pg.CheckViolation):
            worker.execute("UPDATE cases SET state = 'released'")
        worker.execute(DECIDE.replace("released", "refused"))
        for connection in (worker, owner):
            for attack in (
                DECIDE,
                "UPDATE cases SET resolution = 'another'",
                "UPDATE cases SET state = 'open'",
            ):
                with pytest.raises(pg.CheckViolation):
                    connection.execute(attack)
    with pytest.raises(pg.InsufficientPrivilege, match="append-only"):
        owner.execute("DELETE FROM cases")


def _withdrawal(owner: psycopg.Connection) -> UUID:
    withdrawal = uuid4()
    owner.execute("INSERT INTO customers (id) VALUES ('alice')")
    owner.execute(
        "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units, order_json,"
        " order_signature, order_hash, state, expires_at)"
        " VALUES (%s, 'x', 'alice', 'c', 'BTC', 'd', 5, 1, '{}', 's', 'h', 'queued', now())",
        [withdrawal],
    )
    return withdrawal


def test_no_transaction_takes_a_withdrawal_that_is_not_screened_or_whose_case_is_open(
    owner: psycopg.Connection, database: str
) -> None:
    withdrawal = _withdrawal(owner)
    build = "UPDATE withdrawals SET state = 'building'"
    with connect(database, "strongroom_worker") as worker:
        with pytest.raises(pg.CheckViolation, match="not screened"):
            worker.execute(build)
        worker.execute("UPDATE withdrawals SET screened_at = now()")
        worker.execute(OPEN, [uuid4(), "withdrawal", withdrawal])
        with pytest.raises(pg.CheckViolation, match="its case is open"):
            worker.execute(build)
        owner.execute(DECIDE)
        worker.execute(build)


def test_the_api_cannot_say_that_something_was_screened(owner: psycopg.Connection, database: str) -> None:
    _withdrawal(owner)
    with connect(database, "strongroom_api") as api, pytest.raises(pg.InsufficientPrivilege):
        api.execute("UPDATE withdrawals SET screened_at = now()")
