"""`strongroom migrate` on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from custody.storage.command import OWNER_VARIABLE, main
from custody.storage.migrate import ROLES
from ops.devnet.postgres import EmbeddedPostgres

PASSWORD = "twelve or more"


@pytest.fixture
def empty(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """The owner's connection string of a database without tables, as the command finds it."""
    postgres.create_database("to_migrate")
    dsn = postgres.superuser_dsn("to_migrate")
    monkeypatch.setenv(OWNER_VARIABLE, dsn)
    return dsn


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    for role in ROLES:
        (tmp_path / f"{role}.password").write_text(PASSWORD + "\n")
    return tmp_path


def test_an_empty_database_gets_its_schema_and_every_role_can_log_in(
    empty: str, passwords: Path, postgres: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        for _ in range(2):
            assert main(["--passwords", str(passwords)]) == 0
        assert PASSWORD not in capsys.readouterr().out
        for role in ROLES:
            with psycopg.connect(make_conninfo(empty, user=role, password=PASSWORD)) as connection:
                assert connection.execute("SELECT count(*) FROM deposits").fetchone() == (0,)

        (passwords / f"{ROLES[-1]}.password").unlink()
        assert main(["--passwords", str(passwords)]) == 2
        assert ROLES[-1] in capsys.readouterr().err
    finally:
        postgres.drop_database("to_migrate")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(OWNER_VARIABLE, raising=False)
    assert main([]) == 2
    assert OWNER_VARIABLE in capsys.readouterr().err
    monkeypatch.setenv(OWNER_VARIABLE, "postgresql://nobody@127.0.0.1:1/none")
    assert main([]) == 3
