"""The port to whoever knows which money must not be credited, and a list in a file as its simplest form."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from chains.errors import TransientError
from custody.deposits.model import DepositFacts

_MAX_LIST_BYTES: Final = 64 * 1024 * 1024


class ScreeningUnavailable(TransientError):
    """The provider did not answer, or not intelligibly: the deposit is held until it does."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Nothing is known against it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """It must be held."""

    reason: str


Verdict = Clear | Hit


class Screening(Protocol):
    """Whoever knows which money must not be credited."""

    def check_deposit(self, facts: DepositFacts) -> Verdict:
        """What is known of a deposit now. Raises ScreeningUnavailable."""


class NoScreening:
    """Nothing is screened: for installations without a list."""

    def check_deposit(self, facts: DepositFacts) -> Verdict:
        """Always clear."""
        return Clear()


class ListScreening:
    """A file with one entry a line: an address of ours, a txid or `txid:vout`, matched exactly; `#` comments.

    The file is read again when it changes: removing a line releases what it held.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: frozenset[str] = frozenset()

    def check_deposit(self, facts: DepositFacts) -> Verdict:
        """A hit if the address, the txid or the output is listed.

        Raises:
            ScreeningUnavailable: the file cannot be read; what it would have said is unknown.
        """
        try:
            status = os.stat(self._path)
            if (stamp := (status.st_mtime_ns, status.st_size)) != self._stamp:
                self._entries = self._read()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise ScreeningUnavailable(f"screening list {self._path}: {error}") from error
        for entry in (facts.address, facts.txid, facts.resource):
            if entry in self._entries:
                return Hit(f"{entry} is on the screening list")
        return Clear()

    def _read(self) -> frozenset[str]:
        with self._path.open(encoding="utf-8") as file:
            text = file.read(_MAX_LIST_BYTES + 1)
        if len(text) > _MAX_LIST_BYTES:
            raise OSError(f"longer than {_MAX_LIST_BYTES} bytes")
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return frozenset(line for line in lines if line)
