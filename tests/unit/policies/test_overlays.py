"""What one officer may lower alone: numbers only, only down, and never so that something else opens."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies import records
from policies.bundle import Bundle, check_consistent, read_bundle
from policies.bundle.reading import UntrustedBundle
from policies.canonical import decoder_for
from policies.deciding import decide
from policies.decision import LimitKey
from policies.engine import SpentTable
from policies.facts import Facts, Operation
from policies.overlays import check_lowering, lowered, targets
from policies.rules import Limit, Policy, Rule, When
from policies.statements import Lowering, LoweringTarget
from tests.fakes.signing import DAY, NOW, SoftKeys, World

WORLD = World(SoftKeys.make().record)
_RULE = Rule(
    id="daily",
    when=When(assets=("BTC",)),
    limit=Limit(window_seconds=DAY, per="customer", measure="units", at_most="1000000"),
)
PRESENT = WORLD.bundle(
    7, policy=msgspec.structs.replace(WORLD.bundle().policy, rules=(*WORLD.bundle().policy.rules, _RULE))
)
LOWERABLE = targets(PRESENT)


def lowering(target: str, value: int, **changes: Any) -> Lowering:
    fields: dict[str, Any] = {
        "v": 1,
        "officer": "olga",
        "target": target,
        "value": str(value),
        "bundle_version": 7,
        "reason": "too much goes out",
        "issued_at": NOW,
    }
    return Lowering(**(fields | changes))


def test_every_number_on_the_list_is_a_target_and_no_other() -> None:
    assert set(LOWERABLE) == {
        "longest_order_seconds",
        "cap:hot:BTC:payment_below",
        "cap:hot:BTC:window_cap",
        "breaker:all-btc-hot:value_cap",
        "network:bitcoin-regtest:feerate_cap",
        "network:bitcoin-regtest:fee_cap",
        "network:bitcoin-regtest:fee_window_cap",
        "caller:exchange:not_after",
        "caller:reader:not_after",
        *(f"approver:{each.id}:not_after" for each in PRESENT.approvers),
        "verifier:vera:not_after",
        "operator:otto:not_after",
        *(f"rule:{rule.id}:at_most" for rule in PRESENT.policy.rules if rule.limit is not None),
    }
    assert "rule:daily:at_most" in LOWERABLE
    decoder = decoder_for(Lowering)
    for target in LOWERABLE:
        assert decoder.decode(msgspec.json.encode(lowering(target, 0))).target == target


@pytest.mark.parametrize(
    "target",
    [
        "version", "threshold", "cap:hot:BTC:payment_from", "cap:hot:BTC:window_seconds", "officer:olga:not_after",
        "network:bitcoin-regtest:feerate_floor", "network:bitcoin-regtest:settle_blocks", "rule:daily:delay_seconds",
        "price:BTC:high", "veto_seconds", "cap:hot:BTC:payment_below\n", "cap:lukewarm:BTC:payment_below", "",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_no_lowering(target: str) -> None:
    """An officer's end would take a veto away, a shorter window or a lower price would let more through."""
    with pytest.raises(msgspec.ValidationError, match="regex"):
        decoder_for(Lowering).decode(msgspec.json.encode(lowering(target, 0)))


@given(st.lists(st.tuples(st.sampled_from(sorted(LOWERABLE)), st.integers(0, 10**12)), max_size=6))
def test_several_add_up_to_the_lowest_and_nothing_ever_rises_whatever_their_order(
    wanted: list[tuple[str, int]],
) -> None:
    lowerings = [lowering(target, value) for target, value in wanted]
    found = targets(lowered(PRESENT, lowerings))
    for target, before in LOWERABLE.items():
        assert found[target] == min([before, *(value for name, value in wanted if name == target)])
    assert targets(lowered(PRESENT, lowerings[::-1])) == found
    one_by_one = PRESENT
    for each in lowerings:
        one_by_one = lowered(one_by_one, [each])
    assert targets(one_by_one) == found


@given(st.sampled_from(sorted(LOWERABLE)), st.integers(0, 10**12))
def test_a_lowering_changes_its_number_and_nothing_else(target: str, value: int) -> None:
    after = lowered(PRESENT, [lowering(target, value)])
    assert after.version == PRESENT.version
    restored = msgspec.json.decode(msgspec.json.encode(after), type=Bundle)
    assert restored == after, "numbers keep their types"
    others = {name: number for name, number in targets(after).items() if name != target}
    assert others == {name: number for name, number in LOWERABLE.items() if name != target}
    same = msgspec.structs.replace(
        after,
        overlay=None,
        caps=PRESENT.caps,
        breakers=PRESENT.breakers,
        networks=PRESENT.networks,
        callers=PRESENT.callers,
        approvers=PRESENT.approvers,
        operators=PRESENT.operators,
        verifiers=PRESENT.verifiers,
        policy=PRESENT.policy,
        longest_order_seconds=PRESENT.longest_order_seconds,
    )
    assert same == PRESENT


