"""One withdrawal of which nothing is known yet, and what a policy says of it, as formulas for z3 (`policies.prover`).

Every fact is a variable, with another that says whether it is known. A condition is two formulas, that it holds and
that it does not; where neither is true it is unknown. So the engine's three-valued logic is carried over as it is.

What stands in the way whatever the rules say is taken to be out of it: the order is genuine and not over, nothing is
frozen or halted. No rule asks for those facts, so nothing more could be paid otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import z3

from policies.facts import GENUINE, Facts, read
from policies.mentioned import NAMED, Names, Worth
from policies.rules import COLDER, DAYS, Hours, Policy, Route, Rule, When

Formula = Any
"""A z3 expression; the library has no types."""

_DAY: Final = 86_400
_WEEK: Final = 7 * _DAY
_MONDAYS_AFTER: Final = 3
"""1970-01-01 was a Thursday."""
_MONDAY: Final = 1_704_067_200
"""2024-01-01 00:00 UTC: no withdrawal is before it. Rules know nothing of time but its place in the week, so what can
be at any other time can be later."""
_MOST_METHODS: Final = 8
"""No rule asks for more."""
_OWNERSHIP: Final = ("external", "customer", "house")
_WHITELIST: Final = ("absent", "cooling", "usable")
_SCREENING: Final = ("clear", "hit")
_NUMBERS: Final = ("units", "destination_age_seconds", "kyc_level", "password_age_seconds", "mfa_age_seconds")
_FLAGS: Final = ("lookalike", "contract", "travel_rule", "ownership_proof", "new_device", "new_ip")
_NEEDED: Final = ("chain", "asset", "units", "destination", "customer", "initiator", "ownership")
_OPTIONAL: Final = (
    "action", "source", "destination_age_seconds", "kyc_level", "password_age_seconds", "mfa_age_seconds", "value",
    "whitelist", "screening", "mfa_methods", *_FLAGS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trit:
    """A condition: `yes` and `no` are never both true."""

    yes: Formula
    no: Formula

    def __invert__(self) -> Trit:
        return Trit(self.no, self.yes)


def every(trits: Iterable[Trit]) -> Trit:
    """All of them hold."""
    listed = list(trits)
    return Trit(z3.And([t.yes for t in listed]), z3.Or([t.no for t in listed]))


def some(trits: Iterable[Trit]) -> Trit:
    """One of them holds."""
    listed = list(trits)
    return Trit(z3.Or([t.yes for t in listed]), z3.And([t.no for t in listed]))


class Withdrawal:
    """Variables of one withdrawal.

    Args:
        name: of this one among others.
        names: mentioned anywhere, before this is made.
        policy: that decides about it; for its address groups.
        assets: of the bundle; empty: any asset on any chain, worth anything.
    """

    def __init__(self, name: str, names: Names, policy: Policy, assets: Mapping[str, Worth]) -> None:
        self._names, self._assets = names, assets
        self._groups = {group.id: group.addresses for group in policy.addresses}
        self.now = z3.Int(f"{name}.now")
        self.number = {n: z3.Int(f"{name}.{n}") for n in (*NAMED, *_NUMBERS)}
        self.low, self.high = z3.Ints(f"{name}.low {name}.high")
        self.ownership, self.whitelist = z3.Ints(f"{name}.ownership {name}.whitelist")
        self.hit = z3.Bool(f"{name}.hit")
        self.flags = {n: z3.Bool(f"{name}.{n}") for n in _FLAGS}
        self.methods = {n: z3.Bool(f"{name}.mfa.{n}") for n in names.methods}
        self.other_methods = z3.Int(f"{name}.mfa.others")
        self._known = {n: z3.Bool(f"{name}.{n}.known") for n in _OPTIONAL}
        self.sane = z3.And(self._sanity())

    def _sanity(self) -> list[Formula]:
        """What holds of all facts that can be told of a withdrawal."""
        sane = [variable >= 0 for variable in self.number.values()]
        sane += [self.now >= _MONDAY, self.low >= 0, self.low <= self.high, self.number["units"] > 0]
        sane += [z3.And(v >= 0, v < 3) for v in (self.ownership, self.whitelist)]
        sane += [self.ownership != 2, self.other_methods >= 0, self.other_methods <= _MOST_METHODS]
        if self._assets:
            sane.append(
                z3.Or([self._worth(asset, self._assets[asset]) for asset in self._assets]),
            )
        return sane

    def _worth(self, asset: str, worth: Worth) -> Formula:
        here = z3.And(self.is_named("asset", asset), self.is_named("chain", worth.chain))
        if worth.low is None or worth.high is None:
            return z3.And(here, z3.Not(self._known["value"]))
        units = self.number["units"]
        low, high = units * worth.low, units * worth.high
        # Rounded down and up, without a division.
        return z3.And(
            here,
            self._known["value"],
            self.low * worth.one <= low,
            low < (self.low + 1) * worth.one,
            (self.high - 1) * worth.one < high,
            high <= self.high * worth.one,
        )

    def is_named(self, fact: str, name: str) -> Formula:
        """It has this name."""
        return self.number[fact] == self._names.number(fact, name)

    def known(self, fact: str) -> Formula:
        """Whether the fact is known."""
        return self._known.get(fact, z3.BoolVal(True))

    def scope(self, when: When, tier: Formula | None) -> Trit:
        """Whether a scope holds.

        Args:
            when: the scope.
            tier: place of the tier in `COLDER`; None while nobody knows it.
        """
        trits = [
            self._told(fact, z3.Or([self.is_named(fact, name) for name in names]))
            for fact, names in (
                ("action", when.actions),
                ("chain", when.chains),
                ("asset", when.assets),
                ("source", when.sources),
                ("customer", when.customers),
                ("initiator", when.initiators),
            )
            if names
        ]
        if when.operations:
            trits.append(_certain(z3.BoolVal("withdrawal" in when.operations)))
        if when.tiers:
            places = [COLDER.index(each) for each in when.tiers]
            trits.append(_UNKNOWN if tier is None else _certain(z3.Or([tier == place for place in places])))
        if when.destinations:
            trits.append(some(self._destination(scope) for scope in when.destinations))
        if when.hours is not None:
            trits.append(_certain(self._within(when.hours)))
        return every([*trits, *self._amounts(when), *self._session(when)])

    def _told(self, fact: str, holds: Formula) -> Trit:
        known = self.known(fact)
        return Trit(z3.And(known, holds), z3.And(known, z3.Not(holds)))

    def _amounts(self, when: When) -> Iterable[Trit]:
        units = self.number["units"]
        if when.amount_from is not None:
            yield _certain(units >= int(when.amount_from))
        if when.amount_below is not None:
            yield _certain(units < int(when.amount_below))
        if when.value_from is not None:
            yield ~self._value_below(int(when.value_from))
        if when.value_below is not None:
            yield self._value_below(int(when.value_below))

    def _value_below(self, bound: int) -> Trit:
        known = self._known["value"]
        return Trit(z3.And(known, self.high < bound), z3.And(known, self.low >= bound))

    def _session(self, when: When) -> Iterable[Trit]:
        for fact, bound in (
            ("destination_age_seconds", when.destination_younger_than),
            ("kyc_level", when.kyc_below),
            ("password_age_seconds", when.password_younger_than),
            ("mfa_age_seconds", when.mfa_younger_than),
        ):
            if bound is not None:
                yield self._told(fact, self.number[fact] < bound)
        if when.screening is not None:
            yield self._told("screening", self.hit == z3.BoolVal(when.screening == "hit"))
        for fact, wanted in (
            ("lookalike", when.lookalike),
            ("new_device", when.new_device),
            ("new_ip", when.new_ip),
        ):
            if wanted is not None:
                yield self._told(fact, self.flags[fact] == z3.BoolVal(wanted))
        if when.mfa_fewer_than is not None:
            count = z3.Sum([self.other_methods, *(z3.If(v, 1, 0) for v in self.methods.values())])
            yield self._told("mfa_methods", count < when.mfa_fewer_than)
        if when.mfa_without:
            passed = z3.Or([self.methods[name] for name in when.mfa_without])
            yield self._told("mfa_methods", z3.Not(passed))

    def _within(self, hours: Hours) -> Formula:
        second = (self.now + _MONDAYS_AFTER * _DAY) % _WEEK
        openings = []
        for day in map(DAYS.index, hours.days):
            # Hours that end no later than they begin end on the next day; on the last one, in the next week.
            end_day = day if hours.from_minute < hours.to_minute else day + 1
            opens, closes = day * _DAY + hours.from_minute * 60, end_day * _DAY + hours.to_minute * 60
            openings.append(z3.And(second >= opens, second < closes))
            if closes > _WEEK:
                openings.append(second < closes - _WEEK)
        return z3.Or(openings)

    def _destination(self, scope: str) -> Trit:
        kind, _, name = scope.partition(":")
        if kind in ("group", "address"):
            listed = self._groups[name] if kind == "group" else (name,)
            return _certain(z3.Or([self._is_address(text) for text in listed]))
        if kind in ("internal", "house", "external"):
            place = {"external": 0, "internal": 1, "house": 2}[kind]
            return _certain(self.ownership == place)
        if kind == "contract":
            return self._told("contract", self.flags["contract"])
        usable = self._told("whitelist", self.whitelist == _WHITELIST.index("usable"))
        return every([_certain(self.ownership == 0), usable if kind == "whitelisted" else ~usable])

    def _is_address(self, text: str) -> Formula:
        chain, _, destination = text.partition(":")
        return z3.And(self.is_named("chain", chain), self.is_named("destination", destination))

    def facts(self, model: Any, *, id: str, others: Mapping[str, str]) -> Facts:
        """The withdrawal that a model describes.

        Args:
            model: of a solver that found one.
            id: for the facts.
            others: what to call somebody whom nobody mentions, by fact; the number is added.
        """

        def number(variable: Formula) -> int:
            return int(model.eval(variable, model_completion=True).as_long())

        def holds(variable: Formula) -> bool:
            return bool(z3.is_true(model.eval(variable, model_completion=True)))

        told: dict[str, Any] = {}
        for fact in NAMED:
            place, names = number(self.number[fact]), self._names.known[fact]
            told[fact] = names[place] if place < len(names) else f"{others[fact]}-{place - len(names)}"
        told |= {fact: number(self.number[fact]) for fact in _NUMBERS}
        told |= {fact: holds(variable) for fact, variable in self.flags.items()}
        told["value"] = [number(self.low), number(self.high)]
        told["whitelist"] = _WHITELIST[number(self.whitelist)]
        told["screening"] = _SCREENING[holds(self.hit)]
        passed = [name for name, variable in self.methods.items() if holds(variable)]
        told["mfa_methods"] = [*passed, *(f"method-{n}" for n in range(number(self.other_methods)))]
        told = {fact: value for fact, value in told.items() if holds(self.known(fact))}
        now = number(self.now)
        told |= {
            "id": id,
            "operation": "withdrawal",
            "now": now,
            "ownership": _OWNERSHIP[number(self.ownership)],
        }
        return read(
            told | {"order": GENUINE, "expires_at": now + 1, "account": "active", "halts": [], "reverts": 0}
        )


_UNKNOWN: Final = Trit(z3.BoolVal(False), z3.BoolVal(False))


def _certain(holds: Formula) -> Trit:
    return Trit(holds, z3.Not(holds))


class Verdict:
    """What a policy says of a withdrawal.

    Attributes:
        paid: it leaves, or goes through the ledger: neither denied nor waiting.
        tier: its place in `COLDER`.
        fits: by rule, that the rule is about it.
        spent: by rule with a limit, what its window holds already: free variables, for others to bind.
        amounts: by rule with a limit, what this adds.
    """

    def __init__(self, name: str, policy: Policy, of: Withdrawal) -> None:
        self.of = of
        self.spent: dict[str, Formula] = {}
        self.amounts: dict[str, Formula] = {}
        paid = [of.sane]
        routes: dict[Route, list[Formula]] = {tier: [] for tier in COLDER}
        for rule in policy.rules:
            if rule.route is None:
                continue
            scope = _scope(of, rule, None)
            paid.append(z3.Or(scope.yes, scope.no))
            stays = of.ownership == 1
            routes[rule.route].append(z3.And(scope.yes, stays if rule.route == "ledger" else z3.Not(stays)))
        allowed = {tier: z3.Or(each) for tier, each in routes.items()}
        paid.append(z3.Or(list(allowed.values())))
        self.tier = z3.IntVal(0)
        for place, tier in enumerate(COLDER):
            self.tier = z3.If(allowed[tier], place, self.tier)
        self.fits: dict[str, Formula] = {}
        for rule in policy.rules:
            scope = _scope(of, rule, self.tier)
            self.fits[rule.id] = scope.yes
            if rule.route is None:
                paid.append(z3.Or(scope.yes, scope.no))
            paid.append(z3.Implies(scope.yes, z3.And(self._demands(name, rule))))
        self.paid = z3.And(paid)

    def _demands(self, name: str, rule: Rule) -> list[Formula]:
        of, demands = self.of, []
        if rule.deny is not None:
            demands.append(z3.BoolVal(False))
        if "screening" in rule.checks:
            demands += [of.known("screening"), z3.Not(of.hit)]
        if "travel-rule" in rule.checks:
            demands += [of.known("travel_rule"), of.flags["travel_rule"]]
        if "ownership-proof" in rule.checks:
            demands += [of.known("ownership_proof"), of.flags["ownership_proof"]]
        if rule.limit is not None:
            spent = self.spent[rule.id] = z3.Int(f"{name}.{rule.id}.spent")
            if rule.limit.measure == "value":
                demands.append(of.known("value"))
            amount = {"units": of.number["units"], "value": of.high, "payments": z3.IntVal(1)}[
                rule.limit.measure
            ]
            self.amounts[rule.id] = amount
            demands.append(spent + amount <= int(rule.limit.at_most))
        return demands


def _scope(of: Withdrawal, rule: Rule, tier: Formula | None) -> Trit:
    scope = of.scope(rule.when, tier)
    return scope if rule.unless is None else every([scope, ~of.scope(rule.unless, tier)])
