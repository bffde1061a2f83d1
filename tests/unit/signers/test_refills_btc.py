"""Refills on Bitcoin: from a hot key-set or a vault to the active wallet of another tier, and to nobody else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from chains.btc.psbt import parse_psbt
from chains.btc.tx import TxOut
from policies.bundle import Bundle
from policies.intent import Kind
from policies.rules import Limit, Operation, Rule, When
from signers.errors import Withheld
from signers.guard.refills import MAX_TARGET_AHEAD
from signers.ports import SignRequest
from tests.fakes.signing import CHAIN, DESTINATION, Draft, SoftKeys, carrier_of
from tests.fakes.tiers import COLD, UNITS, RefillDraft, Tier, TierBench
from tests.fakes.vault_signing import VAULT, SoftCosigner

WAYS = [(source, target) for source in get_args(Tier) for target in get_args(Tier) if source != target]
UP = [way for way in WAYS if get_args(Tier).index(way[1]) < get_args(Tier).index(way[0])]
DOWN = [way for way in WAYS if way not in UP]
Made = Callable[[Tier], TierBench]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Makes the signer of a tier."""
    with ExitStack() as stack:

        def make(tier: Tier) -> TierBench:
            (tmp_path / tier).mkdir()
            bench = TierBench(tmp_path / tier, tier)
            stack.callback(bench.journal.close)
            return bench

        yield make


def exposure(bench: TierBench) -> dict[str, str]:
    """What counts in each window, by kind and scope."""
    return {f"{use.kind} {use.scope}": use.units for use in bench.service.status().windows}


