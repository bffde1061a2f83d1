"""People at a real terminal (a pty): reads what a program prompts, and types what the people would."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

DEADLINE_SECONDS: Final = 120


class TerminalSession:
    """A program on a pty of its own.

    Args:
        command: and its arguments.
        env: beside this process's.
        answers: pattern of a prompt, and what is typed then, given its match and all that was shown so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        answers: Sequence[tuple[str, Callable[[re.Match[str], str], str]]],
    ) -> None:
        self._command, self._env = list(command), dict(env)
        self._answers = [(re.compile(pattern), answer) for pattern, answer in answers]
        self.shown = ""

    def run(self) -> int:
        """Run it to its end; returns its exit code. Raises TimeoutError: it waits for something unknown."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self._command,
            env={**os.environ, **self._env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        try:
            self._talk(master, process)
            return process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(master)

    def _talk(self, master: int, process: subprocess.Popen[bytes]) -> None:
        pending, deadline = "", time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 1)[0]:
                if process.poll() is not None:
                    return
                continue
            try:
                read = os.read(master, 65536).decode(errors="replace")
            except OSError:  # how Linux says that the other side has closed
                return
            self.shown += read
            pending += read
            typed = self._answer(pending)
            if typed is not None:
                pending = ""
                os.write(master, (typed + "\n").encode())
        raise TimeoutError(self.shown[-2000:])

    def _answer(self, pending: str) -> str | None:
        for pattern, answer in self._answers:
            found = pattern.search(pending)
            if found:
                return answer(found, self.shown)
        return None
