"""What lint finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is unwise, or worth knowing."""

    code: str
    """Stable, for programs."""
    rule: str
    """Id of the rule, or of the group; empty: about the policy as a whole."""
    says: str
    """A sentence with what to do."""
    severity: Severity

    def describe(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"code": self.code, "rule": self.rule, "says": self.says, "severity": self.severity}

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule + ': ' if self.rule else ''}{self.says} [{self.code}]"
