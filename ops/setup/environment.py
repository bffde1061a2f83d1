"""The virtual environment `.venv/`: made without ensurepip if need be, filled from hash-pinned locks."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from ops.setup.console import SetupError, run, say, with_retries
from ops.setup.debs import SYSTEM_STATUS, extract, private_apt

_OLDEST_PYTHON = (3, 11)
_ADVICE = (
    "The package index did not give it. Check the network and pip's own configuration (`pip config list`), "
    "then run the same command again."
)


def provide_environment(root: Path) -> None:
    """Makes `.venv/` and installs the locked packages and the checkout itself into it.

    Raises:
        SetupError: Python is too old, or a package could not be had or has another hash.
    """
    if sys.version_info < _OLDEST_PYTHON:
        raise SetupError(f"this is Python {sys.version.split()[0]}; Strongroom needs 3.11 or newer")
    python = root / ".venv/bin/python"
    if not _works(python):
        say("making .venv/")
        # Debian puts ensurepip into a package of its own (python3-venv); venv itself is always there.
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", root / ".venv"], advice=_ADVICE)
    _provide_installer(root, python)
    say("installing the locked Python packages into .venv/")
    _install(root, python, ["--no-build-isolation", "--require-hashes", "-r", root / "requirements-dev.lock"])
    _install(root, python, ["--no-build-isolation", "--no-deps", "-e", root])


def _works(python: Path) -> bool:
    try:
        run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], advice="")
    except SetupError:
        return False
    return True


def _provide_installer(root: Path, python: Path) -> None:
    """Installs uv, pip and the build backends; pip's first copy comes from Python or from Debian."""
    with tempfile.TemporaryDirectory(prefix="strongroom-pip-") as name:
        pip = _first_pip(python, Path(name))
        lock = root / "requirements-setup.lock"
        words: list[str | Path] = [
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            lock,
        ]
        with_retries(lambda: run([python, pip, *words], advice=_ADVICE), what="installing uv")


def _first_pip(python: Path, scratch: Path) -> Path:
    """Returns a path that Python can run as pip: a wheel is one, its `pip` directory inside."""
    installed = _where_is(python, "pip")
    if installed is not None:
        return installed
    bundled = _where_is(python, "ensurepip")
    wheels = sorted(bundled.glob("_bundled/pip-*.whl")) if bundled is not None else []
    if not wheels:
        say("fetching pip from Debian, for this Python has no ensurepip")
        with private_apt(status=SYSTEM_STATUS) as apt:
            apt.update()
            extract(apt.download(["python3-pip-whl"]), scratch / "pip")
        wheels = sorted((scratch / "pip").glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise SetupError("no pip found: apt-get install python3-venv, then run the same command again")
    return wheels[-1] / "pip"


def _where_is(python: Path, module: str) -> Path | None:
    """The directory of a package of that Python, or None where there is no such package."""
    program = (
        f"import importlib.util as u; found = u.find_spec({module!r}); print(found.origin if found else '')"
    )
    origin = run([python, "-c", program], advice=_ADVICE).strip()
    return Path(origin).parent if origin else None


def _install(root: Path, python: Path, words: list[str | Path]) -> None:
    """Installs with uv; where uv cannot reach the index that pip is configured for, with pip."""
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(root / ".venv")}
    if not os.access(Path.home(), os.W_OK):
        env["UV_CACHE_DIR"] = str(root / ".cache/uv")
    uv: list[str | Path] = [root / ".venv/bin/uv", "pip", "install", "--quiet", "--python", python]
    try:
        # uv leaves its locks of builds where temporary files are.
        with tempfile.TemporaryDirectory(prefix="strongroom-uv-") as scratch:
            run([*uv, *words], advice=_ADVICE, env={**env, "TMPDIR": scratch})
    except SetupError as error:
        say(f"uv could not install them, trying pip: {str(error).strip().splitlines()[1:2]}")
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        with_retries(lambda: run([*pip, *words], advice=_ADVICE), what="installing the packages")
