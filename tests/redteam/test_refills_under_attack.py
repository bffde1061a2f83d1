"""Somebody owns everything online and moves the house's money about: what he gets out of it, and what he can spoil.

He has every signature that he can talk signers into, genuine approvals of two careless approvers for whatever he shows
them, and chooses what is mined.
"""

from __future__ import annotations

import base64
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.btc.psbt import parse_psbt
from chains.btc.tx import Transaction, TxOut
from chains.eth.address import checksummed, raw_address
from chains.eth.safe import EXEC_TRANSACTION, decode_execution
from chains.eth.tx import SignedTx
from policies.intent import Intent, Kind
from signers.ports import Refused
from tests.fakes.evm_signing import ETHER, GWEI, EvmDraft, named_address
from tests.fakes.evm_tiers import COLD_SAFE, GAS_PAYER, SAFE, HotBench
from tests.fakes.safe_signing import HOLDING_CAP
from tests.fakes.signing import Draft
from tests.fakes.tiers import RefillDraft, Tier, TierBench

REACH = range(3_000)
WINDOW = {"hot": 500_000_000, "warm": 100_000_000, "cold": 200_000_000}
FEE_WINDOW = 12_000
THIEF = TxOut(50_000, b"\x00\x14" + b"\x66" * 20)
TIERS: tuple[Tier, ...] = get_args(Tier)


# Bitcoin.


def asked(bench: TierBench, data: st.DataObject, known: list[Intent]) -> tuple[Transaction, int] | None:
    """Something to ask a tier's signer for: honest, or bent in one or more places; what it signed, and the fee."""
    world = bench.world
    pick = data.draw
    target = pick(st.sampled_from(TIERS))
    draft = RefillDraft(
        bench.tier,
        target,
        units=pick(st.sampled_from([10_000, 30_000_000, 60_000_000, 150_000_000])),
        index=pick(st.sampled_from([0, 5, 999, 1_000, 1_999, 2_500])),
        branch=pick(st.sampled_from([1, 1, 1, 0])),
        change_index=pick(st.sampled_from([0, 3, 1_500])),
        fee_sats=pick(st.sampled_from([1_000, 2_000, 5_000])),
        unnamed=pick(st.sampled_from([False, False, False, True])),
        extra_outputs=pick(st.sampled_from([[], [], [], [THIEF]])),
        names=("ada", "ben", "cem") if bench.tier != "hot" else (),
    )
    changes: dict[str, Any] = pick(
        st.sampled_from(
            [{}, {}, {}, {"kind": Kind.CONSOLIDATION}, {"kind": Kind.CANCELLATION, "amount": "0"}]
        )
    )
    intent = world.refill_intent(draft, **changes)
    same = [each.id for each in known]
    intent = msgspec.structs.replace(
        intent, policy_version=2, id=pick(st.sampled_from([intent.id, intent.id, *same]))
    )
    draft.intents = [intent]
    request = world.refill_request(draft)
    try:
        bench.signatures(request)
    except Refused:
        return None
    known.append(intent)
    return parse_psbt(base64.b64decode(request.transaction)).tx, draft.fee_sats


@settings(max_examples=20)
@given(data=st.data(), tier=st.sampled_from(TIERS))
def test_each_tier_gives_at_most_its_window_upwards_and_burns_at_most_a_window_of_fees(
    data: st.DataObject, tier: Tier
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = TierBench(Path(directory), tier)
        bench.adopt(2, network_fee_window_cap=str(FEE_WINDOW))
        world = bench.world
        known: list[Intent] = []
        found = [one for _ in range(data.draw(st.integers(6, 18))) if (one := asked(bench, data, known))]
        bench.journal.close()
    signed = [tx for tx, _ in found]
    assert sum(fee for _, fee in found) <= FEE_WINDOW
    indexes = (0, 3, 5, 999, 1_000, 1_500, 1_999, 2_500)
    ours = {world.script_at(each, 1, index): each for each in TIERS for index in indexes}
    moved: dict[str, int] = defaultdict(int)
    for tx in signed:
        assert len(tx.outputs) <= 2
        for out in tx.outputs:
            moved[ours[out.script]] += out.units  # a stranger's would fail here
    upwards = TIERS[: TIERS.index(tier)]
    assert sum(moved[each] for each in upwards) <= WINDOW[tier]
    # Every coin is fresh, so all of these could be mined: what is gone is fees.
    assert len({txin.outpoint for tx in signed for txin in tx.inputs}) == sum(len(tx.inputs) for tx in signed)


def test_he_does_get_something_signed_so_the_tests_above_say_something(tmp_path: Path) -> None:
    bench = TierBench(tmp_path, "warm")
    bench.signatures(bench.refill("hot", units=60_000_000))
    bench.signatures(bench.refill("cold", units=150_000_000))
    assert "window-cap" in bench.codes(bench.refill("hot", units=60_000_000))


def test_a_refill_takes_a_payments_coin_away_and_the_payment_is_not_made_twice(tmp_path: Path) -> None:
    """He may spoil a payment by a refill of its coin: one of both is mined, and the order is never paid anew."""
    bench = TierBench(tmp_path, "warm")
    world = bench.world
    payment = Draft([world.vault_coin(30_000_000)], [world.order(50_000)])
    bench.signatures(world.vault_request(payment))
    draft = bench.draft("cold", units=20_000_000)
    draft.coins = payment.coins
    bench.signatures(world.refill_request(draft))
    other = Draft([world.vault_coin(30_000_000)], payment.orders)
    assert bench.codes(world.vault_request(other)) == {"conflicting-version"}


# EVM.


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotBench]:
    made = HotBench(tmp_path)
    yield made
    made.journal.close()


