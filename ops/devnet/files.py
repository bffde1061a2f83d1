"""Files of launched parts: private secrets, and directories that another user may pass through."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path


def part_directory(prefix: str) -> Path:
    """Makes a temporary directory that other users may pass through but not list (mode 0711).

    PostgreSQL refuses to run as root, so its files lie in directories that its user must be able to enter.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o711)
    return path


def let_pass(path: Path) -> None:
    """Lets other users pass through a directory; whatever else they may do there stays as it is.

    It may be somebody's: taking rights away from /tmp or a home directory stops what others do there.
    """
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only we can read (mode 0600), replacing what was there in one step."""
    building = path.with_name(path.name + ".new")
    building.unlink(missing_ok=True)
    with os.fdopen(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    building.rename(path)


def kept_password(path: Path) -> str:
    """Returns the password kept in a private file; makes a random one of 192 bits where there is none."""
    return kept(path, secrets.token_urlsafe(24))


def kept_pin(path: Path) -> str:
    """Returns the PIN kept in a private file; makes a random one of 16 digits where there is none."""
    return kept(path, "".join(secrets.choice("0123456789") for _ in range(16)))


def kept(path: Path, fresh: str) -> str:
    """Returns what a private file holds; writes `fresh` into it where there is none."""
    if not path.exists():
        write_private(path, fresh)
    return path.read_text()
