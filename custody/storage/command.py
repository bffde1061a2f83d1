"""`strongroom migrate`: bring a database to the present schema, and give its roles their passwords."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chains.errors import StrongroomError
from custody.storage.migrate import ROLES, set_role_password, upgrade

OWNER_VARIABLE: Final = "STRONGROOM_OWNER_URL"
"""Connection string of a user that may create roles and tables; only this command needs one. Secret."""


def main(argv: Sequence[str] | None = None) -> int:
    """Migrate once; again changes nothing.

    Args:
        argv: arguments; None: this process's own.

    Returns:
        0: done; 2: wrong input, nothing was changed; 3: the database does not answer.
    """
    parser = argparse.ArgumentParser(
        prog="strongroom migrate",
        description=f"Create or upgrade the schema of the database that {OWNER_VARIABLE} names.",
    )
    parser.add_argument(
        "--passwords",
        type=Path,
        metavar="DIR",
        help=f"set the passwords of the roles from DIR/ROLE.password, for each of {', '.join(ROLES)}",
    )
    arguments = parser.parse_args(argv)
    dsn = os.environ.get(OWNER_VARIABLE, "")
    if not dsn:
        print(f"set {OWNER_VARIABLE} to the connection string of the database's owner", file=sys.stderr)
        return 2
    try:
        passwords = _read(arguments.passwords) if arguments.passwords else {}
        upgrade(dsn)
        for role, password in passwords.items():
            set_role_password(dsn, role, password)
    except (StrongroomError, OSError) as error:
        print(f"strongroom migrate: {error}", file=sys.stderr)
        return 3 if isinstance(error, StrongroomError) and error.transient else 2
    print(f"the schema is up to date; passwords set for: {', '.join(passwords) or 'no role'}")
    return 0


def _read(directory: Path) -> dict[str, str]:
    """Password by role, all read before anything is changed. Raises OSError: a file is missing."""
    return {role: (directory / f"{role}.password").read_text().strip() for role in ROLES}


if __name__ == "__main__":
    sys.exit(main())
