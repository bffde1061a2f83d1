"""How few people, or organisations, can give the approvals that rules ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Final, Literal

from chains.errors import PermanentError
from policies.approvals import belongs, met
from policies.bundle import Approver
from policies.rules import AllOf, AnyOf, Approvals, Need, Policy, Rule

Distinct = Literal["people", "organisations"]

_TRIES: Final = 200_000
"""Sets of approvers that are looked at."""


class TooMany(PermanentError):
    """More sets of people than can be looked at: whether one of them is enough is not known."""


def fewest(rules: Sequence[Rule], distinct: Distinct) -> int:
    """No fewer than so many different people, or organisations, can meet what all these rules ask for."""
    return max((_fewest(rule.approvals, distinct) for rule in rules if rule.approvals is not None), default=0)


def _fewest(asked: Approvals, distinct: Distinct) -> int:
    match asked:
        case Need(count=count):
            # People of one organisation may be all that a need for people takes.
            return count if distinct == "people" or asked.distinct == "organisations" else 1
        case AllOf(needs=needs):
            return max((_fewest(need, distinct) for need in needs), default=0)
        case AnyOf(needs=needs):
            return min(_fewest(need, distinct) for need in needs)


def counterparts(
    asked: Approvals,
    *,
    fewer_than: int,
    distinct: Distinct,
    policy: Policy,
    approvers: Sequence[Approver] | None,
) -> tuple[tuple[str, str, str], ...] | None:
    """Approvals that are enough although fewer than so many people, or organisations, have given them.

    Args:
        asked: by the rules.
        fewer_than: so many.
        distinct: what is counted.
        policy: with the groups.
        approvers: who can approve; None: anybody whom it takes.

    Returns:
        Person, organisation and group of each; None if there are none.

    Raises:
        TooMany: not all were looked at.
    """
    for tries, needs in enumerate(_ways(asked)):
        if tries > _TRIES:
            raise TooMany(f"more than {_TRIES} ways to approve")
        wanted = _by_group(needs)
        found: list[tuple[Approver, str]] | None = _imagined(wanted)
        if approvers is not None:
            found = _chosen(wanted, policy, approvers, fewer_than, distinct)
        if found is None or not met(asked, [(person, group) for person, group in found]):
            continue
        told = {p.organisation if distinct == "organisations" else p.id for p, _ in found}
        if len(told) < fewer_than:
            return tuple((person.id, person.organisation, group) for person, group in found)
    return None


def _ways(asked: Approvals) -> Iterator[tuple[Need, ...]]:
    """Each choice among alternatives."""
    match asked:
        case Need():
            yield (asked,)
        case AnyOf(needs=needs):
            for need in needs:
                yield from _ways(need)
        case AllOf(needs=needs):
            for chosen in product(*(list(_ways(need)) for need in needs)):
                yield tuple(need for each in chosen for need in each)


def _by_group(needs: Sequence[Need]) -> dict[str, tuple[int, int]]:
    """People and organisations that each group must give: one approval serves all needs of its group."""
    wanted: dict[str, tuple[int, int]] = {}
    for need in needs:
        people, organisations = wanted.get(need.group, (0, 0))
        if need.distinct == "organisations":
            organisations = max(organisations, need.count)
        wanted[need.group] = (max(people, need.count), organisations)
    return wanted


def _imagined(wanted: dict[str, tuple[int, int]]) -> list[tuple[Approver, str]]:
    found = []
    for group, (people, organisations) in wanted.items():
        for number in range(people):
            organisation = f"organisation-{min(number, max(organisations - 1, 0))}"
            found.append((_person(f"{group}-{number}", organisation), group))
    return found


def _person(name: str, organisation: str) -> Approver:
    return Approver(id=name, key="00" * 32, organisation=organisation, roles=(), not_after=0)


def _chosen(
    wanted: dict[str, tuple[int, int]],
    policy: Policy,
    approvers: Sequence[Approver],
    fewer_than: int,
    distinct: Distinct,
) -> list[tuple[Approver, str]] | None:
    """Try all sets of people who are of the groups; nobody is there for two groups."""
    groups = list(wanted)
    tries = 0

    def choose(place: int, chosen: list[tuple[Approver, str]]) -> list[tuple[Approver, str]] | None:
        nonlocal tries
        if place == len(groups):
            told = {p.organisation if distinct == "organisations" else p.id for p, _ in chosen}
            return chosen if len(told) < fewer_than else None
        group, (people, organisations) = groups[place], wanted[groups[place]]
        taken = {person.id for person, _ in chosen}
        free = [each for each in approvers if each.id not in taken and belongs(each, group, policy)]
        for some in combinations(free, people):
            tries += 1
            if tries > _TRIES:
                raise TooMany(f"more than {_TRIES} sets of people could approve")
            if len({each.organisation for each in some}) < organisations:
                continue
            found = choose(place + 1, [*chosen, *((each, group) for each in some)])
            if found is not None:
                return found
        return None

    return choose(0, [])
