"""The policy decided once more, slowly and in the plainest way, from what `policies.rules` and `policies.engine` say.

It shares no code with the engine but the records that both read. A scope is a list of questions, each answered yes, no
or unknown; a window is a list of everything that was ever paid, added up each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.facts import Facts
from policies.rules import Approvals, Hours, Limit, Policy, Rule, When

YES, NO, UNKNOWN = "yes", "no", "unknown"

DAY_NAMES = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"]
"""From 1970-01-01 on."""
PROTECTION = {"ledger": 0, "hot": 1, "warm": 2, "cold": 3}
WITHDRAWALS_NEED = [
    "chain", "asset", "units", "destination", "customer", "initiator", "ownership", "order", "expires_at",
    "account", "reverts",
]  # fmt: skip


@dataclass
class Answer:
    """What the oracle says. `reasons` are pairs of code and rule."""

    outcome: str
    reasons: set[tuple[str, str]]
    tier: str | None = None
    approvals: list[Approvals] = field(default_factory=list)
    delay_seconds: int = 0
    verdict: bool = False
    counts: set[tuple[str, str, int]] = field(default_factory=set)


@dataclass
class Ledger:
    """Everything that was ever let through: when, for which rule, for whom, how much."""

    payments: list[tuple[int, str, str, int]] = field(default_factory=list)

    def total(self, rule: str, bucket: str, now: int, seconds: int) -> int:
        return sum(
            amount
            for at, its_rule, its_bucket, amount in self.payments
            if its_rule == rule and its_bucket == bucket and at > now - seconds
        )

    def add(self, at: int, counts: set[tuple[str, str, int]]) -> None:
        for rule, bucket, amount in counts:
            self.payments.append((at, rule, bucket, amount))


def decide(policy: Policy, facts: Facts, ledger: Ledger) -> Answer:
    """Any denial, else any wait, else the coldest tier that a rule allows, with all that rules ask for."""
    denials = house_rules(facts)

    permitting = []
    for rule in policy.rules:
        if rule.route is None:
            continue
        about_it = is_about(policy, rule, facts, tier=None)
        if about_it == UNKNOWN:
            denials.append(("missing-fact", rule.id))
        if about_it == YES and can_pay(facts, rule.route):
            permitting.append(rule)
    if not permitting and not denials:
        denials.append(("no-rule-allows", ""))

    tier: str | None = None
    for rule in permitting:
        if tier is None or PROTECTION[str(rule.route)] > PROTECTION[tier]:
            tier = str(rule.route)

    waits: list[tuple[str, str]] = []
    answer = Answer("route", set(), tier)
    for rule in policy.rules:
        about_it = is_about(policy, rule, facts, tier)
        if about_it == UNKNOWN and rule.route is None and not (tier is None and names_tiers(rule)):
            denials.append(("missing-fact", rule.id))
        if about_it != YES:
            continue
        if rule.deny is not None:
            denials.append(("denied", rule.id))
        denials += [(code, rule.id) for code in failed_checks(rule, facts)]
        if rule.approvals is not None:
            answer.reasons.add(("approvals", rule.id))
            if rule.approvals not in answer.approvals:
                answer.approvals.append(rule.approvals)
        if rule.delay_seconds > 0:
            answer.reasons.add(("delay", rule.id))
            answer.delay_seconds = max(answer.delay_seconds, rule.delay_seconds)
        if rule.verdict == "required":
            answer.verdict = True
        if rule.limit is not None:
            window(rule, rule.limit, facts, tier, ledger, answer, denials, waits)

    if denials:
        return Answer("deny", set(denials))
    if waits:
        return Answer("wait", set(waits))
    for rule in permitting:
        if rule.route == tier:
            answer.reasons.add(("allowed", rule.id))
    return answer


def window(
    rule: Rule,
    limit: Limit,
    facts: Facts,
    tier: str | None,
    ledger: Ledger,
    answer: Answer,
    denials: list[tuple[str, str]],
    waits: list[tuple[str, str]],
) -> None:
    """This one and all that the window holds must not come to more than the limit."""
    if limit.per == "tier" and tier is None:
        return
    buckets = {
        "customer": facts.customer,
        "destination": None
        if facts.chain is None or facts.destination is None
        else facts.chain + ":" + facts.destination,
        "initiator": facts.initiator,
        "tier": tier,
        "asset": facts.asset,
        "chain": facts.chain,
        "all": "",
    }
    amounts = {
        "units": facts.units,
        "value": facts.value[1] if facts.value is not None else None,
        "payments": 1,
    }
    bucket, amount = buckets[limit.per], amounts[limit.measure]
    if bucket is None or amount is None:
        denials.append(("missing-fact", rule.id))
        return
    held = ledger.total(rule.id, bucket, facts.now, limit.window_seconds)
    if held + amount > int(limit.at_most):
        if limit.beyond == "wait":
            waits.append(("limit", rule.id))
        else:
            denials.append(("limit", rule.id))
    answer.counts.add((rule.id, bucket, amount))


def house_rules(facts: Facts) -> list[tuple[str, str]]:
    """What holds whatever the rules say."""
    denials = []
    if facts.halts is None:
        denials.append(("missing-fact", ""))
    elif len(facts.halts) > 0:
        denials.append(("halted", ""))
    if facts.operation != "withdrawal":
        return denials
    if facts.order is not None and facts.order != "genuine":
        denials.append(("order-not-genuine", ""))
    if any(getattr(facts, name) is None for name in WITHDRAWALS_NEED):
        return [*denials, ("missing-fact", "")]
    assert facts.expires_at is not None
    assert facts.reverts is not None
    if facts.now >= facts.expires_at:
        denials.append(("order-expired", ""))
    if facts.units == 0:
        denials.append(("amount-zero", ""))
    if facts.account != "active":
        denials.append(("customer-frozen", ""))
    if facts.ownership == "house":
        denials.append(("destination-is-house", ""))
    if facts.ownership == "external" and facts.reverts >= 3:
        denials.append(("payments-reverted", ""))
    return denials


def can_pay(facts: Facts, route: str) -> bool:
    """A withdrawal to a customer's address stays in the ledger, all other withdrawals leave it."""
    if facts.operation != "withdrawal":
        return True
    if facts.ownership == "customer":
        return route == "ledger"
    return route != "ledger"


