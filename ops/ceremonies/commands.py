"""Runs `strongroom key` as people do, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ops.demo.record import StepFailed


def key_command(arguments: Sequence[str], env: Mapping[str, str] | None = None, *, expected: int = 0) -> str:
    """What `strongroom key` printed.

    Args:
        arguments: after `key`.
        env: more environment, such as a token's settings.
        expected: exit code that it must end with.

    Raises:
        StepFailed: it ended with another one; carries what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "signers.cli", *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != expected:
        raise StepFailed(
            f"strongroom key {' '.join(arguments)} ended with {done.returncode}, not {expected}: "
            f"{done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout
