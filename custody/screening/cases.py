"""Cases: what screening found, until a person has decided about it with a reason.

A case is about one deposit or one withdrawal. Released, it clears what it found, for this one alone: the same words of
a newer list change nothing, other words open a new case. Taking a line off a list ends no case: a person does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from chains.errors import InvalidValue
from custody.errors import NotFound
from custody.ids import new_id
from custody.screening.judging import Hit, Standing
from custody.screening.lifecycle import CASE, CaseEvent, CaseState
from custody.screening.model import Finding
from custody.storage import alerts, events
from custody.storage.db import Row, Tx

_COLUMNS: Final = (
    "id, kind, subject, chain, address, findings, state, resolution, resolved_by, opened_at, resolved_at"
)
_MAX_REASON: Final = 1_000


class CaseKind(StrEnum):
    """What a case is about."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    id: UUID
    kind: CaseKind
    subject: UUID
    """Id of the deposit or withdrawal."""
    chain: str
    address: str
    """The destination, or our address that was paid."""
    findings: tuple[Finding, ...]
    state: CaseState
    resolution: str
    """Why it was decided so."""
    resolved_by: str
    opened_at: datetime
    resolved_at: datetime | None

    @property
    def reason(self) -> str:
        """What was found, in a sentence."""
        return Hit(self.findings).reason


def standing(tx: Tx, kind: CaseKind, subjects: Collection[UUID]) -> Mapping[UUID, Standing]:
    """What people have decided about these; one that has no case has an empty standing."""
    rows = tx.all(
        "SELECT id, subject, state, findings FROM cases WHERE kind = %s AND subject = ANY (%s) ORDER BY id",
        [kind, list(subjects)],
    )
    found: dict[UUID, list[Row]] = {subject: [] for subject in subjects}
    for row in rows:
        found[row["subject"]].append(row)
    return {subject: _standing(of_it) for subject, of_it in found.items()}


def _standing(rows: Sequence[Row]) -> Standing:
    by_state = {row["state"]: row["id"] for row in rows}
    released = frozenset(
        finding.what
        for row in rows
        if row["state"] == CaseState.RELEASED
        for finding in _findings(row["findings"])
    )
    return Standing(by_state.get(CaseState.OPEN), by_state.get(CaseState.REFUSED), released)


def open_case(tx: Tx, kind: CaseKind, subject: UUID, chain: str, address: str, hit: Hit) -> UUID:
    """Open a case, and tell the feed; while one is open for this subject, that one is returned and nothing changes."""
    case_id = new_id()
    opened = tx.execute(
        "INSERT INTO cases (id, kind, subject, chain, address, findings) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (kind, subject) WHERE state = 'open' DO NOTHING",
        [case_id, kind, subject, chain, address, Jsonb([each.describe() for each in hit.findings])],
    )
    if not opened:
        row = tx.one(
            "SELECT id FROM cases WHERE kind = %s AND subject = %s AND state = 'open'", [kind, subject]
        )
        found: UUID = row["id"]
        return found
    events.emit(
        tx,
        "case.opened",
        str(case_id),
        {"kind": kind, kind: str(subject), "chain": chain, "address": address, "reason": hit.reason},
    )
    return case_id


def stopped(tx: Tx, kind: CaseKind, subjects: Collection[UUID]) -> frozenset[UUID]:
    """Which of these have an open case."""
    rows = tx.all(
        "SELECT subject FROM cases WHERE kind = %s AND subject = ANY (%s) AND state = 'open'",
        [kind, list(subjects)],
    )
    return frozenset(row["subject"] for row in rows)


def resolve(tx: Tx, case_id: UUID, event: CaseEvent, reason: str, *, by: str) -> Case:
    """Decide a case. The same decision again changes nothing. What it is about follows: within moments.

    Args:
        tx: as the workers' role.
        case_id: which.
        event: RELEASE or REFUSE.
        reason: why, for whoever reads it later.
        by: the operator.

    Raises:
        NotFound: there is none.
        InvalidValue: no reason.
        ImpossibleTransition: somebody has decided otherwise.
    """
    reason = reason.strip()
    if not reason or len(reason) > _MAX_REASON:
        raise InvalidValue(f"--reason: write why, in at most {_MAX_REASON} characters")
    row = tx.optional(f"SELECT {_COLUMNS} FROM cases WHERE id = %s FOR UPDATE", [case_id])
    if row is None:
        raise NotFound("case", str(case_id))
    case = _case(row)
    wanted = CASE.table[CaseState.OPEN, event]
    if case.state is wanted:
        return case
    target = CASE.next(case.state, event)
    row = tx.one(
        "UPDATE cases SET state = %s, resolution = %s, resolved_by = %s, resolved_at = now() WHERE id = %s"
        f" RETURNING {_COLUMNS}",
        [target, reason, by, case_id],
    )
    detail: dict[str, Any] = {
        "kind": case.kind,
        case.kind.value: str(case.subject),
        "reason": reason,
        "by": by,
    }
    events.emit(tx, f"case.{target}", str(case_id), detail)
    if case.kind is CaseKind.WITHDRAWAL:
        alerts.resolve_alert(tx, "withdrawal.held", str(case.subject))
    return _case(row)


def find(tx: Tx, case_id: UUID) -> Case:
    """One case. Raises NotFound."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM cases WHERE id = %s", [case_id])
    if row is None:
        raise NotFound("case", str(case_id))
    return _case(row)


def page(
    tx: Tx,
    *,
    state: CaseState | None = None,
    kind: CaseKind | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> Sequence[Case]:
    """At most `limit` cases, oldest first, beginning after `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM cases WHERE (%(state)s::text IS NULL OR state = %(state)s)"
        " AND (%(kind)s::text IS NULL OR kind = %(kind)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"state": state, "kind": kind, "after": after, "limit": limit},
    )
    return [_case(row) for row in rows]


def _findings(stored: Sequence[Mapping[str, str]]) -> tuple[Finding, ...]:
    return tuple(
        Finding(each["provider"], each["listed"], each["reason"], each["source"], each["version"])
        for each in stored
    )


def _case(row: Row) -> Case:
    return Case(
        id=row["id"],
        kind=CaseKind(row["kind"]),
        subject=row["subject"],
        chain=row["chain"],
        address=row["address"],
        findings=_findings(row["findings"]),
        state=CaseState(row["state"]),
        resolution=row["resolution"],
        resolved_by=row["resolved_by"],
        opened_at=row["opened_at"],
        resolved_at=row["resolved_at"],
    )
