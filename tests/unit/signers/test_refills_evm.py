"""Refills on EVM chains: between a hot key and Safes, and from the hot key to the gas payer, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.payout import Payout, payout_calldata
from policies.intent import Kind
from signers.errors import Withheld
from tests.fakes.evm_signing import (
    ETHER,
    EVM_DESTINATION,
    FACTORY,
    GAS_CAPS,
    GWEI,
    OTHER_EVM_CHAIN,
    PAYOUT,
    USDX,
    EvmDraft,
    named_address,
)
from tests.fakes.evm_tiers import COLD_SAFE, COLD_VAULT, GAS_PAYER, SAFE, VAULT, HotBench, WarmBench
from tests.fakes.safe_signing import HOLDING_CAP, SafeDraft

CHEAP: dict[str, Any] = {"max_fee_wei": GWEI, "priority_wei": 0}
STATES = ["pre-active", "suspended", "deactivated", "compromised", "destroyed"]


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotBench]:
    made = HotBench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmBench]:
    made = WarmBench(tmp_path)
    yield made
    made.journal.close()


def exposure(bench: HotBench | WarmBench) -> dict[str, int]:
    """What counts in each window, by kind and scope."""
    return {f"{use.kind} {use.scope}": int(use.units) for use in bench.service.status().windows}


# The hot key.


@pytest.mark.parametrize("to", [SAFE, COLD_SAFE])
@pytest.mark.parametrize("asset", ["ETH", "USDX", "FEEX"])
def test_the_hot_key_sends_an_excess_down_and_only_its_fee_counts(hot: HotBench, to: str, asset: str) -> None:
    """Also of a token that takes a fee on transfer: what can't be paid out can be saved."""
    request = hot.world.request(hot.world.hot_refill(to, 10**15, asset, **CHEAP))
    first = hot.signatures(request)
    assert hot.signatures(request) == first
    found, fee = exposure(hot), 60_000 * GWEI
    assert found["payments hot|ETH"] == fee
    assert found["payments hot|USDX"] == found["payments hot|FEEX"] == 0
    assert found["value all-eth-hot"] == -(-fee * 10_000_000 // ETHER)


def test_a_top_up_of_the_gas_payer_counts_like_a_payment(hot: HotBench) -> None:
    world = hot.world
    hot.signatures(world.request(world.hot_refill(world.gas.record.address, HOLDING_CAP, **CHEAP)))
    found, fee = exposure(hot), 60_000 * GWEI
    assert found["payments hot|ETH"] == HOLDING_CAP + fee
    spent = HOLDING_CAP * 10_000_000 // ETHER + -(-fee * 10_000_000 // ETHER)
    assert found["value all-eth-hot"] == spent


def test_a_top_up_is_no_larger_than_what_the_gas_payer_may_hold(hot: HotBench) -> None:
    world = hot.world
    draft = world.hot_refill(world.gas.record.address, HOLDING_CAP + 1)
    assert hot.codes(world.request(draft)) == {"top-up"}
    token = world.hot_refill(world.gas.record.address, 1, "USDX")
    assert hot.codes(world.request(token)) == {"top-up"}


def test_the_hot_window_and_the_breaker_end_top_ups(hot: HotBench) -> None:
    world = hot.world
    hot.adopt(2, cap_window_cap=str(ETHER))
    top_up = world.hot_refill(world.gas.record.address, HOLDING_CAP, **CHEAP)
    hot.signatures(hot.asked(top_up, 2))
    again = world.hot_refill(world.gas.record.address, HOLDING_CAP, nonce=1, **CHEAP)
    assert hot.codes(hot.asked(again, 2)) == {"window-cap"}
    breakers = tuple(
        msgspec.structs.replace(each, value_cap=str(6_000_000)) for each in world.bundle(3).breakers
    )
    hot.adopt(3, breakers=breakers)
    again = world.hot_refill(world.gas.record.address, HOLDING_CAP, nonce=1, **CHEAP)
    assert hot.codes(hot.asked(again, 3)) == {"value-cap"}
    hot.signatures(hot.asked(world.hot_refill(SAFE, 10 * ETHER, nonce=1, **CHEAP), 3))


def test_a_top_up_without_a_price_can_not_be_counted(hot: HotBench) -> None:
    world = hot.world
    hot.adopt(2, prices=())
    draft = world.hot_refill(world.gas.record.address, 1)
    assert hot.codes(hot.asked(draft, 2)) == {"no-price"}


def test_addresses_that_are_no_wallets_of_another_tier_get_nothing(hot: HotBench) -> None:
    world = hot.world
    for to in (
        EVM_DESTINATION,
        world.record.address,
        FACTORY,
        PAYOUT,
        USDX,
        world.owners[0].record.address,
    ):
        assert "refill-target" in hot.codes(world.request(world.hot_refill(to)))
    lower = world.house_intent(Kind.REFILL, destination=SAFE.lower(), amount=str(ETHER))
    assert "refill-target" in hot.codes(world.request(world.hot_refill(SAFE, intents=[lower])))


def test_another_chains_wallet_is_no_target(hot: HotBench) -> None:
    hot.adopt(2, cold_chain=OTHER_EVM_CHAIN)
    draft = hot.world.hot_refill(COLD_SAFE)
    assert hot.codes(hot.asked(draft, 2)) == {"refill-target"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("to", [SAFE, COLD_SAFE, "gas payer"])
def test_only_active_wallets_get_something(hot: HotBench, to: str, state: str) -> None:
    field = {SAFE: "vault_state", COLD_SAFE: "cold_state"}.get(to, "gas_state")
    hot.adopt(2, **{field: state})
    address = hot.world.gas.record.address if to == "gas payer" else to
    draft = hot.world.hot_refill(address, 1)
    assert hot.codes(hot.asked(draft, 2)) == {"refill-target"}


@pytest.mark.parametrize(
    ("bent", "codes"),
    [
        ({"to": raw_address(EVM_DESTINATION)}, {"unknown-output", "unpaid-intent"}),
        ({"to": raw_address(COLD_SAFE)}, {"unknown-output", "unpaid-intent"}),
        ({"value_wei": ETHER + 1}, {"unknown-output", "unpaid-intent"}),
        ({"value_wei": 0}, {"unknown-output", "unpaid-intent"}),
        ({"data": b"\x01"}, {"unlisted-contract"}),
        ({"to": raw_address(USDX), "value_wei": 0}, {"unknown-call"}),
        ({"gas_limit": GAS_CAPS.transfer + 1}, {"gas-cap"}),
        ({"chain_id": 1}, {"wrong-chain-id"}),
        ({"nonce": 256}, {"nonce"}),
        ({"safe_nonce": 0}, {"malformed-request"}),
    ],
)
def test_a_refill_moves_what_it_says_to_where_it_says(
    hot: HotBench, bent: dict[str, Any], codes: set[str]
) -> None:
    assert hot.codes(hot.world.request(hot.world.hot_refill(SAFE, **bent))) == codes


def test_a_token_refill_bent_to_another_receiver_or_call_is_refused(hot: HotBench) -> None:
    world = hot.world
    thief = raw_address(EVM_DESTINATION)
    for data, code in (
        (transfer_calldata(thief, 10**6), "unknown-output"),
        (transfer_calldata(raw_address(SAFE), 10**6 + 1), "unknown-output"),
        (b"\x09\x5e\xa7\xb3" + bytes(64), "allowance"),
    ):
        assert code in hot.codes(world.request(world.hot_refill(SAFE, 10**6, "USDX", data=data)))


def test_a_refill_is_no_part_of_a_batch(hot: HotBench) -> None:
    world = hot.world
    batch = payout_calldata([Payout(raw_address(SAFE), ETHER)])
    draft = world.hot_refill(SAFE, to=raw_address(PAYOUT), data=batch)
    assert "unlisted-contract" in hot.codes(world.request(draft))


def test_one_refill_a_transaction_and_one_transaction_a_refill(hot: HotBench) -> None:
    world = hot.world
    draft = world.hot_refill(SAFE)
    both = replace(draft, intents=[*draft.intents, *world.hot_refill(SAFE).intents])
    assert "mixed-intents" in hot.codes(world.request(both))
    hot.signatures(world.request(draft))
    assert hot.codes(world.request(replace(draft, nonce=1))) == {"conflicting-version"}
    assert hot.codes(world.request(world.hot_refill(SAFE))) == {"transaction-reused"}
    hot.signatures(world.request(replace(draft, max_fee_wei=30 * GWEI)))


def test_a_refill_is_no_payment_and_a_payment_no_refill(hot: HotBench) -> None:
    world = hot.world
    order = world.order(999, destination=SAFE)
    refill = world.hot_refill(SAFE, 999)
    paying = world.request(EvmDraft([order]))
    # The same bytes: whichever was signed first is what they are for.
    hot.signatures(paying)
    assert hot.codes(world.request(replace(refill, gas_limit=60_000))) == {"transaction-reused"}
    named = world.house_intent(Kind.REFILL, id=order.id, destination=SAFE, amount="999")
    assert hot.codes(world.request(replace(refill, intents=[named], nonce=5))) == {
        "intent-reused",
        "conflicting-version",
    }
    assert "stray-order" in hot.codes(
        msgspec.structs.replace(world.request(replace(refill, nonce=7)), evidence=paying.evidence)
    )


def test_an_asset_without_a_cap_flows_down_only(hot: HotBench) -> None:
    world = hot.world
    bundle = world.bundle(2)
    hot.adopt(2, caps=tuple(cap for cap in bundle.caps if cap.asset != "USDX"))
    hot.signatures(hot.asked(world.hot_refill(SAFE, 10**6, "USDX"), 2))
    hot.adopt(3, caps=tuple(cap for cap in bundle.caps if cap.asset != "ETH"))
    assert hot.codes(hot.asked(world.hot_refill(SAFE, nonce=1), 3)) == {"no-cap"}


@pytest.mark.parametrize("scope", [f"wallet:{VAULT}", "tier:warm", "asset:ETH", "wallet:eth-hot"])
def test_a_freeze_of_source_or_target_holds_it(hot: HotBench, scope: str) -> None:
    world = hot.world
    request = world.request(world.hot_refill(SAFE))
    hot.signatures(request)
    hot.freeze(scope)
    assert hot.codes(world.request(world.hot_refill(SAFE, nonce=1))) == {"frozen"}
    with pytest.raises(Withheld, match=scope):
        hot.service.sign(request)


def test_a_frozen_gas_payer_is_not_topped_up(hot: HotBench) -> None:
    world = hot.world
    hot.freeze(f"wallet:{GAS_PAYER}")
    assert hot.codes(world.request(world.hot_refill(world.gas.record.address, 1))) == {"frozen"}


def test_a_gas_payer_refills_nobody(hot: HotBench) -> None:
    """Neither back to the hot key, nor to a Safe: what it holds it burns as gas."""
    world = hot.world
    for to in (world.record.address, SAFE):
        intent = world.gas_intent(Kind.REFILL, destination=to, amount="1")
        draft = world.hot_refill(to, 1, intents=[intent], keyset=GAS_PAYER)
        assert "kind-not-supported" in hot.codes(world.request(draft))


# Safes.


def test_a_safe_fills_the_hot_key_and_it_counts_like_a_payment(warm: WarmBench) -> None:
    world = warm.world
    request = world.approved(world.safe_refill(world.record.address, 7 * ETHER))
    first = warm.signatures(request)
    assert warm.signatures(request) == first
    assert exposure(warm)["payments warm|ETH"] == 7 * ETHER
    token = world.safe_refill(world.record.address, 10**9, "USDX", nonce=1)
    warm.signatures(world.approved(token))
    assert exposure(warm)["payments warm|USDX"] == 10**9


def test_a_safe_sends_an_excess_down_to_a_colder_one_and_nothing_counts(warm: WarmBench) -> None:
    world = warm.world
    warm.signatures(world.approved(world.safe_refill(COLD_SAFE, 500 * ETHER)))
    warm.signatures(world.approved(world.safe_refill(COLD_SAFE, 10**18, "FEEX", nonce=1), ()))
    found = exposure(warm)
    assert found["payments warm|ETH"] == found["payments warm|USDX"] == 0


def test_a_token_that_takes_a_fee_does_not_flow_up(warm: WarmBench) -> None:
    """So nobody burns it by sending it up and down."""
    world = warm.world
    codes = warm.codes(world.approved(world.safe_refill(world.record.address, 1, "FEEX")))
    assert {"asset-not-payable", "no-cap"} <= codes


def test_a_safe_tops_up_no_gas_payer_and_pays_no_stranger(warm: WarmBench) -> None:
    world = warm.world
    for to in (
        world.gas.record.address,
        EVM_DESTINATION,
        SAFE,
        world.owners[1].record.address,
        world.other.address,
    ):
        codes = warm.codes(world.approved(world.safe_refill(to)))
        assert "refill-target" in codes


@pytest.mark.parametrize("state", STATES)
def test_a_safe_fills_an_active_hot_key_only(warm: WarmBench, state: str) -> None:
    world = warm.world
    warm.adopt(2, keyset_state=state)
    draft = warm.adopted(2, world.safe_refill(world.record.address))
    assert warm.codes(world.approved(draft)) == {"refill-target"}


@pytest.mark.parametrize(
    ("tx", "code"),
    [
        ({"operation": 1}, "delegate-call"),
        ({"gas_price": 1}, "refund-fields"),
        ({"refund_receiver": b"\x01" * 20}, "refund-fields"),
        ({"value_wei": 2 * ETHER}, "unknown-output"),
        ({"to": raw_address(EVM_DESTINATION)}, "unknown-output"),
        ({"data": b"\x01"}, "unlisted-contract"),
        ({"to": raw_address(SAFE)}, "safe-administration"),
        ({"to": raw_address(SAFE), "value_wei": 0}, "safe-administration"),
    ],
)
def test_a_safes_refill_does_nothing_else(warm: WarmBench, tx: dict[str, Any], code: str) -> None:
    world = warm.world
    draft = world.safe_refill(world.record.address)
    bent = replace(draft, tx=draft.tx | tx)
    assert code in warm.codes(world.approved(bent))


def test_a_safes_window_ends_its_refills(warm: WarmBench) -> None:
    world = warm.world
    warm.signatures(world.approved(world.safe_refill(world.record.address, 999 * ETHER)))
    over = world.safe_refill(world.record.address, 2 * ETHER, nonce=1)
    assert warm.codes(world.approved(over)) == {"window-cap"}
    warm.signatures(world.approved(world.safe_refill(COLD_SAFE, 2 * ETHER, nonce=1)))


def test_a_safes_refill_needs_its_own_approvals(warm: WarmBench) -> None:
    world = warm.world
    draft = world.safe_refill(world.record.address)
    assert warm.codes(world.approved(draft, ())) == {"approvals-missing"}
    other = world.approved(world.safe_refill(world.record.address))
    approved = world.approved(draft)
    evidence = msgspec.structs.replace(approved.evidence, approvals=other.evidence.approvals)
    replayed = msgspec.structs.replace(approved, evidence=evidence)
    assert warm.codes(replayed) == {"stray-approval", "approvals-missing"}
    payment = world.safe_request(world.safe_draft())
    approvals = msgspec.structs.replace(payment.evidence, orders=(), verdicts=())
    assert warm.codes(msgspec.structs.replace(world.approved(draft), evidence=approvals)) == {
        "stray-approval",
        "approvals-missing",
        "no-verdict",
    }


# Cancellations.


def cancellation(bench: WarmBench, nonce: int = 0, **changes: Any) -> SafeDraft:
    """What uses up a nonce and does nothing else."""
    fields: dict[str, Any] = {"to": raw_address(SAFE), "value_wei": 0, "data": b""}
    fields |= changes.pop("tx", {})
    intent = bench.world.safe_house_intent(Kind.CANCELLATION, changes.pop("destination", SAFE), **changes)
    return SafeDraft([], nonce=nonce, intents=[intent], tx=fields)


def test_an_abandoned_nonce_is_used_up(warm: WarmBench) -> None:
    world = warm.world
    warm.signatures(world.safe_request(world.safe_draft(5 * ETHER)))
    request = world.safe_request(cancellation(warm))
    first = warm.signatures(request)
    assert warm.signatures(request) == first
    # The payment counts on, until a verifier proves it dead.
    assert exposure(warm)["payments warm|ETH"] == 5 * ETHER
    warm.time += 40 * 24 * 3600
    assert exposure(warm)["payments warm|ETH"] == 5 * ETHER


@pytest.mark.parametrize(
    ("tx", "code"),
    [
        ({"value_wei": 1}, "unknown-call"),
        ({"data": b"\x01"}, "unknown-call"),
        ({"to": raw_address(EVM_DESTINATION)}, "unknown-call"),
        ({"to": raw_address(COLD_SAFE)}, "unknown-call"),
        ({"operation": 1}, "unknown-call"),
        ({"gas_price": 1}, "unknown-call"),
        ({"base_gas": 1}, "unknown-call"),
        ({"refund_receiver": b"\x01" * 20}, "unknown-call"),
        ({"data": bytes.fromhex("0d582f13") + bytes(64)}, "safe-administration"),
    ],
)
def test_a_cancellation_does_nothing_at_all(warm: WarmBench, tx: dict[str, Any], code: str) -> None:
    assert warm.codes(warm.world.safe_request(cancellation(warm, tx=tx))) == {code}


def test_a_cancellation_is_of_this_safe_and_moves_nothing(warm: WarmBench) -> None:
    world = warm.world
    elsewhere = cancellation(warm, destination=COLD_SAFE)
    assert warm.codes(world.safe_request(elsewhere)) == {"bad-destination"}
    amount = cancellation(warm, amount="1")
    assert warm.codes(world.safe_request(amount)) == {"house-intent"}
    other = replace(cancellation(warm), safe=COLD_SAFE)
    assert "wrong-safe" in warm.codes(world.safe_request(other))


def test_what_a_cancellation_does_is_no_payment_rotation_or_refill(warm: WarmBench) -> None:
    world = warm.world
    empty = {"to": raw_address(SAFE), "value_wei": 0, "data": b""}
    pays = replace(world.safe_draft(), tx=empty)
    assert "safe-administration" in warm.codes(world.safe_request(pays))
    refill = replace(world.safe_refill(COLD_SAFE), tx=empty)
    assert "safe-administration" in warm.codes(world.approved(refill))


def test_a_cancelled_nonce_pays_nobody_with_another_nonce(warm: WarmBench) -> None:
    world = warm.world
    draft = world.safe_draft()
    warm.signatures(world.safe_request(draft))
    warm.signatures(world.safe_request(cancellation(warm)))
    assert warm.codes(world.safe_request(replace(draft, nonce=1))) == {"conflicting-version"}


def test_one_cancellation_is_of_one_nonce(warm: WarmBench) -> None:
    world = warm.world
    draft = cancellation(warm)
    warm.signatures(world.safe_request(draft))
    assert warm.codes(world.safe_request(replace(draft, nonce=1))) == {"conflicting-version"}
    assert warm.codes(world.safe_request(cancellation(warm, nonce=257))) == {"nonce"}


@pytest.mark.parametrize("state", [*STATES])
def test_a_safe_that_is_not_in_use_cancels_nothing(warm: WarmBench, state: str) -> None:
    warm.adopt(2, vault_state=state)
    draft = cancellation(warm, policy_version=2)
    assert "key-state" in warm.codes(warm.world.safe_request(draft))


def test_a_gas_payer_sends_refills_and_cancellations_that_owners_have_signed(hot: HotBench) -> None:
    world = hot.world
    empty = world.message(SafeDraft([], tx={"to": raw_address(SAFE), "value_wei": 0, "data": b""}))
    hot.signatures(hot.request(empty))
    refill = world.message(world.safe_refill(world.record.address, nonce=1))
    hot.signatures(hot.request(refill, nonce=1))


def test_a_stranger_named_like_the_hot_key_is_none(warm: WarmBench) -> None:
    """An address that differs in one digit, which people would not see."""
    world = warm.world
    lookalike = named_address("one digit differs")
    draft = world.safe_refill(world.record.address)
    bent = replace(draft, intents=[world.safe_refill_intent(lookalike, ETHER, "ETH")])
    assert {"refill-target", "unknown-output"} <= warm.codes(world.approved(bent))
    assert COLD_VAULT in {entry.id for entry in world.bundle().wallets}
