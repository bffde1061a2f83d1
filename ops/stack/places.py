"""What may be used for a stack: a directory for its sockets, a database that is nobody else's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from ops.devnet.errors import DevnetError
from ops.devnet.external import VARIABLE
from ops.stack.keys import private_directory

_LONGEST_FOR_SOCKETS: Final = 80
"""A socket's path has at most 107 bytes."""


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
