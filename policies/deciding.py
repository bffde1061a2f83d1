"""Deciding under a bundle: its policy, and that a tier without a wallet pays nothing."""

from __future__ import annotations

import threading
from typing import Final

from policies.bundle import Bundle
from policies.decision import Decision, Deny, Reason, Routed, Wait
from policies.engine import Engine, Spent
from policies.facts import Facts, Operation, Screening

TRAVEL_RULE: Final = "travel-rule"
"""Code of the reason of what lacks originator and beneficiary data."""
_lock: Final = threading.Lock()
_last: list[tuple[Bundle, Engine]] = []


def engine_of(bundle: Bundle) -> Engine:
    """The bundle's policy, compiled; the last one is kept, as each process has one bundle at a time."""
    with _lock:
        if not _last or _last[0][0] is not bundle:
            _last[:] = [(bundle, Engine(bundle.policy, bundle.told))]
        return _last[0][1]


def decide(bundle: Bundle, facts: Facts, spent: Spent) -> Decision:
    """What the online side does: the policy's answer, unless a person has refused it after screening, which holds
    whatever the rules ask, or nobody could carry it out. What lacks nothing but its travel-rule data waits for it."""
    decision = engine_of(bundle).decide(facts, spent)
    if isinstance(decision, Deny) and all(reason.code == TRAVEL_RULE for reason in decision.reasons):
        decision = Wait(decision.reasons)
    if facts.screening is Screening.HIT and not isinstance(decision, Deny):
        return Deny((Reason("destination-blocked", "screening says no to the destination"),))
    if not isinstance(decision, Routed) or decision.tier == "ledger":
        return decision
    if facts.operation is not Operation.WITHDRAWAL or facts.asset is None or facts.units is None:
        return decision
    here = (facts.chain, decision.tier)
    if any((wallet.chain, wallet.tier) == here for wallet in (*bundle.keysets, *bundle.vaults)):
        return decision
    told = bundle.told(facts.asset, facts.units)
    detail = f"{told} belong to the {decision.tier} tier, which has no wallet on {facts.chain}"
    return Deny((Reason("tier-not-available", detail),))
