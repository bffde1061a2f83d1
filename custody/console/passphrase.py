"""Passphrases of people's keys: typed, or read once from a descriptor; never in arguments or the environment."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from typing import Annotated, Final

import typer

from chains.errors import InvalidValue

SHORTEST: Final = 12
"""Letters of a new one."""
_MAX_BYTES: Final = 1_024

PassphraseOption = Annotated[
    int | None,
    typer.Option("--passphrase-fd", help="Read the key's passphrase from this file descriptor.", min=0),
]


def present(descriptor: int | None) -> Callable[[], str]:
    """Asks for the passphrase of a key that is there, when it is called."""
    if descriptor is None:
        return lambda: getpass.getpass("Passphrase of the key: ")
    return lambda: _read(descriptor)


def chosen(descriptor: int | None) -> str:
    """A new one: typed twice, or from the descriptor.

    Raises:
        InvalidValue: too short, or typed differently.
    """
    if descriptor is not None:
        found = _read(descriptor)
    else:
        found = getpass.getpass("New passphrase for the key: ")
        if getpass.getpass("Again: ") != found:
            raise InvalidValue("the two passphrases differ; nothing was made")
    if len(found) < SHORTEST:
        raise InvalidValue(f"a passphrase has at least {SHORTEST} letters; nothing was made")
    return found


def _read(descriptor: int) -> str:
    """The first line."""
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.readline(_MAX_BYTES).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"--passphrase-fd {descriptor}: {error}") from None
