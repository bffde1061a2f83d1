"""Whether one scope lies within another, by what is written in them; for lint, where a doubt means no."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from policies.rules import Rule, When

_WITHIN: Final = {"whitelisted": "external", "one-time": "external"}
"""Kinds of destinations that are kinds of another."""
_LISTS: Final = ("customers", "assets", "operations", "tiers", "sources", "initiators", "actions")


def within(inner: When, outer: When, chains: Mapping[str, str]) -> bool:
    """Whether everything that fits `inner` fits `outer` as well. False also where that is not plain to see.

    Args:
        inner: the narrower one.
        outer: the wider one.
        chains: chain of each asset.
    """
    return (
        _lists_within(inner, outer, chains)
        and _destinations_within(inner.destinations, outer.destinations)
        and _bounds_within(inner, outer)
        and all(
            getattr(outer, name) in (None, getattr(inner, name))
            for name in ("hours", "screening", "lookalike", "new_device", "new_ip")
        )
        and set(outer.mfa_without) <= set(inner.mfa_without)
    )


def covers(outer: Rule, inner: When, chains: Mapping[str, str]) -> bool:
    """Whether a rule fits whenever a scope does."""
    return outer.unless is None and within(inner, outer.when, chains)


def disjoint(one: When, other: When, chains: Mapping[str, str]) -> bool:
    """Whether nothing can fit both. False also where that is not plain to see."""
    for a, b in (
        (one.operations, other.operations),
        (_chains(one, chains), _chains(other, chains)),
        (one.assets, other.assets),
        (one.sources, other.sources),
        (one.tiers, other.tiers),
        (one.customers, other.customers),
        (one.initiators, other.initiators),
        (one.actions, other.actions),
    ):
        if a and b and not set(a) & set(b):
            return True
    if _kinds(one.destinations) and _kinds(other.destinations):
        apart = ({"internal"}, {"house"}, {"external", "whitelisted", "one-time"})
        sides = [
            {index for index, kinds in enumerate(apart) if kinds & _kinds(w.destinations)}
            for w in (one, other)
        ]
        if not sides[0] & sides[1]:
            return True
    same_asset = len(one.assets) == 1 and one.assets == other.assets
    return _apart(one.value_from, one.value_below, other.value_from, other.value_below) or (
        same_asset and _apart(one.amount_from, one.amount_below, other.amount_from, other.amount_below)
    )


def _apart(low: str | None, high: str | None, other_low: str | None, other_high: str | None) -> bool:
    return (high is not None and int(other_low or 0) >= int(high)) or (
        other_high is not None and int(low or 0) >= int(other_high)
    )


def _kinds(destinations: Iterable[str]) -> set[str]:
    """Empty where any of them could be of more than one owner."""
    found = set(destinations)
    return found if found <= {"internal", "house", "external", "whitelisted", "one-time"} else set()


def _chains(when: When, chains: Mapping[str, str]) -> tuple[str, ...]:
    return when.chains or tuple(sorted({chains[asset] for asset in when.assets if asset in chains}))


def _lists_within(inner: When, outer: When, chains: Mapping[str, str]) -> bool:
    for name in _LISTS:
        wide = getattr(outer, name)
        if wide and (not (narrow := getattr(inner, name)) or not set(narrow) <= set(wide)):
            return False
    return not outer.chains or (bool(of := _chains(inner, chains)) and set(of) <= set(outer.chains))


def _destinations_within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    wide, narrow = set(outer), set(inner)
    return not wide or (bool(narrow) and all(each in wide or _WITHIN.get(each) in wide for each in narrow))


def _bounds_within(inner: When, outer: When) -> bool:
    for name in ("amount_from", "value_from"):
        low, wanted = getattr(inner, name), getattr(outer, name)
        if wanted is not None and int(wanted) > int(low or 0):
            return False
    for name in (
        "amount_below",
        "value_below",
        "destination_younger_than",
        "kyc_below",
        "password_younger_than",
        "mfa_younger_than",
        "mfa_fewer_than",
    ):
        high, wanted = getattr(inner, name), getattr(outer, name)
        if wanted is not None and (high is None or int(high) > int(wanted)):
            return False
    return True
