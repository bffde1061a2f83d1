"""Runs `strongroom key ...`, and dies by SIGKILL right before its n-th lasting step.

Lasting steps are whatever survives the process: files written, linked, replaced or removed, and keys made or
destroyed in a token. Arguments: the process to die in (`main`, or `prover`: the one that restores for the proof), n,
and the command's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_OF_FILES = ("fsync", "link", "unlink", "replace")
_OF_KEYS = ("createObject", "generateKey", "unwrapKey", "destroyObject")


def die_before(step: int) -> None:
    """Count lasting steps from now on."""
    import PyKCS11

    left = [step]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return instead

    for owner, names in ((os, _OF_FILES), (PyKCS11.Session, _OF_KEYS)):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))


def main(where: str, step: int, arguments: list[str]) -> int:
    if where == "prover":
        from signers.ceremony import proving

        run = subprocess.run

        def instead(command: list[str], **named: Any) -> Any:
            return run([sys.executable, __file__, "in-prover", str(step)], **named)

        proving.subprocess.run = instead  # type: ignore[attr-defined]
    else:
        die_before(step)
    if where == "in-prover":
        from signers.ceremony import prover

        return prover.main()
    from signers.cli.root import main as root

    return root(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
