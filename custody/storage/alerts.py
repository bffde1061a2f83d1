"""Alerts: what a person has to look at. One open alert for one trouble; each is an event of the feed too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.types.json import Jsonb

from custody.storage import events
from custody.storage.db import Tx


class Severity(StrEnum):
    """How soon somebody must look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; open until `resolved_at` is set."""

    id: int
    severity: Severity
    type: str
    subject: str
    message: str
    data: Mapping[str, Any]
    at: datetime
    resolved_at: datetime | None


def raise_alert(
    tx: Tx, severity: Severity, type: str, subject: str, message: str, data: Mapping[str, Any]
) -> None:
    """Open an alert of this type for this subject; while one is open, again changes nothing.

    Args:
        tx: the transaction in which the trouble was found.
        severity: how soon somebody must look.
        type: dotted, e.g. `deposit.clawed_back`.
        subject: id of what it is about.
        message: a sentence for people, with the numbers.
        data: JSON values; amounts as decimal strings of base units.
    """
    opened = tx.execute(
        """INSERT INTO alerts (severity, type, subject, message, data) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (type, subject) WHERE resolved_at IS NULL DO NOTHING""",
        [severity.value, type, subject, message, Jsonb(dict(data))],
    )
    if opened:
        detail = {"severity": severity.value, "type": type, "message": message, **data}
        events.emit(tx, "alert.raised", subject, detail)


def resolve_alert(tx: Tx, type: str, subject: str) -> bool:
    """Close the open alert of this type for this subject and return True; where none is open, nothing changes."""
    closed = tx.execute(
        "UPDATE alerts SET resolved_at = now() WHERE type = %s AND subject = %s AND resolved_at IS NULL",
        [type, subject],
    )
    if closed:
        events.emit(tx, "alert.resolved", subject, {"type": type})
    return closed > 0


@dataclass(frozen=True, slots=True)
class Standing:
    """An open alert."""

    severity: Severity
    seconds: int
    """How long there has been one."""
    data: Mapping[str, Any]


def open_for(tx: Tx, type: str, subject: str) -> Standing | None:
    """The open alert of this type for this subject; None: none is open. One that took the place of a milder one says in
    its data since when there has been one (`since`, UNIX seconds)."""
    row = tx.optional(
        """SELECT severity, data, extract(epoch FROM now())::bigint
             - coalesce((data->>'since')::bigint, extract(epoch FROM at)::bigint) AS seconds
           FROM alerts WHERE type = %s AND subject = %s AND resolved_at IS NULL""",
        [type, subject],
    )
    return None if row is None else Standing(Severity(row["severity"]), int(row["seconds"]), row["data"])


def open_alerts(tx: Tx) -> list[Alert]:
    """All open alerts, oldest first."""
    rows = tx.all("SELECT * FROM alerts WHERE resolved_at IS NULL ORDER BY id")
    return [Alert(**{**row, "severity": Severity(row["severity"])}) for row in rows]
