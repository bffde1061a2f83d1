"""What must hold within a policy, and between it and its bundle, before an engine is made of it.

What is refused here could not mean what its author thought: a rule that says nothing, one that can never fit, a name
that nobody has. What is only unwise is for `policies.lint`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import is_checksummed
from policies.facts import Facts, read
from policies.notation import listed, nearest
from policies.rules import (
    NOBODY,
    AllOf,
    Approvals,
    Case,
    Need,
    Operation,
    Policy,
    Rule,
    When,
)

MAX_RULES: Final = 1_000
MAX_GROUPS: Final = 200
MAX_ADDRESSES: Final = 10_000
"""In all address groups together."""
MAX_HOLDINGS: Final = 500
MAX_CASES: Final = 2_000
MAX_LIST: Final = 200
"""Names in one list of a scope."""
MAX_NEEDS: Final = 32
"""Groups that one rule's approvals ask for."""
MAX_NESTING: Final = 4
_SEGWIT: Final = re.compile("(bc|tb|bcrt)1", re.IGNORECASE)
"""Of approvals."""
DEPOSITS: Final = "deposits"
"""The source of sweeps: deposit addresses."""

_SHOWN: Final = 5
_HIDDEN: Final = "it has characters that don't show, such as line breaks or terminal controls: remove them"
_FACTS: Final = frozenset(field.name for field in fields(Facts))


@dataclass(frozen=True, slots=True)
class Names:
    """What a policy may name."""

    assets: Mapping[str, str]
    """Chain of each asset."""
    chains: frozenset[str]
    evm_chains: frozenset[str]
    wallets: frozenset[str]
    """Key-sets and vaults."""
    initiators: frozenset[str]
    """Callers, operators, approvers and officers, and the house."""
    people: Mapping[str, frozenset[str]]
    """Roles of each approver."""
    actions: frozenset[str]
    """What operators do by hand."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where."""

    section: str
    """`rules`, `groups`, `addresses`, `holdings` or `cases`."""
    id: str
    key: str
    """As people write it in the file, e.g. `when.asset`; empty: the entry as a whole."""
    says: str

    def __str__(self) -> str:
        entry = f"{self.section.removesuffix('s')} {self.id}" if self.id else self.section
        return f"{entry}{', ' + self.key if self.key else ''}: {self.says}"


def check_policy(policy: Policy, names: Names) -> None:
    """Check a policy by itself and against the bundle it is part of.

    Raises:
        InvalidValue: says the first problems.
    """
    problems = list(problems_of(policy, names))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidValue("policy: " + "; ".join(map(str, problems[:_SHOWN])) + more)


