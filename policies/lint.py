"""What is unwise in a policy although it is consistent (`strongroom policy lint`).

An error is what can't have been meant: payments that nobody can ever approve or sign. A warning may be meant and is
worth a second look. A note is what should be known, such as rules that only the online side checks. What is not found
here is not thereby proven: that is what `policies.prover` is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from policies.bundle import Bundle
from policies.covering import covers, disjoint, within
from policies.engine import groups_of, nobody_asked
from policies.lint_limits import limit_findings
from policies.lint_people import people_findings
from policies.lint_types import Finding, Severity
from policies.notation import listed, told_duration
from policies.rules import COLDER, Operation, Policy, Rule, When
from policies.words import amount, value

__all__ = ["Finding", "Severity", "lint", "online_only"]

_ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "note")
_WITHDRAWAL_ONLY: Final = {
    "destination_younger_than": "the destination's age",
    "kyc_below": "the KYC level",
    "screening": "screening",
    "lookalike": "what the destination looks like",
    "new_device": "the device",
    "new_ip": "the network address",
    "password_younger_than": "the password's age",
    "mfa_younger_than": "the second factor's age",
    "mfa_fewer_than": "the second factors",
}
"""Conditions about what is known of withdrawals only."""
_UNSEEN: Final = {
    "whitelisted": "the whitelist",
    "one-time": "the whitelist",
    "contract": "whether the destination has code",
    "internal": "whose an address of ours is",
    "house": "whose an address of ours is",
}
"""What destinations rest on that signers don't know."""


_ENFORCED: Final = frozenset({Operation.WITHDRAWAL, Operation.REFILL})
"""Operations about which signers ask the policy."""


def lint(bundle: Bundle) -> list[Finding]:
    """All findings about a bundle's policy, errors first."""
    found = [
        *_routes(bundle),
        *_never(bundle),
        *_shadowed(bundle),
        *_unknown(bundle),
        *limit_findings(bundle),
        *people_findings(bundle),
        *_unused(bundle.policy),
        *online_only(bundle),
    ]
    return sorted(dict.fromkeys(found), key=lambda each: (_ORDER.index(each.severity), each.code, each.rule))


def _chains_of(when: When, bundle: Bundle) -> list[str]:
    of = {entry.id: entry.chain for entry in bundle.assets}
    if when.assets:
        return sorted({of[asset] for asset in when.assets if not when.chains or of[asset] in when.chains})
    return sorted(when.chains or {network.chain for network in bundle.networks})


def _pays(rule: Rule) -> bool:
    """Whether it routes withdrawals."""
    return rule.route is not None and (
        not rule.when.operations or Operation.WITHDRAWAL in rule.when.operations
    )


# Where operations are routed


def _routes(bundle: Bundle) -> Iterator[Finding]:
    policy = bundle.policy
    wallets = (*bundle.keysets, *bundle.vaults)
    routed = {rule.route for rule in policy.rules if rule.route is not None}
    if not routed:
        yield Finding("nothing-allowed", "", "no rule has `route`: everything is denied", "error")
    for tier in sorted({wallet.tier for wallet in wallets} - routed):
        named = listed(sorted(wallet.id for wallet in wallets if wallet.tier == tier), word="and")
        yield Finding(
            "unreachable-tier", "", f"no rule routes anything to {tier}: {named} never pays", "warning"
        )
    chains = {entry.id: entry.chain for entry in bundle.assets}
    for rule in policy.rules:
        if rule.route is None:
            continue
        if not rule.when.operations:
            yield Finding(
                "routes-everything",
                rule.id,
                "it allows operations of every kind, administration too: name `operation`",
                "warning",
            )
        if not _pays(rule) or rule.route == "ledger":
            continue
        for chain in _chains_of(rule.when, bundle):
            if not any((wallet.chain, wallet.tier) == (chain, rule.route) for wallet in wallets):
                says = f"it pays from {rule.route}, which has no wallet on {chain}: there it denies"
                yield Finding("no-wallet", rule.id, says, "warning")
        scope = _paid_by(rule)
        asked = any(
            other.approvals is not None and not nobody_asked(other.approvals) and covers(other, scope, chains)
            for other in policy.rules
        )
        if rule.route != "hot" and not asked:
            says = f"signers of {rule.route} sign nothing that nobody approves: add `approvals`"
            yield Finding("nobody-asked", rule.id, says, "error")


