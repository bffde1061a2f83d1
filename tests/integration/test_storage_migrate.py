"""The migration: once or many times, alone or at once, it leaves the same schema, roles and edges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from chains.errors import InvalidValue
from custody.errors import DatabaseUnavailable
from custody.storage.migrate import ROLES, edges, set_role_password, upgrade
from ops.devnet.postgres import EmbeddedPostgres
from ops.devnet.process import free_port, release_port


@pytest.fixture
def empty(postgres: EmbeddedPostgres) -> Iterator[list[str]]:
    """Three empty databases."""
    names = [f"empty_{uuid4().hex}" for _ in range(3)]
    for name in names:
        postgres.create_database(name)
    yield [postgres.superuser_dsn(name) for name in names]
    for name in names:
        postgres.drop_database(name)


def picture(dsn: str) -> list[tuple[object, ...]]:
    """All columns, triggers and edges of a database."""
    with psycopg.connect(dsn) as connection:
        return [
            *connection.execute(
                "SELECT table_name, column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = 'public' ORDER BY 1, 2"
            ),
            *connection.execute(
                "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"
            ),
            *connection.execute("SELECT * FROM lifecycle_edges ORDER BY 1, 2, 3"),
            *connection.execute("SELECT version_num FROM alembic_version"),
        ]


def test_a_second_upgrade_changes_nothing(empty: list[str]) -> None:
    upgrade(empty[0])
    first = picture(empty[0])
    assert len(first) > 100
    upgrade(empty[0])
    assert picture(empty[0]) == first


def test_upgrades_at_once_of_one_database_and_of_several_leave_the_same_in_each(empty: list[str]) -> None:
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(upgrade, empty * 3))
    assert picture(empty[0]) == picture(empty[1]) == picture(empty[2])


def test_upgrades_by_several_processes_at_once_all_succeed(empty: list[str]) -> None:
    program = "import sys; from custody.storage.migrate import upgrade; upgrade(sys.argv[1])"
    running = [
        subprocess.Popen([sys.executable, "-c", program, dsn], stderr=subprocess.PIPE, text=True)
        for dsn in (empty[0], empty[0], empty[1])
    ]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in running]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert picture(empty[0]) == picture(empty[1])


def test_an_upgrade_brings_the_edges_up_to_the_code(empty: list[str]) -> None:
    upgrade(empty[0])
    with psycopg.connect(empty[0]) as connection:
        connection.execute("DELETE FROM lifecycle_edges WHERE lifecycle = 'deposit'")
        connection.execute("INSERT INTO lifecycle_edges VALUES ('withdrawal', 'requested', 'settled')")
    upgrade(empty[0])
    with psycopg.connect(empty[0]) as connection:
        assert set(connection.execute("SELECT * FROM lifecycle_edges")) == edges()


def test_a_failed_migration_leaves_nothing_behind(empty: list[str]) -> None:
    with psycopg.connect(empty[0]) as connection:
        connection.execute("CREATE TABLE withdrawals (x int)")  # in the way, half-way through the file
    with pytest.raises(psycopg.errors.DuplicateTable):
        upgrade(empty[0])
    with psycopg.connect(empty[0]) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
    assert tables == ["withdrawals"]


def test_roles_are_no_superusers_and_their_passwords_are_kept_as_scram_only(empty: list[str]) -> None:
    upgrade(empty[0])
    for role in ROLES:
        set_role_password(empty[0], role, f"a password with 'quotes' for {role}")
        dsn = make_conninfo(empty[0], user=role, password=f"a password with 'quotes' for {role}")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT session_user").fetchone() == (role,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(make_conninfo(empty[0], user=role, password="another password")).close()
    with psycopg.connect(empty[0]) as connection:
        rows = connection.execute(
            "SELECT rolpassword LIKE 'SCRAM-SHA-256$%%', rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls"
            " FROM pg_authid WHERE rolname = ANY (%s)",
            [list(ROLES)],
        ).fetchall()
    assert rows == [(True, False)] * len(ROLES)


@pytest.mark.parametrize(("role", "password"), [("postgres", "long enough to pass"), (ROLES[0], "pw-1")])
def test_only_our_roles_get_a_password_and_no_short_one(empty: list[str], role: str, password: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        set_role_password(empty[0], role, password)
    assert password not in str(caught.value)


def test_a_database_that_does_not_answer_is_a_transient_error(empty: list[str]) -> None:
    port = free_port()
    try:
        with pytest.raises(DatabaseUnavailable):
            upgrade(make_conninfo(empty[0], port=port))
    finally:
        release_port(port)
