"""The simplest screening of destinations: a file of addresses that nothing is paid to."""

from __future__ import annotations

from pathlib import Path

from chains.errors import TransientError
from policies.facts import Screening


class ScreeningUnavailable(TransientError):
    """Nothing is known about the destination until the list can be read."""


def clear(chain: str, address: str) -> Screening:
    """Screens nothing: for installations that screen elsewhere."""
    return Screening.CLEAR


class DestinationList:
    """A file with one address a line, matched exactly; `#` starts a comment. Read anew for each answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, chain: str, address: str) -> Screening:
        """A hit if the address is listed. Raises ScreeningUnavailable if the list cannot be read."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ScreeningUnavailable(f"screening list {self._path}: {error}") from error
        listed = {line.partition("#")[0].strip() for line in lines}
        return Screening.HIT if address in listed else Screening.CLEAR
