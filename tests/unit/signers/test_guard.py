"""Every attack of DESIGN section 1 on the hot tier, one a test: the honest request with one thing changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.btc.psbt import PsbtInput, build_psbt, parse_psbt
from chains.btc.script import p2wpkh_script_from_hash
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.types import TxId
from policies.intent import Kind, SignedOrder
from policies.keys import SigningKey, sign_order
from signers.guard.btc_shape import KINDS
from signers.ports import SignRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, NOW, OTHER_DESTINATION, Draft, SoftKeys, World


@pytest.fixture(params=["p2wpkh", "p2tr"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path, request.param)
    yield made
    made.journal.close()


# The honest ways.


def test_an_honest_payment_is_signed_and_the_signature_fits_its_input(bench: SignerBench) -> None:
    request = bench.request()
    (signature,) = bench.signatures(request)
    assert bytes.fromhex(signature.pubkey) == bench.world.account.pubkey(0, 0)
    taproot = bench.world.record.script == "p2tr"
    assert len(signature.signature) == 128 if taproot else signature.signature.endswith("01")


def test_the_nonce_of_a_safe_says_nothing_on_bitcoin_and_is_refused(bench: SignerBench) -> None:
    request = msgspec.structs.replace(bench.request(), safe_nonce=0)
    assert bench.codes(request) == {"malformed-request"}


def test_many_intents_in_one_transaction_are_signed(bench: SignerBench) -> None:
    assert len(bench.signatures(bench.request(100_000, 200_000, 200_000))) == 1


def test_a_payment_without_change_is_signed(bench: SignerBench) -> None:
    world = bench.world
    request = world.request(Draft([world.coin(1_002_000)], [world.order()]))
    assert len(parse_psbt(base64.b64decode(request.transaction)).tx.outputs) == 1
    bench.signatures(request)


def test_coins_of_both_branches_are_signed(bench: SignerBench) -> None:
    world = bench.world
    draft = Draft([world.coin(branch=0, index=3), world.coin(branch=1, index=70_000)], [world.order()])
    assert [s.index for s in bench.signatures(world.request(draft))] == [0, 1]


def test_the_same_transaction_again_gets_the_same_signatures_and_counts_once(bench: SignerBench) -> None:
    request = bench.request()
    first = bench.signatures(request)
    assert bench.signatures(request) == first
    assert bench.service.status().signed == 1


def test_a_journaled_transaction_is_signed_again_after_its_order_expired_and_caps_fell(
    bench: SignerBench,
) -> None:
    request = bench.request()
    first = bench.signatures(request)
    bench.adopt(2, cap_payment_below="1", cap_window_cap="0")
    bench.time += 2 * DAY
    assert bench.signatures(request) == first


def test_a_replacement_with_a_common_input_and_a_higher_fee_is_signed(bench: SignerBench) -> None:
    draft = bench.draft()
    first = bench.signatures(bench.world.request(draft))
    assert bench.signatures(bench.world.request(replace(draft, fee_sats=4_000))) != first
    assert bench.service.status().signed == 2


def test_a_replacement_is_signed_under_a_newer_bundle_with_its_old_policy_version(bench: SignerBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    bench.adopt(2)
    bench.signatures(bench.world.request(replace(draft, fee_sats=4_000)))


# Outputs.


def test_a_changed_amount_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    script = bench.world.psbt(draft)
    paid = parse_psbt(script).tx.outputs[0]
    draft.outputs = [TxOut(paid.units + 1, paid.script)]
    assert bench.codes(bench.world.request(draft)) == {"unknown-output", "unpaid-intent"}


def test_a_changed_destination_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    draft.outputs = [TxOut(1_000_000, p2wpkh_script_from_hash(b"\x66" * 20))]
    assert bench.codes(bench.world.request(draft)) == {"unknown-output", "unpaid-intent"}


def test_an_extra_output_is_refused(bench: SignerBench) -> None:
    extra = TxOut(10_000, p2wpkh_script_from_hash(b"\x66" * 20))
    assert bench.codes(bench.request(extra_outputs=[extra])) == {"unknown-output"}


def test_an_op_return_output_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.request(extra_outputs=[TxOut(0, b"\x6a\x04note")])) == {"unknown-output"}


def test_an_output_that_pays_one_intent_twice_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    draft.extra_outputs = [parse_psbt(bench.world.psbt(draft)).tx.outputs[0]]
    assert bench.codes(bench.world.request(draft)) == {"unknown-output"}


def test_one_output_does_not_pay_two_equal_intents(bench: SignerBench) -> None:
    draft = bench.draft(500_000, 500_000)
    draft.outputs = [parse_psbt(bench.world.psbt(draft)).tx.outputs[0]]
    assert bench.codes(bench.world.request(draft)) == {"unpaid-intent"}


def test_a_missing_payment_is_refused(bench: SignerBench) -> None:
    draft = bench.draft(500_000, 600_000)
    draft.outputs = [parse_psbt(bench.world.psbt(draft)).tx.outputs[0]]
    assert bench.codes(bench.world.request(draft)) == {"unpaid-intent"}


def test_one_payment_of_the_sum_of_two_intents_is_refused(bench: SignerBench) -> None:
    draft = bench.draft(500_000, 500_000)
    paid = parse_psbt(bench.world.psbt(draft)).tx.outputs[0]
    draft.outputs = [TxOut(1_000_000, paid.script)]
    assert bench.codes(bench.world.request(draft)) == {"unknown-output", "unpaid-intent"}


def _with_change(bench: SignerBench, script: bytes, path: tuple[int, ...], pubkey: bytes) -> SignRequest:
    """The honest request with another change output, which claims `path`."""
    draft = bench.draft()
    request = bench.world.request(draft)
    parsed = parse_psbt(base64.b64decode(request.transaction))
    outputs = (parsed.tx.outputs[0], TxOut(parsed.tx.outputs[1].units, script))
    tx = replace(parsed.tx, outputs=outputs)
    return _with_tx(bench, request, tx, draft, {1: (pubkey, path)})


def _with_tx(
    bench: SignerBench,
    request: SignRequest,
    tx: Transaction,
    draft: Draft,
    change: dict[int, tuple[bytes, tuple[int, ...]]],
) -> SignRequest:
    world = bench.world
    inputs = [
        PsbtInput(
            txin.outpoint,
            txin.sequence,
            coin.previous.serialize(),
            world.path(coin.branch, coin.index),
            world.account.pubkey(coin.branch, coin.index),
        )
        for txin, coin in zip(tx.inputs, draft.coins, strict=True)
    ]
    raw = build_psbt(tx, inputs, change, world.record.fingerprint)
    return msgspec.structs.replace(request, transaction=base64.b64encode(raw).decode())


def test_change_to_a_foreign_key_is_refused(bench: SignerBench) -> None:
    world = bench.world
    thief = SoftKeys.make(b"\x01" * 32).account
    request = _with_change(bench, thief.script(1, 0), world.path(1, 0), thief.pubkey(1, 0))
    assert bench.codes(request) == {"foreign-change"}


def test_change_to_a_deposit_address_is_refused(bench: SignerBench) -> None:
    world = bench.world
    request = _with_change(bench, world.account.script(0, 0), world.path(0, 0), world.account.pubkey(0, 0))
    assert bench.codes(request) == {"foreign-change"}


def test_change_that_claims_another_account_is_refused(bench: SignerBench) -> None:
    world = bench.world
    path = (*world.path(1, 0)[:2], 2**31 + 1, 1, 0)
    request = _with_change(bench, world.account.script(1, 0), path, world.account.pubkey(1, 0))
    assert bench.codes(request) == {"foreign-change"}


def test_own_change_without_its_path_is_an_unknown_output(bench: SignerBench) -> None:
    extra = TxOut(10_000, bench.world.account.script(1, 5))
    assert bench.codes(bench.request(extra_outputs=[extra])) == {"unknown-output"}


def test_change_beyond_the_high_water_mark_and_1000_is_refused_and_the_mark_rises(bench: SignerBench) -> None:
    assert bench.codes(bench.request(change_index=1_000)) == {"change-index"}
    bench.signatures(bench.request(change_index=999))
    assert bench.codes(bench.request(change_index=2_000)) == {"change-index"}
    bench.signatures(bench.request(change_index=1_999))


def test_a_change_index_at_the_end_of_the_branch_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.request(change_index=2**31 - 1)) == {"change-index"}


def test_two_change_outputs_are_refused(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    request = world.request(draft)
    parsed = parse_psbt(base64.b64decode(request.transaction))
    half = parsed.tx.outputs[1].units // 2
    outputs = (parsed.tx.outputs[0], *(TxOut(half, world.account.script(1, n)) for n in (0, 1)))
    change = {n + 1: (world.account.pubkey(1, n), world.path(1, n)) for n in (0, 1)}
    assert bench.codes(_with_tx(bench, request, replace(parsed.tx, outputs=outputs), draft, change)) == {
        "many-change"
    }


def test_dust_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.request(293)) == {"dust"}


# Consolidations.


def consolidation(bench: SignerBench, **changes: Any) -> Draft:
    """An honest one: three coins of ours into one change output."""
    world = bench.world
    coins = [world.coin(100_000, index=n) for n in range(3)]
    fields: dict[str, Any] = {"destination": world.account.address(1, changes.get("change_index", 0))}
    intent = world.house_intent(Kind.CONSOLIDATION, **fields)
    return Draft(coins, [], intents=[intent], **changes)


def test_a_consolidation_into_one_change_output_is_signed_once(bench: SignerBench) -> None:
    draft = consolidation(bench)
    request = bench.world.request(draft)
    first = bench.signatures(request)
    assert len(first) == 3
    assert bench.signatures(request) == first
    elsewhere = replace(draft, coins=[bench.world.coin(100_000, index=9)])
    assert bench.codes(bench.world.request(elsewhere)) == {"conflicting-version"}
    bench.signatures(bench.world.request(replace(draft, fee_sats=3_000)))


def test_a_consolidation_that_pays_anybody_is_refused(bench: SignerBench) -> None:
    draft = consolidation(bench)
    thief = TxOut(10_000, p2wpkh_script_from_hash(b"\x66" * 20))
    request = bench.world.request(replace(draft, extra_outputs=[thief]))
    assert bench.codes(request) == {"unknown-output", "consolidation-output"}
    all_of_it = replace(draft, outputs=[TxOut(298_000, thief.script)])
    assert bench.codes(bench.world.request(all_of_it)) == {"unknown-output", "consolidation-output"}


def test_a_consolidation_to_another_change_address_than_it_names_is_refused(bench: SignerBench) -> None:
    draft = replace(consolidation(bench), change_index=1)
    assert bench.codes(bench.world.request(draft)) == {"consolidation-output"}
    elsewhere = [bench.world.house_intent(Kind.CONSOLIDATION, destination=OTHER_DESTINATION)]
    assert bench.codes(bench.world.request(replace(draft, intents=elsewhere))) == {"consolidation-output"}


def test_the_fee_of_a_consolidation_is_capped_and_counts(bench: SignerBench) -> None:
    assert bench.codes(bench.world.request(consolidation(bench, fee_sats=100_001))) >= {"fee-cap"}
    bench.adopt(2, network_fee_window_cap="3000")

    def decided() -> SignRequest:
        draft = consolidation(bench)
        draft.intents = [msgspec.structs.replace(draft.intents[0], policy_version=2)]
        return bench.world.request(draft)

    bench.signatures(decided())
    assert bench.codes(decided()) == {"fee-window"}


@pytest.mark.parametrize("change", [{"amount": "1"}, {"order": "ab" * 32}])
def test_a_consolidation_with_an_amount_or_order_is_refused(
    bench: SignerBench, change: dict[str, str]
) -> None:
    draft = consolidation(bench)
    draft.intents = [msgspec.structs.replace(draft.intents[0], **change)]
    assert bench.codes(bench.world.request(draft)) == {"house-intent"}


def test_a_payment_beside_a_consolidation_or_an_order_with_it_is_refused(bench: SignerBench) -> None:
    draft, order = consolidation(bench), bench.world.order(10_000)
    with_order = replace(draft, orders=[order], outputs=[])
    assert bench.codes(bench.world.request(with_order)) == {"stray-order"}
    both = replace(draft, orders=[order], intents=[*draft.intents, bench.world.intent(order)])
    assert {"mixed-intents", "consolidation-output"} <= bench.codes(bench.world.request(both))


def test_a_payment_that_calls_itself_a_consolidation_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.intent(draft.orders[0], kind=Kind.CONSOLIDATION, order=None)]
    assert bench.codes(bench.world.request(draft)) >= {"stray-order", "house-intent", "unknown-output"}


# Inputs.


def test_a_previous_transaction_that_is_not_the_one_spent_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    raw = base64.b64decode(request.transaction)
    coin = bench.world.coin(5_000_000)
    genuine = parse_psbt(raw).previous[0]
    lie = raw.replace(genuine, coin.previous.serialize())
    assert lie != raw
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(lie).decode())
    assert bench.codes(changed) == {"malformed-transaction"}


def test_a_lie_about_an_input_amount_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    raw = base64.b64decode(request.transaction)
    genuine = parse_psbt(raw).previous[0]
    previous = Transaction.parse(genuine)
    outputs = (previous.outputs[0], replace(previous.outputs[1], units=previous.outputs[1].units - 1))
    lie = raw.replace(genuine, replace(previous, outputs=outputs).serialize())
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(lie).decode())
    assert bench.codes(changed) == {"malformed-transaction"}


def test_an_input_of_a_foreign_key_is_refused(bench: SignerBench) -> None:
    world = bench.world
    thief = World(SoftKeys.make(b"\x01" * 32).record)
    coin = thief.coin()
    draft = Draft([coin], [world.order()])
    assert bench.codes(world.request(draft)) == {"foreign-input"}


def test_an_input_that_names_another_path_than_its_script_is_refused(bench: SignerBench) -> None:
    world = bench.world
    coin = replace(world.coin(index=4), index=5)
    assert bench.codes(world.request(Draft([coin], [world.order()]))) == {"foreign-input"}


def test_another_sighash_type_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    raw = base64.b64decode(request.transaction)
    # The field: key length 1, type 03, value length 4, then the one type that is signed.
    field, honest = bytes.fromhex("010304"), int(bench.world.record.script == "p2wpkh")
    for sighash in {0, 1, 2, 3, 0x81, 0x83} - {honest}:
        lie = raw.replace(field + honest.to_bytes(4, "little"), field + sighash.to_bytes(4, "little"), 1)
        assert lie != raw
        changed = msgspec.structs.replace(request, transaction=base64.b64encode(lie).decode())
        assert bench.codes(changed) == {"malformed-transaction"}


def test_a_locktime_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.request(locktime=1)) == {"locktime"}


def test_another_transaction_version_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.request(version=1)) == {"tx-version"}


@pytest.mark.parametrize("sequence", [0xFFFF_FFFF, 0xFFFF_FFFE, 1, 0x7FFF_FFFF])
def test_a_sequence_that_is_not_replaceable_or_locks_is_refused(bench: SignerBench, sequence: int) -> None:
    assert bench.codes(bench.request(sequence=sequence)) == {"sequence"}


def test_a_transaction_that_is_too_heavy_to_be_relayed_is_refused(bench: SignerBench) -> None:
    # 272 WU an input at most, of taproot 230: so many of them are too many for 400,000 WU.
    coins = [bench.world.coin(10_000) for _ in range(1_740 if bench.world.record.script == "p2tr" else 1_470)]
    request = bench.world.request(Draft(coins, [bench.world.order()], fee_sats=50_000))
    assert bench.codes(request) == {"tx-weight"}


def test_what_is_no_psbt_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    for text in ("", "%%%", "cHNidP8B", base64.b64encode(b"psbt\xff").decode()):
        changed = msgspec.structs.replace(request, transaction=text)
        assert bench.codes(changed) == {"malformed-transaction"}


# Fees and caps.


def test_a_fee_over_the_cap_is_refused(bench: SignerBench) -> None:
    draft = bench.draft(*[300_000] * 30, fee_sats=100_001)
    assert bench.codes(bench.world.request(draft)) == {"fee-cap"}


def test_a_fee_over_the_orders_ceilings_is_refused(bench: SignerBench) -> None:
    world = bench.world
    draft = Draft([world.coin()], [world.order(fee_ceiling="1999")])
    assert bench.codes(world.request(draft)) == {"fee-ceiling"}


def test_the_ceilings_of_all_orders_count_together(bench: SignerBench) -> None:
    world = bench.world
    orders = [world.order(fee_ceiling="1000"), world.order(fee_ceiling="1000")]
    bench.signatures(world.request(Draft([world.coin()], orders)))


def test_a_feerate_over_the_cap_is_refused(bench: SignerBench) -> None:
    # 141 vB at most, of taproot 142: at 100 sat/vB.
    most = 14_200 if bench.world.record.script == "p2tr" else 14_100
    assert bench.codes(bench.request(fee_sats=most + 1)) == {"feerate-cap"}
    bench.signatures(bench.request(fee_sats=most))


def test_the_fee_window_is_enforced_over_transactions(bench: SignerBench) -> None:
    bench.adopt(2, network_fee_window_cap="5000")
    for _ in range(2):
        draft = bench.draft(fee_sats=2_000)
        draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
        bench.signatures(bench.world.request(draft))
    draft = bench.draft(fee_sats=2_000)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    assert bench.codes(bench.world.request(draft)) == {"fee-window"}


def test_a_payment_at_the_cap_is_refused_and_one_below_is_signed(bench: SignerBench) -> None:
    # The policy sends it to another tier, too.
    assert bench.codes(bench.request(10_000_000)) == {"payment-cap", "policy-tier", "policy-no-rule"}
    bench.signatures(bench.request(9_999_999))


def _payment(bench: SignerBench, units: int, fee_sats: int = 1_000) -> SignRequest:
    draft = bench.draft(units, fee_sats=fee_sats)
    version = bench.service.status().bundle_version
    draft.intents = [bench.world.intent(order, policy_version=version) for order in draft.orders]
    return bench.world.request(draft)


def test_splitting_a_sum_does_not_pass_the_window_cap_and_fees_count_in_it(bench: SignerBench) -> None:
    bench.adopt(2, cap_window_cap="3003000")
    for _ in range(3):
        bench.signatures(_payment(bench, 1_000_000, 1_000))
    assert bench.codes(_payment(bench, 1_000, 1_000)) == {"window-cap"}
    assert bench.codes(bench.world.request(_two_versions(bench, 1_000)[0])) == {"window-cap"}


def _two_versions(bench: SignerBench, units: int) -> tuple[Draft, Draft]:
    draft = bench.draft(units, fee_sats=1_000)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    return draft, replace(draft, fee_sats=2_000)


def test_a_replacement_counts_its_payment_once_and_its_fee_at_the_highest(bench: SignerBench) -> None:
    bench.adopt(2, cap_window_cap="2003000")
    first, second = _two_versions(bench, 1_000_000)
    bench.signatures(bench.world.request(first))
    bench.signatures(bench.world.request(second))
    # 1,000,000 + 2,000 are used; 1,000,000 + 1,000 are left.
    assert bench.codes(_payment(bench, 1_000_000, 1_001)) == {"window-cap"}
    bench.signatures(_payment(bench, 1_000_000, 1_000))


def test_the_window_rolls_on_and_a_restart_forgets_nothing(bench: SignerBench) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    bench.signatures(_payment(bench, 1_000_000))
    bench.restart()
    assert bench.codes(_payment(bench, 1_000_000)) == {"window-cap"}
    bench.resolve("confirmed")
    bench.time += DAY - 1
    bench.world.now = bench.time
    assert bench.codes(_payment(bench, 1_000_000)) == {"window-cap"}
    bench.time += 1
    bench.signatures(_payment(bench, 1_000_000))


# Orders and callers.


def test_an_order_signed_by_somebody_else_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    request = bench.world.request(draft)
    forged = sign_order(draft.orders[0], SigningKey.generate())
    assert bench.codes(bench.with_orders(request, forged)) == {"order-signature"}


def test_fault_44_a_stored_order_changed_by_one_byte_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    request = bench.world.request(draft)
    genuine = request.evidence.orders[0]
    for change in ({"customer": "blice"}, {"fee_ceiling": "50001"}, {"expires_at": NOW + 3601}):
        changed = msgspec.structs.replace(genuine.order, **change)
        evidence = SignedOrder(order=changed, signature=genuine.signature)
        assert bench.codes(bench.with_orders(request, evidence)) == {"order-changed"}
        intents = (bench.world.intent(changed),)
        both = msgspec.structs.replace(bench.with_orders(request, evidence), intents=intents)
        assert bench.codes(both) == {"order-signature"}


def test_an_intent_for_more_than_its_order_is_refused(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    draft.intents = [world.intent(draft.orders[0], amount="1000001")]
    paid = parse_psbt(world.psbt(draft)).tx.outputs[0]
    draft.outputs = [TxOut(1_000_001, paid.script)]
    assert bench.codes(world.request(draft)) == {"order-mismatch"}


def test_an_intent_with_another_destination_than_its_order_is_refused(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    draft.intents = [world.intent(draft.orders[0], destination=OTHER_DESTINATION)]
    assert "order-mismatch" in bench.codes(world.request(draft))


def test_an_unknown_caller_is_refused(bench: SignerBench) -> None:
    world = bench.world
    draft = Draft([world.coin()], [world.order(caller="nobody")])
    assert bench.codes(world.request(draft)) == {"caller-unknown"}


def test_a_caller_without_the_scope_is_refused(bench: SignerBench) -> None:
    world = bench.world
    order = world.order(caller="reader")
    request = world.request(Draft([world.coin()], [order]))
    signed = sign_order(order, world.stranger)
    assert bench.codes(bench.with_orders(request, signed)) == {"caller-scope"}


def test_a_caller_whose_time_is_over_is_refused(bench: SignerBench) -> None:
    world = bench.world
    bench.adopt(2, callers=(world.caller_entry("exchange", world.caller, not_after=NOW),))
    draft = bench.draft()
    draft.intents = [world.intent(draft.orders[0], policy_version=2)]
    assert bench.codes(world.request(draft)) == {"caller-expired"}


def test_an_expired_order_is_refused_also_for_a_replacement(bench: SignerBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    bench.time += 3600
    assert bench.codes(bench.world.request(replace(draft, fee_sats=3_000))) == {"order-expired"}
    expired = Draft([bench.world.coin()], [bench.world.order(expires_at=bench.time)])
    assert bench.codes(bench.world.request(expired)) == {"order-expired"}


def test_an_intent_without_its_order_is_refused(bench: SignerBench) -> None:
    assert bench.codes(bench.with_orders(bench.request())) == {"no-order", "fee-ceiling"}


def test_an_order_that_no_intent_names_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    stray = sign_order(bench.world.order(), bench.world.caller)
    assert bench.codes(bench.with_orders(request, *request.evidence.orders, stray)) == {"stray-order"}


def test_an_order_listed_twice_to_raise_the_fee_ceiling_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    twice = request.evidence.orders * 2
    assert bench.codes(bench.with_orders(request, *twice)) == {"stray-order"}


def test_an_intent_listed_twice_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    twice = msgspec.structs.replace(request, intents=request.intents * 2)
    assert bench.codes(twice) == {"intent-repeated"}


def test_an_order_of_nothing_is_refused(bench: SignerBench) -> None:
    assert "order-mismatch" in bench.codes(bench.request(0))


@pytest.mark.parametrize("kind", sorted(set(Kind) - KINDS))
def test_kinds_that_bitcoin_does_not_have_are_refused(bench: SignerBench, kind: Kind) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.intent(draft.orders[0], kind=kind, order=None)]
    assert "kind-not-supported" in bench.codes(bench.world.request(draft))


def test_a_destination_of_another_network_is_refused(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    script = parse_psbt(world.psbt(draft)).tx.outputs[0].script
    order = world.order(destination="bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")
    draft = Draft([world.coin()], [order], outputs=[TxOut(order.units, script)])
    assert "bad-destination" in bench.codes(world.request(draft))


# Context.


def test_another_chain_is_refused(bench: SignerBench) -> None:
    request = msgspec.structs.replace(bench.request(), chain="bitcoin")
    assert bench.codes(request) == {"not-in-bundle"}


def test_a_bundle_that_calls_these_keys_another_network_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    bench.adopt(2, network_network="signet")
    assert bench.codes(request) == {"wrong-network"}


def test_an_order_for_another_chain_is_refused(bench: SignerBench) -> None:
    world = bench.world
    order = world.order(chain="bitcoin")
    draft = Draft([world.coin()], [order], intents=[world.intent(order, chain=CHAIN)])
    assert bench.codes(world.request(draft)) == {"order-mismatch"}


def test_another_keyset_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    assert bench.codes(msgspec.structs.replace(request, keyset="btc-cold")) == {"unknown-keyset"}


def test_an_intent_for_another_keyset_is_refused(bench: SignerBench) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.intent(draft.orders[0], keyset="btc-cold")]
    assert bench.codes(bench.world.request(draft)) == {"wrong-keyset"}


def test_a_bundle_that_names_other_keys_is_not_signed_for(bench: SignerBench) -> None:
    request = bench.request()
    thief = SoftKeys.make(b"\x01" * 32).record
    bench.adopt(2, keysets=(bench.world.keyset_entry(account=thief.account),))
    assert bench.codes(request) == {"wrong-keyset"}


@pytest.mark.parametrize("tier", ["warm", "cold"])
def test_the_caps_of_the_hot_tier_are_no_other_tiers(bench: SignerBench, tier: str) -> None:
    request = bench.request()
    bench.adopt(2, keysets=(bench.world.keyset_entry(tier=tier),))
    assert bench.codes(request) == {"no-cap"}


def test_without_a_cap_in_the_bundle_nothing_is_paid(bench: SignerBench) -> None:
    request = bench.request()
    bench.adopt(2, caps=())
    assert bench.codes(request) == {"no-cap"}


def test_an_intent_decided_under_another_policy_version_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    bench.adopt(2)
    assert bench.codes(request) == {"policy-version"}
    draft = bench.draft()
    draft.intents = [bench.world.intent(draft.orders[0], policy_version=3)]
    assert bench.codes(bench.world.request(draft)) == {"policy-version"}


def test_an_expired_bundle_stops_new_signatures(bench: SignerBench) -> None:
    bench.time += 40 * DAY
    bench.world.now = bench.time
    assert bench.codes(bench.request()) == {"bundle-expired"}


# Sign once.


def test_an_intent_reused_with_another_content_is_refused(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    bench.signatures(world.request(draft))
    other = world.order(2_000_000, id=draft.orders[0].id)
    again = Draft(draft.coins, [other])
    assert bench.codes(world.request(again)) == {"intent-reused"}


def test_a_second_transaction_that_does_not_conflict_is_a_double_payment_and_refused(
    bench: SignerBench,
) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    again = replace(draft, coins=[bench.world.coin(5_000_000)])
    assert bench.codes(bench.world.request(again)) == {"conflicting-version"}


def test_a_version_that_conflicts_with_only_one_of_two_earlier_ones_is_refused(bench: SignerBench) -> None:
    world = bench.world
    a, b, c = world.coin(), world.coin(), world.coin()
    draft = Draft([a, b], [world.order()])
    bench.signatures(world.request(draft))
    bench.signatures(world.request(replace(draft, coins=[b, c], fee_sats=3_000)))
    # {a} meets the first version only, {c} the second only; {b} meets both.
    assert bench.codes(world.request(replace(draft, coins=[a], fee_sats=4_000))) == {"conflicting-version"}
    assert bench.codes(world.request(replace(draft, coins=[c], fee_sats=4_000))) == {"conflicting-version"}
    bench.signatures(world.request(replace(draft, coins=[b], fee_sats=4_000)))


def test_an_intent_can_not_be_paid_again_inside_another_batch(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    bench.signatures(world.request(draft))
    batch = Draft([world.coin(9_000_000)], [draft.orders[0], world.order(700_000)])
    assert bench.codes(world.request(batch)) == {"conflicting-version"}


def test_one_transaction_can_not_serve_two_sets_of_intents(bench: SignerBench) -> None:
    world, draft = bench.world, bench.draft()
    bench.signatures(world.request(draft))
    twin = replace(draft, orders=[world.order()])
    assert bench.codes(world.request(twin)) == {"transaction-reused"}


def test_a_coin_spent_by_another_payment_may_be_used_again_as_only_one_can_confirm(
    bench: SignerBench,
) -> None:
    world, draft = bench.world, bench.draft()
    bench.signatures(world.request(draft))
    bench.signatures(world.request(replace(draft, orders=[world.order(300_000)])))


def test_all_objections_are_listed_at_once(bench: SignerBench) -> None:
    assert bench.codes(bench.request(20_000_000, locktime=9, sequence=0xFFFF_FFFF)) == {
        "payment-cap",
        "policy-tier",
        "policy-no-rule",
        "locktime",
        "sequence",
    }


def test_an_outpoint_that_is_named_twice_is_refused(bench: SignerBench) -> None:
    request = bench.request()
    raw = base64.b64decode(request.transaction)
    tx = parse_psbt(raw).tx
    # The decoder's own rule: built by hand, since Transaction refuses to exist like that.
    one = TxIn(Outpoint(TxId("11" * 32), 0))
    body = replace(tx, inputs=(one, replace(one, outpoint=Outpoint(TxId("11" * 32), 1)))).serialize()
    doubled = body.replace(
        bytes.fromhex("11" * 32) + b"\x01\x00\x00\x00", bytes.fromhex("11" * 32) + bytes(4)
    )
    lie = base64.b64encode(b"psbt\xff\x01\x00" + bytes([len(doubled)]) + doubled + b"\x00").decode()
    assert bench.codes(msgspec.structs.replace(request, transaction=lie)) == {"malformed-transaction"}
