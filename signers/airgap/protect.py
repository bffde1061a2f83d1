"""What the machine must not do to the process that holds a key, and what the holder should know of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path
from typing import Final

from signers.airgap.errors import Unsafe

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_LOCK_ALL_WHEN_TOUCHED: Final = 1 | 2 | 4
"""MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT."""
CARDS: Final = Path("/proc/self/net/dev")
"""Network cards that this process can see: two lines of words, then a card a line (proc(5))."""
STATES: Final = Path("/sys/class/net")


def protect_process() -> None:
    """No core dumps, no debugger, no new privileges, private files; no swapping, where the system allows that.

    Raises:
        Unsafe: the kernel refused to keep others out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise Unsafe("the kernel does not protect this process: run it on a plain Linux machine")
    os.umask(0o077)
    with contextlib.suppress(ValueError):
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        libc.mlockall(_LOCK_ALL_WHEN_TOUCHED)


def networks_up(cards: Path = CARDS, states: Path = STATES) -> tuple[str, ...]:
    """Names of the network cards that are on, which on an offline machine there are none of."""
    try:
        lines = cards.read_text().splitlines()[2:]
    except OSError:
        return ()
    names = sorted(line.partition(":")[0].strip() for line in lines)
    return tuple(name for name in names if name != "lo" and _is_up(states.joinpath(name, "operstate")))


def _is_up(state: Path) -> bool:
    try:
        return state.read_text().strip() in ("up", "unknown", "dormant")
    except OSError:
        return False


def swap_in_use(table: Path = Path("/proc/swaps")) -> bool:
    """Whether memory may be written to a disk."""
    try:
        return len(table.read_text().splitlines()) > 1
    except OSError:
        return False
