"""`DATABASE_URL`: the stack on a PostgreSQL that somebody else runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ops.demo import arrivals
from ops.demo.world import World
from ops.devnet.errors import DevnetError
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.stack.stack import Stack


@pytest.fixture
def theirs() -> Iterator[EmbeddedPostgres]:
    """A server that the stack neither starts nor stops."""
    server = EmbeddedPostgres(part_directory("strongroom-theirs-") / "postgres", durability=Durability.FAST)
    with server:
        server.create_database("bank")
        yield server
    server.remove()


@pytest.fixture
def directory() -> Iterator[Path]:
    made = part_directory("strongroom-e2e-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_a_deposit_is_credited_in_a_database_that_somebody_else_runs(
    theirs: EmbeddedPostgres, directory: Path
) -> None:
    url = theirs.superuser_dsn("bank")
    stack = Stack(directory, database_url=url)
    with stack, World.of(stack) as world:
        for step in (arrivals.service, arrivals.customers, arrivals.addresses, arrivals.deposit_confirmed):
            step(world)
        assert world.reconcile()["ok"] is True
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM deposits WHERE state = 'credited'").fetchone() == (1,)

    with pytest.raises(DevnetError, match="began with another database"):
        Stack(directory).up()
    stack.remove()
    with pytest.raises(DevnetError, match="is not empty"), Stack(directory, database_url=url):
        pass
    stack.remove()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "no connection string"),
        ("postgresql://user@127.0.0.1:5432", "names no database"),
        ("postgresql://user@127.0.0.1:1/bank", "does not answer"),
    ],
)
def test_a_wrong_database_url_is_said_before_anything_starts(directory: Path, url: str, said: str) -> None:
    with pytest.raises(DevnetError, match=said):
        Stack(directory, database_url=url).up()
