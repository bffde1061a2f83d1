"""The policy in words, for people."""

from __future__ import annotations

from policies.rules import AllOf, AnyOf, Approvals, Need


def needed(approvals: Approvals) -> str:
    """Who must approve, e.g. `2 of operators and (1 of risk or 1 of directors)`."""
    match approvals:
        case Need(group=group, count=count, distinct=distinct):
            return f"{count} of {group}" + (
                " from different organisations" if distinct == "organisations" and count > 1 else ""
            )
        case AllOf(needs=needs):
            return " and ".join(_inner(need) for need in needs) or "nobody"
        case AnyOf(needs=needs):
            return " or ".join(_inner(need) for need in needs)


def _inner(approvals: Approvals) -> str:
    told = needed(approvals)
    return told if isinstance(approvals, Need) else f"({told})"
