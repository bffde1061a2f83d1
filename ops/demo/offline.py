"""A holder of the cold tier at a machine that is never online: a process without any network, at a terminal of its own.

Here the machines are folders, and what keeps each process off the network is a namespace of the kernel's without
interfaces. Requests and signatures go in and out as pictures of QR codes.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ops.demo.record import StepFailed, expect
from ops.devnet.tools import CHECKOUT
from ops.stack.holders import Holder

Answers = Sequence[tuple[str, str]]
"""Pattern of a prompt, and what is typed then."""

_SECONDS: Final = 120
_TRIED: Final = (
    ("unshare", "--net", "--mount"),
    ("unshare", "--map-root-user", "--net", "--mount"),
)
"""For root, and for everybody else."""
_OWN_SYSFS: Final = ("sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh")
"""So that the process sees the network cards of its own namespace, which are none."""


@cache
def isolation() -> tuple[str, ...]:
    """What stands before a command so that it has no network; empty where this machine allows nobody that."""
    for command in _TRIED:
        try:
            done = subprocess.run([*command, *_OWN_SYSFS, "true"], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return (*command, *_OWN_SYSFS)
    return ()


def interfaces() -> list[str]:
    """Network interfaces that such a process sees: the loopback, which is down, and no other."""
    done = subprocess.run([*isolation(), "cat", "/proc/net/dev"], capture_output=True, text=True, check=True)
    return [line.split(":")[0].strip() for line in done.stdout.splitlines() if ":" in line]


@dataclass(frozen=True, slots=True)
class OfflineMachine:
    """A holder at the machine."""

    holder: Holder

    def run(self, *arguments: str, answers: Answers = ()) -> str:
        """Runs a verb of `strongroom-airgap`, types what it asks for, and returns what it showed.

        Raises:
            StepFailed: it refused, or asked for something unknown.
        """
        common = (
            (r"type  rehearsal  to go on:", "rehearsal"),
            (r"Enter for more", ""),
            (r"Passphrase of key \S+:", self.holder.passphrase()),
        )
        command = [*isolation(), sys.executable, "-m", "signers.airgap", "--home", str(self.holder.home)]
        code, shown = _at_terminal([*command, *arguments], self.holder.folder, (*common, *answers))
        expect(code == 0, f"{self.holder.name}: {arguments[0]} is done", code=code, shown=shown[-1500:])
        return shown


def _at_terminal(command: Sequence[str], folder: Path, answers: Answers) -> tuple[int, str]:
    """Runs a command on a pty of its own; its exit code and all that was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "TERM": "xterm",
            "LINES": "24",
            "PYTHONPATH": str(CHECKOUT),
        },
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        shown = _talk(master, process, answers)
        return process.wait(), shown.replace("\r\n", "\n")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(master)


def _talk(master: int, process: subprocess.Popen[bytes], answers: Answers) -> str:
    shown, pending, deadline = "", "", time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1)[0]:
            if process.poll() is not None:
                return shown
            continue
        try:
            read = os.read(master, 65536).decode(errors="replace")
        except OSError:  # how Linux says that the other side has closed
            return shown
        shown, pending = shown + read, pending + read
        for pattern, typed in answers:
            if re.search(pattern, pending):
                pending = ""
                os.write(master, f"{typed}\n".encode())
                break
    raise StepFailed(f"the offline machine waits for something unknown: {shown[-1500:]}")
