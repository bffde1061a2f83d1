"""Whether a rule's scope fits the facts: yes, no, or unknown where it asks for a fact that is not known.

Three-valued logic (Kleene): an unknown condition beside one that does not hold is no. So a rule about withdrawals of
new devices says nothing of sweeps, whose device nobody knows. Scopes are compiled once, and asked many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Final

from policies.facts import Facts, Ownership, Whitelist
from policies.rules import DAYS, Hours, Route, Rule, When

Holds = bool | None
"""None: unknown."""
_Test = Callable[[Facts, Route | None], Holds]
Condition = tuple[str, _Test]
"""The fact that it asks for, and the test."""

_DAY_SECONDS: Final = 24 * 3600
_THURSDAY: Final = 3
"""1970-01-01 was one; days are counted from Monday."""


class Scope:
    """The scope of one rule.

    Args:
        rule: whose `when` and `unless` are compiled.
        groups: destinations, `CHAIN:ADDRESS`, by the name of their group.
    """

    __slots__ = ("_unless", "_when", "needs_tier")

    def __init__(self, rule: Rule, groups: Mapping[str, frozenset[str]]) -> None:
        self._when = tuple(_conditions(rule.when, groups))
        self._unless = None if rule.unless is None else tuple(_conditions(rule.unless, groups))
        self.needs_tier = bool(rule.when.tiers or (rule.unless is not None and rule.unless.tiers))

    def fits(self, facts: Facts, tier: Route | None) -> Holds:
        """Whether the rule is about this.

        Args:
            facts: of the operation.
            tier: where it is routed to; None while that is not known.
        """
        fits = _all(self._when, facts, tier)
        if fits is False or self._unless is None:
            return fits
        excepted = _all(self._unless, facts, tier)
        if excepted is True:
            return False
        return None if excepted is None else fits

    def unknown(self, facts: Facts, tier: Route | None) -> tuple[str, ...]:
        """Names of the facts that keep it from being known whether the rule fits."""
        conditions = self._when
        if self._unless is not None and _all(self._unless, facts, tier) is None:
            conditions += self._unless
        return tuple(sorted({name for name, test in conditions if test(facts, tier) is None}))

    def against(self, facts: Facts, tier: Route | None) -> tuple[str, ...]:
        """Names of the facts for which the rule's own scope, exceptions aside, does not fit."""
        return tuple(sorted({name for name, test in self._when if test(facts, tier) is False}))

    def may_concern(self, facts: Facts) -> bool:
        """Whether operation, chain and asset leave it possible that the rule fits."""
        return not any(test(facts, None) is False for name, test in self._when if name in STATIC)

    def narrowed(self, facts: Facts) -> Scope:
        """The same scope for whatever has this operation, chain and asset: what they meet is not asked again."""
        narrow = copy(self)
        narrow._when = tuple(_unmet(self._when, facts))
        narrow._unless = None if self._unless is None else tuple(_unmet(self._unless, facts))
        return narrow


STATIC: Final = frozenset({"operation", "chain", "asset"})
"""Facts by which rules are sorted out beforehand."""


def _unmet(conditions: Iterable[Condition], facts: Facts) -> Iterable[Condition]:
    return (each for each in conditions if each[0] not in STATIC or each[1](facts, None) is not True)


def _all(conditions: Iterable[Condition], facts: Facts, tier: Route | None) -> Holds:
    answer: Holds = True
    for _, test in conditions:
        holds = test(facts, tier)
        if holds is False:
            return False
        if holds is None:
            answer = None
    return answer


def _any(answers: Iterable[Holds]) -> Holds:
    unknown = False
    for holds in answers:
        if holds:
            return True
        unknown = unknown or holds is None
    return None if unknown else False


def _conditions(when: When, groups: Mapping[str, frozenset[str]]) -> Iterable[Condition]:
    for name, field, wanted in (
        ("operation", "operation", when.operations),
        ("chain", "chain", when.chains),
        ("asset", "asset", when.assets),
        ("action", "action", when.actions),
        ("source", "source", when.sources),
        ("customer", "customer", when.customers),
        ("initiator", "initiator", when.initiators),
    ):
        if wanted:
            yield name, _one_of(field, frozenset(wanted))
    if when.tiers:
        yield "tier", _tier(frozenset(when.tiers))
    if when.destinations:
        yield "destination", _destination(when.destinations, groups)
    yield from _amounts(when)
    if when.hours is not None:
        yield "now", _hours(when.hours)
    if when.screening is not None:
        yield "screening", _one_of("screening", frozenset({when.screening}))
    yield from _session(when)


