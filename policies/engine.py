"""Facts in, decision out. Pure and total: whatever the facts, there is exactly one answer and no exception.

The strictest wins: any denial; then any wait; then the coldest of the tiers that rules allow, all approvals and checks
that are asked for, and the longest delay. A rule that asks for a fact nobody knows denies. So the order of rules does
not matter, and one more rule without `route` never permits anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from policies.decision import Decision, Deny, LimitKey, Reason, Routed, Wait
from policies.facts import GENUINE, AccountState, Facts, Ownership, Screening
from policies.matching import Scope
from policies.notation import told_duration
from policies.rules import (
    COLDER,
    NOBODY,
    AllOf,
    AnyOf,
    Approvals,
    Limit,
    Need,
    Operation,
    Policy,
    Route,
    Rule,
)

PAYMENTS_REVERTED: Final = "payments-reverted"
"""Reason code of withdrawals that are not paid because too many others of the same customer have failed."""
MAX_REVERTS: Final = 3
"""So many failed payments of one customer within a day stop the next ones."""

TOLD: Final = frozenset(
    {
        "value",
        "kyc_level",
        "new_device",
        "new_ip",
        "password_age_seconds",
        "mfa_age_seconds",
        "mfa_methods",
    }
)
"""Facts that only order and bundle tell: what a signer does not find there, the online side does not know either."""

Spent = Callable[[LimitKey, Limit], int | None]
"""What a window holds already, without the operation at hand; None if that is not known."""
Told = Callable[[str, int], str]
"""Base units of an asset for people, with its name."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a signer must see before it signs, by what it knows itself."""

    refusals: tuple[Reason, ...]
    approvals: Approvals
    delay_seconds: int
    verdict: bool
    limits: tuple[tuple[LimitKey, Limit, int], ...]
    """Windows that it keeps itself, and what this adds to each."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    scope: Scope


class Engine:
    """One policy, ready to decide. Immutable; may be shared by threads.

    Args:
        policy: a consistent one (`policies.checks.check_policy`).
        told: shows amounts in reasons.
    """

    def __init__(self, policy: Policy, told: Told) -> None:
        groups = {group.id: frozenset(group.addresses) for group in policy.addresses}
        self._rules = tuple(_Compiled(rule, Scope(rule, groups)) for rule in policy.rules)
        self._told = told
        self._concerned: dict[tuple[Operation, str | None, str | None], tuple[_Compiled, ...]] = {}

    def decide(self, facts: Facts, spent: Spent) -> Decision:
        """Decide about one operation. `spent` is asked for the windows of the rules that fit."""
        try:
            return self._decide(facts, spent)
        except Exception as error:  # noqa: BLE001 - an erring rule denies; anything else would be an open door
            return Deny((Reason("rule-failed", f"{type(error).__name__}: {error}"[:300]),))

    def _decide(self, facts: Facts, spent: Spent) -> Decision:
        denied = list(standing(facts))
        rules = self._concerning(facts)
        routes: list[tuple[Route, Rule]] = []
        routing = [None if each.rule.route is None else each.scope.fits(facts, None) for each in rules]
        for each, fits in zip(rules, routing, strict=True):
            if each.rule.route is None:
                continue
            if fits is None:
                denied.append(_missing(each, facts, None))
            elif fits and possible(facts, each.rule.route):
                routes.append((each.rule.route, each.rule))
        if not routes and not denied:
            denied.append(Reason("no-rule-allows", "no rule of the policy allows it"))
        tier = max((route for route, _ in routes), key=COLDER.index, default=None)
        found = _Findings(facts, spent, self._told)
        for each, routed in zip(rules, routing, strict=True):
            fits = routed if each.rule.route is not None else each.scope.fits(facts, tier)
            if fits:
                found.take(each.rule, tier)
            elif fits is None and each.rule.route is None and not (tier is None and each.scope.needs_tier):
                denied.append(_missing(each, facts, tier))
        denied += found.denied
        if denied or tier is None:
            return Deny(tuple(dict.fromkeys(denied)))
        if found.waiting:
            return Wait(tuple(found.waiting))
        allowed = tuple(
            Reason("allowed", rule.about or f"from {tier}", rule.id) for r, rule in routes if r == tier
        )
        return Routed(
            tier,
            (*allowed, *found.asked),
            all_of(found.needs),
            found.delay,
            found.verdict,
            tuple(found.counts),
        )

    def demands(self, facts: Facts, tier: Route) -> Demands:
        """What a signer of `tier` insists on. It knows less than the online side, and takes nobody's word for the rest.

        A rule whose scope it cannot judge neither stops it nor demands anything, except that a payment which no rule
        can allow is refused. So what rests on the online side alone is: rules about facts that only it can know
        (`policies.lint` lists them). What order and bundle don't tell nobody can judge: it is refused here as there.

        Raises:
            Exception: whatever a rule fails with; the caller refuses.
        """
        refusals: list[Reason] = []
        allowed = False
        found = _Findings(facts, lambda key, limit: 0, self._told)
        for each in self._concerning(facts):
            fits = each.scope.fits(facts, tier)
            if fits is False:
                continue
            if fits is None and TOLD.issuperset(each.scope.unknown(facts, tier)):
                refusals.append(Reason("policy-unknown", _missing(each, facts, tier).detail, each.rule.id))
                continue
            route = each.rule.route
            if route == tier:
                allowed = True
            elif (
                fits
                and route is not None
                and possible(facts, route)
                and COLDER.index(route) > COLDER.index(tier)
            ):
                refusals.append(Reason("policy-tier", f"{each.rule.id} sends it to {route}", each.rule.id))
            if fits:
                found.take(each.rule, tier, checks=False)
        if not allowed:
            refusals.append(Reason("policy-no-rule", f"no rule of the policy allows it from {tier}"))
        refusals += [Reason("policy-denied", reason.detail, reason.rule) for reason in found.denied]
        return Demands(tuple(refusals), all_of(found.needs), found.delay, found.verdict, tuple(found.limits))

    def counted(self, facts: Facts, tier: Route) -> tuple[tuple[LimitKey, int], ...]:
        """What an operation that was let through from `tier` adds to which windows.

        Where its record does not tell whether a rule is about it, it counts.
        """
        counts = []
        for each in self._concerning(facts):
            limit = each.rule.limit
            if limit is None or each.scope.fits(facts, tier) is False:
                continue
            bucket, amount = bucket_of(limit, facts, tier), amount_of(limit, facts)
            if bucket is not None and amount is not None:
                counts.append((LimitKey(each.rule.id, bucket), amount))
        return tuple(counts)

    def _concerning(self, facts: Facts) -> tuple[_Compiled, ...]:
        """The rules that operation, chain and asset leave possible."""
        key = (facts.operation, facts.chain, facts.asset)
        rules = self._concerned.get(key)
        if rules is None:
            rules = tuple(
                _Compiled(each.rule, each.scope.narrowed(facts))
                for each in self._rules
                if each.scope.may_concern(facts)
            )
            if len(self._concerned) < _MAX_KEPT:
                self._concerned[key] = rules
        return rules


_MAX_KEPT: Final = 1_000


class _Findings:
    """What the rules that fit ask for, together."""

    def __init__(self, facts: Facts, spent: Spent, told: Told) -> None:
        self._facts, self._spent, self._told = facts, spent, told
        self.denied: list[Reason] = []
        self.waiting: list[Reason] = []
        self.asked: list[Reason] = []
        self.needs: list[Approvals] = []
        self.delay = 0
        self.verdict = False
        self.counts: list[tuple[LimitKey, int]] = []
        self.limits: list[tuple[LimitKey, Limit, int]] = []

    def take(self, rule: Rule, tier: Route | None, *, checks: bool = True) -> None:
        """Add what one rule asks for."""
        if rule.deny is not None:
            self.denied.append(Reason("denied", rule.deny, rule.id))
        if rule.approvals is not None:
            self.needs.append(rule.approvals)
            self.asked.append(Reason("approvals", rule.about or "approvals are needed", rule.id))
        if rule.delay_seconds:
            self.delay = max(self.delay, rule.delay_seconds)
            self.asked.append(Reason("delay", told_duration(rule.delay_seconds), rule.id))
        if rule.verdict is not None:
            self.verdict = True
        if checks:
            self.denied += failed_checks(rule, self._facts)
        if rule.limit is not None:
            self._count(rule, rule.limit, tier)

    def _count(self, rule: Rule, limit: Limit, tier: Route | None) -> None:
        bucket = bucket_of(limit, self._facts, tier)
        amount = amount_of(limit, self._facts)
        if bucket is None or amount is None:
            if limit.per != "tier" or tier is not None:
                name = limit.per if bucket is None else limit.measure
                self.denied.append(
                    Reason("missing-fact", f"{rule.id} asks for {name}, which is not known", rule.id)
                )
            return
        key = LimitKey(rule.id, bucket)
        spent = self._spent(key, limit)
        if spent is None:
            self.denied.append(Reason("missing-fact", f"{rule.id}: its window is not known", rule.id))
            return
        if spent + amount > int(limit.at_most):
            detail = (
                f"{self._shown(limit, spent + amount)} within {told_duration(limit.window_seconds)}, at most "
            )
            reason = Reason(
                "limit", detail + f"{self._shown(limit, int(limit.at_most))} are allowed", rule.id
            )
            (self.waiting if limit.beyond == "wait" else self.denied).append(reason)
        self.counts.append((key, amount))
        self.limits.append((key, limit, amount))

    def _shown(self, limit: Limit, amount: int) -> str:
        if limit.measure == "units" and self._facts.asset is not None:
            return self._told(self._facts.asset, amount)
        return f"{amount} {'payments' if limit.measure == 'payments' else 'in value'}"


def all_of(needs: list[Approvals]) -> Approvals:
    """All of them, each once."""
    once = tuple(dict.fromkeys(needs))
    return once[0] if len(once) == 1 else AllOf(needs=once)


def bucket_of(limit: Limit, facts: Facts, tier: Route | None) -> str | None:
    """What a limit counts the operation under; None if that is not known."""
    match limit.per:
        case "customer":
            return facts.customer
        case "destination":
            known = facts.chain is not None and facts.destination is not None
            return f"{facts.chain}:{facts.destination}" if known else None
        case "initiator":
            return facts.initiator
        case "tier":
            return tier
        case "asset":
            return facts.asset
        case "chain":
            return facts.chain
        case "all":
            return ""


def amount_of(limit: Limit, facts: Facts) -> int | None:
    """What the operation adds to the limit's windows; values at their highest."""
    match limit.measure:
        case "units":
            return facts.units
        case "value":
            return None if facts.value is None else facts.value[1]
        case "payments":
            return 1


