"""The signer's memory: what it has signed, attested and been told. Sign once; count everything.

SQLite with synchronous=FULL. One thread owns the connection: it takes all work that has queued, runs it in one
transaction, commits, moves the high-water mark, and only then releases any answer. So a check and its record
can't be separated, and requests in flight share one fsync.

After a failed commit the journal is closed for good: the process has to be restarted, and then tells from the
two stores what is true.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from signers.errors import JournalMismatch, JournalUnavailable, SignerStopped
from signers.guard import Examined, Exposure
from signers.mark import Mark, MarkFile
from signers.window import RollingWindow

MAX_BATCH: Final = 256
"""Most pieces of work in one commit."""
NO_HEAD: Final = bytes(32)

_T = TypeVar("_T")
_Job = tuple[Callable[["Book"], Any], "Future[Any]"]

_SCHEMA: Final = """
CREATE TABLE journal (id TEXT NOT NULL, format INTEGER NOT NULL);
CREATE TABLE batches (number INTEGER PRIMARY KEY, head BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE bundles (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE transactions (
    chain TEXT NOT NULL, txid TEXT NOT NULL, keyset TEXT NOT NULL, fee TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (chain, txid)
) WITHOUT ROWID;
CREATE TABLE intents (id TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transaction_intents (
    intent TEXT NOT NULL REFERENCES intents, chain TEXT NOT NULL, txid TEXT NOT NULL,
    PRIMARY KEY (intent, chain, txid), FOREIGN KEY (chain, txid) REFERENCES transactions
) WITHOUT ROWID;
CREATE INDEX transaction_intents_by_txid ON transaction_intents (chain, txid);
CREATE TABLE transaction_resources (
    chain TEXT NOT NULL, txid TEXT NOT NULL, resource TEXT NOT NULL,
    PRIMARY KEY (chain, txid, resource), FOREIGN KEY (chain, txid) REFERENCES transactions
) WITHOUT ROWID;
CREATE TABLE exposures (                  -- largest units and latest time of each key
    kind TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, units TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (kind, scope, key)
) WITHOUT ROWID;
CREATE INDEX exposures_by_time ON exposures (kind, scope, at);
CREATE TABLE change_marks (keyset TEXT PRIMARY KEY, highest INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attestations (
    keyset TEXT NOT NULL, branch INTEGER NOT NULL, number INTEGER NOT NULL,
    customer TEXT, asset TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (keyset, branch, number)
) WITHOUT ROWID;
"""


class Book:
    """The journal as its single writer sees it: everything recorded so far, this batch included.

    Implements `guard.JournalView`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._windows: dict[tuple[Exposure, str, int], RollingWindow] = {}
        self.entries: list[bytes] = []
        """Digests of what the running batch has recorded."""
        self.latest = self._number("SELECT max(at) FROM batches")
        """Latest time recorded; time never goes back."""
        self.signed = self._number("SELECT count(*) FROM transactions")
        """Transactions signed since the journal began."""
        self.bundle = self._bundle()
        """Highest bundle version adopted, and its digest; (0, "") before the first."""

    def _bundle(self) -> tuple[int, str]:
        row = self._sql.execute(
            "SELECT version, digest FROM bundles ORDER BY version DESC LIMIT 1"
        ).fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def _number(self, sql: str, *values: object) -> int:
        row = self._sql.execute(sql, values).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else 0

    def transaction(self, chain: str, txid: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""
        rows = self._sql.execute(
            "SELECT i.id, i.digest FROM transaction_intents t JOIN intents i ON i.id = t.intent"
            " WHERE t.chain = ? AND t.txid = ?",
            (chain, txid),
        ).fetchall()
        return dict(rows) or None

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""
        row = self._sql.execute("SELECT digest FROM intents WHERE id = ?", (intent_id,)).fetchone()
        return None if row is None else str(row[0])

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Txid and resources of every transaction journaled for an intent."""
        resources: dict[str, set[str]] = {}
        for txid, resource in self._sql.execute(
            "SELECT r.txid, r.resource FROM transaction_intents t"
            " JOIN transaction_resources r ON r.chain = t.chain AND r.txid = t.txid WHERE t.intent = ?",
            (intent_id,),
        ):
            resources.setdefault(txid, set()).add(resource)
        return [(txid, frozenset(found)) for txid, found in resources.items()]

    def window(self, kind: Exposure, scope: str, seconds: int) -> RollingWindow:
        """A rolling sum, read from the tables when it is first asked for."""
        key = (kind, scope, seconds)
        if key not in self._windows:
            window = RollingWindow(seconds)
            for name, units, at in self._sql.execute(
                "SELECT key, units, at FROM exposures WHERE kind = ? AND scope = ? AND at > ? ORDER BY at",
                (kind.value, scope, self.latest - seconds),
            ):
                window.put(name, int(units), at)
            self._windows[key] = window
        return self._windows[key]

    def change_high_water(self, keyset: str) -> int:
        """Highest change index signed for a key-set, -1 if none."""
        row = self._sql.execute("SELECT highest FROM change_marks WHERE keyset = ?", (keyset,)).fetchone()
        return -1 if row is None else int(row[0])

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""
        row = self._sql.execute(
            "SELECT customer, asset FROM attestations WHERE keyset = ? AND branch = ? AND number = ?",
            (keyset, branch, index),
        ).fetchone()
        return None if row is None else (row[0], str(row[1]))

    def record_transaction(self, examined: Examined, *, now: int) -> None:
        """Record what is about to be signed: intents, unsigned hash, outpoints, amounts, fee, change index."""
        chain, txid, run = examined.chain, examined.txid, self._sql.execute
        self._enter("transaction", chain, txid, sorted(examined.digests.items()), now=now)
        run(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?)",
            (chain, txid, examined.keyset, str(examined.fee_sats), now),
        )
        many = self._sql.executemany
        many("INSERT INTO intents VALUES (?, ?) ON CONFLICT DO NOTHING", examined.digests.items())
        many("INSERT INTO transaction_intents VALUES (?, ?, ?)", [(i, chain, txid) for i in examined.digests])
        many(
            "INSERT INTO transaction_resources VALUES (?, ?, ?)",
            [(chain, txid, r) for r in examined.resources],
        )
        for cap in examined.caps:
            for intent_id, units in examined.payments(cap.asset):
                self._expose(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", intent_id, units, now)
        for kind in (Exposure.TIER_FEES, Exposure.CHAIN_FEES):
            self._expose(kind, examined.fee_scope(kind), examined.fee_group, examined.fee_sats, now)
        if examined.highest_change >= 0:
            run(
                "INSERT INTO change_marks VALUES (?, ?)"
                " ON CONFLICT (keyset) DO UPDATE SET highest = max(highest, excluded.highest)",
                (examined.keyset, examined.highest_change),
            )
        self.signed += 1

    def record_attestation(
        self, keyset: str, branch: int, index: int, customer: str | None, asset: str, *, now: int
    ) -> None:
        """Record that a path belongs to a customer and asset, for ever."""
        self._enter("attestation", keyset, branch, index, customer, asset, now=now)
        self._sql.execute(
            "INSERT INTO attestations VALUES (?, ?, ?, ?, ?, ?)",
            (keyset, branch, index, customer, asset, now),
        )

    def record_bundle(self, version: int, digest: str, *, now: int) -> None:
        """Record that a bundle was adopted; older ones never are again."""
        self._enter("bundle", version, digest, now=now)
        self._sql.execute("INSERT INTO bundles VALUES (?, ?, ?)", (version, digest, now))
        self.bundle = (version, digest)

    def _enter(self, what: str, *content: Any, now: int) -> None:
        if now < self.latest:
            raise SignerStopped(f"the journal is at {self.latest}; an entry of {now} would go back in time")
        self.latest = now
        self.entries.append(hashlib.sha256(msgspec.json.encode([what, now, *content])).digest())

    def _expose(self, kind: Exposure, scope: str, key: str, units: int, now: int) -> None:
        # Text, for SQLite's integers end at 2**63; so the larger one is found here, not in SQL.
        row = self._sql.execute(
            "SELECT units FROM exposures WHERE kind = ? AND scope = ? AND key = ?", (kind.value, scope, key)
        ).fetchone()
        largest = max(units, int(row[0]) if row else 0)
        self._sql.execute(
            "INSERT OR REPLACE INTO exposures VALUES (?, ?, ?, ?, ?)",
            (kind.value, scope, key, str(largest), now),
        )
        for (of, where, _), window in self._windows.items():
            if (of, where) == (kind, scope):
                window.put(key, largest, now)


class Journal:
    """The open journal and its writer thread. Open it with `Journal.open`."""

    def __init__(self, connection: sqlite3.Connection, mark: MarkFile, last: Mark) -> None:
        self._sql = connection
        self._mark = mark
        self._last = last
        self._book = Book(connection)
        self._failed: Exception | None = None
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._run, name="journal", daemon=True)
        self._writer.start()

    @classmethod
    def create(cls, path: Path, mark_path: Path) -> None:
        """Make an empty journal and its mark. Set-up calls this, once; a daemon never does.

        Raises:
            FileExistsError: one of both exists.
        """
        if path.exists() or mark_path.exists():
            raise FileExistsError(f"{path} or {mark_path} exists; a journal is never made anew")
        journal_id = os.urandom(32).hex()
        connection = _connect(path)
        os.chmod(path, 0o600)
        with connection:
            connection.executescript("BEGIN;" + _SCHEMA)
            connection.execute("INSERT INTO journal VALUES (?, 1)", (journal_id,))
            connection.execute("INSERT INTO batches VALUES (0, ?, 0)", (NO_HEAD,))
        connection.close()
        MarkFile.create(mark_path, Mark(journal=journal_id, batch=0, head=NO_HEAD.hex()))

    @classmethod
    def open(cls, path: Path, mark_path: Path) -> Journal:
        """Open the journal and compare it with the mark.

        Raises:
            JournalMismatch: one of both is missing, older than the other, or another one's.
            SignerStopped: another process has the journal open.
        """
        if not path.exists():
            raise JournalMismatch(
                f"the journal {path} is missing: without it this signer can't know what it has signed. Restore it; "
                "only set-up makes a journal, for new keys"
            )
        mark = MarkFile.open(mark_path)
        try:
            connection = _connect(path)
            try:
                return cls(connection, mark, _agreed(connection, mark, path))
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            mark.close()
            raise SignerStopped(
                f"the journal {path} can't be opened ({error}); is another signer running?"
            ) from None
        except sqlite3.DatabaseError as error:
            mark.close()
            raise JournalMismatch(f"the journal {path} is damaged ({error}); restore the file") from None
        except JournalMismatch:
            mark.close()
            raise

    def write(self, work: Callable[[Book], _T]) -> _T:
        """Run `work` in the writer; return (or raise) its outcome once everything it saw is on both disks.

        `work` first checks, then records; it must not raise after it has recorded something.

        Raises:
            JournalUnavailable: the batch could not be committed; nothing more is signed by this process.
        """
        if self._failed is not None:
            raise JournalUnavailable(f"the journal failed earlier ({self._failed}); restart the signer")
        future: Future[_T] = Future()
        self._queue.put((work, future))
        return future.result()

    @property
    def failure(self) -> Exception | None:
        """Why the journal is closed for good, None while it works."""
        return self._failed

    @property
    def waiting(self) -> int:
        """Pieces of work that have not been begun."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish queued work and close both stores."""
        self._queue.put(None)
        self._writer.join()
        self._sql.close()
        self._mark.close()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            stop = False
            while len(batch) < MAX_BATCH and not self._queue.empty():
                job = self._queue.get()
                if job is None:
                    stop = True
                    break
                batch.append(job)
            self._do(batch)
            if stop:
                return

    def _do(self, batch: list[_Job]) -> None:
        if self._failed is not None:
            for _, future in batch:
                future.set_exception(JournalUnavailable("the journal failed earlier; restart the signer"))
            return
        outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            self._sql.execute("BEGIN")
            for work, future in batch:
                outcomes.append((future, *self._outcome(work)))
            if self._book.entries:
                self._commit()
            else:
                self._sql.execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing of this batch may be released
            self._failed = error
            for _, future in batch:
                future.set_exception(JournalUnavailable(f"the journal could not be committed: {error}"))
            return
        for future, result, raised in outcomes:
            if raised is None:
                future.set_result(result)
            else:
                future.set_exception(raised)

    def _outcome(self, work: Callable[[Book], Any]) -> tuple[Any, Exception | None]:
        recorded = len(self._book.entries)
        try:
            return work(self._book), None
        except sqlite3.Error:
            raise
        except Exception as error:
            # Only what changed nothing is an answer to this one caller; half a record ends the journal.
            if len(self._book.entries) != recorded:
                raise
            return None, error

    def _commit(self) -> None:
        head = hashlib.sha256(bytes.fromhex(self._last.head) + b"".join(self._book.entries)).digest()
        number = self._last.batch + 1
        self._sql.execute("INSERT INTO batches VALUES (?, ?, ?)", (number, head, self._book.latest))
        self._sql.execute("COMMIT")
        # After the journal and before any answer: a mark that is ahead proves that signatures were forgotten.
        self._last = Mark(journal=self._last.journal, batch=number, head=head.hex())
        self._mark.write(self._last)
        self._book.entries.clear()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Takes the exclusive lock now, not at the first signature.
    connection.executescript("BEGIN IMMEDIATE; COMMIT")
    return connection


def _agreed(connection: sqlite3.Connection, mark: MarkFile, path: Path) -> Mark:
    """The journal's last batch, if the mark agrees. A crash between commit and mark leaves the mark one behind."""
    journal_id = str(connection.execute("SELECT id FROM journal").fetchone()[0])
    rows = connection.execute("SELECT number, head FROM batches ORDER BY number DESC LIMIT 2").fetchall()
    number, head = int(rows[0][0]), bytes(rows[0][1])
    heads = {int(batch): bytes(found).hex() for batch, found in rows}
    marked = mark.last

    def mismatch(what: str) -> NoReturn:
        raise JournalMismatch(
            f"{what} (journal {path}: batch {number}, mark {mark.path}: batch {marked.batch}). One of both was "
            "restored from a copy or belongs elsewhere. This signer stops, as it can't know what it has signed: "
            "put the newest copies of both back, or move the money to new keys"
        )

    if marked.journal != journal_id:
        mismatch("the high-water mark belongs to another journal")
    if marked.batch > number:
        mismatch("the journal is older than its high-water mark")
    if marked.batch not in heads:
        mismatch("the high-water mark is older than the journal")
    if heads[marked.batch] != marked.head:
        mismatch("journal and high-water mark have different histories")
    agreed = Mark(journal=journal_id, batch=number, head=head.hex())
    if agreed != marked:
        mark.write(agreed)
    return agreed
