"""What the tour did and found, for people and for programs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.devnet.files import write_private


class StepFailed(Exception):
    """Something that the tour promises did not hold; the message says what was expected and found."""


@dataclass(slots=True)
class StepRecord:
    """One step: what it is, whether it held, and every id, txid and amount in it."""

    name: str
    title: str
    ok: bool = False
    detail: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_object(self) -> dict[str, Any]:
        """The step as JSON values."""
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": {"title": self.title, "seconds": round(self.seconds, 2), **self.detail},
        }


@dataclass(slots=True)
class Record:
    """The whole tour."""

    endpoints: dict[str, str] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def ok(self) -> bool:
        """Whether there were steps and every one of them held."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    @property
    def failed(self) -> bool:
        """Whether a step did not hold."""
        return any("error" in step.detail for step in self.steps)

    def to_object(self) -> dict[str, Any]:
        """`{"ok", "steps": [{"name", "ok", "detail"}], "endpoints"}`."""
        return {
            "ok": self.ok,
            "steps": [step.to_object() for step in self.steps],
            "endpoints": dict(self.endpoints),
        }

    def write(self, path: Path) -> None:
        """Writes the record as JSON."""
        write_private(path, json.dumps(self.to_object(), indent=2, default=str) + "\n")


def expect(condition: object, message: str, **found: Any) -> None:
    """Raises StepFailed with `message` and what was found unless `condition` holds."""
    if not condition:
        numbers = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise StepFailed(f"{message}: {numbers}" if numbers else message)
