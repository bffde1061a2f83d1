"""Files on media that know no hard links (memory sticks), beside those of `signers.files`."""

from __future__ import annotations

import os
from pathlib import Path

from signers.errors import CeremonyStopped


def write_exclusive(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 and wait for the disk. Raises CeremonyStopped: it exists, or can't be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}; nothing there is overwritten") from None


def write_replacing(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in the place of another, whole or not at all. Raises CeremonyStopped."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}") from None


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises CeremonyStopped."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}") from None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