def failed_checks(rule: Rule, facts: Facts) -> list[str]:
    """Codes of the checks that are not passed."""
    failed = []
    if "screening" in rule.checks and facts.screening is None:
        failed.append("missing-fact")
    if "screening" in rule.checks and facts.screening == "hit":
        failed.append("destination-blocked")
    if "travel-rule" in rule.checks and facts.travel_rule is not True:
        failed.append("travel-rule")
    if "ownership-proof" in rule.checks and facts.ownership_proof is not True:
        failed.append("ownership-proof")
    return failed


def names_tiers(rule: Rule) -> bool:
    return len(rule.when.tiers) > 0 or (rule.unless is not None and len(rule.unless.tiers) > 0)


def is_about(policy: Policy, rule: Rule, facts: Facts, tier: str | None) -> str:
    """Its scope, and not its exception."""
    answers = [conjunction(questions(policy, rule.when, facts, tier))]
    if rule.unless is not None:
        answers.append(opposite(conjunction(questions(policy, rule.unless, facts, tier))))
    return conjunction(answers)


def questions(policy: Policy, when: When, facts: Facts, tier: str | None) -> list[str]:
    """The answer to each thing that a scope asks."""
    answers = []
    for wanted, fact in [
        (when.operations, facts.operation),
        (when.actions, facts.action),
        (when.chains, facts.chain),
        (when.assets, facts.asset),
        (when.sources, facts.source),
        (when.tiers, tier),
        (when.customers, facts.customer),
        (when.initiators, facts.initiator),
    ]:
        if len(wanted) > 0:
            answers.append(UNKNOWN if fact is None else yes(fact in list(wanted)))
    if len(when.destinations) > 0:
        answers.append(disjunction([destination_is(policy, scope, facts) for scope in when.destinations]))
    for bound, number in [
        (when.destination_younger_than, facts.destination_age_seconds),
        (when.kyc_below, facts.kyc_level),
        (when.amount_below, facts.units),
        (when.password_younger_than, facts.password_age_seconds),
        (when.mfa_younger_than, facts.mfa_age_seconds),
        (when.mfa_fewer_than, None if facts.mfa_methods is None else len(facts.mfa_methods)),
    ]:
        if bound is not None:
            answers.append(UNKNOWN if number is None else yes(number < int(bound)))
    if when.amount_from is not None:
        answers.append(UNKNOWN if facts.units is None else yes(facts.units >= int(when.amount_from)))
    if when.value_from is not None:
        answers.append(value_is_at_least(facts, int(when.value_from)))
    if when.value_below is not None:
        answers.append(opposite(value_is_at_least(facts, int(when.value_below))))
    if when.hours is not None:
        answers.append(yes(is_within(when.hours, facts.now)))
    for asked, told in [
        (when.screening, facts.screening),
        (when.lookalike, facts.lookalike),
        (when.new_device, facts.new_device),
        (when.new_ip, facts.new_ip),
    ]:
        if asked is not None:
            answers.append(UNKNOWN if told is None else yes(asked == told))
    if len(when.mfa_without) > 0:
        if facts.mfa_methods is None:
            answers.append(UNKNOWN)
        else:
            answers.append(yes(all(method not in facts.mfa_methods for method in when.mfa_without)))
    return answers


