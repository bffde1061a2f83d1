"""The signer's memory: what it has signed, attested and been told. Sign once; count everything.

SQLite with synchronous=FULL. One thread, the writer, owns the connection: it takes all work that has queued, runs it in
one transaction and commits. A second thread moves the high-water mark, and only then releases any answer. So a check
and its record can't be separated, and requests in flight share one fsync. While a mark is on its way the writer runs
the next batch, which it commits when the mark has arrived: a mark is never more than one batch behind.

After a failed commit the journal is closed for good: the process has to be restarted, and then tells from the
two stores what is true.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from policies.statements import Freeze
from signers.errors import JournalMismatch, JournalUnavailable, SignerStopped
from signers.journal.book import Book
from signers.journal.mark import Mark, MarkFile, Marks
from signers.journal.tables import SCHEMA
from signers.journal.written import Written
from signers.process.turn import TURN

MAX_BATCH: Final = 256
"""Most pieces of work in one commit."""
CHECKPOINT_PAGES: Final = 8192
"""Pages of 4 KiB in the write-ahead log before they are copied into the file; a start after a crash reads them."""
CACHE_KIB: Final = 16 * 1024
"""Of the file that is kept in memory."""
FORMAT: Final = 6
"""Of the tables; another one is not read."""
NO_HEAD: Final = bytes(32)

_T = TypeVar("_T")
_Batch = list[Written[Any]]


class Journal:
    """The open journal and its writer thread. Open it with `Journal.open`."""

    def __init__(self, connection: sqlite3.Connection, marks: Marks, last: Mark) -> None:
        self._sql = connection
        self._marks = marks
        self._last = last
        self._book = Book(connection, last.journal)
        self._failed: Exception | None = None
        self._closed = False
        self._timed: Callable[[int], None] = lambda _: None
        self._queue: queue.SimpleQueue[Written[Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Batch, Mark | None, int] | None] = queue.SimpleQueue()
        """Batches that were committed, with their marks and when that began; without a mark if nothing was recorded."""
        self._mark_due = threading.Lock()
        """Held from a commit until its mark is on the other disk."""
        self._threads = [
            threading.Thread(target=self._run, name="journal", daemon=True),
            threading.Thread(target=self._release, name="mark", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

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
            connection.executescript("BEGIN;" + SCHEMA)
            connection.execute("INSERT INTO journal VALUES (?, ?)", (journal_id, FORMAT))
            connection.execute("INSERT INTO batches VALUES (0, ?, 0, 0)", (NO_HEAD,))
        connection.close()
        MarkFile.create(mark_path, Mark(journal=journal_id, batch=0, head=NO_HEAD.hex()))

    @classmethod
    def open(cls, path: Path, marks: Marks) -> Journal:
        """Open the journal and compare it with the mark.

        Args:
            path: the journal.
            marks: its high-water mark; closed with the journal, or if this raises.

        Raises:
            JournalMismatch: one of both is missing, older than the other, or another one's.
            SignerStopped: another process has the journal open.
        """
        try:
            return cls._opened(path, marks)
        except BaseException:
            marks.close()
            raise

    @classmethod
    def _opened(cls, path: Path, marks: Marks) -> Journal:
        if not path.exists():
            raise JournalMismatch(
                f"the journal {path} is missing: without it this signer can't know what it has signed. Restore it; "
                "only set-up makes a journal, for new keys"
            )
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path)
            return cls(connection, marks, _agreed(connection, marks, path))
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise SignerStopped(
                    f"the journal {path} can't be opened ({error}); is another signer running?"
                ) from None
            if isinstance(error, sqlite3.DatabaseError):
                raise JournalMismatch(f"the journal {path} is damaged ({error}); restore the file") from None
            raise

    @property
    def id(self) -> str:
        """Random id of this journal, 64 hex digits."""
        return self._last.journal

    def write(self, work: Callable[[Book], _T]) -> _T:
        """Run `work` in the writer; return (or raise) its outcome once everything it saw is on both disks.

        `work` first checks, then records; it must not raise after it has recorded something.

        Raises:
            JournalUnavailable: the batch could not be committed, or the journal is closed: nothing more is signed by
                this process.
        """
        return self.begin(work).settled()

    def begin(self, work: Callable[[Book], _T]) -> Written[_T]:
        """The same for a caller who has something to do while disks are written. Raises JournalUnavailable."""
        if self._failed is not None:
            raise JournalUnavailable(f"the journal failed earlier ({self._failed}); restart the signer")
        if self._closed:
            raise JournalUnavailable("the journal is closed, as the signer ends")
        written = Written(work)
        self._queue.put(written)
        return written

    def time_commits(self, told: Callable[[int], None]) -> None:
        """Have somebody told how long each commit takes, the mark included, in nanoseconds."""
        self._timed = told

    @property
    def failure(self) -> Exception | None:
        """Why the journal is closed for good, None while it works."""
        return self._failed

    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes in force at this moment; no answer to a freeze was given before it is among them."""
        return self._book.freezes()

    @property
    def waiting(self) -> int:
        """Pieces of work that have not been begun."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish queued work and close both stores. Again changes nothing."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._sql.close()
        self._marks.close()

    def _run(self) -> None:
        """What the writer does."""
        ending = False
        while not ending:
            batch = []
            work = self._queue.get()
            while work is not None:
                batch.append(work)
                if len(batch) == MAX_BATCH or self._queue.empty():
                    break
                work = self._queue.get()
            ending = work is None
            if batch:
                self._do(batch)
        self._done.put(None)

    def _do(self, batch: _Batch) -> None:
        try:
            self._check()
            with TURN:
                self._sql.execute("BEGIN")
                for written in batch:
                    written.run(self._book)
            for written in batch:
                written.decide()
            if self._book.entries:
                self._commit(batch)
            else:
                self._sql.execute("ROLLBACK")
                self._done.put((batch, None, 0))
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing of this batch may be released
            self._fail(batch, error)

    def _commit(self, batch: _Batch) -> None:
        begun, book, last = time.monotonic_ns(), self._book, self._last
        head = hashlib.sha256(bytes.fromhex(last.head) + b"".join(book.entries)).digest()
        number = last.batch + 1
        self._sql.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", (number, head, book.latest, book.signed))
        self._mark_due.acquire()
        self._check()
        self._sql.execute("COMMIT")
        book.entries.clear()
        self._last = Mark(journal=last.journal, batch=number, head=head.hex())
        self._done.put((batch, self._last, begun))

    def _check(self) -> None:
        """Raises JournalUnavailable after a failure of either thread."""
        if self._failed is not None:
            raise JournalUnavailable("the journal failed earlier; restart the signer")

    def _fail(self, batch: _Batch, error: Exception) -> None:
        if self._failed is None:
            self._failed = error
        for written in batch:
            written.fail(JournalUnavailable(f"the journal could not be committed: {error}"))

    def _release(self) -> None:
        """What the second thread does: the mark after the journal, answers after the mark, batch by batch."""
        while (done := self._done.get()) is not None:
            batch, mark, begun = done
            try:
                self._check()
                if mark is not None:
                    # After the journal: a mark that is ahead proves that signatures were forgotten.
                    self._marks.write(mark)
                    self._timed(time.monotonic_ns() - begun)
            except Exception as error:  # noqa: BLE001 - whatever it was, nothing of this batch may be released
                self._fail(batch, error)
            else:
                for written in batch:
                    written.settle()
            if mark is not None:
                self._mark_due.release()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Pages that are written often are copied into the file less often, and those that are read again are kept.
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    # Takes the exclusive lock now, not at the first signature.
    connection.executescript("BEGIN IMMEDIATE; COMMIT")
    return connection


def _agreed(connection: sqlite3.Connection, marks: Marks, path: Path) -> Mark:
    """The journal's last batch, if the mark agrees. A crash between commit and mark leaves the mark one behind."""
    journal_id, found = connection.execute("SELECT id, format FROM journal").fetchone()
    if found != FORMAT:
        raise JournalMismatch(
            f"the journal {path} has format {found}, this signer reads {FORMAT}: run the release that wrote it"
        )
    rows = connection.execute("SELECT number, head FROM batches ORDER BY number DESC LIMIT 2").fetchall()
    number, head = int(rows[0][0]), bytes(rows[0][1])
    heads = {int(batch): bytes(found).hex() for batch, found in rows}
    marked = marks.last

    def mismatch(what: str) -> NoReturn:
        raise JournalMismatch(
            f"{what} (journal {path}: batch {number}, mark {marks.where}: batch {marked.batch}). One of both was "
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
        marks.write(agreed)
    return agreed
