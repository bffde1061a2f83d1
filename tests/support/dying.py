"""Runs `strongroom key ...` in forks of a process that has imported everything; they die at the step that is asked for.

A fork dies by SIGKILL right before its n-th lasting step: a file written, linked, replaced or removed, a key made or
destroyed in a token. Where it is said so, not the command itself dies but the process that restores for a proof.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
_OF_FILES = ("fsync", "link", "unlink", "replace")
_OF_KEYS = ("createObject", "generateKey", "unwrapKey", "destroyObject")


class Forge:
    """The process that forks; a context manager.

    Args:
        env: beside this process's own, e.g. of a token.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, arguments: Sequence[str], where: str = "nowhere", step: int = 0) -> tuple[int, str]:
        """Exit code (minus the signal that ended it) and output of `strongroom key ARGUMENTS`.

        Args:
            arguments: of `strongroom key`; or `labels`, module, label and PIN file of a token.
            where: it dies: `main`, in the command; `prover`, in the process that restores for a proof; or `nowhere`.
            step: before which one, from 1.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([where, step, list(arguments)]) + "\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        return int(code), str(output)


def die_before(step: int) -> None:
    """Count lasting steps of this process from now on."""
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


def act(where: str, step: int, arguments: list[str]) -> int:
    """What a fork does; returns its exit code."""
    if arguments[0] == "labels":
        from signers.ceremony.hsm import key_names
        from signers.hsm.pkcs11 import Token

        module, label, pin_file = arguments[1:]
        print("\n".join(key_names(Token(Path(module), label, Path(pin_file).read_text().strip))))
        return 0
    if where == "prover":
        from signers.ceremony import proving

        run = subprocess.run

        def instead(_command: list[str], **named: Any) -> Any:
            return run([sys.executable, __file__, str(step)], **named)

        proving.subprocess.run = instead  # type: ignore[attr-defined]
    if where == "main":
        die_before(step)
    from signers.cli.root import main as root

    return root(arguments)


def fork(where: str, step: int, arguments: list[str]) -> tuple[int, str]:
    """Act in a fork, and say how it ended."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            os._exit(act(where, step, arguments))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode()


def main() -> None:
    """Fork for each line of standard input."""
    import bip_utils  # noqa: F401 - what takes long to import is imported once
    import embit.descriptor  # noqa: F401
    import shamir_mnemonic  # noqa: F401

    import signers.ceremony.rebuilding
    import signers.ceremony.session
    import signers.cli.ceremony
    import signers.cli.restore  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(fork(*json.loads(line))), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        from signers.ceremony import prover

        die_before(int(sys.argv[1]))
        sys.exit(prover.main())
    main()
