"""Limits and bands that don't limit what they seem to: too wide, too narrow, or easily gone around."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from policies.bundle import Bundle, TierCap
from policies.covering import covers
from policies.engine import nobody_asked
from policies.lint_types import Finding
from policies.notation import told_duration
from policies.rules import Limit, Operation, Rule, When
from policies.words import amount, measured, value

_OF_ONE: Final = ("customer", "destination", "initiator")
"""Who could split a payment: what is counted for each of these."""


def limit_findings(bundle: Bundle) -> Iterator[Finding]:
    """All findings about limits, bands, caps and breakers."""
    chains = {entry.id: entry.chain for entry in bundle.assets}
    for rule in bundle.policy.rules:
        if rule.limit is not None:
            yield from _beyond_signers(rule, rule.limit, bundle)
            yield from _slack(rule, rule.limit, bundle, chains)
        if _pays(rule):
            yield from _splitting(rule, bundle, chains)
            yield from _beyond_caps(rule, bundle)
            yield from _never_within(rule, bundle, chains)


def _pays(rule: Rule) -> bool:
    of = rule.when.operations
    return rule.route not in (None, "ledger") and (not of or Operation.WITHDRAWAL in of)


def _routed(rule: Rule, asset: str | None = None) -> When:
    """The scope of what a rule has routed, of one asset."""
    of: dict[str, tuple[str, ...]] = {} if rule.route is None else {"tiers": (rule.route,)}
    if asset is not None:
        of["assets"] = (asset,)
    return msgspec.structs.replace(rule.when, **of)


def _assets(rule: Rule, bundle: Bundle) -> list[str]:
    return [
        entry.id
        for entry in bundle.assets
        if (not rule.when.assets or entry.id in rule.when.assets)
        and (not rule.when.chains or entry.chain in rule.when.chains)
    ]


# Bands


def _splitting(rule: Rule, bundle: Bundle, chains: Mapping[str, str]) -> Iterator[Finding]:
    """What is paid without anybody's approval, and more than once."""
    for asset in _assets(rule, bundle):
        scope = _routed(rule, asset)
        fitting = [other for other in bundle.policy.rules if covers(other, scope, chains)]
        if any(other.approvals is not None and not nobody_asked(other.approvals) for other in fitting):
            continue
        limits = [
            other.limit for other in fitting if other.limit is not None and other.limit.measure != "payments"
        ]
        banded = rule.when.amount_below is not None or rule.when.value_below is not None
        if not limits:
            says = f"nobody approves it and no window bounds how much {asset} it pays in a day: add a `limit`"
            yield Finding("unbounded", rule.id, says, "warning")
        elif banded and not any(limit.per in _OF_ONE for limit in limits):
            says = (
                f"many small payments of {asset} go around what larger ones need: add a `limit` `per: customer` or"
                " `per: destination`"
            )
            yield Finding("splitting", rule.id, says, "warning")


def _beyond_caps(rule: Rule, bundle: Bundle) -> Iterator[Finding]:
    """Amounts that a rule routes to a tier whose signers refuse them."""
    for cap in bundle.caps:
        if cap.tier != rule.route or cap.asset not in _assets(rule, bundle):
            continue
        of_asset = rule.when.assets == (cap.asset,)
        high = int(rule.when.amount_below) if of_asset and rule.when.amount_below is not None else None
        low = int(rule.when.amount_from or 0) if of_asset else 0
        below, least = int(cap.payment_below), int(cap.payment_from)
        if low >= below or (high is not None and high <= least):
            says = f"signers of {cap.tier} sign none of its payments of {cap.asset}: {_cap(cap, bundle)}"
            yield Finding("above-cap", rule.id, says, "error")
        elif (high is None and rule.when.value_below is None) or (high is not None and high > below):
            says = (
                f"signers of {cap.tier} refuse payments from {amount(bundle.told, cap.asset, below)}"
                f" on: {_cap(cap, bundle)}"
            )
            yield Finding("above-cap", rule.id, says, "warning")
        elif low < least:
            says = f"signers of {cap.tier} refuse less than {amount(bundle.told, cap.asset, least)}"
            yield Finding("below-cap", rule.id, says, "warning")


def _cap(cap: TierCap, bundle: Bundle) -> str:
    return f"the bundle's cap is below {amount(bundle.told, cap.asset, int(cap.payment_below))} a payment"


