"""Who and what a policy mentions by name, and what a bundle says of its assets: the world of `policies.symbols`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.bundle import Bundle
from policies.rules import Policy, When

NAMED: Final = ("action", "chain", "asset", "source", "destination", "customer", "initiator")
"""Facts that are names: a number below the count of names that somebody has mentioned is one of those, any other
number is somebody else."""


@dataclass(frozen=True, slots=True)
class Worth:
    """One asset of a bundle, and the bounds of its price."""

    chain: str
    one: int
    """Base units in one."""
    low: int | None = None
    high: int | None = None


@dataclass
class Names:
    """Names that rules, questions and windows mention, by the fact that they belong to."""

    known: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMED})
    methods: list[str] = field(default_factory=list)

    def number(self, fact: str, name: str) -> int:
        """The number that stands for a name; mentions it."""
        names = self.known[fact]
        if name not in names:
            names.append(name)
        return names.index(name)

    def mention(self, when: When) -> None:
        """All names of a scope."""
        for fact, names in (
            ("action", when.actions),
            ("chain", when.chains),
            ("asset", when.assets),
            ("source", when.sources),
            ("customer", when.customers),
            ("initiator", when.initiators),
        ):
            for name in names:
                self.number(fact, name)
        for scope in when.destinations:
            if scope.startswith("address:"):
                self.mention_address(scope.removeprefix("address:"))
        self.methods += [name for name in when.mfa_without if name not in self.methods]

    def mention_address(self, text: str) -> None:
        """A `CHAIN:ADDRESS`."""
        chain, _, destination = text.partition(":")
        self.number("chain", chain)
        self.number("destination", destination)


def names_in(policy: Policy, assets: Mapping[str, Worth], scopes: Iterable[When]) -> Names:
    """All that a policy, a bundle's assets and some scopes mention."""
    names = Names()
    for asset, worth in assets.items():
        names.number("asset", asset)
        names.number("chain", worth.chain)
    for rule in policy.rules:
        names.mention(rule.when)
        if rule.unless is not None:
            names.mention(rule.unless)
    for scope in scopes:
        names.mention(scope)
    for group in policy.addresses:
        for text in group.addresses:
            names.mention_address(text)
    return names


def worths(bundle: Bundle) -> dict[str, Worth]:
    """The assets of a bundle."""
    prices = {price.asset: price for price in bundle.prices}
    return {
        entry.id: Worth(
            entry.chain,
            10**entry.decimals,
            int(prices[entry.id].low) if entry.id in prices else None,
            int(prices[entry.id].high) if entry.id in prices else None,
        )
        for entry in bundle.assets
    }
