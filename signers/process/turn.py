"""Whose turn it is to compute: one thread at a time, so that threads wait here and not for Python's own lock.

Python lets one thread run at a time anyway, but a thread loses that lock at every call of a C library and has to win it
back. With eight requests in flight that was 40 switches of threads a signature, which cost as much time as all checks.
Whoever has the turn finds the lock free; whoever waits for it sleeps. It is for work that never waits for anything:
what waits (a disk, a token, another thread) or leaves Python's lock to others for long (OpenSSL) is done without it.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Final

LONG_BYTES: Final = 64 * 1024
"""Requests that are longer take no turn: Python's lock passes on every millisecond, so they hold up nobody."""
INPUT_BYTES: Final = 1024
"""An input to be signed takes no longer than so much of a request to be read."""
TURN: Final = threading.Lock()
"""Held for a short computation. Nobody takes it twice."""
_NONE: Final = nullcontext()


def turn_for(size: int) -> AbstractContextManager[object]:
    """The turn for computing with a request of `size` bytes; for long ones nothing."""
    return TURN if size <= LONG_BYTES else _NONE
