"""Policies for tests that are about something else: every wallet may pay, and what a test asks for is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from policies.rules import Group, Need, Policy, Rule, When
from tests.support.amounts import HOUSE_RULES


def every_wallet_pays(wallets: Iterable[Any]) -> Policy:
    """Key-sets and vaults each pay whatever they are asked for. Where all are hot, the online side pays too."""
    found = list(wallets)
    if all(wallet.tier == "hot" for wallet in found):
        return Policy(
            rules=(Rule(id="hot", when=When(destinations=("external",)), route="hot"), *HOUSE_RULES)
        )
    return Policy(
        rules=tuple(
            Rule(id=f"pays-{wallet.id}", when=When(sources=(wallet.id,)), route=wallet.tier)
            for wallet in found
        )
    )


def asked_for(
    *,
    tier: Literal["ledger", "hot", "warm", "cold"] = "warm",
    asset: str = "BTC",
    approvals: int = 2,
    group: str,
    count: Literal["people", "organisations"] = "people",
    verdict: Literal["required"] | None = "required",
    **changes: Any,
) -> Rule:
    """A rule by which a tier's payments of an asset need approvals and a verdict."""
    told = f"{tier}-{asset}-{approvals}-{group}-{count}-{verdict}"
    rule = Rule(
        id=told.replace(" ", ""),
        when=When(tiers=(tier,), assets=(asset,)),
        approvals=Need(group=group, count=approvals, distinct=count) if approvals else None,
        verdict=verdict,
    )
    return msgspec.structs.replace(rule, **changes)


def aged(*, destination: int = 0, delay: int = 0) -> tuple[Rule, ...]:
    """Rules that ask for ages of destinations and orders, in seconds."""
    young = When(destination_younger_than=destination)
    return (
        *([Rule(id="young", when=young, deny="the destination is too new")] if destination else []),
        *([Rule(id="slow", delay_seconds=delay)] if delay else []),
    )


def with_rules(policy: Policy, rules: Iterable[Rule], groups: Iterable[str] = ()) -> Policy:
    """The policy with more rules, and groups named like the role that their members have."""
    known = {group.id for group in policy.groups}
    more = tuple(Group(id=name, roles=(name,)) for name in groups if name not in known)
    return msgspec.structs.replace(policy, rules=(*policy.rules, *rules), groups=(*policy.groups, *more))