def problems_of(policy: Policy, names: Names) -> Iterator[Problem]:
    """All problems."""
    yield from _sizes(policy)
    for section, ids in (
        ("rules", [rule.id for rule in policy.rules]),
        ("groups", [group.id for group in policy.groups]),
        ("addresses", [group.id for group in policy.addresses]),
        ("cases", [case.id for case in policy.cases]),
        ("holdings", [f"{'+'.join(h.tiers)}/{h.asset}" for h in policy.holdings]),
    ):
        for twice in sorted(
            {each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else ()
        ):
            yield Problem(section, twice, "id", f"{twice} is there twice: give each a name of its own")
    groups = {group.id for group in policy.groups}
    addresses = {group.id for group in policy.addresses}
    for rule in policy.rules:
        yield from _rule(rule, names, groups, addresses)
    yield from _groups(policy, names)
    yield from _addresses(policy, names)
    yield from _holdings(policy, names)
    limited = {rule.id for rule in policy.rules if rule.limit is not None}
    for case in policy.cases:
        yield from _case(case, limited, groups)


def _sizes(policy: Policy) -> Iterator[Problem]:
    for section, count, most in (
        ("rules", len(policy.rules), MAX_RULES),
        ("groups", len(policy.groups), MAX_GROUPS),
        ("addresses", sum(len(group.addresses) for group in policy.addresses), MAX_ADDRESSES),
        ("holdings", len(policy.holdings), MAX_HOLDINGS),
        ("cases", len(policy.cases), MAX_CASES),
    ):
        if count > most:
            yield Problem(section, "", "", f"there are {count}, at most {most} are allowed")


def _hidden(text: str) -> bool:
    """Whether it has characters that don't show: who reads it before signing could be made to see something else."""
    return not text.isprintable()


def _rule(rule: Rule, names: Names, groups: set[str], addresses: set[str]) -> Iterator[Problem]:
    def problem(key: str, says: str) -> Problem:
        return Problem("rules", rule.id, key, says)

    for key, text in (("about", rule.about), ("deny", rule.deny or "")):
        if _hidden(text):
            yield problem(key, _HIDDEN)
    does = {
        "route": rule.route is not None,
        "approvals": rule.approvals is not None,
        "delay": rule.delay_seconds > 0,
        "checks": bool(rule.checks),
        "verdict": rule.verdict is not None,
        "limit": rule.limit is not None,
    }
    others = [name for name, given in does.items() if given]
    if rule.deny is not None and others:
        yield problem(
            "deny", f"a rule that denies does nothing else: move {listed(others, word='and')} to another rule"
        )
    if rule.deny is None and not others:
        yield problem("", f"the rule does nothing: write deny, {listed(does)}")
    for block, scope in (("when", rule.when), ("unless", rule.unless)):
        if scope is not None:
            for key, says in _scope(scope, rule, block, names, addresses):
                yield problem(f"{block}.{key}", says)
    if rule.unless == When():
        yield problem(
            "unless", "an exception without conditions holds always, so the rule never would: remove it"
        )
    if rule.approvals is not None:
        for says in _approvals(rule.approvals, groups):
            yield problem("approvals", says)
    if rule.limit is not None and rule.limit.measure == "units" and len(rule.when.assets) != 1:
        yield problem(
            "limit", "an amount in units of an asset limits one asset: name it, as `asset`, under `when`"
        )


def _scope(
    scope: When, rule: Rule, block: str, names: Names, addresses: set[str]
) -> Iterator[tuple[str, str]]:
    yield from _named(scope, names, addresses)
    if scope.tiers and rule.route is not None:
        yield "tier", "a rule that routes can't depend on where it is routed: remove `tier` or `route`"
    if scope.actions and scope.operations != (Operation.ADMINISTRATION,):
        yield "action", "only administration has actions: add `operation: administration`"
    if scope.assets and scope.chains and not {names.assets.get(a) for a in scope.assets} & set(scope.chains):
        yield "chain", f"{listed(scope.assets, word='and')} is on no such chain: nothing would ever fit"
    assets = scope.assets or (rule.when.assets if block == "unless" else ())
    if (scope.amount_from is not None or scope.amount_below is not None) and len(assets) != 1:
        key = "amount_from" if scope.amount_from is not None else "amount_below"
        yield key, "an amount is of one asset: name just that, as `asset`"
    for low, high, key in (
        (scope.amount_from, scope.amount_below, "amount_below"),
        (scope.value_from, scope.value_below, "value_below"),
    ):
        if high is not None and int(low or 0) >= int(high):
            yield key, "nothing lies between: what it is below must be more than what it is from"
    for key, seconds in (
        ("destination_younger_than", scope.destination_younger_than),
        ("password_younger_than", scope.password_younger_than),
        ("mfa_younger_than", scope.mfa_younger_than),
        ("kyc_below", scope.kyc_below),
    ):
        if seconds == 0:
            yield key, "nothing is below 0: the rule would never fit"
    if scope.hours is not None and not scope.hours.days:
        yield "hours", "without a day nothing would ever fit"
    if scope.hours is not None and scope.hours.from_minute == scope.hours.to_minute:
        yield "hours", "the hours begin and end at the same time"


def _named(scope: When, names: Names, addresses: set[str]) -> Iterator[tuple[str, str]]:
    """Names that nothing in the bundle has."""
    for key, given, known, what in (
        ("chain", scope.chains, names.chains, "chain"),
        ("asset", scope.assets, names.assets.keys(), "asset"),
        ("source", scope.sources, names.wallets | {DEPOSITS}, "key-set or vault"),
        ("initiator", scope.initiators, names.initiators, "caller, operator, approver or officer"),
    ):
        for name in given:
            if name not in known:
                yield key, _unknown(f"the bundle has no {what} {name}", name, known)
    for name in scope.actions:
        if name not in names.actions:
            yield "action", _unknown(f"operators do nothing named {name}", name, names.actions)
    for destination in scope.destinations:
        kind, _, name = destination.partition(":")
        if kind == "group" and name not in addresses:
            yield "destination", _unknown(f"there is no address group {name}", name, addresses)
        elif kind == "address":
            for says in _address(name, names):
                yield "destination", says
    for key, count in (
        ("customer", len(scope.customers)),
        ("initiator", len(scope.initiators)),
        ("destination", len(scope.destinations)),
        ("action", len(scope.actions)),
        ("source", len(scope.sources)),
        ("asset", len(scope.assets)),
        ("chain", len(scope.chains)),
        ("mfa_without", len(scope.mfa_without)),
    ):
        if count > MAX_LIST:
            yield key, f"{count} names, at most {MAX_LIST} are allowed in one list"


def _unknown(says: str, name: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    hint = nearest(name, choices)
    if not hint and choices:
        return f"{says}; there {'is' if len(choices) == 1 else 'are'} {listed(choices[:20], word='and')}"
    return says + (hint or "; there are none")


def _address(text: str, names: Names) -> Iterator[str]:
    chain, _, address = text.partition(":")
    if chain not in names.chains:
        yield _unknown(f"the bundle has no chain {chain}", chain, names.chains)
    elif chain in names.evm_chains and not is_checksummed(address):
        yield f"{address} is no address with its checksum (EIP-55): write it as wallets show it"
    elif chain not in names.evm_chains and _SEGWIT.match(address) and address != address.lower():
        # Addresses are compared as texts, and BIP173 allows two forms.
        yield f"{address} would fit no payment: write it in lower case, as {address.lower()}"


def _approvals(approvals: Approvals, groups: set[str]) -> Iterator[str]:
    count = 0
    pending: list[tuple[Approvals, int]] = [(approvals, 1)]
    while pending:
        each, depth = pending.pop()
        if isinstance(each, Need):
            count += 1
            if each.group not in groups:
                yield _unknown(f"there is no group {each.group}", each.group, groups)
            continue
        if not each.needs:
            yield f"`{'all' if isinstance(each, AllOf) else 'any'}` is empty: say who must approve"
        if depth > MAX_NESTING:
            yield f"approvals are nested more than {MAX_NESTING} deep"
            return
        pending += [(need, depth + 1) for need in each.needs]
        if len(pending) > MAX_NEEDS:
            break
    if count + len(pending) > MAX_NEEDS:
        yield f"more than {MAX_NEEDS} groups are asked for"


def _groups(policy: Policy, names: Names) -> Iterator[Problem]:
    roles = {role for held in names.people.values() for role in held}
    for group in policy.groups:
        if not group.roles and not group.people:
            yield Problem("groups", group.id, "", "nobody is in it: write `roles` or `people`")
        for role in group.roles:
            if role not in roles:
                yield Problem(
                    "groups", group.id, "roles", _unknown(f"no approver has the role {role}", role, roles)
                )
        for person in group.people:
            if person not in names.people:
                says = _unknown(f"the bundle has no approver {person}", person, names.people)
                yield Problem("groups", group.id, "people", says)


def _addresses(policy: Policy, names: Names) -> Iterator[Problem]:
    for group in policy.addresses:
        if not group.addresses:
            yield Problem("addresses", group.id, "", "no address is in it")
        for text in group.addresses:
            for says in _address(text, names):
                yield Problem("addresses", group.id, "", says)


def _holdings(policy: Policy, names: Names) -> Iterator[Problem]:
    for holding in policy.holdings:
        name = f"{'+'.join(holding.tiers)}/{holding.asset}"
        if holding.asset not in names.assets:
            says = _unknown(f"the bundle has no asset {holding.asset}", holding.asset, names.assets)
            yield Problem("holdings", name, "", says)
        if len(set(holding.tiers)) < len(holding.tiers):
            yield Problem("holdings", name, "", "a tier is there twice")
        if holding.at_most == "0" and holding.refill_below is not None:
            yield Problem("holdings", name, "", "what may hold nothing is never refilled")


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _case(case: Case, limited: set[str], groups: set[str]) -> Iterator[Problem]:
    for text in (case.given, *case.because):
        if _hidden(text):
            yield Problem("cases", case.id, "because", _HIDDEN)
    try:
        told = json.loads(case.given)
        if not isinstance(told, dict):
            raise InvalidValue("`given` is no JSON object")
        unheard = sorted(told.keys() - _FACTS)
        if unheard:
            raise InvalidValue(_unknown(f"there is no fact {unheard[0]}", unheard[0], _FACTS))
        if any(_hidden(text) for value in told.values() for text in _texts(value)):
            raise InvalidValue(_HIDDEN)
        known = {key: value for key, value in told.items() if value is not None}
        read({"operation": Operation.WITHDRAWAL, "now": 0, **known})
    except (ValueError, InvalidValue) as error:
        yield Problem("cases", case.id, "given", str(error))
    for filled in case.spent:
        if filled.rule not in limited:
            says = _unknown(f"no rule {filled.rule} has a limit", filled.rule, limited)
            yield Problem("cases", case.id, "spent", says)
    if case.approvals not in (None, NOBODY):
        for says in _approvals(case.approvals, groups):
            yield Problem("cases", case.id, "approvals", says)
    if case.expect in ("deny", "wait") and (case.approvals is not None or case.delay_seconds is not None):
        yield Problem("cases", case.id, "expect", "what is not routed has neither approvals nor a delay")
