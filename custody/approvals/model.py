"""What is asked about a withdrawal or a refill, and what was said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from custody.treasury.model import Refill
from custody.withdrawals.model import Withdrawal
from policies.intent import Approval, Intent, SignedApproval
from policies.rules import Approvals

MAX_ANSWERS: Final = 500
"""About one intent: whoever has the API's database role can write more, and must not keep workers busy with it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One stored approval or rejection, as it arrived."""

    id: int
    document: str
    """The approval in canonical form, verbatim."""
    signature: str
    """JSON of its signature or assertion."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that is not what anybody has signed: somebody edited it (FAULTS row 44)."""

    id: int
    problem: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What of all that was said counts now."""

    approved: tuple[SignedApproval, ...]
    """One of each person, the last."""
    rejected: tuple[Approval, ...]
    broken: tuple[Broken, ...]


S_co = TypeVar("S_co", Withdrawal, Refill, Withdrawal | Refill, covariant=True)


@dataclass(frozen=True, slots=True)
class Question(Generic[S_co]):
    """A withdrawal or a refill that people are asked about."""

    subject: S_co
    intent: Intent
    """What they sign about: exactly what will be signed for it."""
    asked: Approvals
    heard: Heard
    lacking: str
    """What is missing, in words; empty if nothing is."""
