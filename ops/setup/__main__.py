"""`python3 -m ops.setup`: brings this checkout to where it can run. Again, it only looks and says nothing."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.setup.console import SetupError, say
from ops.setup.environment import provide_environment
from ops.setup.parts import provide_parts

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Sets the checkout up and returns the exit code."""
    started = time.monotonic()
    try:
        with _only_one(_ROOT / ".tools"):
            stamp, wanted = _ROOT / ".venv/.setup-stamp", _fingerprint()
            if not stamp.exists() or stamp.read_text() != wanted:
                provide_environment(_ROOT)
                stamp.write_text(wanted)
                say(f"Python packages are in place ({time.monotonic() - started:.0f} s)")
            provide_parts(_ROOT / ".tools")
    except SetupError as error:
        say(str(error))
        return 1
    except PermissionError as error:
        say(f"{error}\nAnother user set this checkout up: give it to yours, or make a clone of your own.")
        return 1
    return 0


@contextmanager
def _only_one(tools: Path) -> Iterator[None]:
    """Lets two set-ups of one checkout run one after the other."""
    tools.mkdir(exist_ok=True)
    with (tools / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """What the environment depends on: Python, the locks, the project file, and set-up itself."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix} {_ROOT}".encode())
    files = [*_ROOT.glob("requirements*.lock"), _ROOT / "pyproject.toml", *(_ROOT / "ops/setup").glob("*.py")]
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
