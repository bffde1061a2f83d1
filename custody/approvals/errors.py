"""Why an approval is not taken."""

from __future__ import annotations

from collections.abc import Sequence

from chains.errors import PermanentError
from policies.decision import Reason


class ApprovalRefused(PermanentError):
    """An approval or rejection that does not count; each of `reasons` has a stable code and a sentence."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(reason.detail for reason in reasons))
        self.reasons = tuple(reasons)