def value_is_at_least(facts: Facts, bound: int) -> str:
    if facts.value is None:
        return UNKNOWN
    least, most = facts.value
    if least >= bound:
        return YES
    return NO if most < bound else UNKNOWN


def is_within(hours: Hours, now: int) -> bool:
    """Try every opening of the last two days."""
    minute_now = now // 60
    for day in [now // 86_400 - 1, now // 86_400]:
        if DAY_NAMES[day % 7] not in hours.days:
            continue
        opens = day * 1_440 + hours.from_minute
        closes = day * 1_440 + hours.to_minute
        if hours.to_minute <= hours.from_minute:
            closes += 1_440
        if opens <= minute_now < closes:
            return True
    return False


def destination_is(policy: Policy, scope: str, facts: Facts) -> str:
    address = None
    if facts.chain is not None and facts.destination is not None:
        address = facts.chain + ":" + facts.destination
    if scope.startswith("address:"):
        return UNKNOWN if address is None else yes(scope == "address:" + address)
    if scope.startswith("group:"):
        listed = [
            each for group in policy.addresses if "group:" + group.id == scope for each in group.addresses
        ]
        return UNKNOWN if address is None else yes(address in listed)
    if scope == "contract":
        return UNKNOWN if facts.contract is None else yes(facts.contract)
    external = UNKNOWN if facts.ownership is None else yes(facts.ownership == "external")
    usable = UNKNOWN if facts.whitelist is None else yes(facts.whitelist == "usable")
    if scope == "external":
        return external
    if scope == "whitelisted":
        return conjunction([external, usable])
    if scope == "one-time":
        return conjunction([external, opposite(usable)])
    if facts.ownership is None:
        return UNKNOWN
    return yes({"internal": "customer", "house": "house"}[scope] == facts.ownership)


def yes(truth: bool) -> str:
    return YES if truth else NO


def opposite(answer: str) -> str:
    return {YES: NO, NO: YES, UNKNOWN: UNKNOWN}[answer]


def conjunction(answers: list[str]) -> str:
    if NO in answers:
        return NO
    return UNKNOWN if UNKNOWN in answers else YES


def disjunction(answers: list[str]) -> str:
    if YES in answers:
        return YES
    return UNKNOWN if UNKNOWN in answers else NO