@given(st.sampled_from(sorted(LOWERABLE)), st.integers(0, 10**13))
def test_what_is_accepted_is_lower_and_leaves_a_bundle_that_makes_sense(target: str, value: int) -> None:
    try:
        check_lowering(PRESENT, lowering(target, value))
    except InvalidValue:
        floor = {"network:bitcoin-regtest:feerate_cap": 1_000, "longest_order_seconds": 1}.get(target, 0)
        assert value >= LOWERABLE[target] or value < floor
        return
    assert value < LOWERABLE[target]
    check_consistent(lowered(PRESENT, [lowering(target, value)]))


def test_a_feerate_cap_below_the_floor_is_refused() -> None:
    check_lowering(PRESENT, lowering("network:bitcoin-regtest:feerate_cap", 1_000))
    with pytest.raises(InvalidValue, match="floor"):
        check_lowering(PRESENT, lowering("network:bitcoin-regtest:feerate_cap", 999))


def test_what_is_not_lower_than_it_is_by_now_is_refused() -> None:
    target = "cap:hot:BTC:payment_below"
    once = lowered(PRESENT, [lowering(target, 500)])
    for value in (500, 501, 10**12):
        with pytest.raises(InvalidValue, match="not lower"):
            check_lowering(once, lowering(target, value))
    check_lowering(once, lowering(target, 499))


def test_one_for_another_version_or_an_entry_that_is_not_there_is_refused_and_changes_nothing() -> None:
    for each in (
        lowering("cap:hot:BTC:payment_below", 1, bundle_version=6),
        lowering("cap:hot:BTC:payment_below", 1, bundle_version=8),
        lowering("cap:warm:BTC:payment_below", 1),
        lowering("approver:nobody:not_after", 1),
        lowering("rule:unheard-of:at_most", 1),
    ):
        with pytest.raises(InvalidValue):
            check_lowering(PRESENT, each)
        assert targets(lowered(PRESENT, [each])) == LOWERABLE


def test_the_overlay_says_what_was_applied_and_keeps_what_the_quorum_signed() -> None:
    """Keys that follow others must not pay orders that those could have paid: as long as orders once lasted."""
    each = [lowering("longest_order_seconds", 60), lowering("cap:hot:BTC:window_cap", 5)]
    after = lowered(PRESENT, each)
    assert after.overlay is not None
    assert after.overlay.lowerings == tuple(one.digest_hex() for one in each)
    assert (after.longest_order_seconds, after.longest_signed_order_seconds) == (60, DAY)
    again = lowered(after, [lowering("longest_order_seconds", 30)])
    assert (again.longest_order_seconds, again.longest_signed_order_seconds) == (30, DAY)
    assert lowered(PRESENT, []) is PRESENT


def test_the_quorum_signs_no_overlay() -> None:
    after = lowered(PRESENT, [lowering("longest_order_seconds", 60)])
    with pytest.raises(UntrustedBundle, match="overlay"):
        read_bundle(WORLD.signed(after).encode(), WORLD.root, now=NOW)


def test_rules_keep_all_but_their_limit() -> None:
    after = lowered(PRESENT, [lowering("rule:daily:at_most", 17)])
    assert isinstance(after.policy, Policy)
    assert after.policy.rules[:-1] == PRESENT.policy.rules[:-1]
    assert after.policy.rules[-1].limit == msgspec.structs.replace(_RULE.limit, at_most="17")  # type: ignore[type-var]


def test_the_pattern_of_targets_is_one_that_json_schema_and_people_can_read() -> None:
    [meta] = [each for each in get_args(LoweringTarget) if isinstance(each, msgspec.Meta)]
    assert meta.pattern is not None
    assert "{name}" not in meta.pattern


def test_a_decision_under_a_lowered_limit_is_recorded_with_it_and_replayed_from_the_signed_bundle() -> None:
    facts = Facts(operation=Operation.SWEEP, now=NOW, asset="BTC", units=500, customer="alice", halts=())
    now = lowered(PRESENT, [lowering("rule:daily:at_most", 17), lowering("rule:daily:at_most", 20)])
    spent = {LimitKey("daily", "alice"): 0}
    decision = decide(now, facts, SpentTable(spent))
    assert any(reason.rule == "daily" and "limit" in reason.code for reason in decision.reasons)
    stored = records.read(
        msgspec.json.decode(msgspec.json.encode(records.record(now, facts, spent, decision)))
    )
    assert stored.lowered == (("daily", "17"),)
    assert records.replay(stored, PRESENT) == decision
    assert records.read(stored.to_object()) == stored
    plain = records.read(records.record(PRESENT, facts, spent, decide(PRESENT, facts, SpentTable(spent))))
    assert plain.lowered == ()
    assert records.replay(plain, PRESENT) != decision
