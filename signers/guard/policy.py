"""What the bundle's policy asks of payments and refills, as far as a signer can know it. Pure.

A signer takes nobody's word for a fact. It knows orders, which their callers have signed with all they say of customer
and session; since when it has itself seen order and destination; approvals and verdicts; what it signed before; its own
clock; and between which prices the bundle puts an asset. Rules about anything else bind the online side only
(`policies.lint` names them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from policies.approvals import Given, lacking, objections
from policies.bundle import BitcoinVault, Bundle, EvmVault, Tier
from policies.deciding import engine_of
from policies.decision import LimitKey
from policies.engine import Demands, nobody_asked
from policies.facts import GENUINE, Facts, Ownership
from policies.intent import Carrier, Kind, Order, resources_digest
from policies.ordered import facts_of, facts_of_change, facts_of_refill
from policies.rules import Approvals, Limit
from policies.values import value_of
from signers.guard.examined import Evidenced, Examined, Exposure, JournalView
from signers.ports import Reason

MAX_VERDICT_SECONDS: Final = 10 * 60
"""A verdict that expires later from now is refused: ledgers change quickly."""


JUDGED: Final = frozenset({Kind.PAYMENT, Kind.REFILL, Kind.ADMINISTRATION})
"""Kinds of intents that signers ask the policy about."""


@dataclass(frozen=True, slots=True)
class Count:
    """What a payment adds to one of the policy's windows."""

    scope: str
    """Of the journal's counter: rule and bucket."""
    intent: str
    amount: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What the policy says to a request's payments."""

    reasons: tuple[Reason, ...]
    counts: tuple[Count, ...]
    """To be recorded when it is signed."""


def judge(examined: Examined[Any], view: JournalView, *, now: int) -> Judged:
    """Ask the policy about every payment or refill that is not in the journal yet.

    A replacement carries intents that were signed before: what people said then still holds, as at most one of all
    versions can pay. So only the windows are looked at again for it; and for vaults the verdict, as another member may
    have signed what this journal does not know.

    Args:
        examined: the request.
        view: the journal.
        now: the signer's own clock, UNIX seconds.
    """
    reasons: list[Reason] = []
    counts: list[Count] = []
    windows: dict[tuple[LimitKey, Limit], list[tuple[str, int]]] = defaultdict(list)
    bundle, wallet = examined.grounds.bundle, examined.grounds.wallet
    for payment in examined.evidence:
        facts = _facts(payment, bundle, wallet.id, view, now)
        try:
            demands = engine_of(bundle).demands(facts, _route(payment, wallet.tier))
        except Exception as error:  # noqa: BLE001 - an erring rule refuses; anything else would be an open door
            reasons.append(Reason("policy-failed", f"{payment.intent.id}: {type(error).__name__}"))
            continue
        if view.intent_digest(payment.intent.id) is None:
            reasons += _objections(payment, demands, examined, view, now)
        elif _leaves_vault(payment, examined):
            reasons += _verdict_objections(payment, examined, now, wanted="always")
        for key, limit, amount in demands.limits:
            windows[key, limit].append((payment.intent.id, amount))
            counts.append(Count(scope_of(key, limit), payment.intent.id, amount))
    reasons += _windows(windows, view, now)
    return Judged(tuple(reasons), tuple(counts))


def _facts(payment: Evidenced, bundle: Bundle, wallet: str, view: JournalView, now: int) -> Facts:
    if payment.intent.kind is Kind.ADMINISTRATION:
        return facts_of_change(payment.intent, now=now)
    if payment.order is None:
        return facts_of_refill(payment.intent, bundle, now=now)
    return known_facts(payment.order, bundle, wallet, view, now=now)


def _route(payment: Evidenced, tier: Tier) -> Tier | Literal["ledger"]:
    """By which the policy allows it: what operators do needs `route: ledger`, for no tier pays anything by it."""
    return "ledger" if payment.intent.kind is Kind.ADMINISTRATION else tier


def known_facts(order: Order, bundle: Bundle, wallet: str, view: JournalView, *, now: int) -> Facts:
    """What a signer knows of a payment."""
    since = view.destination_since(order.chain, order.destination)
    return facts_of(
        order,
        now=now,
        value=value_of(bundle, order.asset, order.units),
        source=wallet,
        ownership=Ownership.EXTERNAL,  # what it signs leaves us, wherever it goes
        destination_age_seconds=0 if since is None else max(0, now - since),
        order=GENUINE,
    )


def scope_of(key: LimitKey, limit: Limit) -> str:
    """The journal's name for a window, so that nothing is added that was counted by another measure. No id of a rule
    has a bar."""
    return f"{key.rule}|{limit.per}|{limit.measure}|{key.bucket}"