def _never_within(rule: Rule, bundle: Bundle, chains: Mapping[str, str]) -> Iterator[Finding]:
    """Payments that a rule routes and a window never has room for, not even when it is empty."""
    for asset in _assets(rule, bundle):
        scope = _routed(rule, asset)
        for other in bundle.policy.rules:
            limit = other.limit
            if limit is None or limit.measure != "units" or not covers(other, scope, chains):
                continue
            most, high, low = int(limit.at_most), rule.when.amount_below, int(rule.when.amount_from or 0)
            if low > most:
                says = f"no payment of it ever fits {other.id}: {_told(other, limit, bundle)} at most"
                yield Finding("never-within", rule.id, says, "error")
            elif high is None or int(high) - 1 > most:
                does = "waits for ever" if limit.beyond == "wait" else "is denied"
                says = f"what is above {_told(other, limit, bundle)} {does}: it never fits {other.id}"
                # A wait without end is worse than a denial: nobody is told.
                severe = limit.beyond == "wait"
                yield Finding("never-within", rule.id, says, "warning" if severe else "note")


# Windows


def _told(rule: Rule, limit: Limit, bundle: Bundle) -> str:
    asset = rule.when.assets[0] if rule.when.assets else None
    return measured(limit, asset, int(limit.at_most), bundle.told, bundle.unit)


def _beyond_signers(rule: Rule, limit: Limit, bundle: Bundle) -> Iterator[Finding]:
    """Windows that signers close before the policy does."""
    if rule.when.tiers != ("hot",) or limit.per in _OF_ONE or limit.measure == "payments":
        return
    if limit.measure == "units":
        asset = rule.when.assets[0]
        for cap in bundle.caps:
            shorter = limit.window_seconds <= cap.window_seconds
            if (
                (cap.tier, cap.asset) == ("hot", asset)
                and shorter
                and int(limit.at_most) > int(cap.window_cap)
            ):
                says = (
                    f"its {_told(rule, limit, bundle)} are never reached: the hot signer stops at"
                    f" {amount(bundle.told, asset, int(cap.window_cap))} in {told_duration(cap.window_seconds)}"
                )
                yield Finding("above-cap", rule.id, says, "warning")
    yield from _beyond_breakers(rule, limit, bundle)


def _beyond_breakers(rule: Rule, limit: Limit, bundle: Bundle) -> Iterator[Finding]:
    worth = int(limit.at_most)
    if limit.measure == "units":
        asset = bundle.asset(rule.when.assets[0])
        bounds = [price for price in bundle.prices if price.asset == asset.id]
        if not bounds:
            return
        worth = worth * int(bounds[0].high) // 10**asset.decimals
        chain: str | None = asset.chain
    else:
        chain = None
    for breaker in bundle.breakers:
        hot = [
            k
            for k in bundle.keysets
            if k.id in breaker.keysets and k.tier == "hot" and chain in (None, k.chain)
        ]
        if hot and limit.window_seconds <= breaker.window_seconds and worth > int(breaker.value_cap):
            says = (
                f"its {_told(rule, limit, bundle)} are worth {value(worth, bundle.unit)} at the highest price that the"
                f" bundle believes: breaker {breaker.id} stops at {value(int(breaker.value_cap), bundle.unit)}"
            )
            yield Finding("above-breaker", rule.id, says, "warning")


def _slack(rule: Rule, limit: Limit, bundle: Bundle, chains: Mapping[str, str]) -> Iterator[Finding]:
    """Windows that another one closes first."""
    if limit.at_most == "0":
        yield Finding("limit-zero", rule.id, "it lets nothing through: `deny` says why", "warning")
    for other in bundle.policy.rules:
        tighter = other.limit
        if other is rule or tighter is None or not covers(other, rule.when, chains):
            continue
        alike = (tighter.per, tighter.measure) == (limit.per, limit.measure)
        if not alike or tighter.window_seconds < limit.window_seconds:
            continue
        closer = int(tighter.at_most) < int(limit.at_most)
        same = tighter.at_most == limit.at_most and not covers(rule, other.when, chains)
        if closer or same:
            yield Finding(
                "shadowed", rule.id, f"its window is never full: {other.id} closes first", "warning"
            )
