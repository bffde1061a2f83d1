"""A PostgreSQL that somebody else runs, in the place of the embedded one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ops.devnet.errors import DevnetError
from ops.devnet.postgres import Durability, EmbeddedPostgres

VARIABLE: Final = "DATABASE_URL"
"""Connection string of a database and of a user that may create roles and tables in it."""
_OLDEST: Final = 15
"""UNIQUE NULLS NOT DISTINCT came with PostgreSQL 15."""


class ExternalPostgres:
    """A database on a server that is not ours: we neither start nor stop it, and delete nothing of it."""

    def __init__(self, url: str) -> None:
        """Takes the connection string; `start` tries it.

        Raises:
            DevnetError: it is none, or names no database.
        """
        try:
            named = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise DevnetError(f"{VARIABLE} is no connection string of PostgreSQL: {error}") from None
        if not named.get("dbname"):
            raise DevnetError(f"{VARIABLE} names no database: end it with /NAME, an empty database of yours")
        self._url = url
        self.database = str(named["dbname"])

    def __repr__(self) -> str:
        return f"ExternalPostgres(database={self.database!r})"

    def dsn_of(self, user: str, password: str) -> str:
        """Returns a connection string of the same database for another user. Secret."""
        return make_conninfo(self._url, user=user, password=password)

    def owner_dsn(self) -> str:
        """Returns the connection string as it was given. Secret."""
        return self._url

    def start(self) -> None:
        """Asks whether it is there and new enough.

        Raises:
            DevnetError: it is not; says what to do.
        """
        try:
            with psycopg.connect(self._url, connect_timeout=10) as connection:
                version = connection.info.server_version // 10_000
        except psycopg.OperationalError as error:
            raise DevnetError(f"the database of {VARIABLE} does not answer: {error}") from None
        if version < _OLDEST:
            raise DevnetError(f"{VARIABLE}: PostgreSQL {version}; {_OLDEST} or newer is needed")

    def stop(self) -> None:
        """Changes nothing: it is not ours to stop."""

    def kill(self) -> None:
        """Raises DevnetError: it is not ours to kill."""
        raise DevnetError(f"the database of {VARIABLE} is not ours to kill")

    def close(self) -> None:
        """Changes nothing: it is not ours to stop."""

    def remove(self) -> None:
        """Changes nothing: what is in the database stays."""


class OwnPostgres(EmbeddedPostgres):
    """The embedded server, with the one database of an installation in it."""

    database = "strongroom"

    def start(self) -> None:
        """Starts the server, and makes the database at the first start."""
        super().start()
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [self.database]
            ).fetchone()
        if found is None:
            self.create_database(self.database)

    def dsn_of(self, user: str, password: str) -> str:
        """Returns a connection address of the installation's database for a user. Secret."""
        return self.dsn(user, password, self.database)

    def owner_dsn(self) -> str:
        """Returns the connection address of the database's owner. Secret."""
        return self.superuser_dsn(self.database)


def postgres_for(directory: Path, url: str | None, durability: Durability) -> ExternalPostgres | OwnPostgres:
    """Returns the server that `url` names, or an embedded one in `directory` where it is None or empty."""
    return ExternalPostgres(url) if url else OwnPostgres(directory, durability=durability)