def _paid_by(rule: Rule) -> When:
    """The scope of a rule that routes, as it is once it has."""
    return _with_tier(rule.when, rule)


def _with_tier(when: When, rule: Rule) -> When:
    return msgspec.structs.replace(when, tiers=() if rule.route is None else (rule.route,))


# Rules that never fit, or change nothing


def _never(bundle: Bundle) -> Iterator[Finding]:
    chains = {entry.id: entry.chain for entry in bundle.assets}
    routing = [rule for rule in bundle.policy.rules if rule.route is not None]
    for rule in bundle.policy.rules:
        kinds = set(rule.when.destinations)
        if rule.when.operations == (Operation.WITHDRAWAL,) and kinds:
            if rule.route == "ledger" and kinds <= {"external", "whitelisted", "one-time", "house"}:
                says = "the ledger settles between customers only: write `destination: internal`, or another tier"
                yield Finding("never-fits", rule.id, says, "error")
            elif rule.route not in (None, "ledger") and kinds == {"internal"}:
                says = "payments to our customers are settled in the ledger: write `route: ledger`"
                yield Finding("never-fits", rule.id, says, "error")
        if kinds == {"house"} and rule.when.operations == (Operation.WITHDRAWAL,):
            says = "a withdrawal to an address of the house is denied whatever rules say"
            yield Finding("never-fits", rule.id, says, "warning")
        if rule.unless is not None and within(rule.when, rule.unless, chains):
            yield Finding("never-fits", rule.id, "its exception holds whenever it fits", "error")
        if rule.when.tiers and not any(
            route.route in rule.when.tiers
            and not disjoint(_with_tier(rule.when, route), _paid_by(route), chains)
            for route in routing
        ):
            says = f"no rule routes anything like that to {listed(rule.when.tiers)}"
            yield Finding("never-fits", rule.id, says, "warning")
        idle = rule.route is None and rule.deny is None and not rule.when.tiers and bool(routing)
        if idle and all(disjoint(rule.when, route.when, chains) for route in routing):
            yield Finding("never-matters", rule.id, "no rule allows anything that it is about", "warning")
        if rule.delay_seconds >= bundle.longest_order_seconds:
            says = (
                f"orders end after {told_duration(bundle.longest_order_seconds)} at most, before its delay of"
                f" {told_duration(rule.delay_seconds)}: nothing it fits is ever paid"
            )
            yield Finding("delay-too-long", rule.id, says, "error")
        if rule.delay_seconds and Operation.REFILL in rule.when.operations:
            says = "signers can't know since when a refill is wanted, and sign none that has to wait: remove the delay"
            yield Finding("refill-delay", rule.id, says, "error")


def _shadowed(bundle: Bundle) -> Iterator[Finding]:
    chains = {entry.id: entry.chain for entry in bundle.assets}
    rules = bundle.policy.rules
    for rule in rules:
        for other in rules:
            if other is rule or other.when.tiers or not covers(other, rule.when, chains):
                continue
            if other.deny is not None:
                twin = rule.deny is not None and covers(rule, other.when, chains)
                if not twin or rules.index(other) < rules.index(rule):
                    says = f"whatever it fits is denied by {other.id} anyway"
                    yield Finding("shadowed", rule.id, says, "warning")
            elif None not in (rule.route, other.route) and _colder(other) > _colder(rule):
                says = f"{other.id} sends all of that to {other.route}, and the colder tier wins"
                yield Finding("shadowed", rule.id, says, "warning")


def _colder(rule: Rule) -> int:
    return -1 if rule.route is None else COLDER.index(rule.route)


# Facts that are not known


def _unknown(bundle: Bundle) -> Iterator[Finding]:
    priced = {bound.asset for bound in bundle.prices}
    for rule in bundle.policy.rules:
        scopes = [each for each in (rule.when, rule.unless) if each is not None]
        if not rule.when.operations or set(rule.when.operations) != {Operation.WITHDRAWAL}:
            asked = [
                told
                for name, told in _WITHDRAWAL_ONLY.items()
                if any(getattr(scope, name) is not None for scope in scopes)
            ]
            asked += ["the second factors"] if any(scope.mfa_without for scope in scopes) else []
            asked += ["screening"] if "screening" in rule.checks else []
            if asked:
                says = (
                    f"{listed(dict.fromkeys(asked), word='and')} of anything but withdrawals is not known: it denies"
                    " all of that; name `operation: withdrawal`"
                )
                yield Finding("denies-unknown", rule.id, says, "warning")
        if _in_value(rule):
            assets = rule.when.assets or tuple(entry.id for entry in bundle.assets)
            for asset in sorted(set(assets) - priced):
                says = (
                    f"the bundle bounds no price of {asset}: its value is not known, so it denies all of it"
                )
                yield Finding("no-price", rule.id, says, "warning")
            for scope in scopes:
                yield from _uncertain(rule, scope, bundle)


