"""A small disk of its own that can be filled to the last byte: what runs on it meets a real ENOSPC."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 64 * 1024


class NoMounts(Exception):
    """This machine lets nobody like us mount anything, as in a container without the capability."""


class SmallVolume:
    """A mounted tmpfs.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Write until there is no space left; again fills what has become free."""
        size = _CHUNK
        with self._ballast.open("ab", buffering=0) as file:
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink(missing_ok=True)


def _privileged(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root: as we are, or by sudo without a question."""
    before = () if os.geteuid() == 0 else ("sudo", "-n")
    return subprocess.run([*before, *words], capture_output=True, text=True, check=False)


@contextmanager
def small_volume(path: Path, megabytes: int) -> Iterator[SmallVolume]:
    """Mount a volume of so many megabytes; whatever runs on it must have ended before this does.

    Raises:
        NoMounts: neither this process nor sudo may mount anything.
    """
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0755,uid={os.geteuid()},gid={os.getegid()}"
    try:
        done = _privileged("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path))
    except FileNotFoundError as error:
        raise NoMounts(f"{error.filename} is missing") from None
    if done.returncode != 0:
        raise NoMounts(f"mount: {done.stderr.strip()}")
    try:
        yield SmallVolume(path)
    finally:
        done = _privileged("umount", str(path))
        assert done.returncode == 0, done.stderr
