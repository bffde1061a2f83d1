"""The bundle as officers have lowered it, each alone, until the quorum signs a higher one. Pure.

Only numbers of a closed list, whose lower value never permits anything that the higher one did not: no officers'
grants (whose end would take a veto away), no bounds from which on a tier pays, no floors, no windows' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue
from policies.bundle.checks import check_consistent
from policies.bundle.document import Bundle, Overlay
from policies.rules import Limit, Policy, Rule
from policies.statements import Lowering

_LONGEST: Final = "longest_order_seconds"
_ENTRIES: Final[Mapping[str, tuple[str, Callable[[Any], str], tuple[str, ...]]]] = {
    "cap": ("caps", lambda cap: f"{cap.tier}:{cap.asset}", ("payment_below", "window_cap")),
    "breaker": ("breakers", lambda breaker: str(breaker.id), ("value_cap",)),
    "network": ("networks", lambda network: str(network.chain), ("feerate_cap", "fee_cap", "fee_window_cap")),
    "caller": ("callers", lambda caller: str(caller.id), ("not_after",)),
    "operator": ("operators", lambda operator: str(operator.id), ("not_after",)),
    "approver": ("approvers", lambda approver: str(approver.id), ("not_after",)),
    "verifier": ("verifiers", lambda verifier: str(verifier.id), ("not_after",)),
}
"""Kind of a target: field of the bundle, name of an entry, its numbers that may be lowered."""


def targets(bundle: Bundle) -> dict[str, int]:
    """Every number that one officer may lower, as it is now."""
    found = {_LONGEST: bundle.longest_order_seconds}
    for kind, (field, name_of, numbers) in _ENTRIES.items():
        for entry in getattr(bundle, field):
            for number in numbers:
                found[f"{kind}:{name_of(entry)}:{number}"] = int(getattr(entry, number))
    for rule in bundle.policy.rules:
        if rule.limit is not None:
            found[f"rule:{rule.id}:at_most"] = int(rule.limit.at_most)
    return found


def check_lowering(bundle: Bundle, lowering: Lowering) -> None:
    """Check that a lowering lowers something, and that the bundle still makes sense with it.

    Args:
        bundle: the one in force, lowered as far as it is already.
        lowering: whose signature is checked elsewhere.

    Raises:
        InvalidValue: of another version, the bundle has no such number, it is not lower, or nothing fits it.
    """
    if lowering.bundle_version != bundle.version:
        raise InvalidValue(
            f"a lowering of bundle {lowering.bundle_version}: version {bundle.version} is in force; name that one"
        )
    present = targets(bundle).get(lowering.target)
    if present is None:
        raise InvalidValue(f"the bundle has no {lowering.target} that could be lowered")
    if int(lowering.value) >= present:
        raise InvalidValue(f"{lowering.target} is {present}: {lowering.value} is not lower")
    check_consistent(lowered(bundle, [lowering]))


def lowered(bundle: Bundle, lowerings: Iterable[Lowering]) -> Bundle:
    """The bundle with all of these lowered; of several for one number the lowest counts.

    What is for another version, names nothing, or would raise something changes nothing. Its version stays: intents and
    approvals name it as before, and the overlay says what was applied.
    """
    applied = tuple(each for each in lowerings if each.bundle_version == bundle.version)
    if not applied:
        return bundle
    lowest: dict[str, int] = {}
    for each in applied:
        lowest[each.target] = min(int(each.value), lowest.get(each.target, int(each.value)))
    changes: dict[str, Any] = {
        field: tuple(_entry(kind, name_of(entry), numbers, entry, lowest) for entry in getattr(bundle, field))
        for kind, (field, name_of, numbers) in _ENTRIES.items()
    }
    limits = {
        rule: lowest[f"rule:{rule}:at_most"] for rule in _limited(bundle) if f"rule:{rule}:at_most" in lowest
    }
    before = () if bundle.overlay is None else bundle.overlay.lowerings
    return msgspec.structs.replace(
        bundle,
        **changes,
        policy=_with_limits(bundle.policy, limits),
        longest_order_seconds=min(
            bundle.longest_order_seconds, lowest.get(_LONGEST, bundle.longest_order_seconds)
        ),
        overlay=Overlay(
            lowerings=(*before, *(each.digest_hex() for each in applied)),
            longest_order_seconds=bundle.longest_signed_order_seconds,
            limits=_lowest_limits(bundle, limits),
        ),
    )


def _entry(kind: str, name: str, numbers: Iterable[str], entry: Any, lowest: Mapping[str, int]) -> Any:
    """An entry of the bundle with its lowered numbers."""
    changes = {}
    for number in numbers:
        present, wanted = getattr(entry, number), lowest.get(f"{kind}:{name}:{number}")
        if wanted is not None and wanted < int(present):
            # Amounts are texts in documents, times and feerates are not.
            changes[number] = type(present)(wanted)
    return msgspec.structs.replace(entry, **changes) if changes else entry


def with_limits(bundle: Bundle, limits: Iterable[tuple[str, str]]) -> Bundle:
    """The bundle with lower limits of rules, as the record of a decision names them (`Overlay.limits`)."""
    lowest = {rule: int(most) for rule, most in limits}
    if not lowest:
        return bundle
    return msgspec.structs.replace(bundle, policy=_with_limits(bundle.policy, lowest))


def _limited(bundle: Bundle) -> list[str]:
    return [rule.id for rule in bundle.policy.rules if rule.limit is not None]


def _lowest_limits(bundle: Bundle, limits: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    """All limits that are lower than the quorum signed them."""
    known = {} if bundle.overlay is None else dict(bundle.overlay.limits)
    for rule in bundle.policy.rules:
        if rule.limit is not None and limits.get(rule.id, int(rule.limit.at_most)) < int(rule.limit.at_most):
            known[rule.id] = str(limits[rule.id])
    return tuple(sorted(known.items()))


def _with_limits(policy: Policy, limits: Mapping[str, int]) -> Policy:
    return msgspec.structs.replace(policy, rules=tuple(_rule(rule, limits) for rule in policy.rules))


def _rule(rule: Rule, limits: Mapping[str, int]) -> Rule:
    limit, wanted = rule.limit, limits.get(rule.id)
    if limit is None or wanted is None or wanted >= int(limit.at_most):
        return rule
    less: Limit = msgspec.structs.replace(limit, at_most=str(wanted))
    return msgspec.structs.replace(rule, limit=less)
