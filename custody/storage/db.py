"""Connections and transactions. Everything that touches PostgreSQL goes through `Tx`.

A transaction commits on normal exit and rolls back on any exception. Errors that a caller can act on are
translated: `DatabaseUnavailable` and `Conflict` are transient; what remains psycopg's own (unique and check
violations) is for the repository that knows the constraint, or is a bug.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from chains.errors import InvalidValue
from custody.errors import Conflict, DatabaseUnavailable

Query = LiteralString | bytes | sql.SQL | sql.Composed
Row = dict[str, Any]
Params = Sequence[Any] | Mapping[str, Any]


class _Connection(psycopg.Connection[Row]):
    """A connection that knows when it last did its work to the end."""

    used_at = 0.0  # monotonic seconds


_CONNECT_SECONDS: Final = 5
WAIT_SECONDS: Final = 5.0
"""How long a transaction waits for a connection, unless said otherwise."""
_SURELY_THERE_SECONDS: Final = 0.5
_SESSION_OPTIONS: Final = (
    # A stopped or lost process must not keep its locks for ever: its session ends, the work is taken again.
    "-c timezone=UTC -c lock_timeout=30s -c idle_in_transaction_session_timeout=60s"
)


class Isolation(StrEnum):
    """How much a transaction may see of others."""

    READ_COMMITTED = "read committed"
    """Each statement sees what was committed before it."""
    REPEATABLE_READ = "repeatable read"
    """All statements see one moment; writing what another has written since raises Conflict."""


_LEVELS: Final = {
    Isolation.READ_COMMITTED: psycopg.IsolationLevel.READ_COMMITTED,
    Isolation.REPEATABLE_READ: psycopg.IsolationLevel.REPEATABLE_READ,
}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's operational errors into ours.

    Raises:
        Conflict: deadlock, serialization failure, lock timeout, a catalogue row altered at the same moment.
        DatabaseUnavailable: no connection, lost connection, shutdown, disk full, a replica that cannot write.
    """
    try:
        yield
    except (pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable) as error:
        raise Conflict(_message(error)) from error
    except pg.InternalError_ as error:
        if "concurrently updated" in str(error):
            raise Conflict(_message(error)) from error
        raise
    except (
        psycopg.OperationalError,
        pg.ReadOnlySqlTransaction,
        pg.IdleInTransactionSessionTimeout,
        pg.TransactionTimeout,
    ) as error:
        raise DatabaseUnavailable(_message(error)) from error


def _message(error: psycopg.Error) -> str:
    return f"database: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def units(value: Decimal | int) -> int:
    """A NUMERIC(78,0) column as int.

    Raises:
        InvalidValue: it has a fraction or is no number.
    """
    if type(value) is int:
        return value
    if not isinstance(value, Decimal) or not value.is_finite() or value != value.to_integral_value():
        raise InvalidValue(f"{value!r}: expected an integer number of base units")
    return int(value)


