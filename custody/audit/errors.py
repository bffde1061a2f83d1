"""Why an operator's action is not done.

```
PermanentError
└── NotDone
    ├── NotAnOperator     the bundle does not know this person, or the signature is somebody else's
    ├── ActionRefused     by roles, or by the policy
    └── ActionAsked       other operators must approve it, or time must pass; then the same is done when it is repeated
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chains.errors import PermanentError


class NotDone(PermanentError):
    """Base of why an operator's action is not done; `operator` and `action` say which."""

    def __init__(self, message: str, *, operator: str, action: str) -> None:
        super().__init__(message)
        self.operator, self.action = operator, action


class NotAnOperator(NotDone):
    """The bundle names no such operator, his time is over, or he did not sign it."""


class ActionRefused(NotDone):
    """No role of the operator may do it, or the policy denies it."""

    def __init__(
        self, message: str, *, operator: str, action: str, record: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, operator=operator, action=action)
        self.record = record
        """What the policy was told and what it said, if it was asked."""


class ActionAsked(NotDone):
    """It is recorded in row `number` (None: not yet), and waits for what `lacking` says."""

    def __init__(
        self,
        *,
        operator: str,
        action: str,
        number: int | None,
        lacking: str,
        record: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(
            f"{action} is asked for in row {number}, and waits for {lacking}: others approve it with"
            f" `strongroom operator approve {number}`; then repeat exactly what you did",
            operator=operator,
            action=action,
        )
        self.number, self.lacking, self.record = number, lacking, record

    def in_row(self, number: int) -> ActionAsked:
        """The same, now that it is recorded."""
        return ActionAsked(
            operator=self.operator,
            action=self.action,
            number=number,
            lacking=self.lacking,
            record=self.record,
        )
