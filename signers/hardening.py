"""Keeps secrets of this process out of core dumps and other processes' reach (Linux)."""

from __future__ import annotations

import ctypes
import os
import resource

from signers.errors import SignerStopped

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def harden_process() -> None:
    """No core dumps, no debugger of the same user, no new privileges; new files are private.

    Raises:
        SignerStopped: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise SignerStopped(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
    os.umask(0o077)
