"""What providers said about withdrawals and deposits, and by which version of what they know: a record for auditors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.screening.cases import CaseKind
from custody.screening.model import Answer
from custody.storage.db import Tx


@dataclass(frozen=True, slots=True)
class Screened:
    """What all providers said of one subject from some moment on, until the next record of it."""

    id: int
    """In the order of recording."""
    kind: CaseKind
    subject: UUID
    at: datetime
    verdicts: tuple[Mapping[str, Any], ...]
    """As `Answer.describe` gives them."""


def note(tx: Tx, kind: CaseKind, answers: Mapping[UUID, Answer]) -> None:
    """Record what was answered about these. Where it is what was answered last time, nothing is added.

    Args:
        tx: in which something is decided by the answers.
        kind: of the subjects.
        answers: by subject.
    """
    if not answers:
        return
    tx.execute(
        "INSERT INTO screenings (kind, subject, verdicts)"
        " SELECT %(kind)s, said.subject, said.verdicts"
        " FROM unnest(%(subjects)s::uuid[], %(verdicts)s::jsonb[]) said(subject, verdicts)"
        " LEFT JOIN LATERAL (SELECT s.verdicts FROM screenings s"
        "  WHERE s.kind = %(kind)s AND s.subject = said.subject ORDER BY s.id DESC LIMIT 1) last ON true"
        " WHERE last.verdicts IS DISTINCT FROM said.verdicts",
        {
            "kind": kind,
            "subjects": list(answers),
            "verdicts": [Jsonb(answer.describe()) for answer in answers.values()],
        },
    )


def page(tx: Tx, subject: UUID, *, after: int = 0, limit: int = 100) -> Sequence[Screened]:
    """At most `limit` records about a withdrawal or a deposit, oldest first, beginning after `after`."""
    rows = tx.all(
        "SELECT id, kind, subject, at, verdicts FROM screenings WHERE subject = %s AND id > %s ORDER BY id LIMIT %s",
        [subject, after, limit],
    )
    return [
        Screened(row["id"], CaseKind(row["kind"]), row["subject"], row["at"], tuple(row["verdicts"]))
        for row in rows
    ]
