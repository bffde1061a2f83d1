"""What the online side adds to the engine's answer: a person's no, and waiting for what a caller still has to say."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from policies import records
from policies.bundle import Bundle
from policies.deciding import decide
from policies.decision import Decision, Deny, Routed, Wait
from policies.engine import SpentTable
from policies.facts import GENUINE, AccountState, Facts, Operation, Ownership, Screening
from policies.rules import Check, Policy, Rule, When
from tests.fakes.signing import CHAIN, SoftKeys, World

BUNDLE = World(SoftKeys.make().record).bundle()
FACTS = Facts(
    operation=Operation.WITHDRAWAL,
    now=1_000,
    chain=CHAIN,
    asset="BTC",
    units=1_000_000,
    destination="bcrt1qxyz",
    ownership=Ownership.EXTERNAL,
    screening=Screening.CLEAR,
    travel_rule=False,
    customer="alice",
    account=AccountState.ACTIVE,
    initiator="exchange",
    order=GENUINE,
    halts=(),
    expires_at=2_000,
    reverts=0,
)


def under(*checks: Check, deny: str | None = None) -> Bundle:
    """A bundle whose policy pays from the hot tier, after these checks."""
    rules = [Rule(id="hot", when=When(assets=("BTC",)), route="hot"), Rule(id="checked", checks=checks)]
    if deny is not None:
        rules.append(Rule(id="no", deny=deny))
    return msgspec.structs.replace(BUNDLE, policy=Policy(rules=tuple(rules)))


def asked(facts: Facts, bundle: Bundle) -> tuple[type[Decision], set[str]]:
    decision = decide(bundle, facts, SpentTable({}))
    return type(decision), {reason.code for reason in decision.reasons}


@pytest.mark.parametrize("checks", [(), ("screening",), ("travel-rule",), ("screening", "travel-rule")])
@pytest.mark.parametrize("attached", [True, False])
def test_what_a_person_refused_is_denied_whatever_the_rules_ask(
    checks: tuple[Check, ...], attached: bool
) -> None:
    refused = replace(FACTS, screening=Screening.HIT, travel_rule=attached)
    kind, codes = asked(refused, under(*checks))
    assert kind is Deny
    assert "destination-blocked" in codes


def test_what_lacks_only_its_travel_rule_data_waits_and_is_routed_once_it_is_there() -> None:
    bundle = under("travel-rule", "screening")
    assert asked(FACTS, bundle) == (Wait, {"travel-rule"})
    assert asked(replace(FACTS, travel_rule=True), bundle)[0] is Routed


def test_what_is_denied_for_another_reason_too_does_not_wait() -> None:
    assert asked(FACTS, under("travel-rule", deny="not today"))[0] is Deny
    assert asked(FACTS, under("travel-rule", "ownership-proof"))[0] is Deny
    assert asked(replace(FACTS, account=AccountState.FROZEN), under("travel-rule"))[0] is Deny


@pytest.mark.parametrize(
    "facts", [FACTS, replace(FACTS, screening=Screening.HIT), replace(FACTS, travel_rule=True)]
)
def test_a_record_with_what_providers_said_is_decided_the_same_again(facts: Facts) -> None:
    bundle = under("travel-rule")
    decision = decide(bundle, facts, SpentTable({}))
    stored = records.record(bundle, facts, {}, decision) | {
        "screening": [{"provider": "lists", "verdict": "clear"}]
    }
    found = records.read(stored)
    assert records.same(found, records.replay(found, bundle))
