"""Whether the approvals that rules ask for are there. Pure; the same for the online side and for signers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.bundle import Approver
from policies.rules import AllOf, AnyOf, Approvals, Need, Policy

Given = tuple[Approver, str]
"""Who has approved, and for which group: one approval a person, so nobody counts for two groups."""


def belongs(approver: Approver, group: str, policy: Policy) -> bool:
    """Whether somebody is of a group of the policy: by a role, or by name."""
    return any(
        approver.id in entry.people or not set(entry.roles).isdisjoint(approver.roles)
        for entry in policy.groups
        if entry.id == group
    )


def met(approvals: Approvals, given: Sequence[Given]) -> bool:
    """Whether approvals, each of them good by itself, are what is asked for."""
    match approvals:
        case Need():
            return _count(approvals, given) >= approvals.count
        case AllOf(needs=needs):
            return all(met(need, given) for need in needs)
        case AnyOf(needs=needs):
            return any(met(need, given) for need in needs)


def lacking(approvals: Approvals, given: Sequence[Given]) -> str:
    """What is still missing, in words; empty if nothing is."""
    if met(approvals, given):
        return ""
    match approvals:
        case Need(group=group, count=count, distinct=distinct):
            return f"{_count(approvals, given)} of {count} {distinct} of {group}"
        case AllOf(needs=needs):
            return " and ".join(_missing(needs, given))
        case AnyOf(needs=needs):
            return " or ".join(_missing(needs, given))


def _missing(needs: Iterable[Approvals], given: Sequence[Given]) -> Iterable[str]:
    for need in needs:
        told = lacking(need, given)
        if told:
            yield told if isinstance(need, Need) else f"({told})"


def _count(need: Need, given: Sequence[Given]) -> int:
    people = {approver.id: approver for approver, group in given if group == need.group}
    if need.distinct == "organisations":
        return len({approver.organisation for approver in people.values()})
    return len(people)