def _in_value(rule: Rule) -> bool:
    scopes = [each for each in (rule.when, rule.unless) if each is not None]
    return (rule.limit is not None and rule.limit.measure == "value") or any(
        scope.value_from is not None or scope.value_below is not None for scope in scopes
    )


def _uncertain(rule: Rule, scope: When, bundle: Bundle) -> Iterator[Finding]:
    """Amounts of which nobody can say on which side of a bound they are."""
    for price in bundle.prices:
        if (rule.when.assets and price.asset not in rule.when.assets) or price.low == price.high:
            continue
        one = 10 ** bundle.asset(price.asset).decimals
        for bound in {scope.value_from, scope.value_below} - {None, "0"}:
            worth = int(bound or 0)
            first, last = worth * one // int(price.high), worth * one // int(price.low)
            says = (
                f"between {amount(bundle.told, price.asset, first)} and {amount(bundle.told, price.asset, last)} nobody"
                f" can say whether it is worth {value(worth, bundle.unit)}, by the bundle's bounds of the price: it"
                " denies these; amounts of the asset are exact"
            )
            yield Finding("uncertain-value", rule.id, says, "warning")


def online_only(bundle: Bundle) -> Iterator[Finding]:
    """Rules that rest on facts which signers can't know: the online side alone keeps to them."""
    for rule in bundle.policy.rules:
        others = [str(each) for each in rule.when.operations if each not in _ENFORCED]
        if others:
            kinds = listed(others, word="and")
            says = f"checked by the online side only: for {kinds} signers have fixed rules of their own"
            yield Finding("online-only", rule.id, says, "note")
        if others and _ENFORCED.isdisjoint(rule.when.operations):
            continue
        asked = list(dict.fromkeys(_unseen(rule)))
        # What the ledger settles, nobody signs.
        if asked and rule.route != "ledger":
            says = f"checked by the online side only: signers can't know {listed(asked)}"
            if rule.route is not None:
                says += f", and those of {rule.route} sign as if the rule fitted"
            yield Finding("online-only", rule.id, says, "note")


def _unseen(rule: Rule) -> Iterator[str]:
    for scope in (rule.when, rule.unless):
        if scope is None:
            continue
        # `external` is true of all withdrawals that signers sign; beside it the other kinds decide nothing. Of a refill
        # they know that it goes to the house.
        refills = rule.when.operations and Operation.WITHDRAWAL not in rule.when.operations
        kinds = {"contract"} if refills else _UNSEEN.keys()
        if "external" not in scope.destinations:
            yield from (_UNSEEN[kind] for kind in scope.destinations if kind in kinds)
        if scope.screening is not None:
            yield "screening"
        if scope.lookalike is not None:
            yield "what a destination looks like"
    for check in rule.checks:
        yield {
            "screening": "screening",
            "travel-rule": "the travel-rule data",
            "ownership-proof": "the owner's signature",
        }[check]


# What nothing uses


def _unused(policy: Policy) -> Iterator[Finding]:
    asked = {
        group for rule in policy.rules if rule.approvals is not None for group in groups_of(rule.approvals)
    }
    for group in policy.groups:
        if group.id not in asked:
            yield Finding("unused", group.id, f"no rule asks for the group {group.id}", "note")
    scopes: Iterable[Any] = [scope for rule in policy.rules for scope in (rule.when, rule.unless) if scope]
    named = {each for scope in scopes for each in scope.destinations}
    for addresses in policy.addresses:
        if f"group:{addresses.id}" not in named:
            says = f"no rule names the address group {addresses.id}"
            yield Finding("unused", addresses.id, says, "note")
    if policy.rules and not policy.cases:
        yield Finding("no-cases", "", "no case says what the policy must answer: `cases`", "note")
