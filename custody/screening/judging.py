"""What follows from an answer and from what people have decided before. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from custody.screening.model import Answer, Finding


@dataclass(frozen=True, slots=True)
class Standing:
    """What people have decided about one subject so far."""

    open: UUID | None = None
    """The case that waits for somebody."""
    refused: UUID | None = None
    released: frozenset[tuple[str, str, str]] = frozenset()
    """`Finding.what` of all that was found harmless."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing speaks against it that a person has not released."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something new speaks against it: a case is to be opened."""

    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """A sentence with all of it."""
        return "; ".join(map(str, self.findings))[:600]


@dataclass(frozen=True, slots=True)
class Waits:
    """Its case is open."""

    case: UUID


@dataclass(frozen=True, slots=True)
class Refused:
    """A person said no."""

    case: UUID


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not all providers have answered."""

    why: str


Judgement = Cleared | Hit | Waits | Refused | Unknown


def judge(standing: Standing, answer: Answer) -> Judgement:
    """A person's no stays, an open case waits for a person, whatever lists say meanwhile; a hit counts although another
    provider is silent; without all answers nothing is clear."""
    if standing.refused is not None:
        return Refused(standing.refused)
    if standing.open is not None:
        return Waits(standing.open)
    news = fresh(answer.findings, standing.released)
    if news:
        return Hit(news)
    return Unknown(answer.why_missing()) if answer.missing else Cleared()


def fresh(findings: Collection[Finding], released: Collection[tuple[str, str, str]]) -> tuple[Finding, ...]:
    """Findings that nobody has released."""
    return tuple(finding for finding in findings if finding.what not in released)
