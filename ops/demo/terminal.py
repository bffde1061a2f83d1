"""The commands that people type, run as they would be at the host of a stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from custody.console.settings import FILE_VARIABLE as CLIENT_VARIABLE
from ops.demo.record import StepFailed
from ops.stack import config
from ops.stack.stack import Stack

_SECONDS = 120


class Terminal:
    """`strongroom` as people run it beside a stack that is up."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    @property
    def directory(self) -> Path:
        """Of the stack."""
        return self._stack.directory

    def approver_key(self, name: str) -> Path:
        """The private key of one of the trial's approvers."""
        for person in self._stack.trust.quorum.approvers:
            if person.id == name:
                return person.key_file
        raise LookupError(f"the trial has no approver {name}")

    def officer_options(self, number: int) -> tuple[str, ...]:
        """How one of the officers says who he is."""
        officer = self._stack.trust.quorum.officers[number]
        return "--officer", officer.id, "--key", str(officer.key_file)

    def json(self, *arguments: str, caller: str = "operator") -> Any:
        """What a verb prints with `--json`. Raises StepFailed if it refuses."""
        done = self.run(*arguments, "--json", caller=caller)
        if done.returncode != 0:
            told = (done.stderr or done.stdout).strip()
            raise StepFailed(f"strongroom {' '.join(arguments[:2])} exited {done.returncode}: {told}"[:1000])
        return json.loads(done.stdout)

    def run(self, *arguments: str, caller: str = "operator") -> subprocess.CompletedProcess[str]:
        """Run a verb and wait for it."""
        shell = config.variables(self._stack) | {
            CLIENT_VARIABLE: str(config.client_file(self.directory, caller)),
            "PATH": os.environ.get("PATH", ""),
        }
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *arguments],
            env={**os.environ, **shell},
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