def failed_checks(rule: Rule, facts: Facts) -> Iterator[Reason]:
    """Checks of a rule that are not passed."""
    for check in rule.checks:
        match check:
            case "screening":
                if facts.screening is None:
                    yield Reason("missing-fact", f"{rule.id} asks for screening, which is not known", rule.id)
                elif facts.screening is not Screening.CLEAR:
                    yield Reason("destination-blocked", "screening says no to the destination", rule.id)
            case "travel-rule":
                if not facts.travel_rule:
                    yield Reason("travel-rule", "originator and beneficiary data are needed", rule.id)
            case "ownership-proof":
                if not facts.ownership_proof:
                    yield Reason(
                        "ownership-proof", "the destination's owner must sign that it is theirs", rule.id
                    )


def groups_of(approvals: Approvals) -> Iterator[str]:
    """Groups that are asked for anywhere in it."""
    match approvals:
        case Need():
            yield approvals.group
        case AllOf() | AnyOf():
            for need in approvals.needs:
                yield from groups_of(need)


def nobody_asked(approvals: Approvals) -> bool:
    """Whether it is met without any approval."""
    return approvals == NOBODY


def _missing(each: _Compiled, facts: Facts, tier: Route | None) -> Reason:
    names = ", ".join(each.scope.unknown(facts, tier))
    return Reason("missing-fact", f"{each.rule.id} asks for {names}, which is not known", each.rule.id)


