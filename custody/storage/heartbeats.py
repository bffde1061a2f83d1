"""Heartbeats: which processes are at work, by their own last word. For people who look; nothing is decided by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from psycopg.types.json import Jsonb

from custody.storage.db import Tx

BEAT_SECONDS: Final = 5
"""How often a process says that it is at work."""
SILENT_SECONDS: Final = 20
"""A process that was not heard of for longer does not run, or does not get on."""
_FORGOTTEN: Final = "1 hour"


class Process(StrEnum):
    """Who says that it is at work."""

    MONITOR = "monitor"
    """One a chain; its instance is the chain."""
    WORKER = "worker"
    """Its instance is host and pid."""
    BEAT = "beat"
    """Heard of through the worker that took its task: it has no database."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last word of one process."""

    process: Process
    instance: str
    detail: Mapping[str, Any]
    """What it says of itself, JSON values; a monitor: `tip`, the height of its node's best block, or `trouble`."""
    age_seconds: float

    @property
    def fresh(self) -> bool:
        """Whether it was heard of lately."""
        return self.age_seconds <= SILENT_SECONDS


def beat(tx: Tx, process: Process, instance: str, detail: Mapping[str, Any]) -> None:
    """Say that `instance` is at work. What was not heard of for an hour is forgotten on the way."""
    tx.execute(
        "INSERT INTO heartbeats (process, instance, detail) VALUES (%s, %s, %s)"
        " ON CONFLICT (process, instance) DO UPDATE SET detail = excluded.detail, at = now()",
        [process.value, instance, Jsonb(dict(detail))],
    )
    tx.execute(
        "DELETE FROM heartbeats WHERE process = %s AND at < now() - %s::interval", [process.value, _FORGOTTEN]
    )


def leave(tx: Tx, process: Process, instance: str) -> None:
    """Say that `instance` has ended as it was told to: nobody needs to miss it."""
    tx.execute("DELETE FROM heartbeats WHERE process = %s AND instance = %s", [process.value, instance])


def heard(tx: Tx) -> Sequence[Heartbeat]:
    """All last words, by process and instance."""
    rows = tx.all(
        "SELECT process, instance, detail, extract(epoch FROM now() - at) AS age FROM heartbeats"
        " ORDER BY process, instance"
    )
    return [
        Heartbeat(Process(row["process"]), row["instance"], row["detail"], float(row["age"])) for row in rows
    ]
