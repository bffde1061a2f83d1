"""Work that was given to the journal's writer, and when its outcome may be used and told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from signers.journal.book import Book

_T = TypeVar("_T")


class Written(Generic[_T]):
    """One piece of work, and the thread that waits for it.

    It is *decided* once it has run: nobody can change its outcome any more, but a crash still undoes it. It is
    *settled* once all that it saw and recorded is on both disks. What follows from a decision may be prepared at once;
    nothing of it leaves this process before it has settled.
    """

    __slots__ = ("_decided", "_has_run", "_outcome", "_raised", "_settled", "_work")

    def __init__(self, work: Callable[[Book], _T]) -> None:
        self._work = work
        self._outcome: Any = None
        self._raised: Exception | None = None
        self._has_run = False
        self._decided, self._settled = threading.Lock(), threading.Lock()
        self._decided.acquire()
        self._settled.acquire()

    def decided(self) -> _T:
        """The outcome, once the work has run.

        Raises:
            JournalUnavailable: see `Journal.write`.
            Exception: what the work raised, but not before that has settled.
        """
        with self._decided:
            if self._raised is None:
                outcome: _T = self._outcome
                return outcome
        return self.settled()

    def settled(self) -> _T:
        """The outcome, once it may be told. Raises as `decided`."""
        with self._settled:
            if self._raised is not None:
                raise self._raised
            outcome: _T = self._outcome
            return outcome

    # For the journal only.

    def run(self, book: Book) -> None:
        """Do the work. Raises whatever leaves the journal in doubt."""
        recorded = len(book.entries)
        try:
            self._outcome = self._work(book)
        except sqlite3.Error:
            raise
        except Exception as error:
            # Only what changed nothing is an answer to this one caller; half a record ends the journal.
            if len(book.entries) != recorded:
                raise
            self._raised = error

    def decide(self) -> None:
        """It has run."""
        self._has_run = True
        self._decided.release()

    def settle(self) -> None:
        """It is on both disks; once, after `decide`."""
        self._settled.release()

    def fail(self, error: Exception) -> None:
        """It never will be; instead of `settle`, once, also before `decide`."""
        self._raised = error
        if not self._has_run:
            self.decide()
        self._settled.release()
