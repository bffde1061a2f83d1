"""Brings a database to the present schema, makes the roles, and keeps `lifecycle_edges` equal to the code."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg import sql

from chains.errors import InvalidValue
from custody.deposits.lifecycle import DEPOSIT
from custody.ledger.lifecycle import HOLD
from custody.screening.lifecycle import CASE
from custody.signing.lifecycle import TRANSACTION
from custody.signing.sessions.lifecycle import SIGNING
from custody.storage.db import translated_errors
from custody.sweeps.lifecycle import SWEEP
from custody.treasury.lifecycle import REFILL
from custody.whitelist.lifecycle import WHITELIST
from custody.withdrawals.lifecycle import WITHDRAWAL

ROLES: Final = ("strongroom_api", "strongroom_monitor", "strongroom_worker", "strongroom_read")
"""One login role per kind of process; made without a password, so none can log in until it is given one."""

LIFECYCLES: Final = (DEPOSIT, TRANSACTION, SIGNING, WITHDRAWAL, SWEEP, REFILL, HOLD, CASE, WHITELIST)

_MIGRATION_LOCK: Final = zlib.crc32(b"strongroom migration")
_alembic = threading.Lock()  # its `context` is one for the whole process


def upgrade(dsn: str) -> None:
    """Create or upgrade the schema in one transaction. Again changes nothing.

    Safe when several processes do so at once, on one database or on several databases of one cluster.

    Args:
        dsn: libpq connection string or URL of a user that may create roles and tables.

    Raises:
        DatabaseUnavailable: no answer.
    """
    with translated_errors(), _alembic:
        _ensure_roles(dsn)
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=sqlalchemy.NullPool
        )
        with engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _sync_edges(driver)


def set_role_password(dsn: str, role: str, password: str) -> None:
    """Give one of `ROLES` its password. Only the SCRAM verifier (RFC 5803) is sent to the server.

    Args:
        dsn: connection string of a user that may alter roles.
        role: one of `ROLES`.
        password: at least 12 characters.

    Raises:
        InvalidValue: no such role, or a short password.
        DatabaseUnavailable: no answer.
        Conflict: somebody altered the role at the same moment.
    """
    if role not in ROLES:
        raise InvalidValue(f"role {role!r}: expected one of {', '.join(ROLES)}")
    if len(password) < 12:
        raise InvalidValue(f"the password of {role} is shorter than 12 characters")
    with translated_errors(), psycopg.connect(dsn, autocommit=True) as connection:
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
        )


def edges() -> frozenset[tuple[str, str, str]]:
    """All (lifecycle, from, to) of the code, as `lifecycle_edges` must hold them."""
    return frozenset((cycle.name, a, b) for cycle in LIFECYCLES for a, b in cycle.edges())


def _ensure_roles(dsn: str) -> None:
    # In transactions of their own: roles belong to the whole cluster, and another database's migration
    # would otherwise wait for the end of this one.
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            # Looked up first: a user without CREATEROLE can migrate where an administrator made the roles.
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                continue
            try:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(
                        sql.Identifier(role)
                    )
                )
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                continue  # made by another migration since we looked


def _sync_edges(connection: psycopg.Connection) -> None:
    # At every upgrade, not only in the revision: the code's tables are the truth and change with the code.
    wanted = edges()
    found = frozenset(connection.execute("SELECT lifecycle, from_state, to_state FROM lifecycle_edges"))
    with connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM lifecycle_edges WHERE lifecycle = %s AND from_state = %s AND to_state = %s",
            sorted(found - wanted),
        )
        cursor.executemany("INSERT INTO lifecycle_edges VALUES (%s, %s, %s)", sorted(wanted - found))
