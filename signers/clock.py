"""The signer's own time: it never goes back, and a forward jump suspends signing (DESIGN section 1)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from signers.errors import ClockUnsteady

MAX_BACK_SECONDS: Final = 5
"""A step back of up to this much is taken as standing still."""
MAX_JUMP_SECONDS: Final = 120
"""How far the wall clock may run ahead of the machine's uptime clock."""


def _uptime() -> float:
    # CLOCK_BOOTTIME also counts while the machine is suspended, and nobody can set it.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Wall-clock seconds, checked against the machine's uptime and against the latest time in the journal.

    A jump that happened while the signer was not running can't be told from a long stop; a person starts it.

    Args:
        latest: the latest time in the journal.
        wall: UNIX seconds.
        uptime: seconds that only rise.
    """

    def __init__(
        self, latest: int, *, wall: Callable[[], float] = time.time, uptime: Callable[[], float] = _uptime
    ) -> None:
        self._wall, self._uptime = wall, uptime
        self._lock = threading.Lock()
        self._latest = latest
        self._offset = wall() - uptime()
        self._jumped = 0

    def now(self) -> int:
        """UNIX seconds, never less than before.

        Raises:
            ClockUnsteady: the clock went back, or jumped forward and no officer has confirmed the time since.
        """
        with self._lock:
            wall, expected = int(self._wall()), int(self._uptime() + self._offset)
            if wall < self._latest - MAX_BACK_SECONDS:
                raise ClockUnsteady(
                    f"the clock says {wall}, but the journal is at {self._latest} already: set the clock right"
                )
            if wall > expected + MAX_JUMP_SECONDS:
                self._jumped = wall - expected
            if self._jumped:
                raise ClockUnsteady(
                    f"the clock jumped {self._jumped} s forward: set it right, then hand over a new bundle "
                    "(its version must rise) to confirm the time"
                )
            self._latest = max(self._latest, wall)
            return self._latest

    def glance(self) -> int:
        """UNIX seconds for judging a new bundle, also while suspended."""
        return max(int(self._wall()), self._latest)

    def confirm(self) -> None:
        """Take the present time as right: the quorum has just signed something new."""
        with self._lock:
            self._offset = self._wall() - self._uptime()
            self._jumped = 0