def _amounts(when: When) -> Iterable[Condition]:
    if when.amount_from is not None:
        yield "units", _not(_below("units", int(when.amount_from)))
    if when.amount_below is not None:
        yield "units", _below("units", int(when.amount_below))
    if when.value_from is not None:
        yield "value", _not(_value_below(int(when.value_from)))
    if when.value_below is not None:
        yield "value", _value_below(int(when.value_below))


def _session(when: When) -> Iterable[Condition]:
    for name, bound in (
        ("destination_age_seconds", when.destination_younger_than),
        ("kyc_level", when.kyc_below),
        ("password_age_seconds", when.password_younger_than),
        ("mfa_age_seconds", when.mfa_younger_than),
    ):
        if bound is not None:
            yield name, _below(name, bound)
    for name, wanted in (
        ("lookalike", when.lookalike),
        ("new_device", when.new_device),
        ("new_ip", when.new_ip),
    ):
        if wanted is not None:
            yield name, _one_of(name, frozenset({wanted}))
    if when.mfa_fewer_than is not None:
        yield "mfa_methods", _fewer(when.mfa_fewer_than)
    if when.mfa_without:
        yield "mfa_methods", _lacks(frozenset(when.mfa_without))


def _one_of(field: str, wanted: frozenset[object]) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        value = getattr(facts, field)
        return None if value is None else value in wanted

    return test


def _tier(wanted: frozenset[Route]) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        return None if tier is None else tier in wanted

    return test


def _below(field: str, bound: int) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        value = getattr(facts, field)
        return None if value is None else value < bound

    return test


def _not(test: _Test) -> _Test:
    def opposite(facts: Facts, tier: Route | None) -> Holds:
        holds = test(facts, tier)
        return None if holds is None else not holds

    return opposite


def _value_below(bound: int) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        if facts.value is None:
            return None
        low, high = facts.value
        return True if high < bound else False if low >= bound else None

    return test


def _fewer(count: int) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        return None if facts.mfa_methods is None else len(facts.mfa_methods) < count

    return test


def _lacks(methods: frozenset[str]) -> _Test:
    def test(facts: Facts, tier: Route | None) -> Holds:
        return None if facts.mfa_methods is None else not methods & facts.mfa_methods

    return test


def _hours(hours: Hours) -> _Test:
    days = frozenset(DAYS.index(day) for day in hours.days)
    first, end = hours.from_minute, hours.to_minute

    def test(facts: Facts, tier: Route | None) -> Holds:
        day = (facts.now // _DAY_SECONDS + _THURSDAY) % 7
        minute = facts.now % _DAY_SECONDS // 60
        if first < end:
            return day in days and first <= minute < end
        # It ends on the next day, and belongs to the one on which it began.
        return day in days if minute >= first else minute < end and (day - 1) % 7 in days

    return test


def _destination(scopes: Iterable[str], groups: Mapping[str, frozenset[str]]) -> _Test:
    tests = tuple(_destination_is(scope, groups) for scope in scopes)
    if len(tests) == 1:
        only = tests[0]
        return lambda facts, tier: only(facts)

    def test(facts: Facts, tier: Route | None) -> Holds:
        return _any(one(facts) for one in tests)

    return test


def _destination_is(scope: str, groups: Mapping[str, frozenset[str]]) -> Callable[[Facts], Holds]:
    kind, _, name = scope.partition(":")
    if kind in ("group", "address"):
        listed = groups[name] if kind == "group" else frozenset({name})
        return lambda facts: (
            None
            if facts.chain is None or facts.destination is None
            else f"{facts.chain}:{facts.destination}" in listed
        )
    if kind == "internal":
        return lambda facts: None if facts.ownership is None else facts.ownership is Ownership.CUSTOMER
    if kind == "house":
        return lambda facts: None if facts.ownership is None else facts.ownership is Ownership.HOUSE
    if kind == "contract":
        return lambda facts: facts.contract
    if kind == "external":
        return _external
    wanted = kind == "whitelisted"
    return lambda facts: _both(
        _external(facts),
        None if facts.whitelist is None else (facts.whitelist is Whitelist.USABLE) is wanted,
    )


def _external(facts: Facts) -> Holds:
    return None if facts.ownership is None else facts.ownership is Ownership.EXTERNAL


def _both(one: Holds, other: Holds) -> Holds:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True
