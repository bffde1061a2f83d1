"""The port to those who know which addresses and payments are tainted, and the desk that asks all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chains.errors import TransientError
from custody.screening.model import Answer, Subject, Word


class ScreeningUnavailable(TransientError):
    """A provider did not answer, or not intelligibly: what it would have said is unknown."""


class Provider(Protocol):
    """Somebody who knows."""

    @property
    def name(self) -> str:
        """Its name in records, as configured."""

    def ask(self, subject: Subject) -> Word:
        """What is known of a destination or deposit now. Raises ScreeningUnavailable."""

    def close(self) -> None:
        """Let go of connections."""


class Screening:
    """All providers that are configured. Each is asked: a hit of one is a hit, and each must answer for `clear`."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)

    def ask(self, subject: Subject) -> Answer:
        """What all of them say; who does not answer is named in `missing`."""
        words: list[Word] = []
        # Nobody is not somebody who finds nothing.
        missing = [] if self._providers else [("screening", "no provider is configured")]
        for provider in self._providers:
            try:
                words.append(provider.ask(subject))
            except TransientError as error:
                missing.append((provider.name, str(error)[:300]))
        return Answer(tuple(words), tuple(missing))

    def close(self) -> None:
        """Let go of connections."""
        for provider in self._providers:
            provider.close()


class Elsewhere:
    """Nothing is screened here: the installation says who does it, and that stands in every record.

    Args:
        who: does it.
    """

    name = "elsewhere"

    def __init__(self, who: str) -> None:
        self._who = who

    def ask(self, subject: Subject) -> Word:
        """Always clear."""
        return Word(self.name, self._who)

    def close(self) -> None:
        """Nothing to do."""
