"""What may be used for a stack: a directory and a port that no other has, a database that is nobody else's."""

from __future__ import annotations

import fcntl
import socket
import tempfile
from pathlib import Path
from typing import Final, TextIO

from ops.devnet.errors import DevnetError
from ops.devnet.external import VARIABLE
from ops.stack.keys import private_directory

_LONGEST_FOR_SOCKETS: Final = 80
"""A socket's path has at most 107 bytes."""


def claim(directory: Path) -> TextIO:
    """Takes a directory for one stack alone, until what is returned is closed.

    Raises:
        DevnetError: another one has it.
    """
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DevnetError(f"Strongroom runs in {directory} already: name another directory") from None
    return lock


def try_port(port: int) -> None:
    """Looks whether the API's port can be had: a second stack would find the first one's API there, and call itself
    ready. Raises DevnetError: it cannot."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevnetError(
                f"the API cannot have port {port} of 127.0.0.1 ({error.strerror}): "
                "name another with --port; 0 takes a free one"
            ) from None


def refuse_other_database(directory: Path, kind: str) -> None:
    """Keys, journal and records belong together: a directory stays with the kind of database it began with.

    Raises:
        DevnetError: it began with another.
    """
    note = directory / "database"
    if not note.exists():
        note.write_text(kind)
    elif note.read_text() != kind:
        raise DevnetError(
            f"{directory} began with another database than {VARIABLE} says now: set or unset it as it was, "
            "or name a new directory"
        )


def refuse_anothers_records(dsn: str) -> None:
    """Raises DevnetError if the database has tables already, which this installation did not make."""
    import psycopg

    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchone()
    if found != (0,):
        raise DevnetError(
            f"the database of {VARIABLE} is not empty: name an empty one for a new installation"
        )


def short_directory(directory: Path) -> Path:
    """A private directory for sockets, whose paths must be short: ours, or one in the system's for such."""
    if len(str(directory)) < _LONGEST_FOR_SOCKETS:
        return private_directory(directory / "run")
    return Path(tempfile.mkdtemp(prefix="strongroom-run-"))