# The honest ways.


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_money_flows_from_each_tier_to_each_other_one(made: Made, source: Tier, target: Tier) -> None:
    bench = made(source)
    request = bench.refill(target)
    first = bench.signatures(request)
    assert len(first) == 1
    assert bench.signatures(request) == first
    assert bench.service.status().signed == 1


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_upwards_the_amount_counts_like_a_payment_and_downwards_the_fee_only(
    made: Made, source: Tier, target: Tier
) -> None:
    bench = made(source)
    bench.signatures(bench.refill(target))
    counted = 2_000 + (UNITS if (source, target) in UP else 0)
    found = exposure(bench)
    assert found[f"payments {source}|BTC"] == str(counted)
    assert found[f"chain_fees {CHAIN}"] == "2000"
    if source == "hot":
        assert found["value all-btc-hot"] == str(2_000 * 10_000_000 // 10**8)


def test_all_of_a_coin_may_move_without_change(made: Made) -> None:
    bench = made("warm")
    draft = bench.draft("cold")
    draft.coins = [bench.world.tier_coin("warm", draft.units + draft.fee_sats)]
    request = bench.world.refill_request(draft)
    assert len(parse_psbt(base64.b64decode(request.transaction)).tx.outputs) == 1
    bench.signatures(request)


def test_caps_of_single_payments_do_not_bind_refills(made: Made) -> None:
    """A vault's payments here are from 0.001 BTC on and below 0.1 BTC, and it moves 0.2 at once."""
    bench = made("cold")
    bench.signatures(bench.refill("warm", units=100_000_000))
    bench.signatures(bench.refill("warm", units=1_000))


def test_a_refill_that_was_signed_is_given_again_whatever_changed_since(made: Made) -> None:
    bench = made("warm")
    request = bench.refill("hot")
    first = bench.signatures(request)
    bench.time += 30 * 3600  # the approvals have expired
    assert bench.signatures(request) == first
    bench.adopt(2, vaults=(bench.world.vault_entry(),))
    assert bench.signatures(request) == first


# Where it goes.


def refused(bench: TierBench, draft: RefillDraft) -> set[str]:
    return bench.codes(bench.world.refill_request(draft))


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_a_strangers_address_is_no_target(made: Made, source: Tier, target: Tier) -> None:
    bench = made(source)
    world = bench.world
    draft = bench.draft(target, unnamed=True)
    draft.intents = [world.refill_intent(draft, destination=DESTINATION)]
    assert refused(bench, draft) == {"refill-target", "unknown-output"}


def test_an_output_must_name_its_place_in_the_target(made: Made) -> None:
    bench = made("warm")
    assert refused(bench, bench.draft("hot", unnamed=True)) == {"refill-target", "unknown-output"}


def test_a_deposit_address_of_the_target_is_none_of_its_change_addresses(made: Made) -> None:
    bench = made("warm")
    assert refused(bench, bench.draft("hot", branch=0)) == {"refill-target", "foreign-change"}


def test_the_intent_names_the_very_address(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    for elsewhere in (world.address_at("hot", 1, 1), world.address_at("cold", 1, 0), DESTINATION):
        draft = bench.draft("hot")
        draft.intents = [world.refill_intent(draft, destination=elsewhere)]
        assert refused(bench, draft) == {"refill-target", "foreign-change"}


def test_the_amount_is_the_intents(made: Made) -> None:
    bench = made("warm")
    for paid in (UNITS - 1, UNITS + 1):
        assert refused(bench, bench.draft("hot", paid=paid)) == {"refill-target", "foreign-change"}


def test_the_wallet_itself_is_no_target(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    draft = bench.draft("hot")
    draft.intents = [world.refill_intent(draft, destination=world.address_at("warm", 1, 0))]
    draft.target = "warm"
    assert refused(bench, draft) == {"refill-target", "many-change"}


@pytest.mark.parametrize("state", ["pre-active", "suspended", "deactivated", "compromised", "destroyed"])
@pytest.mark.parametrize("target", ["hot", "cold"])
def test_only_an_active_wallet_is_a_target(made: Made, target: Tier, state: str) -> None:
    bench = made("warm")
    world = bench.world
    changes: dict[str, Any] = {"vaults": (world.vault_entry(), world.cold_entry(state=state))}
    if target == "hot":
        changes = {"keysets": (world.keyset_entry(state=state),)}
    bench.adopt(2, **changes)
    request = bench.under(2, bench.draft(target))
    assert bench.codes(request) == {"refill-target", "foreign-change"}


def test_another_vault_of_the_same_tier_is_no_target(made: Made) -> None:
    """Its money moves there by a rotation, once it is not in use any more."""
    bench = made("warm")
    world = bench.world
    bench.adopt(2, vaults=(world.vault_entry(), world.cold_entry(tier="warm", state="suspended")))
    assert bench.codes(bench.under(2, bench.draft("cold"))) == {"refill-target", "foreign-change"}


def test_a_wallet_that_followed_is_the_target_and_the_one_before_is_not(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    follows = SoftKeys.make(b"\x07" * 32, "btc-hot-2").record
    new = world.keyset_entry(
        id=follows.id,
        account=follows.account,
        origin=follows.origin,
        attestation_key=follows.attestation_key,
        active_from=world.now,
    )
    bench.adopt(2, keysets=(world.keyset_entry(state="deactivated"), new))
    assert bench.codes(bench.under(2, bench.draft("hot"))) == {"refill-target", "foreign-change"}


def test_a_target_whose_descriptor_is_not_its_cosigners_own_gets_nothing(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    honest = world.cold_entry()
    thief = SoftCosigner.make(66).record
    swapped = msgspec.structs.replace(honest.cosigners[0], account=thief.account, origin=thief.origin)
    bent = world.cold_entry(cosigners=(swapped, *honest.cosigners[1:]))
    bench.adopt(2, vaults=(world.vault_entry(), bent))
    assert bench.codes(bench.under(2, bench.draft("cold"))) == {"refill-target", "foreign-change"}
    # And no other target suffers from it.
    bench.signatures(bench.under(2, bench.draft("hot")))


# How far.


def test_the_targets_index_is_a_little_beyond_the_highest_paid_to(made: Made) -> None:
    bench = made("cold")
    assert refused(bench, bench.draft("warm", index=MAX_TARGET_AHEAD)) == {"target-index"}
    bench.signatures(bench.refill("warm", index=MAX_TARGET_AHEAD - 1))
    bench.restart()
    assert refused(bench, bench.draft("warm", index=2 * MAX_TARGET_AHEAD)) == {"target-index"}
    # Each target has its own.
    assert refused(bench, bench.draft("hot", index=MAX_TARGET_AHEAD)) == {"target-index"}
    bench.signatures(bench.refill("warm", index=2 * MAX_TARGET_AHEAD - 1))
    bench.signatures(bench.refill("warm", index=0))
    assert refused(bench, bench.draft("warm", index=3 * MAX_TARGET_AHEAD)) == {"target-index"}


def test_what_a_target_got_says_nothing_of_the_sources_own_change(made: Made) -> None:
    bench = made("hot")
    bench.signatures(bench.refill("warm", index=999))
    assert refused(bench, bench.draft("warm", change_index=1_001)) == {"change-index"}
    bench.signatures(bench.refill("warm", change_index=1_000))


def test_change_goes_back_to_the_source_within_reach(made: Made) -> None:
    bench = made("warm")
    assert refused(bench, bench.draft("hot", change_index=1_000)) == {"change-index"}
    script = bench.world.script_at("hot", 1, 5)
    draft = bench.draft("hot", extra_outputs=[TxOut(1_000_000, script)])
    assert refused(bench, draft) == {"unknown-output"}


def test_nothing_else_leaves_with_a_refill(made: Made) -> None:
    bench = made("warm")
    thief = bench.world.script_at("hot", 0, 0)[:2] + bytes(20)
    assert refused(bench, bench.draft("hot", extra_outputs=[TxOut(1_000, thief)])) == {"unknown-output"}


def test_one_refill_comes_alone(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    draft = bench.draft("hot")
    twin = world.refill_intent(draft)
    draft.intents = [world.refill_intent(draft), twin]
    assert "mixed-intents" in refused(bench, draft)


# Sign once.


def test_two_refills_are_not_paid_by_one_output_one_after_the_other(made: Made) -> None:
    bench = made("warm")
    draft = bench.draft("hot")
    bench.signatures(bench.world.refill_request(draft))
    draft.intents = [bench.world.refill_intent(draft)]
    assert refused(bench, draft) == {"transaction-reused"}


def test_a_replacement_shares_an_input(made: Made) -> None:
    bench = made("warm")
    draft = bench.draft("hot")
    draft.intents = [bench.world.refill_intent(draft)]
    bench.signatures(bench.world.refill_request(draft))
    draft.fee_sats = 4_000
    bench.signatures(bench.world.refill_request(draft))
    draft.coins = [bench.world.tier_coin("warm", draft.units + 9_000_000)]
    assert refused(bench, draft) == {"conflicting-version"}


def test_an_intent_is_one_thing_for_ever(made: Made) -> None:
    """A refill with a withdrawal's id, and a withdrawal with a refill's: whichever came first."""
    bench = made("warm")
    world = bench.world
    order = world.order(50_000)
    draft = bench.draft("hot")
    draft.intents = [world.refill_intent(draft, id=order.id)]
    bench.signatures(world.refill_request(draft))
    payment = world.vault_request(Draft([world.vault_coin(1_000_000)], [order]))
    assert "intent-reused" in bench.codes(payment)
    paid = world.order(50_000)
    bench.signatures(world.vault_request(Draft([world.vault_coin(1_000_000)], [paid])))
    draft = bench.draft("hot")
    draft.intents = [world.refill_intent(draft, id=paid.id)]
    assert "intent-reused" in refused(bench, draft)


# People.


@pytest.mark.parametrize(("source", "target"), UP)
def test_approvals_that_the_policy_asks_for_are_there(made: Made, source: Tier, target: Tier) -> None:
    bench = made(source)
    world = bench.world
    few = bench.draft(target, names=("ada",))
    assert refused(bench, few) == {"approvals-missing"}
    draft = bench.draft(target)
    draft.intents = [intent] = [world.refill_intent(draft)]
    names = draft.names
    for change, code in (
        ({"expires_at": bench.time}, "approval-expired"),
        ({"expires_at": bench.time + 90_000}, "approval-too-long"),
        ({"decision": "reject"}, "approval-rejected"),
        ({"policy_version": 2}, "approval-version"),
        ({"group": "cleaners"}, "approval-group"),
    ):
        odd = tuple(world.approval(intent, name, **change) for name in names)
        assert bench.codes(world.refill_request(draft, approvals=odd)) == {code, "approvals-missing"}
    forged = tuple(world.approval(intent, name, key=world.stranger) for name in names)
    assert bench.codes(world.refill_request(draft, approvals=forged)) == {"approval-signature"}
    twice = (world.approval(intent, "ada"), world.approval(intent, "ada"))
    assert bench.codes(world.refill_request(draft, approvals=twice)) == {
        "approval-repeated",
        "approvals-missing",
    }
    bench.signatures(world.refill_request(draft))


def test_approvals_of_a_withdrawal_or_of_another_refill_do_not_count(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    payment = world.vault_intent(world.order(50_000))
    for other in (payment, world.refill_intent(bench.draft("hot", units=1_000))):
        approvals = tuple(world.approval(other, name) for name in ("ada", "ben"))
        request = world.refill_request(bench.draft("hot"), approvals=approvals)
        assert bench.codes(request) == {"stray-approval", "approvals-missing"}


def test_any_change_of_what_was_approved_voids_the_approvals(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    draft = bench.draft("hot")
    approved = world.refill_intent(draft)
    approvals = tuple(world.approval(approved, name) for name in draft.names)
    draft.index = 1
    draft.intents = [world.refill_intent(draft, id=approved.id)]
    request = world.refill_request(draft, approvals=approvals)
    assert bench.codes(request) == {"stray-approval", "approvals-missing"}


def test_without_anybody_to_ask_nothing_gets_hotter(made: Made) -> None:
    """Downwards needs no one where the policy asks nobody."""
    bench = made("warm")
    bench.adopt(2, requirements=())
    assert bench.codes(bench.under(2, bench.draft("hot", names=()))) == {"no-requirement"}
    bench.signatures(bench.under(2, bench.draft("cold", names=())))


def test_downwards_too_the_policys_approvals_are_asked_for(made: Made) -> None:
    bench = made("warm")
    assert refused(bench, bench.draft("cold", names=("ada",))) == {"approvals-missing"}


@pytest.mark.parametrize("target", ["hot", "cold"])
def test_a_refill_out_of_a_vault_needs_a_verdict_on_its_very_transaction(made: Made, target: Tier) -> None:
    """Its members know what they have signed themselves only: one word binds them all."""
    bench = made("warm")
    world = bench.world
    draft = bench.draft(target)
    draft.intents = [intent] = [world.refill_intent(draft)]
    request = world.refill_request(draft)
    for verdicts, codes in (
        ((), {"no-verdict"}),
        ((world.verdict(intent),), {"verdict-elsewhere", "no-verdict"}),
        (
            (world.verdict(intent, carrier=carrier_of(request), outcome="covered"),),
            {"verdict-outcome", "no-verdict"},
        ),
    ):
        assert bench.codes(world.refill_request(draft, verdicts=verdicts)) == codes
    bench.signatures(request)
    dearer = replace(draft, fee_sats=draft.fee_sats + 1_000)
    assert bench.codes(world.refill_request(dearer, verdicts=())) == {"no-verdict"}
    bench.signatures(world.refill_request(dearer))


def test_a_bad_verdict_is_refused_where_none_is_needed(made: Made) -> None:
    bench = made("hot")
    world = bench.world
    draft = bench.draft("cold")
    draft.intents = [intent] = [world.refill_intent(draft)]
    for verdict, code in (
        (world.verdict(intent, outcome="not_covered"), "verdict-outcome"),
        (world.verdict(world.refill_intent(draft)), "stray-verdict"),
    ):
        verdicts = (verdict,)
        assert bench.codes(world.refill_request(draft, verdicts=verdicts)) == {code}


def test_rules_that_deny_or_limit_refills_bind_signers(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    refill = When(operations=(Operation.REFILL,))
    rules = (
        world.requirement(verdict=None),
        Rule(
            id="small",
            when=msgspec.structs.replace(refill, assets=("BTC",), amount_from="30000000"),
            deny="no",
        ),
        Rule(
            id="slowly",
            when=refill,
            limit=Limit(window_seconds=3600, per="all", measure="payments", at_most="2"),
        ),
    )
    bench.adopt(2, requirements=rules)
    assert bench.codes(bench.under(2, bench.draft("hot", units=30_000_000))) == {"policy-denied"}
    bench.signatures(bench.under(2, bench.draft("hot")))
    bench.signatures(bench.under(2, bench.draft("cold")))
    assert bench.codes(bench.under(2, bench.draft("hot"))) == {"policy-limit"}


def test_a_refill_that_no_rule_routes_from_its_tier_is_refused(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    bundle: Bundle = world.bundle(2)
    others = tuple(rule for rule in bundle.policy.rules if rule.id != f"pays-{VAULT}")
    bench.adopt(2, policy=msgspec.structs.replace(bundle.policy, rules=others), requirements=())
    assert bench.codes(bench.under(2, bench.draft("hot"))) == {"policy-no-rule"}


def test_a_delay_that_rules_ask_for_is_nothing_that_a_signer_can_wait_for(made: Made) -> None:
    bench = made("warm")
    slow = Rule(id="slow", when=When(operations=(Operation.REFILL,)), delay_seconds=60)
    bench.adopt(2, requirements=(bench.world.requirement(verdict=None), slow))
    assert bench.codes(bench.under(2, bench.draft("hot"))) == {"refill-delay"}


# How much.


def test_upwards_the_window_of_the_tier_ends_it_and_downwards_the_window_of_fees(made: Made) -> None:
    bench = made("warm")
    bench.signatures(bench.refill("hot", units=99_000_000))
    assert refused(bench, bench.draft("hot", units=1_000_000)) == {"window-cap"}
    bench.signatures(bench.refill("cold", units=500_000_000))
    bench.adopt(2, network_fee_window_cap="5000")
    assert bench.codes(bench.under(2, bench.draft("cold"))) == {"fee-window"}


def test_money_moved_down_and_down_again_burns_no_more_than_the_window_of_fees(made: Made) -> None:
    bench = made("hot")
    bench.adopt(2, network_fee_window_cap="10000", network_fee_cap="5000")
    for _ in range(5):
        bench.signatures(bench.under(2, bench.draft("warm")))
    assert bench.codes(bench.under(2, bench.draft("warm"))) == {"fee-window"}
    assert bench.codes(bench.under(2, bench.draft("warm", fee_sats=5_001))) == {"fee-cap", "fee-window"}


def test_an_empty_refill_and_one_with_an_order_are_none(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    draft = bench.draft("hot")
    draft.intents = [world.refill_intent(draft, amount="0")]
    assert "house-intent" in refused(bench, draft)
    draft.intents = [world.refill_intent(draft, order="ab" * 32)]
    assert refused(bench, draft) == {"house-intent"}
    draft.intents = [world.refill_intent(draft, asset="ETH")]
    assert "wrong-asset" in refused(bench, draft)
    draft.intents = [world.refill_intent(draft, tier="hot")]
    assert refused(bench, draft) == {"wrong-keyset"}


def test_an_asset_without_a_cap_flows_down_only(made: Made) -> None:
    """On Bitcoin there is one asset, and its cap is needed for fees: without it nothing moves at all."""
    bench = made("warm")
    bundle = bench.world.bundle(2)
    bench.adopt(2, caps=tuple(cap for cap in bundle.caps if cap.tier != "warm"))
    for target in ("hot", "cold"):
        assert bench.codes(bench.under(2, bench.draft(target))) == {"no-cap"}


# Freezes.


@pytest.mark.parametrize(
    "scope", ["all", "tier:warm", f"wallet:{VAULT}", f"wallet:{COLD}", "tier:cold", "asset:BTC"]
)
def test_a_freeze_of_source_or_target_holds_a_refill(made: Made, scope: str) -> None:
    bench = made("warm")
    request = bench.refill("cold")
    bench.signatures(request)
    bench.freeze(scope)
    assert refused(bench, bench.draft("cold")) == {"frozen"}
    with pytest.raises(Withheld, match=scope):
        bench.service.sign(request)


def test_a_freeze_of_another_wallet_does_not(made: Made) -> None:
    bench = made("warm")
    bench.freeze("wallet:btc-hot")
    bench.signatures(bench.refill("cold"))


# Payments stay payments.


def test_a_refills_transaction_is_no_payment_and_a_payments_no_refill(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    refill = bench.refill("hot")
    order = world.order(UNITS, destination=world.address_at("hot", 1, 0))
    paying = world.vault_request(Draft([world.vault_coin()], [order]))
    swapped = msgspec.structs.replace(paying, transaction=refill.transaction)
    assert {"foreign-change", "unpaid-intent"} <= bench.codes(swapped)
    other = msgspec.structs.replace(refill, transaction=paying.transaction)
    assert {"refill-target", "unknown-output"} <= bench.codes(other)


def test_evidence_of_orders_is_none_of_a_refill(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    request = bench.refill("hot")
    payment = world.vault_request(Draft([world.vault_coin()], [world.order(50_000)]))
    orders = msgspec.structs.replace(request.evidence, orders=payment.evidence.orders)
    assert bench.codes(msgspec.structs.replace(request, evidence=orders)) == {"stray-order"}


# Cancellations.


def cancellation(bench: TierBench, coins: list[Any], **changes: Any) -> SignRequest:
    """What makes these coins unusable for anything signed before."""
    world = bench.world
    intent = world.vault_house_intent(Kind.CANCELLATION, **changes)
    return world.vault_request(Draft(coins, [], intents=[intent]))


def test_an_abandoned_request_is_cancelled_by_one_of_its_coins(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    payment = Draft([world.vault_coin(1_000_000)], [world.order(50_000)])
    bench.signatures(world.vault_request(payment))
    request = cancellation(bench, payment.coins)
    first = bench.signatures(request)
    assert bench.signatures(request) == first
    found = exposure(bench)
    # Both count until the verifier has seen one of them.
    assert found["payments warm|BTC"] == str(50_000 + 2 * 2_000)


def test_a_cancelled_payment_counts_until_a_verifier_proves_it_dead(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    payment = world.vault_request(Draft([coin := world.vault_coin(1_000_000)], [world.order(50_000)]))
    bench.signatures(payment)
    cancel = cancellation(bench, [coin])
    bench.signatures(cancel)
    paid, empty = (parse_psbt(base64.b64decode(each.transaction)).tx.txid.hex for each in (payment, cancel))
    assert bench.resolve("confirmed", [empty]) == 1
    bench.time += 25 * 3600
    bench.restart()
    assert exposure(bench)["payments warm|BTC"] == str(50_000 + 2_000)
    assert bench.resolve("dead", [paid]) == 1
    bench.time += 25 * 3600
    bench.restart()
    assert exposure(bench)["payments warm|BTC"] == "0"


def test_a_cancelled_payment_is_not_signed_again_with_other_coins(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    order = world.order(50_000)
    draft = Draft([world.vault_coin(1_000_000)], [order])
    bench.signatures(world.vault_request(draft))
    bench.signatures(cancellation(bench, draft.coins))
    bench.resolve("dead")
    again = world.vault_request(Draft([world.vault_coin(1_000_000)], [order]))
    assert bench.codes(again) == {"conflicting-version"}


def test_two_cancellations_of_one_intent_exclude_each_other(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    coins = [world.vault_coin(1_000_000), world.vault_coin(2_000_000)]
    first = cancellation(bench, coins[:1])
    bench.signatures(first)
    (intent,) = first.intents
    other = world.vault_request(Draft(coins[1:], [], intents=[intent]))
    assert bench.codes(other) == {"conflicting-version"}
    both = world.vault_request(Draft(coins, [], intents=[intent]))
    assert len(bench.signatures(both)) == 2


def test_a_cancellation_pays_to_the_change_address_it_names_and_to_nobody(made: Made) -> None:
    bench = made("warm")
    world = bench.world
    coin = world.vault_coin(1_000_000)
    for elsewhere in (DESTINATION, world.address_at("cold", 1, 0), world.address_at("warm", 1, 1)):
        assert bench.codes(cancellation(bench, [coin], destination=elsewhere)) == {"consolidation-output"}
    assert bench.codes(cancellation(bench, [coin], amount="7")) == {"house-intent"}
    intent = world.vault_house_intent(Kind.CANCELLATION)
    thief = TxOut(10_000, world.script_at("hot", 0, 0))
    stolen = Draft([coin], [], intents=[intent], extra_outputs=[thief])
    assert bench.codes(world.vault_request(stolen)) == {"unknown-output", "consolidation-output"}


def test_fees_of_cancellations_count(made: Made) -> None:
    bench = made("warm")
    coin = bench.world.vault_coin(50_000_000)
    bench.signatures(cancellation(bench, [coin]))
    bench.adopt(2, network_fee_window_cap="3999")
    again = cancellation(bench, [bench.world.vault_coin(1_000_000)], policy_version=2)
    assert bench.codes(again) == {"fee-window"}


def test_a_hot_key_set_cancels_too(made: Made) -> None:
    bench = made("hot")
    world = bench.world
    draft = Draft([world.coin()], [world.order(500)], fee_sats=500)
    bench.signatures(world.request(draft))
    cancel = Draft(draft.coins, [], intents=[world.house_intent(Kind.CANCELLATION)])
    assert len(bench.signatures(world.request(cancel))) == 1