class Tx:
    """One open transaction. Rows are dicts by column name."""

    __slots__ = ("_connection",)

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def execute(self, query: Query, params: Params | None = None) -> int:
        """Run a statement; returns how many rows it changed (what a state-guarded UPDATE must look at)."""
        return self._connection.execute(query, params).rowcount

    def one(self, query: Query, params: Params | None = None) -> Row:
        """The only row. Raises LookupError if there is none, or more than one."""
        row = self.optional(query, params)
        if row is None:
            raise LookupError("expected one row, found none")
        return row

    def optional(self, query: Query, params: Params | None = None) -> Row | None:
        """The only row, or None. Raises LookupError if there are several."""
        rows = self._connection.execute(query, params).fetchmany(2)
        if len(rows) > 1:
            raise LookupError("expected at most one row, found several")
        return rows[0] if rows else None

    def all(self, query: Query, params: Params | None = None) -> list[Row]:
        """All rows."""
        return self._connection.execute(query, params).fetchall()

    def executemany(self, query: Query, rows: Iterable[Params]) -> int:
        """Run a statement for each of `rows` (pipelined); returns how many rows were changed in all."""
        with self._connection.cursor() as cursor:
            cursor.executemany(query, rows)
            return max(cursor.rowcount, 0)

    def copy(self, query: Query, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows with `COPY table (columns) FROM STDIN`: the fastest way in, one statement for all."""
        with self._connection.cursor() as cursor, cursor.copy(query) as sink:
            for row in rows:
                sink.write_row(row)

    def copy_text(self, query: Query, chunks: Iterable[bytes]) -> None:
        """As `copy`, of rows that are in COPY's own text form already."""
        with self._connection.cursor() as cursor, cursor.copy(query) as sink:
            for chunk in chunks:
                sink.write(chunk)

    def copy_out(self, query: Query) -> Iterator[bytes]:
        """The rows of `COPY (query) TO STDOUT`, one by one, in COPY's text form, each with its newline. Nothing else
        may be asked until all of them are read."""
        with self._connection.cursor() as cursor, cursor.copy(query) as source:
            yield from map(bytes, source)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what was done inside when an exception leaves it; the transaction goes on if it is caught."""
        with self._connection.transaction():
            yield


def _told(tx: Tx, frozen: Sequence[str]) -> Tx:
    """The transaction, which knows from now on what is frozen; nothing is, as a rule."""
    if frozen:
        tx.execute("SELECT set_config('strongroom.frozen', %s, true)", [" ".join(frozen)])
    return tx


def _check(connection: _Connection) -> None:
    """A restarted server must cost a reconnect and not a failed request: ask it, which is one round trip.

    A connection that has just worked need not be asked: if it was cut since, its socket has something to say.
    """
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    if time.monotonic() - connection.used_at > _SURELY_THERE_SECONDS or socket.poll(0):
        ConnectionPool.check_connection(connection)


class Database:
    """A pool of connections for one process. Connects at first use, and anew after a fork.

    Args:
        dsn: libpq connection string or URL, with the process's own role.
        application: shown in `pg_stat_activity`.
        pool_size: most connections at once.
        wait_seconds: how long a transaction waits for a connection before DatabaseUnavailable.
        waiting_at_most: who comes when so many wait for one is told so at once; 0: all wait.
        frozen: scopes that officers have frozen, as this process has verified them; each transaction is told them
            (`frozen()` in the schema).
    """

    def __init__(
        self,
        dsn: str,
        *,
        application: str,
        pool_size: int = 8,
        wait_seconds: float = WAIT_SECONDS,
        waiting_at_most: int = 0,
        frozen: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._dsn = dsn
        self._frozen = frozen
        self._application = application
        self._pool_size = pool_size
        self._wait_seconds = wait_seconds
        self._waiting_at_most = waiting_at_most
        self._lock = threading.Lock()
        self._opened: tuple[int, ConnectionPool[_Connection]] | None = None

    def __repr__(self) -> str:
        return f"Database(application={self._application!r})"

    @contextmanager
    def transaction(self, *, isolation: Isolation = Isolation.READ_COMMITTED) -> Iterator[Tx]:
        """A transaction; commits on normal exit, rolls back on an exception.

        Raises:
            DatabaseUnavailable: also when the answer to COMMIT was lost: then it may have been committed.
            Conflict: nothing was committed; the whole transaction may be tried again.
        """
        # Asked for before a connection is taken: finding it out may need one.
        frozen = self._frozen()
        with translated_errors(), self._pool().connection() as connection:
            connection.isolation_level = _LEVELS[isolation]
            connection.read_only = None
            yield _told(Tx(connection), frozen)
            connection.used_at = time.monotonic()

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """A read-only transaction that sees one moment of the database.

        Raises:
            DatabaseUnavailable: no answer.
        """
        frozen = self._frozen()
        with translated_errors(), self._pool().connection() as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            yield _told(Tx(connection), frozen)
            connection.used_at = time.monotonic()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection of its own, outside the pool, for what belongs to a session: advisory locks.

        Raises:
            DatabaseUnavailable: no answer.
        """
        with translated_errors(), self._connect() as connection:
            yield Session(connection)

    def close(self) -> None:
        """Close all connections. Again changes nothing; later use opens anew."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pool(self) -> ConnectionPool[_Connection]:
        with self._lock:
            # Sockets and threads do not survive a fork: a child must never speak on its parent's connections.
            if self._opened is None or self._opened[0] != os.getpid():
                pool = ConnectionPool(
                    self._dsn,
                    connection_class=_Connection,
                    kwargs=self._arguments(),
                    min_size=1,
                    max_size=self._pool_size,
                    timeout=self._wait_seconds,
                    max_waiting=self._waiting_at_most,
                    reconnect_timeout=1,
                    check=_check,
                    name=self._application,
                    open=True,
                )
                self._opened = (os.getpid(), pool)
            return self._opened[1]

    @contextmanager
    def _connect(self) -> Iterator[_Connection]:
        connection = _Connection.connect(self._dsn, **self._arguments())
        try:
            yield connection
        finally:
            connection.close()

    def _arguments(self) -> dict[str, Any]:
        return {
            "application_name": self._application,
            "connect_timeout": _CONNECT_SECONDS,
            "options": _SESSION_OPTIONS,
            "row_factory": dict_row,
        }


class Session:
    """One dedicated connection. When it is lost, so are its locks, and every later call raises.

    Doing the work in the same session as the lock is the fence: a session that lost its lock cannot commit.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def try_lock(self, name: str) -> bool:
        """Take the cluster-wide lock `name` for this session, without waiting. True if it is ours now.

        Raises:
            DatabaseUnavailable: the session is lost.
        """
        with self.transaction() as tx:
            row = tx.one("SELECT pg_try_advisory_lock(hashtextextended(%s, 0)) AS taken", [name])
            return bool(row["taken"])

    @contextmanager
    def transaction(self, *, isolation: Isolation = Isolation.READ_COMMITTED) -> Iterator[Tx]:
        """As `Database.transaction`, in this session.

        Raises:
            DatabaseUnavailable: the session is lost, and its locks with it.
            Conflict: nothing was committed.
        """
        with translated_errors():
            self._connection.isolation_level = _LEVELS[isolation]
            with self._connection.transaction():
                yield Tx(self._connection)
