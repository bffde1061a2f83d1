"""The signer's own time: it never goes back, and what nobody vouches for suspends signing (DESIGN section 1).

While the machine runs, its uptime vouches for the time that passes, also over restarts of the signer: a wall clock
that runs ahead of it has jumped. Over a stop of the machine nobody vouches; so a stop may last an hour, and all of
them together too, until somebody confirms the time: an officer, or the quorum with a bundle that it has just issued.
So between two confirmations no clock, however it is set, moves a window or an age by more than an hour and two minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from signers.errors import ClockUnsteady

MAX_BACK_SECONDS: Final = 5
"""A step back of up to this much is taken as standing still."""
MAX_JUMP_SECONDS: Final = 120
"""How far the wall clock may be from what the machine's uptime says, ahead or behind."""
MAX_STOP_SECONDS: Final = 3600
"""How long the signer may stand still, and the machine in all, before somebody has to confirm the time."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ClockNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a signer's clock has to know after a restart."""

    boot: str
    """Which start of the machine it was (the kernel's id); uptimes of two starts can't be compared."""
    offset: int
    """Wall clock minus uptime, in seconds, when the time was last confirmed or the machine started."""
    stopped: int = 0
    """Seconds for which no uptime vouches since the time was confirmed: stops of the machine, and for each of them what
    the clock may have been ahead before."""
    suspended: str = ""
    """Why signing is suspended, empty if it is not."""


def _uptime() -> float:
    # CLOCK_BOOTTIME also counts while the machine is suspended, and nobody can set it.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


class SteadyClock:
    """Wall-clock seconds, checked against the machine's uptime and against the latest time in the journal.

    Args:
        latest: the latest time in the journal, 0 in an empty one.
        note: the last note of a clock in the journal, None before the first.
        wall: UNIX seconds.
        uptime: seconds that only rise while the machine runs.
        boot: names the machine's present start.
    """

    def __init__(
        self,
        latest: int,
        note: ClockNote | None = None,
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = _uptime,
        boot: Callable[[], str] = _boot,
    ) -> None:
        self._wall, self._uptime, self._boot = wall, uptime, boot()
        self._lock = threading.Lock()
        self._latest = latest
        self._offset = int(wall() - uptime())
        self._stopped = 0
        self._suspended = ""
        if note is not None:
            self._go_on(note, max(0, int(wall()) - latest))

    def _go_on(self, note: ClockNote, stop: int) -> None:
        self._suspended, self._stopped = note.suspended, note.stopped
        if note.boot == self._boot:
            self._offset = note.offset
        else:
            self._stopped += stop + MAX_JUMP_SECONDS
        if self._suspended:
            return
        if stop > MAX_STOP_SECONDS:
            self._suspended = f"the signer stood still for {stop} s"
        elif self._stopped > MAX_STOP_SECONDS:
            self._suspended = f"no uptime vouches for {self._stopped} s, as the machine stood still"

    def now(self) -> int:
        """UNIX seconds, never less than before.

        Raises:
            ClockUnsteady: the clock went back, or jumped forward or stood still for long and nobody has confirmed the
                time since.
        """
        with self._lock:
            wall, expected = int(self._wall()), int(self._uptime()) + self._offset
            if wall < self._latest - MAX_BACK_SECONDS:
                raise ClockUnsteady(
                    f"the clock says {wall}, but the journal is at {self._latest} already: set the clock right"
                )
            if wall < expected - MAX_JUMP_SECONDS and not self._suspended:
                raise ClockUnsteady(
                    f"the clock fell {expected - wall} s behind: set it right, or have an officer confirm that it is "
                    "(strongroom key clock)"
                )
            if wall > expected + MAX_JUMP_SECONDS and not self._suspended:
                self._suspended = f"the clock jumped {wall - expected} s forward"
            if self._suspended:
                raise ClockUnsteady(
                    f"{self._suspended}: set the clock right, then have an officer confirm it (strongroom key clock), "
                    "or hand over a higher bundle that the quorum has just issued"
                )
            self._latest = max(self._latest, wall)
            return self._latest

    @property
    def trouble(self) -> str:
        """Why nothing is signed now because of the time; empty if that is not so."""
        try:
            self.now()
        except ClockUnsteady as error:
            return str(error)
        return ""

    def glance(self) -> int:
        """UNIX seconds for judging what officers hand over, also while suspended."""
        return max(int(self._wall()), self._latest)

    def wall(self) -> int:
        """UNIX seconds as the machine's clock has them, right or not."""
        return int(self._wall())

    def note(self) -> ClockNote:
        """What a restart has to know."""
        with self._lock:
            return ClockNote(
                boot=self._boot, offset=self._offset, stopped=self._stopped, suspended=self._suspended
            )

    def vouched(self) -> ClockNote:
        """What `note` would be after `confirm`."""
        return ClockNote(boot=self._boot, offset=int(self._wall() - self._uptime()))

    def confirm(self, note: ClockNote) -> None:
        """Take the time of a note from `vouched`, which is in the journal by now, as right."""
        with self._lock:
            self._offset, self._stopped, self._suspended = note.offset, 0, ""
