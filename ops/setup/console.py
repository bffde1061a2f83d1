"""What set-up says, and how it runs other programs: one line a step, details only when something fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_TAIL_LINES = 25
_T = TypeVar("_T")


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do about it."""

    worth_retrying = True
    """Whether the same step may go better in a moment."""


def say(line: str) -> None:
    """Prints one line of progress to standard error: standard output belongs to the command that follows."""
    print(f"setup: {line}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    advice: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Runs a program quietly and returns its standard output.

    Raises:
        SetupError: it could not be started or failed; the message carries the end of its output and `advice`.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=None if env is None else dict(env),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise SetupError(f"{words[0]} cannot be started: {error}\n{advice}") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        raise SetupError(f"{Path(words[0]).name} ended with {done.returncode}:\n{tail}\n{advice}")
    return done.stdout


def with_retries(step: Callable[[], _T], *, what: str, attempts: int = 3, pause_seconds: int = 3) -> _T:
    """Runs a download again when it fails, for mirrors and networks hiccup.

    Raises:
        SetupError: the last attempt failed too.
    """
    for attempt in range(1, attempts + 1):
        try:
            return step()
        except SetupError as error:
            if attempt == attempts or not error.worth_retrying:
                raise
            say(f"{what} failed, trying again ({attempt} of {attempts - 1})")
            time.sleep(pause_seconds * attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")
