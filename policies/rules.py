"""The rules of this version: each looks at the facts and allows a tier, denies, or has nothing to say.
Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.types import Asset
from policies.bundle import Bundle
from policies.decision import Destination, Reason
from policies.facts import GENUINE, AccountState, Ownership, Screening

PAYMENTS_REVERTED: Final = "payments-reverted"
"""Reason code of withdrawals that are not paid because too many others of the same customer have failed."""
MAX_REVERTS: Final = 3
"""So many failed payments of one customer within the window stop the next ones."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The numbers of the bundle's rules for one asset, in base units and seconds.

    Raises:
        InvalidValue: not integers from 0, or the hot limit is above the warm one.
    """

    asset: Asset
    version: int
    """Of the bundle."""
    hot_below: int
    warm_below: int
    hot_window_cap: int
    customer_window_cap: int
    window_seconds: int

    def __post_init__(self) -> None:
        numbers = (
            self.hot_below,
            self.warm_below,
            self.hot_window_cap,
            self.customer_window_cap,
            self.window_seconds,
        )
        if (
            any(type(number) is not int or number < 0 for number in numbers)
            or self.hot_below > self.warm_below
        ):
            raise InvalidValue(
                f"rules for {self.asset.id}: expected integers from 0, hot_below at most warm_below"
            )


def rules_of(bundle: Bundle, asset: str) -> RuleSet:
    """The rules of a bundle for an asset. Raises InvalidValue if there are none: then nothing may be paid."""
    rules = bundle.rules_for(asset)
    cap = bundle.cap("hot", asset)
    return RuleSet(
        asset=bundle.asset(asset).asset(),
        version=bundle.version,
        # Whatever the rules say, the signer's own caps are the lower bound of what can be paid.
        hot_below=min(int(rules.hot_below), int(cap.payment_below)),
        warm_below=max(int(rules.warm_below), min(int(rules.hot_below), int(cap.payment_below))),
        hot_window_cap=int(rules.hot_window_cap),
        customer_window_cap=int(rules.customer_window_cap),
        window_seconds=rules.window_seconds,
    )


@dataclass(frozen=True, slots=True)
class Allow:
    """A rule that lets the withdrawal go to a tier."""

    tier: Destination
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refuse:
    """A rule that denies it."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFacts:
    """The facts, none of them missing."""

    asset: str
    units: int
    ownership: Ownership
    screening: Screening
    customer: str
    account: AccountState
    order: str
    halts: tuple[str, ...]
    now: int
    expires_at: int
    customer_window_units: int
    hot_window_units: int
    customer_reverts: int


Finding = Allow | Refuse
Rule = Callable[[KnownFacts, RuleSet], Iterator[Finding]]


def asset_matches(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Rules of one asset say nothing about another."""
    if facts.asset != rules.asset.id:
        yield Refuse(Reason("asset-mismatch", f"the rules are for {rules.asset.id}, not {facts.asset}"))


def order_is_genuine(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """What is stored is what the caller signed."""
    if facts.order != GENUINE:
        yield Refuse(Reason("order-not-genuine", facts.order))


def order_is_alive(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """An order ends at its own time."""
    if facts.now >= facts.expires_at:
        yield Refuse(Reason("order-expired", f"ended at {facts.expires_at}, it is {facts.now}"))


def amount_is_positive(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Nothing is paid for nothing."""
    if facts.units == 0:
        yield Refuse(Reason("amount-zero", "an amount above zero is needed"))


def account_is_active(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Frozen customers do not withdraw."""
    if facts.account is not AccountState.ACTIVE:
        yield Refuse(Reason("customer-frozen", f"customer {facts.customer} is {facts.account}"))


def nothing_is_halted(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """While paying is halted, nothing is let through."""
    if facts.halts:
        yield Refuse(Reason("halted", f"paying is halted: {', '.join(facts.halts)}"))


def screening_is_clear(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Destinations on the list are not paid."""
    if facts.screening is not Screening.CLEAR:
        yield Refuse(Reason("destination-blocked", "screening says no to the destination"))


def destination_is_not_the_house(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """The house's own addresses are no customer's destination."""
    if facts.ownership is Ownership.HOUSE:
        yield Refuse(Reason("destination-is-house", "the destination is an address of the house"))


def customer_window(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """A cap on what one customer withdraws in a rolling window."""
    total = facts.customer_window_units + facts.units
    if total > rules.customer_window_cap:
        yield Refuse(
            Reason(
                "customer-window",
                f"{rules.asset.told(total)} in {rules.window_seconds} s,"
                f" at most {rules.asset.told(rules.customer_window_cap)} are allowed",
            )
        )


def payments_do_not_revert(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Whose payments keep failing in the chain gets no more of them for a while."""
    if facts.ownership is Ownership.EXTERNAL:
        reason = reverts_too_often(facts.customer_reverts, rules)
        if reason is not None:
            yield Refuse(reason)


def reverts_too_often(reverts: int, rules: RuleSet) -> Reason | None:
    """Why a customer is not paid on the chain now; None while so many failed payments are no reason.

    Who gets code to an address between the estimate and the block makes a payment to it fail, loses nothing, and uses
    up what the signer may spend on fees for everybody.

    Args:
        reverts: the customer's, as in `Facts.customer_reverts`.
        rules: of the asset that is to be paid.
    """
    if reverts < MAX_REVERTS:
        return None
    return Reason(
        PAYMENTS_REVERTED,
        f"{reverts} payments to this customer's destinations were mined and failed within {rules.window_seconds} s:"
        f" from {MAX_REVERTS} on no more are sent until those are older",
    )


def tier_by_amount(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """Small payments go to the hot tier; larger ones belong to tiers that come later."""
    if facts.ownership is not Ownership.EXTERNAL:
        return
    if facts.units < rules.hot_below:
        yield from _hot(facts, rules)
        return
    tier = "warm" if facts.units < rules.warm_below else "cold"
    yield Refuse(
        Reason(
            "tier-not-available",
            f"{rules.asset.told(facts.units)} belong to the {tier} tier, which this version does not pay from yet"
            f" (hot pays below {rules.asset.told(rules.hot_below)})",
        )
    )


def _hot(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    total = facts.hot_window_units + facts.units
    if total > rules.hot_window_cap:
        yield Refuse(
            Reason(
                "hot-window",
                f"{rules.asset.told(total)} from the hot tier in {rules.window_seconds} s,"
                f" at most {rules.asset.told(rules.hot_window_cap)} are allowed",
            )
        )
        return
    told = rules.asset.told
    yield Allow("hot", Reason("hot-amount", f"{told(facts.units)} are below {told(rules.hot_below)}"))


def internal(facts: KnownFacts, rules: RuleSet) -> Iterator[Finding]:
    """A withdrawal to a customer's address of ours never leaves: the ledger settles it."""
    if facts.ownership is Ownership.CUSTOMER:
        yield Allow("ledger", Reason("internal", "the destination is a customer's address of ours"))


RULES: Final[tuple[Rule, ...]] = (
    asset_matches,
    order_is_genuine,
    order_is_alive,
    amount_is_positive,
    account_is_active,
    nothing_is_halted,
    screening_is_clear,
    destination_is_not_the_house,
    customer_window,
    payments_do_not_revert,
    tier_by_amount,
    internal,
)
"""All rules of this version. Their order does not matter: a denial wins."""
