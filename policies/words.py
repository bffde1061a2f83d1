"""The policy in words, for people: one sentence a rule, amounts with their asset, times in hours and days."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from policies.notation import Money, listed, shortened, told_duration, told_hours, told_share
from policies.rules import (
    AddressGroup,
    AllOf,
    AnyOf,
    Approvals,
    Group,
    Holding,
    Limit,
    Need,
    Operation,
    Policy,
    Rule,
    When,
)

Told = Callable[[str, int], str]
"""Base units of an asset for people, with its name."""

_UNIT: Final = "USD-cents"
_OPERATIONS: Final = {
    Operation.WITHDRAWAL: "withdrawals",
    Operation.SWEEP: "sweeps",
    Operation.CONSOLIDATION: "consolidations",
    Operation.REFILL: "refills",
    Operation.ROTATION: "rotations",
    Operation.ADMINISTRATION: "administrative actions",
}
_DESTINATIONS: Final = {
    "internal": "addresses of our customers",
    "house": "addresses of the house",
    "external": "external destinations",
    "whitelisted": "whitelisted destinations",
    "one-time": "destinations that are not whitelisted",
    "contract": "contracts",
}
_CHECKS: Final = {
    "screening": "must pass screening",
    "travel-rule": "need originator and beneficiary data",
    "ownership-proof": "need the signature of the destination's owner",
}
_EACH: Final = {
    "all": "in all",
    "customer": "for each customer",
    "destination": "for each destination",
    "initiator": "for each initiator",
    "tier": "for each tier",
    "asset": "for each asset",
    "chain": "for each chain",
}


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


def rule(given: Rule, told: Told, unit: str = _UNIT) -> str:
    """One rule as a sentence, e.g. `Withdrawals below 0.1 BTC to external destinations are paid from hot.`

    Args:
        given: the rule.
        told: shows amounts of assets.
        unit: the bundle's unit of account.
    """
    subject = scope(given.when, told, unit)
    if given.unless is not None:
        subject += f", except {scope(given.unless, told, unit, everything='those')},"
    actions = list(_actions(given, told, unit))
    sentence = f"{subject} {', '.join(actions)}"
    return sentence[0].upper() + sentence[1:] + ("" if sentence.endswith((".", "!", "?")) else ".")


def scope(when: When, told: Told, unit: str = _UNIT, *, everything: str = "all operations") -> str:
    """What a rule is about, e.g. `withdrawals below 0.1 BTC to external destinations`.

    Args:
        when: the scope.
        told: shows amounts of assets.
        unit: the bundle's unit of account.
        everything: what is said where operations of all kinds are meant.
    """
    kinds = (
        listed([_OPERATIONS[each] for each in when.operations], word="and") if when.operations else everything
    )
    if when.actions:
        kinds += f" ({listed(when.actions)})"
    return " ".join([kinds, *_amounts(when, told, unit), *_where(when), *_who(when)])


def _amounts(when: When, told: Told, unit: str) -> Iterator[str]:
    asset = when.assets[0] if len(when.assets) == 1 else None
    low, high = when.amount_from, when.amount_below
    bounds = []
    if asset is not None and low is not None and int(low) > 0:
        bounds.append(f"of {amount(told, asset, int(low))} or more")
    if asset is not None and high is not None:
        bounds.append(f"below {amount(told, asset, int(high))}")
    if bounds:
        yield " and ".join(bounds)
    if when.assets and (asset is None or (high is None and (low is None or int(low) == 0))):
        yield f"of {listed(when.assets)}"
    if when.value_from is not None:
        yield f"worth {value(int(when.value_from), unit)} or more"
    if when.value_below is not None:
        yield f"worth less than {value(int(when.value_below), unit)}"


def _where(when: When) -> Iterator[str]:
    if when.chains:
        yield f"on {listed(when.chains)}"
    if when.sources:
        yield f"from {listed(when.sources)}"
    if when.tiers:
        yield f"that {listed(when.tiers)} pays"
    young = when.destination_younger_than
    if when.destinations:
        yield f"to {listed([_destination(each) for each in when.destinations])}"
        if young is not None:
            yield f"known for less than {told_duration(young)}"
    elif young is not None:
        yield f"to destinations known for less than {told_duration(young)}"


def _who(when: When) -> Iterator[str]:
    if when.customers:
        yield f"of {'customer' if len(when.customers) == 1 else 'customers'} {listed(when.customers)}"
    if when.kyc_below is not None:
        yield f"of customers below KYC level {when.kyc_below}"
    if when.initiators:
        yield f"that {listed(when.initiators)} asks for"
    if when.hours is not None:
        yield f"within {told_hours(when.hours)}"
    if when.screening is not None:
        yield "which screening clears" if when.screening == "clear" else "which screening objects to"
    if when.lookalike is not None:
        yield f"whose destination looks {'like' if when.lookalike else 'unlike'} another known one"
    for told, new in (("device", when.new_device), ("network address", when.new_ip)):
        if new is not None:
            yield f"from a {'new' if new else 'known'} {told}"
    if when.password_younger_than is not None:
        yield f"with a password changed less than {told_duration(when.password_younger_than)} ago"
    if when.mfa_younger_than is not None:
        yield f"with a second factor changed less than {told_duration(when.mfa_younger_than)} ago"
    if when.mfa_fewer_than is not None:
        yield (
            "without a second factor"
            if when.mfa_fewer_than == 1
            else f"with fewer than {when.mfa_fewer_than} authentication methods"
        )
    if when.mfa_without:
        yield f"authenticated without {listed(when.mfa_without)}"


def _destination(text: str) -> str:
    kind, _, name = text.partition(":")
    if kind == "group":
        return f"the addresses of {name}"
    if kind == "address":
        chain, _, address = name.partition(":")
        return f"{address} on {chain}"
    return _DESTINATIONS[kind]


def _actions(given: Rule, told: Told, unit: str) -> Iterator[str]:
    if given.deny is not None:
        yield f"are denied: {given.deny}"
    if given.route == "ledger":
        yield "are settled without a transaction"
    elif given.route is not None:
        yield f"are paid from {given.route}"
    if given.approvals is not None:
        yield f"need the approval of {needed(given.approvals)}"
    if given.delay_seconds:
        yield f"wait {told_duration(given.delay_seconds)}"
    for check in given.checks:
        yield _CHECKS[check]
    if given.verdict is not None:
        yield "need a verifier's word that they are covered"
    if given.limit is not None:
        yield limit(given.limit, given.when.assets[0] if given.when.assets else None, told, unit)


def limit(given: Limit, asset: str | None, told: Told, unit: str = _UNIT) -> str:
    """A limit as a predicate, e.g. `may come to at most 5 BTC within 24 hours in all, what is more waits`."""
    most = measured(given, asset, int(given.at_most), told, unit)
    more = "waits" if given.beyond == "wait" else "is denied"
    window = f"within {told_duration(given.window_seconds)}"
    return f"may come to at most {most} {window} {_EACH[given.per]}, what is more {more}"


def measured(given: Limit, asset: str | None, units: int, told: Told, unit: str = _UNIT) -> str:
    """What a limit counts: `5 BTC`, `50000 USD`, `20 payments`."""
    if given.measure == "payments":
        return f"{units} payment{'' if units == 1 else 's'}"
    if given.measure == "value" or asset is None:
        return value(units, unit)
    return amount(told, asset, units)


def amount(told: Told, asset: str, units: int) -> str:
    """Base units of an asset without zeros that say nothing: `0.1 BTC`."""
    number, blank, name = told(asset, units).partition(" ")
    return shortened(number) + blank + name


def value(units: int, unit: str = _UNIT) -> str:
    """So much of the unit of account: `50000 USD` where that is `USD-cents`."""
    return Money({}, unit).told_value(units)


def group(given: Group) -> str:
    """Who is in a group."""
    parts = [f"approvers with the role {listed(given.roles)}"] if given.roles else []
    parts += [listed(given.people, word="and")] if given.people else []
    return f"{given.id}: {' and '.join(parts)}"


def addresses(given: AddressGroup) -> str:
    """What is in an address group."""
    return f"{given.id}: {', '.join(given.addresses)}"


def holding(given: Holding, told: Told) -> str:
    """What tiers may hold, as a sentence."""
    most = amount(told, given.asset, int(given.at_most))
    if given.share is not None:
        most += f", or {told_share(given.share)} of all {given.asset} if that is less"
    refill = (
        ""
        if given.refill_below is None
        else f"; what is below {given.refill_below}% of that is filled up again"
    )
    together = " together" if len(given.tiers) > 1 else ""
    return f"{listed(given.tiers, word='and').capitalize()}{together} should hold at most {most}{refill}."


def policy(given: Policy, told: Told, unit: str = _UNIT) -> Iterator[str]:
    """The whole policy, a line each, with headings."""
    yield "Rules"
    for each in given.rules:
        yield f"  {each.id}: {rule(each, told, unit)}"
        if each.about.strip():
            yield f"      {each.about}"
    yield "  Whatever no rule allows is denied; the strictest of all that fit wins."
    for heading, lines in (
        ("Groups", [group(each) for each in given.groups]),
        ("Addresses", [addresses(each) for each in given.addresses]),
        ("Holdings", [holding(each, told) for each in given.holdings]),
    ):
        if lines:
            yield heading
            yield from (f"  {line}" for line in lines)
