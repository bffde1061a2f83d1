"""Files that are there whole or not at all, and files that people write."""

from __future__ import annotations

import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from signers.errors import BadConfiguration, SealBroken

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


def give(directory: Path, user: str) -> None:
    """Give a directory and the files in it to a user, and let nobody else into it. Again changes nothing.

    Raises:
        BadConfiguration: no such user, or this process may not.
    """
    try:
        entry = pwd.getpwnam(user)
        for path in (directory, *directory.iterdir()):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
        os.chmod(directory, 0o700)
    except KeyError:
        raise BadConfiguration(
            f"there is no user {user!r} on this machine: make it, or write another"
        ) from None
    except PermissionError as error:
        raise BadConfiguration(
            f"{directory} can't be given to {user}: {error.strerror}; run it as root"
        ) from None


def read_kept(path: Path, kind: type[_T]) -> _T:
    """Read what `write_new` wrote as JSON. Raises SealBroken where it is missing or malformed."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise SealBroken(f"{path} is missing: create the key-set first, or restore the file") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise SealBroken(f"{path}: {error}") from None


def read_toml(path: Path, kind: type[_T], what: str, *, readers: Literal["anybody", "owner"]) -> _T:
    """Read a file that people write.

    Args:
        path: the file.
        kind: a msgspec Struct.
        what: it is, for the message.
        readers: `owner`: it holds secrets, so it must not be open to other users.

    Raises:
        BadConfiguration: says which file and what is wrong with it.
    """
    try:
        if readers == "owner" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadConfiguration(f"{what} {path} is open to other users, and holds secrets: chmod 600 it")
        return msgspec.convert(tomllib.loads(path.read_text()), kind)
    except OSError as error:
        raise BadConfiguration(f"{what} {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{what} {path}: {error}") from None
