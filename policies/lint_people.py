"""Groups that can't give the approvals that rules ask of them, or not for as long as the bundle lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Final

from policies.bundle import Approver, Bundle
from policies.lint_types import Finding
from policies.notation import listed
from policies.rules import AllOf, AnyOf, Approvals, Group, Need
from policies.words import needed

_MOST_TOGETHER: Final = 10
"""Of how many groups all subsets are looked at."""


def people_findings(bundle: Bundle) -> Iterator[Finding]:
    """All findings about groups and those who are in them."""
    groups = {group.id: group for group in bundle.policy.groups}
    ends = sorted(
        {approver.not_after for approver in bundle.approvers if approver.not_after < bundle.expires_at}
    )
    for rule in bundle.policy.rules:
        asked = rule.approvals
        if asked is None:
            continue
        if not _can(asked, groups, bundle.approvers, bundle.issued_at):
            says = f"{needed(asked)} can never approve: {_who(asked, groups, bundle)}"
            yield Finding("group-too-small", rule.id, says, "error")
            continue
        for end in ends:
            if not _can(asked, groups, bundle.approvers, end):
                gone = [each.id for each in bundle.approvers if each.not_after == end]
                says = (
                    f"from {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC on, when {listed(gone, word='and')}"
                    f" ends, {needed(asked)} can't approve any more, and the bundle lasts longer"
                )
                yield Finding("group-ends", rule.id, says, "warning")
                break
        callers = {caller.id for caller in bundle.callers}
        asking = sorted(callers & {approver.id for approver in bundle.approvers})
        for person in asking:
            others = [each for each in bundle.approvers if each.id != person]
            if not _can(asked, groups, others, bundle.issued_at):
                says = f"what {person} asks for can't be approved: whoever asks doesn't count, the others are too few"
                yield Finding("group-without-initiator", rule.id, says, "warning")
        spare = [
            each.id
            for each in bundle.approvers
            if each.id not in asking
            and not _can(asked, groups, [a for a in bundle.approvers if a is not each], bundle.issued_at)
        ]
        if spare:
            says = f"without {listed(spare)} nothing of it is approved: nobody could stand in"
            yield Finding("no-spare", rule.id, says, "note")


def _members(group: Group, approvers: Sequence[Approver], at: int) -> list[Approver]:
    return [
        each
        for each in approvers
        if at < each.not_after and (each.id in group.people or set(each.roles) & set(group.roles))
    ]


def _can(asked: Approvals, groups: dict[str, Group], approvers: Sequence[Approver], at: int) -> bool:
    """Whether these people could meet it at a time; nobody counts for two groups."""
    match asked:
        case Need():
            return _enough((asked,), groups, approvers, at)
        case AnyOf(needs=needs):
            return any(_can(need, groups, approvers, at) for need in needs)
        case AllOf(needs=needs):
            if not all(_can(need, groups, approvers, at) for need in needs):
                return False
            plain = [need for need in needs if isinstance(need, Need)][:_MOST_TOGETHER]
            sizes = range(2, len(plain) + 1)
            # Hall's theorem: it can be met if any of the groups together have people enough for all they are asked.
            return all(
                _enough(some, groups, approvers, at) for size in sizes for some in combinations(plain, size)
            )


def _enough(
    needs: tuple[Need, ...], groups: dict[str, Group], approvers: Sequence[Approver], at: int
) -> bool:
    people: set[str] = set()
    wanted = 0
    for need in needs:
        members = _members(groups[need.group], approvers, at)
        organisations = {each.organisation for each in members}
        if need.distinct == "organisations" and len(organisations) < need.count:
            return False
        people |= {each.id for each in members}
        wanted += need.count
    return len(people) >= wanted


def _who(asked: Approvals, groups: dict[str, Group], bundle: Bundle) -> str:
    """How many there are."""
    told = []
    pending = [asked]
    while pending:
        each = pending.pop()
        if not isinstance(each, Need):
            pending += each.needs
            continue
        members = _members(groups[each.group], bundle.approvers, bundle.issued_at)
        organisations = len({member.organisation for member in members})
        of = f" of {organisations} organisations" if each.distinct == "organisations" else ""
        told.append(f"{each.group} has {len(members)}{of}")
    return ", ".join(dict.fromkeys(told)) + (", and nobody counts twice" if len(told) > 1 else "")
