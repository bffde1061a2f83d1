"""Files on media that know no hard links (memory sticks), beside those of `signers.process.files`."""

from __future__ import annotations

import os
from pathlib import Path

from signers.errors import CeremonyStopped
from signers.process.files import write_new


def write_exclusive(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 and wait for the disk. Raises CeremonyStopped: it exists, or can't be written."""
    try:
        _write(path, content, os.O_EXCL)
        _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}; nothing there is overwritten") from None


def write_replacing(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in the place of another, whole or not at all. Raises CeremonyStopped."""
    temporary = path.with_name(path.name + ".new")
    try:
        _write(temporary, content, os.O_TRUNC)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}") from None


def write_last(path: Path, content: bytes) -> None:
    """Write the key-set's own file, whole or not at all; with it there is a key-set. Raises FileExistsError."""
    write_new(path, content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _give_away(descriptor, path.parent)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises CeremonyStopped."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _sync_directory(path.parent)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {error.strerror}") from None


def _write(path: Path, content: bytes, how: int) -> None:
    """Fill a file that is made now (O_EXCL) or emptied first (O_TRUNC), and wait for the disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        _give_away(descriptor, path.parent)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _give_away(descriptor: int, directory: Path) -> None:
    """What root writes belongs to whose directory it is: else the signer, another user, could not read it."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