def possible(facts: Facts, route: Route) -> bool:
    """What leaves us is paid by a tier, what does not by the ledger: no rule can mix them up."""
    if facts.operation is not Operation.WITHDRAWAL:
        return True
    return (facts.ownership is Ownership.CUSTOMER) is (route == "ledger")


def standing(facts: Facts) -> Iterator[Reason]:
    """What holds whatever the rules say."""
    if facts.halts is None:
        yield Reason("missing-fact", "halts are not known")
    elif facts.halts:
        yield Reason("halted", f"it is halted: {', '.join(facts.halts)}")
    if facts.operation is Operation.WITHDRAWAL:
        yield from _withdrawal_stands(facts)


_WITHDRAWAL_NEEDS: Final = (
    "chain", "asset", "units", "destination", "customer", "initiator", "ownership", "order", "expires_at", "account",
    "reverts",
)  # fmt: skip


def _withdrawal_stands(facts: Facts) -> Iterator[Reason]:
    if facts.order is not None and facts.order != GENUINE:
        yield Reason("order-not-genuine", facts.order)
    unknown = [name for name in _WITHDRAWAL_NEEDS if getattr(facts, name) is None]
    if unknown:
        yield from (Reason("missing-fact", f"{name} is not known") for name in unknown)
        return
    if facts.expires_at is not None and facts.now >= facts.expires_at:
        yield Reason("order-expired", f"ended at {facts.expires_at}, it is {facts.now}")
    if facts.units == 0:
        yield Reason("amount-zero", "an amount above zero is needed")
    if facts.account is not AccountState.ACTIVE:
        yield Reason("customer-frozen", f"customer {facts.customer} is {facts.account}")
    if facts.ownership is Ownership.HOUSE:
        yield Reason("destination-is-house", "the destination is an address of the house")
    if facts.ownership is Ownership.EXTERNAL and facts.reverts is not None:
        reason = reverts_too_often(facts.reverts)
        if reason is not None:
            yield reason


def reverts_too_often(reverts: int) -> Reason | None:
    """Why a customer is not paid on the chain now; None while so many failed payments are no reason.

    Who gets code to an address between the estimate and the block makes a payment to it fail, loses nothing, and uses
    up what the signer may spend on fees for everybody.
    """
    if reverts < MAX_REVERTS:
        return None
    return Reason(
        PAYMENTS_REVERTED,
        f"{reverts} payments to this customer's destinations were mined and failed within a day:"
        f" from {MAX_REVERTS} on no more are sent until those are older",
    )


class SpentTable:
    """Windows given beforehand, as a record of a decision has them; what it does not name is not known."""

    def __init__(self, spent: Mapping[LimitKey, int]) -> None:
        self._spent = spent

    def __call__(self, key: LimitKey, limit: Limit) -> int | None:
        """What is spent already."""
        return self._spent.get(key)
