"""The clock and the journal together: the journal notes the time each minute, and why signing is suspended."""

from __future__ import annotations

from typing import Final

from signers.book import Book
from signers.clock import ClockNote, SteadyClock
from signers.errors import ClockUnsteady
from signers.journal import Journal

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
