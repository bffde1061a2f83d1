"""What the verifier keeps: one SQLite file of its own, of which every change is on disk before anybody is told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from signers.errors import BadConfiguration

STATE_FILE: Final = "state.sqlite"
FORMAT: Final = 3
"""What the file's `user_version` says. Another format is not read: everything in it can be learnt again."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS roots (one INTEGER PRIMARY KEY CHECK (one = 1), root BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS bundles (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, signed BLOB NOT NULL);
-- Bundles of the quorum before they are in force; the last one counts.
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, signed BLOB NOT NULL, since INTEGER NOT NULL);

-- Each chain as the own node has shown it: the last blocks, and how far it was read.
CREATE TABLE IF NOT EXISTS cursors (
    chain TEXT PRIMARY KEY, height INTEGER NOT NULL, hash TEXT NOT NULL, anchor INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (
    chain TEXT NOT NULL, height INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (chain, height));
-- Single-use resources of open transactions. sought: the next lower block to be read for an older use, null: none;
-- down to the first block that says it is from before `since`.
CREATE TABLE IF NOT EXISTS watched (
    chain TEXT NOT NULL, resource TEXT NOT NULL, sought INTEGER, since INTEGER NOT NULL,
    PRIMARY KEY (chain, resource));
CREATE TABLE IF NOT EXISTS uses (
    chain TEXT NOT NULL, resource TEXT NOT NULL, content TEXT NOT NULL, succeeded INTEGER NOT NULL,
    height INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (chain, resource));
-- Receipts that were found; forgotten when their block is undone.
CREATE TABLE IF NOT EXISTS proofs (
    chain TEXT NOT NULL, resource TEXT NOT NULL, script BLOB NOT NULL, height INTEGER NOT NULL, hash TEXT NOT NULL,
    arrival BLOB NOT NULL, PRIMARY KEY (chain, resource));

-- What transactions moved, of those that are said to have paid out of a vault; forgotten when their block is undone.
CREATE TABLE IF NOT EXISTS spendings (
    chain TEXT NOT NULL, txid TEXT NOT NULL, height INTEGER NOT NULL, hash TEXT NOT NULL, moved BLOB NOT NULL,
    PRIMARY KEY (chain, txid));
-- What an output or a Safe's nonce has paid: one thing each. owner: the reference of its bookings.
CREATE TABLE IF NOT EXISTS paid (
    chain TEXT NOT NULL, resource TEXT NOT NULL, owner TEXT NOT NULL, customer TEXT NOT NULL,
    PRIMARY KEY (chain, resource));
CREATE INDEX IF NOT EXISTS paid_customer ON paid (customer);

CREATE TABLE IF NOT EXISTS places (
    signer TEXT PRIMARY KEY, journal TEXT NOT NULL, number INTEGER NOT NULL, head TEXT NOT NULL,
    broken TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS logs (
    signer TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, what TEXT NOT NULL, body BLOB NOT NULL,
    head TEXT NOT NULL, PRIMARY KEY (signer, number));
CREATE TABLE IF NOT EXISTS payments (
    signer TEXT NOT NULL, number INTEGER NOT NULL, chain TEXT NOT NULL, content TEXT NOT NULL, keyset TEXT NOT NULL,
    intent TEXT NOT NULL, asset TEXT NOT NULL, units TEXT NOT NULL, destination TEXT NOT NULL, customer TEXT NOT NULL,
    PRIMARY KEY (signer, number, intent));
CREATE INDEX IF NOT EXISTS payments_customer ON payments (customer);
CREATE INDEX IF NOT EXISTS payments_intent ON payments (intent);
CREATE INDEX IF NOT EXISTS payments_content ON payments (chain, content);
CREATE TABLE IF NOT EXISTS resolutions (
    chain TEXT NOT NULL, content TEXT NOT NULL, resource TEXT NOT NULL, outcome TEXT NOT NULL,
    height INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (chain, content, resource));
CREATE TABLE IF NOT EXISTS verdicts (
    intent TEXT PRIMARY KEY, withdrawal TEXT NOT NULL, customer TEXT NOT NULL, asset TEXT NOT NULL,
    units TEXT NOT NULL, expires_at INTEGER NOT NULL);

-- Which transactions verdicts were given for, a row each time; marked elsewhere (`bound.py`). began: since when all of
-- it is known, 0: from the first day, null: nobody has asked yet; verifiers: whose verdicts those are.
CREATE TABLE IF NOT EXISTS memory (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, began INTEGER, verifiers TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bound (
    number INTEGER PRIMARY KEY, intent TEXT NOT NULL, chain TEXT NOT NULL, wallet TEXT NOT NULL,
    content TEXT NOT NULL, expires_at INTEGER NOT NULL, head TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS bound_intent ON bound (intent);
CREATE TABLE IF NOT EXISTS bound_resources (
    chain TEXT NOT NULL, content TEXT NOT NULL, resource TEXT NOT NULL, PRIMARY KEY (chain, content, resource));

CREATE TABLE IF NOT EXISTS findings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, state TEXT NOT NULL, finding BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS findings_stay BEFORE UPDATE ON findings
    BEGIN SELECT RAISE(ABORT, 'findings are append-only'); END;
CREATE TRIGGER IF NOT EXISTS findings_stay_there BEFORE DELETE ON findings
    BEGIN SELECT RAISE(ABORT, 'findings are append-only'); END;
"""


class State:
    """The file, opened. Threads may share it: one works at a time.

    Args:
        path: made if missing; its directory must be there.

    Raises:
        BadConfiguration: it cannot be opened, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._sql = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "locking_mode = EXCLUSIVE"):
                self._sql.execute(f"PRAGMA {pragma}")
            [(found,)] = self._sql.execute("PRAGMA user_version").fetchall()
            [(tables,)] = self._sql.execute("SELECT count(*) FROM sqlite_master").fetchall()
            if tables and found != FORMAT:
                self._sql.close()
                raise BadConfiguration(
                    f"state {path} is of format {found}, this is {FORMAT}: move it away, and all is read anew"
                )
            self._sql.executescript(f"{_SCHEMA}\nPRAGMA user_version = {FORMAT};")
        except (OSError, sqlite3.Error) as error:
            raise BadConfiguration(f"state {path}: {error} (one verifier at a time uses it)") from None

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._sql.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """All writes within happen together, on disk before it ends, or not at all. May be nested."""
        with self._lock:
            if self._sql.in_transaction:
                yield
                return
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._sql.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, None without any."""
        with self._lock:
            found: tuple[Any, ...] | None = self._sql.execute(query, values).fetchone()
            return found

    def write(self, statement: str, *values: Any) -> int:
        """Writes at once, or with the `change` it is in; returns how many rows."""
        with self.change():
            return self._sql.execute(statement, values).rowcount

    def write_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Writes many rows alike."""
        with self.change():
            self._sql.executemany(statement, values)
