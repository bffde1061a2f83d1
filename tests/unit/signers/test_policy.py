"""The bundle's policy as a signer enforces it: by what it knows itself, whatever the online side says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.intent import Context, Kind, Order
from policies.rules import Hours, Limit, Rule, When
from signers.ports import SignRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, DESTINATION, NOW, OTHER_DESTINATION, Draft

FAR = NOW + DAY - 60


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def ruled(bench: SignerBench, *rules: Rule, version: int = 2) -> None:
    bench.adopt(version, requirements=rules)


def paying(bench: SignerBench, *orders: Order, version: int = 2, **changes: Any) -> SignRequest:
    intents = [bench.world.intent(order, policy_version=version) for order in orders]
    return bench.world.request(
        Draft([bench.world.coin(50_000_000)], list(orders), intents=intents, **changes)
    )


def order(bench: SignerBench, units: int = 1_000_000, **changes: Any) -> Order:
    return bench.world.order(units, **({"expires_at": FAR} | changes))


def limited(at_most: int, per: Any = "customer", measure: Any = "units", **when: Any) -> Rule:
    scope = When(assets=("BTC",), **when)
    return Rule(
        id="window",
        when=scope,
        limit=Limit(window_seconds=3600, per=per, measure=measure, at_most=str(at_most)),
    )


def test_a_rule_that_denies_what_a_signer_can_see_is_the_signers_too(bench: SignerBench) -> None:
    ruled(bench, Rule(id="not-bob", when=When(customers=("bob",)), deny="bob is not paid"))
    assert bench.codes(paying(bench, order(bench, customer="bob"))) == {"policy-denied"}
    assert bench.signatures(paying(bench, order(bench)))


def test_what_only_the_online_side_can_know_neither_stops_a_signer_nor_frees_it(bench: SignerBench) -> None:
    ruled(
        bench,
        Rule(id="listed", when=When(destinations=("one-time",)), deny="not on the list"),
        Rule(id="hits", when=When(screening="hit"), deny="listed by screening"),
    )
    assert bench.signatures(paying(bench, order(bench)))


def test_a_rule_about_the_session_is_enforced_by_what_the_caller_has_signed(bench: SignerBench) -> None:
    ruled(
        bench,
        Rule(id="device", when=When(new_device=True), deny="from a new device"),
        Rule(id="password", when=When(password_younger_than=DAY), deny="the password was changed"),
    )
    said = Context(new_device=True, password_changed_at=NOW - 2 * DAY)
    assert bench.codes(paying(bench, order(bench, context=said))) == {"policy-denied"}
    said = Context(new_device=False, password_changed_at=NOW - DAY + 1)
    assert bench.codes(paying(bench, order(bench, context=said))) == {"policy-denied"}
    said = Context(new_device=False, password_changed_at=NOW - DAY)
    signed = paying(bench, order(bench, context=said))
    edited = msgspec.structs.replace(signed.evidence.orders[0].order, context=Context(new_device=True))
    lie = msgspec.structs.replace(signed.evidence.orders[0], order=edited)
    assert "order-changed" in bench.codes(bench.with_orders(signed, lie))
    assert bench.signatures(signed)


def test_hours_are_those_of_the_signers_own_clock(bench: SignerBench) -> None:
    minute = NOW % DAY // 60
    ruled(
        bench, Rule(id="open", unless=When(hours=Hours(from_minute=0, to_minute=minute + 2)), deny="closed")
    )
    wanted = order(bench)
    assert bench.signatures(paying(bench, order(bench)))
    bench.time += 180
    assert bench.codes(paying(bench, wanted)) == {"policy-denied"}


def test_a_window_of_the_policy_counts_what_this_signer_has_signed(bench: SignerBench) -> None:
    ruled(bench, limited(3_000_000))
    assert bench.signatures(paying(bench, order(bench, 2_000_000)))
    assert bench.codes(paying(bench, order(bench, 1_000_001))) == {"policy-limit"}
    assert bench.signatures(paying(bench, order(bench, 1_000_001, customer="bob")))
    bench.restart()
    assert bench.codes(paying(bench, order(bench, 1_000_001))) == {"policy-limit"}
    assert bench.signatures(paying(bench, order(bench, 1_000_000)))


def test_payments_of_one_transaction_count_together(bench: SignerBench) -> None:
    ruled(bench, limited(3_000_000))
    assert bench.codes(paying(bench, order(bench, 2_000_000), order(bench, 1_500_000))) == {"policy-limit"}
    assert bench.signatures(paying(bench, order(bench, 1_500_000), order(bench, 1_500_000)))


def test_a_replacement_counts_once_in_a_window(bench: SignerBench) -> None:
    ruled(bench, limited(1, measure="payments"))
    one = order(bench)
    draft = Draft([bench.world.coin()], [one], intents=[bench.world.intent(one, policy_version=2)])
    assert bench.signatures(bench.world.request(draft))
    draft.fee_sats += 2_000
    assert bench.signatures(bench.world.request(draft))
    assert bench.codes(paying(bench, order(bench))) == {"policy-limit"}


def test_windows_of_destinations_values_and_initiators(bench: SignerBench) -> None:
    ruled(bench, limited(1_500_000, per="destination"))
    assert bench.signatures(paying(bench, order(bench)))
    assert bench.codes(paying(bench, order(bench))) == {"policy-limit"}
    assert bench.signatures(paying(bench, order(bench, destination=OTHER_DESTINATION)))
    ruled(bench, limited(1, per="initiator", measure="payments"), version=3)
    # Under a rule's name what was signed before stays counted for whoever was counted: here nobody was.
    assert bench.signatures(paying(bench, order(bench), version=3))
    assert bench.codes(paying(bench, order(bench), version=3)) == {"policy-limit"}


def test_a_payment_that_was_signed_may_be_replaced_whatever_the_policy_says_since(bench: SignerBench) -> None:
    one = order(bench)
    draft = Draft([bench.world.coin()], [one], intents=[bench.world.intent(one, policy_version=1)])
    assert bench.signatures(bench.world.request(draft))
    ruled(bench, Rule(id="nothing", deny="nothing is paid any more"))
    draft.fee_sats += 2_000
    assert bench.signatures(bench.world.request(draft))
    assert bench.codes(paying(bench, order(bench))) == {"policy-denied"}


def test_the_houses_own_operations_are_not_payments(bench: SignerBench) -> None:
    ruled(bench, Rule(id="nothing", deny="nothing is paid any more"))
    intent = bench.world.house_intent(Kind.CONSOLIDATION, policy_version=2)
    assert bench.signatures(bench.world.request(Draft([bench.world.coin(100_000)], [], intents=[intent])))


def test_a_rule_that_fails_refuses(bench: SignerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    ruled(bench, limited(10**12))

    def broken(*_: Any) -> int:
        raise ArithmeticError("broken")

    monkeypatch.setattr("policies.engine.amount_of", broken)
    assert bench.codes(paying(bench, order(bench))) == {"policy-failed"}


def test_another_way_to_write_an_address_is_no_way_past_a_rule_about_it(bench: SignerBench) -> None:
    ruled(
        bench,
        Rule(id="not-there", when=When(destinations=(f"address:{CHAIN}:{DESTINATION}",)), deny="not there"),
    )
    assert bench.codes(paying(bench, order(bench))) == {"policy-denied"}
    assert "bad-destination" in bench.codes(paying(bench, order(bench, destination=DESTINATION.upper())))
    assert bench.signatures(paying(bench, order(bench, destination=OTHER_DESTINATION)))
