"""The clock and the journal together: the journal notes the time each minute, and why signing is suspended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue
from policies.democlock import DemoClock, check_test_networks
from signers.errors import ClockUnsteady
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.trust.clock import ClockNote, SteadyClock
from signers.trust.trust import PinnedBundle

NOTE_SECONDS: Final = 60
"""How often the journal notes the time while the signer runs."""


def last_note(journal: Journal) -> tuple[int, ClockNote | None]:
    """The latest time in the journal and the clock's last note, to start a `SteadyClock` with."""
    return journal.write(lambda book: (book.latest, book.clock_note()))


class Timekeeper:
    """Notes the time in the journal. Whoever runs a signer calls `tick` about once a second.

    Raises:
        JournalUnavailable: the journal could not be committed.
    """

    def __init__(self, clock: SteadyClock, journal: Journal) -> None:
        self._clock, self._journal = clock, journal
        self._noted = 0
        self.tick()

    def tick(self) -> None:
        """Note the time if a minute has passed, and at once if signing was suspended since the last note.

        While it is suspended, the journal's time stands still.

        Raises:
            JournalUnavailable: the journal could not be committed.
        """
        try:
            now = self._clock.now()
        except ClockUnsteady:
            self._journal.write(self._note_suspension)
            return
        if now >= self._noted + NOTE_SECONDS:
            self._journal.write(lambda book: book.record_time(self._clock.note(), now=max(now, book.latest)))
            self._noted = now

    def _note_suspension(self, book: Book) -> None:
        note, before = self._clock.note(), book.clock_note()
        if note.suspended and (before is None or before.suspended != note.suspended):
            book.record_time(note, now=book.latest)


class TrialWall:
    """The wall clock of a trial that is shown to people: a demonstration may set it forward (`policies.democlock`).

    The clock's own checks stay: a step forward suspends the signer until an officer confirms it. Under a bundle with a
    network that is no local test network it is the machine's clock again, which is then behind, so nothing is signed.
    """

    def __init__(self, path: Path) -> None:
        self._demo = DemoClock(path)
        self._trust: PinnedBundle | None = None

    def watch(self, trust: PinnedBundle) -> None:
        """Go by these networks. Raises InvalidValue if one of them is no local test network now."""
        check_test_networks(trust.present)
        self._trust = trust

    def __call__(self) -> float:
        """UNIX seconds."""
        if self._trust is not None:
            try:
                check_test_networks(self._trust.present)
            except InvalidValue:
                return time.time()
        return self._demo()