def _objections(
    payment: Evidenced, demands: Demands, examined: Examined[Any], view: JournalView, now: int
) -> Iterator[Reason]:
    """What stands against a payment or refill that was not signed before."""
    grounds, target = examined.grounds, examined.target
    intent, tier = payment.intent, grounds.wallet.tier
    refills = payment.order is None
    for reason in demands.refusals:
        young = reason.code == "policy-denied" and reason.rule in _about_age(grounds.bundle)
        detail = f"{intent.id}, rule {reason.rule}: {reason.detail}"
        # Told apart, as a genuine order that is announced now helps later.
        yield Reason("destination-too-young", detail) if young else Reason(reason.code, detail)
    # Somebody is asked about all that vaults pay, and about all of theirs that gets hotter.
    leaves = not refills or target is None or target.upwards
    if tier != "hot" and leaves and nobody_asked(demands.approvals):
        yield Reason("no-requirement", f"the policy asks nobody about {tier} {intent.asset}: none is paid")
    yield from _approval_objections(payment, demands.approvals, grounds.bundle, now)
    paid = tier != "hot" and intent.kind is Kind.PAYMENT
    wanted = demands.verdict or paid or _leaves_vault(payment, examined)
    yield from _verdict_objections(payment, examined, now, wanted="always" if wanted else "if any")
    if demands.delay_seconds and refills:
        told = f"{demands.delay_seconds} s are asked for, and no signer knows since when it is wanted"
        yield Reason("refill-delay", f"refill {intent.id}: {told}")
    elif demands.delay_seconds:
        known = view.order_since(intent.order or "")
        if known is None or now - known < demands.delay_seconds:
            since = "was never announced to this signer" if known is None else f"is known for {now - known} s"
            yield Reason(
                "order-too-young", f"order {intent.id} {since}: {demands.delay_seconds} s are asked for"
            )


def _about_age(bundle: Bundle) -> set[str]:
    return {rule.id for rule in bundle.policy.rules if rule.when.destination_younger_than is not None}


def _approval_objections(payment: Evidenced, asked: Approvals, bundle: Bundle, now: int) -> Iterator[Reason]:
    """Each that is there must be good, and those that this signer asks for enough."""
    given: list[Given] = []
    for approval in payment.approvals:
        found = objections(approval, payment.intent, payment.order, bundle, now=now)
        if approval.decision != "approve":
            yield Reason("approval-rejected", f"{approval.approver} has rejected {payment.intent.id}")
        elif not found:
            given.append((bundle.approver(approval.approver), approval.group))
        yield from (Reason(reason.code, reason.detail) for reason in found)
    told = lacking(asked, given)
    if told:
        yield Reason("approvals-missing", f"{told} have approved {payment.intent.id}")


def _leaves_vault(payment: Evidenced, examined: Examined[Any]) -> bool:
    """Whether money leaves a vault by it: then members want a verdict on each transaction, the same for all of them."""
    vault = isinstance(examined.grounds.wallet, BitcoinVault | EvmVault)
    return vault and payment.intent.kind in (Kind.PAYMENT, Kind.REFILL)


def _verdict_objections(
    payment: Evidenced, examined: Examined[Any], now: int, *, wanted: Literal["always", "if any"]
) -> Iterator[Reason]:
    """A verdict that is there must be good; where one is wanted it must be there.

    Members of a vault know only what they have signed themselves. So of each transaction they want to hear, from more
    than half of the verifiers that the bundle has, that no other one for its intents could confirm beside it: any two
    such groups share one that remembers.
    """
    bundle, intent = examined.grounds.bundle, payment.intent
    verifiers = {entry.id: entry for entry in bundle.verifiers}
    vault = _leaves_vault(payment, examined)
    carrier = Carrier(
        content=examined.unsigned.content, resources=resources_digest(examined.unsigned.resources)
    )
    outcome = "covered" if payment.order is not None else "bound"
    good = 0
    for verdict in payment.verdicts:
        who, verifier = f"the verdict of {verdict.verifier}", verifiers.get(verdict.verifier)
        left = verdict.expires_at - now
        if verifier is None:
            yield Reason("verdict-unknown", f"the bundle has no verifier {verdict.verifier!r}")
        elif now >= verifier.not_after:
            yield Reason("verdict-ended", f"verifier {verifier.id} ended at {verifier.not_after}")
        elif verdict.outcome != outcome:
            yield Reason("verdict-outcome", f"{verifier.id} has found {intent.id} not {outcome}")
        elif left <= 0:
            yield Reason("verdict-expired", f"{who} expired at {verdict.expires_at}")
        elif left > MAX_VERDICT_SECONDS:
            yield Reason("verdict-too-long", f"{who} expires in {left} s: at most {MAX_VERDICT_SECONDS}")
        elif vault and verdict.carrier != carrier:
            yield Reason("verdict-elsewhere", f"{who} on {intent.id} is about another transaction, or none")
        else:
            good += 1
    needed = len(verifiers) // 2 + 1 if vault else 1
    if wanted == "always" and good < needed:
        told = f"{good} of {needed} verifiers have found {intent.id} {outcome}"
        yield Reason("no-verdict", told if needed > 1 else f"no verifier has found {intent.id} {outcome}")


def _windows(
    windows: Mapping[tuple[LimitKey, Limit], list[tuple[str, int]]], view: JournalView, now: int
) -> Iterator[Reason]:
    for (key, limit), additions in windows.items():
        counter = view.window(Exposure.POLICY, scope_of(key, limit), limit.window_seconds)
        total = counter.total_with(additions, now)
        if total > int(limit.at_most):
            told = f"{key.rule}: {total} within {limit.window_seconds} s: at most {limit.at_most}"
            yield Reason("policy-limit", told)
