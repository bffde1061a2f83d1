"""What signers insist on beside what the online side decides: the same where they know all, and never more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from policies.decision import Routed
from policies.engine import Engine
from policies.facts import Facts
from policies.prover import plainly
from policies.rules import AllOf, Approvals
from policies.windows import Windows
from tests.unit.policies.randomly import NOON, facts, policy

CHUNKS, POLICIES, EACH = 4, 400, 8
UNKNOWN_TO_SIGNERS = (
    "whitelist",
    "screening",
    "travel_rule",
    "ownership_proof",
    "contract",
    "account",
    "halts",
)


def needs(asked: Approvals) -> set[Approvals]:
    """All that must be met, whatever it was put together from."""
    if isinstance(asked, AllOf):
        return {need for each in asked.needs for need in needs(each)}
    return {asked}


def told_to_signers(known: Facts) -> Facts:
    """The facts without those that only the online side can know; what the order says both know."""
    unknown: dict[str, Any] = dict.fromkeys(UNKNOWN_TO_SIGNERS)
    return replace(known, **unknown)


@pytest.mark.parametrize("seed", range(CHUNKS))
def test_signers_do_not_refuse_what_the_online_side_lets_through_and_ask_for_no_more(seed: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(POLICIES):
        random = Random(f"demands/{seed}/{number}")
        tried = policy(random)
        engine = Engine(tried, plainly)
        for _ in range(EACH):
            known = facts(random, NOON + random.randrange(0, 100_000), hidden=0.0)
            decision = engine.decide(known, Windows(tried))
            if not isinstance(decision, Routed):
                continue
            where = f"policy {number} of seed {seed}\n{known}\n{tried}\n{decision}"
            if decision.tier != "ledger":
                same = engine.demands(known, decision.tier)
                assert same.refusals == (), where
                assert needs(same.approvals) == needs(decision.approvals), where
                assert (same.delay_seconds, same.verdict) == (decision.delay_seconds, decision.verdict), where
                assert {(key, amount) for key, _, amount in same.limits} == set(decision.counts), where
                less = engine.demands(told_to_signers(known), decision.tier)
                assert less.refusals == (), where
                assert needs(less.approvals) <= needs(decision.approvals), where
                assert less.delay_seconds <= decision.delay_seconds, where
                assert less.verdict <= decision.verdict, where
                seen["the same"] += needs(less.approvals) == needs(decision.approvals)
                seen["less"] += needs(less.approvals) != needs(decision.approvals)
                hotter = {"cold": "warm", "warm": "hot"}.get(decision.tier)
                if hotter in ("warm", "hot"):
                    refused = engine.demands(known, "warm" if hotter == "warm" else "hot").refusals
                    assert refused, f"a {hotter} signer would pay what belongs to {decision.tier}\n{where}"
                    seen["colder"] += 1
    assert min(seen["the same"], seen["less"], seen["colder"]) > 10, f"random cases have become dull: {seen}"
