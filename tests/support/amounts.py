"""Rules for tests about something else: tiers by amount, a daily window of the hot tier and of each customer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.bundle import TierCap
from policies.rules import Limit, Operation, Policy, Rule, When


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountRules:
    """Of one asset, in base units."""

    asset: str
    hot_below: int
    warm_below: int
    hot_window_cap: int
    customer_window_cap: int
    window_seconds: int

    def rules(self) -> tuple[Rule, ...]:
        """Bands for the tiers, and the windows."""
        payments = When(operations=(Operation.WITHDRAWAL,), assets=(self.asset,), destinations=("external",))
        return (
            Rule(id=f"{self.asset}-hot", when=_banded(payments, 0, self.hot_below), route="hot"),
            Rule(
                id=f"{self.asset}-warm", when=_banded(payments, self.hot_below, self.warm_below), route="warm"
            ),
            Rule(id=f"{self.asset}-cold", when=_banded(payments, self.warm_below, None), route="cold"),
            Rule(
                id=f"{self.asset}-hot-window",
                when=When(operations=(Operation.WITHDRAWAL,), assets=(self.asset,), tiers=("hot",)),
                limit=self._limit("all", self.hot_window_cap),
            ),
            Rule(
                id=f"{self.asset}-customer-window",
                when=When(operations=(Operation.WITHDRAWAL,), assets=(self.asset,)),
                limit=self._limit("customer", self.customer_window_cap),
            ),
        )

    def _limit(self, per: str, at_most: int) -> Limit:
        return Limit(
            window_seconds=self.window_seconds,
            per="customer" if per == "customer" else "all",
            measure="units",
            at_most=str(at_most),
        )


def _banded(payments: When, least: int, below: int | None) -> When:
    return When(
        operations=payments.operations,
        assets=payments.assets,
        destinations=payments.destinations,
        amount_from=str(least),
        amount_below=None if below is None else str(below),
    )


HOUSE_RULES = (
    Rule(
        id="own-money",
        when=When(operations=(Operation.SWEEP, Operation.CONSOLIDATION), destinations=("house",)),
        route="hot",
    ),
    Rule(
        id="internal",
        about="to an address of ours: the ledger settles it",
        when=When(operations=(Operation.WITHDRAWAL,), destinations=("internal",)),
        route="ledger",
    ),
    Rule(
        id="by-hand",
        about="what operators do, one of them alone",
        when=When(operations=(Operation.ADMINISTRATION,)),
        route="ledger",
    ),
    Rule(
        id="screened",
        when=When(operations=(Operation.WITHDRAWAL,), destinations=("external",)),
        checks=("screening",),
    ),
)
"""What holds for every asset."""


def rules_of(cap: TierCap) -> AmountRules:
    """Bands and windows that go with a hot tier's cap."""
    below = int(cap.payment_below)
    return AmountRules(
        asset=cap.asset,
        hot_below=below,
        warm_below=100 * below,
        hot_window_cap=int(cap.window_cap),
        customer_window_cap=20 * below,
        window_seconds=cap.window_seconds,
    )


def policy_of(amounts: Iterable[AmountRules]) -> Policy:
    """The policy of such a test."""
    return Policy(rules=(*(rule for each in amounts for rule in each.rules()), *HOUSE_RULES))


def with_amounts(policy: Policy, amounts: Iterable[AmountRules]) -> Policy:
    """The policy with rules for more assets."""
    return Policy(rules=(*policy.rules, *(rule for each in amounts for rule in each.rules())))
