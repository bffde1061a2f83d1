"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from signers.errors import SealBroken

_T = TypeVar("_T")


def write_new(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 so that it is there whole or not at all, and survives a power cut.

    Raises:
        FileExistsError: it exists.
    """
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_kept(path: Path, kind: type[_T]) -> _T:
    """Read what `write_new` wrote as JSON. Raises SealBroken where it is missing or malformed."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise SealBroken(f"{path} is missing: create the key-set first, or restore the file") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise SealBroken(f"{path}: {error}") from None
