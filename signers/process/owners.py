"""Whose files a signer starts with: what others can read is no secret, what others can write is no memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from signers.config import SignerConfig
from signers.errors import BadConfiguration

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


def check_files(config: SignerConfig) -> None:
    """Check owners and modes of everything that this process relies on, as the user that it is by now.

    Raises:
        BadConfiguration: names the file and says what to do.
    """
    directory = Path(config.directory)
    for place in (directory, config.log_path.parent):
        check_directory(place)
        # A trial may lie anywhere, also where a user's group may write.
        if config.environment == "production":
            check_above(place)
    for path in sorted(directory.iterdir()):
        if not path.is_dir():
            check_private(path)
    secrets = [section.pin_file for section in config.tokens.values()]
    for name in (*secrets, config.listen.private_key):
        if name is not None:
            check_private(Path(name))


def check_private(path: Path) -> None:
    """A file of this user (or root's) that nobody else can read. Raises BadConfiguration."""
    found = _stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise BadConfiguration(f"{path} is no plain file: put the file itself there")
    _check_owner(path, found)
    if found.st_mode & _OTHERS:
        raise BadConfiguration(f"{path} is open to other users: chmod 600 it")


def check_directory(path: Path) -> None:
    """A directory of this user, which nobody else can enter. Raises BadConfiguration."""
    found = _stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise BadConfiguration(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise BadConfiguration(
            f"{path} belongs to user {found.st_uid}, this signer is {os.geteuid()}: chown it"
        )
    if found.st_mode & _OTHERS:
        raise BadConfiguration(f"{path} is open to other users: chmod 700 it")


def check_configuration(path: Path) -> None:
    """The configuration's own file: nobody but root and its reader can change it. Raises BadConfiguration."""
    found = _stat(path)
    _check_owner(path, found)
    if found.st_mode & _WRITABLE:
        raise BadConfiguration(f"{path} can be written by other users: chmod go-w it")


def check_above(path: Path) -> None:
    """The directories above one: nobody but root and this user can put another in its place.

    Raises:
        BadConfiguration: names the directory.
    """
    for parent in path.resolve().parents:
        found = _stat(parent)
        sticky = bool(found.st_mode & stat.S_ISVTX)
        if found.st_mode & _WRITABLE and not sticky:
            raise BadConfiguration(f"{parent} can be written by other users: chmod go-w it")
        if found.st_uid not in (0, os.geteuid()):
            raise BadConfiguration(
                f"{parent} belongs to user {found.st_uid}, who could replace what is in it"
            )


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise BadConfiguration(
            f"{path} belongs to user {found.st_uid}, this signer is {os.geteuid()}: chown it"
        )


def _stat(path: Path) -> os.stat_result:
    try:
        return os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise BadConfiguration(f"{path}: {error.strerror}") from None