def test_top_ups_and_burnt_gas_come_out_of_one_window_whatever_the_order(hot: HotBench) -> None:
    """Hot to gas payer, burnt by fills and executions, and topped up again, until the window ends it."""
    world = hot.world
    hot.adopt(2, cap_window_cap=str(ETHER), network_fee_window_cap=str(ETHER // 2))
    topped, burnt, stopped = 0, 0, set[str]()
    for nonce in range(60):
        top_up = world.hot_refill(world.gas.record.address, HOLDING_CAP // 5, nonce=nonce, max_fee_wei=GWEI)
        fill = EvmDraft(
            [],
            nonce=nonce,
            intents=[world.gas_intent(Kind.NONCE_FILL)],
            to=raw_address(world.gas.record.address),
            value_wei=0,
            data=b"",
            gas_limit=100_000,
            max_fee_wei=200 * GWEI,
            keyset=GAS_PAYER,
        )
        for draft in (top_up, fill):
            request = hot.asked(draft, 2)
            try:
                (signature,) = hot.signatures(request)
            except Refused as error:
                stopped |= {reason.code for reason in error.reasons}
                continue
            tx: SignedTx = world.tx(draft).signed(bytes.fromhex(signature.signature))
            if draft is top_up:
                assert checksummed(tx.tx.to) == world.gas.record.address
                topped += tx.tx.value_wei
            burnt += tx.tx.max_fee_wei
    assert topped + burnt <= ETHER
    assert burnt <= ETHER // 2
    assert "window-cap" in stopped
    assert topped > 0


@settings(max_examples=20)
@given(data=st.data())
def test_whatever_is_asked_of_hot_key_and_gas_payer_nothing_reaches_a_stranger(data: st.DataObject) -> None:
    mallory = named_address("mallory")
    with tempfile.TemporaryDirectory() as directory:
        bench = HotBench(Path(directory))
        world = bench.world
        payer, key = world.gas.record.address, world.record.address
        ours = {SAFE, COLD_SAFE, payer, key}
        for nonce in range(data.draw(st.integers(3, 15))):
            pick = data.draw
            to, meant = (pick(st.sampled_from([SAFE, COLD_SAFE, payer, key, mallory])) for _ in range(2))
            units = pick(st.sampled_from([0, 1, HOLDING_CAP, HOLDING_CAP + 1, 10 * ETHER]))
            kind = pick(
                st.sampled_from([Kind.REFILL, Kind.REFILL, Kind.NONCE_FILL, Kind.EXECUTION, Kind.ROTATION])
            )
            fields = {"destination": meant, "amount": str(units) if kind is Kind.REFILL else "0"}
            of_payer = pick(st.booleans())
            intent = world.gas_intent(kind, **fields) if of_payer else world.house_intent(kind, **fields)
            draft = world.hot_refill(to, units, nonce=nonce, intents=[intent], keyset=intent.keyset)
            try:
                (signature,) = bench.signatures(world.request(draft))
            except Refused:
                continue
            tx = world.tx(draft).signed(bytes.fromhex(signature.signature)).tx
            assert checksummed(tx.to) in ours
            assert tx.data == b"" or tx.data[:4] == EXEC_TRANSACTION
            assert checksummed(tx.to) != payer or tx.value_wei <= HOLDING_CAP
            assert not of_payer or tx.value_wei == 0
        bench.journal.close()


def test_what_owners_did_not_sign_no_gas_payer_sends_even_as_a_refill(hot: HotBench) -> None:
    """A refill's bytes in an execution, signed by strangers or by too few."""
    world = hot.world
    message = world.message(world.safe_refill(world.record.address))
    blob = world.signatures_blob(message)
    assert hot.codes(hot.request(message, blob[:65])) == {"owner-signatures"}
    elsewhere = world.message(world.safe_refill(named_address("mallory")))
    data = elsewhere.tx.execution(blob)
    assert decode_execution(data, 0).tx.to == raw_address(named_address("mallory"))
    assert hot.codes(hot.request(elsewhere, blob)) == {"owner-signatures"}
