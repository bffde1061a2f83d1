"""Every attack of DESIGN section 1 on an EVM key: the honest request with one thing changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rlp

from chains.eth.abi import address_word, selector, uint_word
from chains.eth.address import raw_address
from chains.eth.contracts import artifact
from chains.eth.erc20 import transfer_calldata
from chains.eth.forwarder import flush_calldata, salt_of
from chains.eth.named_calls import ALLOWANCES, CONTRACT_ADMINISTRATION
from chains.eth.payout import Payout, payout_calldata
from policies.intent import Kind
from policies.keys import SigningKey, sign_order
from signers.guard.evm import EvmRules
from signers.keys.keyset import KEY_PLACE
from signers.ports import SignRequest
from tests.fakes.evm_signing import (
    ETHER,
    EVM_DESTINATION,
    FACTORY,
    FEEX,
    GAS_CAPS,
    GWEI,
    OTHER_EVM_CHAIN,
    OTHER_EVM_CHAIN_ID,
    PAYOUT,
    USDX,
    EvmDraft,
    named_address,
)
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY

MALLORY = raw_address(named_address("mallory"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def batch(bench: EvmBench, *units: int) -> EvmDraft:
    """An honest batch payout, each payment to somebody else."""
    orders = [bench.world.order(n, destination=named_address(f"payee {at}")) for at, n in enumerate(units)]
    return EvmDraft(orders, gas_limit=500_000)


def attested(bench: EvmBench, *indexes: int) -> None:
    for index in indexes:
        bench.service.attest(bench.world.attestation(index))


# The honest ways.


def test_an_honest_native_payment_is_signed_by_the_key_of_the_address(bench: EvmBench) -> None:
    draft = bench.draft()
    (signature,) = bench.signatures(bench.world.request(draft))
    signed = bench.world.tx(draft).signed(bytes.fromhex(signature.signature))
    assert signed.sender() == raw_address(bench.keys.record.address)
    assert (signature.index, signature.pubkey) == (0, bench.keys.pubkey.hex())


def test_an_honest_token_payment_is_signed(bench: EvmBench) -> None:
    assert bench.signatures(bench.request(1_000_000, asset="USDX"))


def test_an_honest_batch_of_payments_is_signed(bench: EvmBench) -> None:
    assert bench.signatures(bench.world.request(batch(bench, ETHER, 2 * 10**17, 2 * 10**17)))


def test_two_equal_payments_to_one_payee_are_signed_in_one_batch(bench: EvmBench) -> None:
    draft = EvmDraft([bench.world.order(ETHER), bench.world.order(ETHER)], gas_limit=500_000)
    assert bench.signatures(bench.world.request(draft))


def test_a_sweep_of_attested_forwarders_is_signed(bench: EvmBench) -> None:
    attested(bench, 0, 7)
    assert bench.signatures(bench.world.request(bench.world.sweep([7, 0], [USDX, FEEX])))


def test_a_filled_nonce_is_signed(bench: EvmBench) -> None:
    assert bench.signatures(bench.world.request(bench.world.fill()))


def test_both_networks_of_one_bundle_are_signed_for_by_their_own_keys(bench: EvmBench) -> None:
    world = bench.world
    order = world.order(chain=OTHER_EVM_CHAIN, asset="XETH")
    draft = EvmDraft(
        [order],
        chain=OTHER_EVM_CHAIN,
        chain_id=OTHER_EVM_CHAIN_ID,
        keyset="xeth-hot",
        intents=[world.intent(order, keyset="xeth-hot")],
    )
    (signature,) = bench.signatures(world.request(draft))
    signed = world.tx(draft).signed(bytes.fromhex(signature.signature))
    assert signed.sender() == raw_address(bench.other.record.address)


def test_the_same_transaction_again_gets_the_same_signature_and_counts_once(bench: EvmBench) -> None:
    # The keys are as random as an HSM's: only the journal can give the same one again.
    digest = bytes(32)
    assert bench.keys.sign(*KEY_PLACE, digest) != bench.keys.sign(*KEY_PLACE, digest)
    request = bench.request()
    first = bench.signatures(request)
    bench.restart()
    assert bench.signatures(request) == first
    assert bench.service.status().signed == 1


def test_a_journaled_transaction_is_signed_again_after_its_order_expired_and_caps_fell(
    bench: EvmBench,
) -> None:
    request = bench.request()
    first = bench.signatures(request)
    bench.adopt(2, cap_payment_below="1", cap_window_cap="0")
    bench.time += 2 * DAY
    assert bench.signatures(request) == first


# Networks (FAULTS 46).


def test_fault_46_another_chain_id_is_refused_also_that_of_another_network_of_the_bundle(
    bench: EvmBench,
) -> None:
    for chain_id in (1, OTHER_EVM_CHAIN_ID):
        assert bench.codes(bench.request(chain_id=chain_id)) == {"wrong-chain-id"}


def test_fault_46_a_transaction_for_one_network_is_refused_under_another_networks_keyset(
    bench: EvmBench,
) -> None:
    world, draft = bench.world, bench.draft()
    request = world.request(draft)
    other = msgspec.structs.replace(request, keyset="xeth-hot")
    assert bench.codes(other) == {"wrong-chain"}
    moved = msgspec.structs.replace(other, chain=OTHER_EVM_CHAIN)
    assert bench.codes(moved) == {"wrong-chain-id", "wrong-keyset"}


def test_fault_46_an_order_for_one_network_is_not_paid_on_another(bench: EvmBench) -> None:
    world = bench.world
    order = world.order()
    intent = world.intent(order, chain=OTHER_EVM_CHAIN, keyset="xeth-hot", asset="XETH")
    draft = EvmDraft(
        [order], chain=OTHER_EVM_CHAIN, chain_id=OTHER_EVM_CHAIN_ID, keyset="xeth-hot", intents=[intent]
    )
    assert bench.codes(world.request(draft)) == {"order-mismatch"}


def test_fault_46_a_bundle_with_another_chain_id_for_these_keys_is_not_signed_for(bench: EvmBench) -> None:
    request = bench.request(chain_id=1)
    bench.adopt(2, network_chain_id=1)
    assert bench.codes(request) == {"wrong-network"}


# Forms.


def field(at: int, value: Any) -> Any:
    """The honest fields of a transaction with one changed."""

    def change(fields: list[Any]) -> list[Any]:
        return [value if here == at else old for here, old in enumerate(fields)]

    return change


@pytest.mark.parametrize(
    "rewrite",
    [
        pytest.param(lambda tx: b"", id="nothing"),
        pytest.param(lambda tx: tx[1:], id="a legacy list"),
        pytest.param(lambda tx: b"\x01" + tx[1:], id="type 1 (access list)"),
        pytest.param(lambda tx: b"\x03" + tx[1:], id="type 3 (blobs)"),
        pytest.param(lambda tx: b"\x04" + tx[1:], id="type 4 (EIP-7702)"),
        pytest.param(lambda tx: tx + b"\x00", id="a byte left over"),
        pytest.param(lambda tx: tx[:-1], id="a byte missing"),
    ],
)
def test_other_types_and_forms_than_eip_1559_are_refused(bench: EvmBench, rewrite: Any) -> None:
    honest = bench.world.tx(bench.draft()).encode()
    assert bench.codes(bench.request(raw=rewrite(honest) or b"\x02")) == {"malformed-transaction"}


def test_authorizations_that_would_hand_the_account_to_a_contract_are_refused(bench: EvmBench) -> None:
    """A whole EIP-7702 transaction: one authorization of any contract would replace the key's own code."""
    fields = rlp.decode(bench.world.tx(bench.draft()).encode()[1:])
    authorization = [b"\x7a\x69", MALLORY, b"", b"", b"\x01" * 32, b"\x01" * 32]
    for raw in (
        b"\x04" + rlp.encode([*fields, [authorization]]),
        b"\x02" + rlp.encode([*fields, [authorization]]),
    ):
        assert bench.codes(bench.request(raw=raw)) == {"malformed-transaction"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(field(8, [[MALLORY, [bytes(32)]]]), id="an access list"),
        pytest.param(field(5, MALLORY + b"\x00"), id="a destination of 21 bytes"),
        pytest.param(field(1, b"\x00\x01"), id="a nonce with a leading zero"),
        pytest.param(field(6, []), id="a list where the value is"),
        pytest.param(field(0, b""), id="no chain id, valid everywhere"),
        pytest.param(field(2, (21 * GWEI).to_bytes(5, "big")), id="a priority fee above the fee"),
        pytest.param(lambda fields: [*fields, b""], id="ten fields"),
        pytest.param(lambda fields: [*fields, b"\x01", b"\x01" * 32, b"\x01" * 32], id="signed already"),
    ],
)
def test_fields_that_no_payment_has_are_refused(bench: EvmBench, change: Any) -> None:
    fields = rlp.decode(bench.world.tx(bench.draft()).encode()[1:])
    raw = b"\x02" + rlp.encode(change(fields))
    assert bench.codes(bench.request(raw=raw)) == {"malformed-transaction"}


def test_the_creation_of_a_contract_is_refused(bench: EvmBench) -> None:
    fields = rlp.decode(bench.world.tx(bench.draft(data=b"\x60\x00")).encode()[1:])
    raw = b"\x02" + rlp.encode(field(5, b"")(fields))
    assert bench.codes(bench.request(raw=raw)) == {"contract-creation"}


def test_what_is_no_base64_is_refused(bench: EvmBench) -> None:
    assert bench.codes(msgspec.structs.replace(bench.request(), transaction="0x02")) == {
        "malformed-transaction"
    }


# What native payments do.


def test_a_changed_destination_or_amount_is_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(to=MALLORY)) == {"unknown-output", "unpaid-intent"}
    assert bench.codes(bench.request(value_wei=10**17 + 1)) == {"unknown-output", "unpaid-intent"}


def test_a_native_payment_with_calldata_is_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(data=b"\x00")) == {"unlisted-contract"}
    assert bench.codes(bench.request(data=transfer_calldata(MALLORY, 1))) == {"unlisted-contract"}


def test_one_transfer_does_not_pay_two_intents(bench: EvmBench) -> None:
    draft = EvmDraft([bench.world.order(ETHER), bench.world.order(ETHER)])
    to = raw_address(EVM_DESTINATION)
    plain = replace(draft, to=to, value_wei=ETHER, data=b"")
    assert bench.codes(bench.world.request(plain)) == {"unpaid-intent"}
    together = replace(plain, value_wei=2 * ETHER)
    assert bench.codes(bench.world.request(together)) == {"unknown-output", "unpaid-intent"}


@pytest.mark.parametrize("where", ["zero", "token", "other token", "factory", "payout", "ourselves"])
@pytest.mark.parametrize("asset", ["ETH", "USDX"])
def test_destinations_where_money_would_be_lost_or_is_ours_are_refused(
    bench: EvmBench, where: str, asset: str
) -> None:
    destination = {
        "zero": "0x" + "00" * 20,
        "token": USDX,
        "other token": FEEX,
        "factory": FACTORY,
        "payout": PAYOUT,
        "ourselves": bench.world.record.address,
    }[where]
    draft = EvmDraft([bench.world.order(1_000, asset=asset, destination=destination)])
    assert "bad-destination" in bench.codes(bench.world.request(draft))


@pytest.mark.parametrize(
    "text", ["", "0x", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", EVM_DESTINATION[2:]]
)
def test_a_destination_that_is_no_address_is_refused(bench: EvmBench, text: str) -> None:
    draft = EvmDraft([bench.world.order(destination=text or "x")], to=MALLORY, value_wei=1, data=b"")
    assert "bad-destination" in bench.codes(bench.world.request(draft))


def test_a_destination_with_a_wrong_checksum_is_refused(bench: EvmBench) -> None:
    flipped = EVM_DESTINATION.swapcase().replace("0X", "0x")
    draft = EvmDraft([bench.world.order(destination=flipped)], to=MALLORY, value_wei=1, data=b"")
    assert "bad-destination" in bench.codes(bench.world.request(draft))


# What token payments do.


def test_value_with_a_token_transfer_is_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(1_000_000, asset="USDX", value_wei=1)) == {"value-with-call"}


def test_hidden_calldata_after_valid_calldata_is_refused(bench: EvmBench) -> None:
    honest = transfer_calldata(raw_address(EVM_DESTINATION), 1_000_000)
    for data in (honest + b"\x00", honest + bytes(32), honest + honest, honest[:-1], honest[:4], b""):
        assert bench.codes(bench.request(1_000_000, asset="USDX", data=data)) == {"unknown-call"}


def test_dirty_bytes_above_an_address_are_refused(bench: EvmBench) -> None:
    honest = transfer_calldata(raw_address(EVM_DESTINATION), 1_000_000)
    dirty = honest[:4] + b"\x01" + honest[5:]
    assert bench.codes(bench.request(1_000_000, asset="USDX", data=dirty)) == {"unknown-call"}


@pytest.mark.parametrize(
    "signature",
    [
        "burn(address,uint256)",
        "mint(address,uint256)",
        "transfer(address,uint128)",
    ],
)
def test_calls_of_a_token_that_look_like_a_transfer_are_refused(bench: EvmBench, signature: str) -> None:
    honest = transfer_calldata(raw_address(EVM_DESTINATION), 1_000_000)
    data = selector(signature) + honest[4:]
    assert bench.codes(bench.request(1_000_000, asset="USDX", data=data)) == {"unknown-call"}


@pytest.mark.parametrize("to", ["the token", "an unlisted token", "the payout contract", "the factory"])
@pytest.mark.parametrize("signature", ALLOWANCES)
def test_whatever_lets_others_take_money_is_refused_by_its_name(
    bench: EvmBench, signature: str, to: str
) -> None:
    arguments = signature[signature.index("(") + 1 : -1].split(",")
    data = selector(signature) + b"".join(address_word(MALLORY) for _ in arguments)
    places = {"the token": USDX, "the payout contract": PAYOUT, "the factory": FACTORY}
    draft = bench.draft(1_000_000, asset="USDX", data=data)
    draft.to = raw_address(places.get(to, named_address("unlisted")))
    assert bench.codes(bench.world.request(draft)) == {"allowance"}


@pytest.mark.parametrize("signature", CONTRACT_ADMINISTRATION)
def test_whatever_changes_who_rules_a_contract_or_what_it_runs_is_refused_by_its_name(
    bench: EvmBench, signature: str
) -> None:
    data = selector(signature) + address_word(MALLORY) * signature.count("address")
    code = {"contract-administration"}
    assert bench.codes(bench.request(1_000_000, asset="USDX", data=data)) == code
    assert bench.codes(bench.request(to=raw_address(FACTORY), value_wei=0, data=data)) == code
    assert bench.codes(bench.world.request(bench.world.sweep([0], data=data))) == code
    assert bench.codes(bench.world.request(bench.world.fill(to=raw_address(FACTORY), data=data))) == code


def test_every_call_of_our_factory_but_the_flush_is_known_as_administration() -> None:
    abi = artifact("ForwarderFactory").abi
    changing = {
        f"{entry['name']}({','.join(i['type'] for i in entry['inputs'])})"
        for entry in abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert changing - {"flush(bytes32[],address[])"} <= set(CONTRACT_ADMINISTRATION)
    assert len(changing) > 5


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(selector("deposit()"), id="deposit"),
        pytest.param(selector("withdraw(uint256)") + uint_word(1_000_000), id="withdraw"),
        pytest.param(selector("pause()"), id="pause"),
    ],
)
def test_other_calls_of_a_token_are_refused(bench: EvmBench, data: bytes) -> None:
    assert bench.codes(bench.request(1_000_000, asset="USDX", data=data)) == {"unknown-call"}


def test_a_token_payment_to_another_recipient_or_of_another_amount_is_refused(bench: EvmBench) -> None:
    for data in (
        transfer_calldata(MALLORY, 1_000_000),
        transfer_calldata(raw_address(EVM_DESTINATION), 1_000_001),
    ):
        assert bench.codes(bench.request(1_000_000, asset="USDX", data=data)) == {
            "unknown-output",
            "unpaid-intent",
        }


def test_another_token_or_an_unlisted_contract_is_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(1_000_000, asset="USDX", to=raw_address(FEEX))) == {
        "unknown-output",
        "unpaid-intent",
    }
    assert bench.codes(bench.request(1_000_000, asset="USDX", to=MALLORY)) == {"unlisted-contract"}


def test_native_money_does_not_pay_for_tokens_and_tokens_not_for_native_money(bench: EvmBench) -> None:
    to = raw_address(EVM_DESTINATION)
    native = bench.request(1_000_000, asset="USDX", to=to, value_wei=1_000_000, data=b"")
    assert bench.codes(native) == {"unknown-output", "unpaid-intent"}
    token = bench.request(1_000_000, to=raw_address(USDX), value_wei=0, data=transfer_calldata(to, 1_000_000))
    assert bench.codes(token) == {"unknown-output", "unpaid-intent"}


def test_a_token_that_takes_a_fee_on_transfer_is_not_paid_out(bench: EvmBench) -> None:
    assert bench.codes(bench.request(1_000, asset="FEEX")) == {"asset-not-payable"}


def test_two_token_payments_in_one_transaction_are_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(1_000, 1_000, asset="USDX")) == {"unpaid-intent"}


# What batches do.


def payouts(*payments: tuple[str, int]) -> bytes:
    return payout_calldata([Payout(raw_address(named_address(to)), units) for to, units in payments])


@pytest.mark.parametrize(
    ("payments", "codes"),
    [
        ([("payee 0", 1000)], {"unpaid-intent"}),
        ([("payee 0", 1000), ("payee 1", 1999)], {"unknown-output", "unpaid-intent"}),
        ([("payee 0", 2000), ("payee 1", 1000)], {"unknown-output", "unpaid-intent"}),
        ([("payee 0", 1000), ("mallory", 2000)], {"unknown-output", "unpaid-intent"}),
        ([("payee 0", 1000), ("payee 1", 2000), ("mallory", 1)], {"unknown-output"}),
        ([("payee 0", 1000), ("payee 1", 2000), ("payee 1", 2000)], {"unknown-output"}),
        ([("payee 0", 1000), ("payee 1", 2000), ("mallory", 0)], {"unknown-output"}),
    ],
)
def test_a_batch_whose_payments_are_not_the_intents_is_refused(
    bench: EvmBench, payments: list[tuple[str, int]], codes: set[str]
) -> None:
    draft = replace(
        batch(bench, 1000, 2000), data=payouts(*payments), value_wei=sum(units for _, units in payments)
    )
    assert bench.codes(bench.world.request(draft)) == codes


def test_a_batch_in_another_order_pays_the_same(bench: EvmBench) -> None:
    draft = replace(batch(bench, 1000, 2000), data=payouts(("payee 1", 2000), ("payee 0", 1000)))
    assert bench.signatures(bench.world.request(draft))


def test_a_batch_with_another_value_than_its_sum_is_refused(bench: EvmBench) -> None:
    for value in (2999, 3001, 0):
        draft = replace(batch(bench, 1000, 2000), value_wei=value)
        assert bench.codes(bench.world.request(draft)) == {"payout-sum"}


def test_a_batch_through_a_foreign_contract_or_with_hidden_calldata_is_refused(bench: EvmBench) -> None:
    draft = batch(bench, 1000, 2000)
    assert bench.codes(bench.world.request(replace(draft, to=MALLORY))) == {"unlisted-contract"}
    honest = bench.world.tx(draft).data
    for data in (honest + b"\x00", honest + bytes(32), honest[:-32], selector("pay()") + honest[4:]):
        assert bench.codes(bench.world.request(replace(draft, data=data))) == {"unknown-call"}


def test_without_a_payout_contract_in_the_bundle_there_are_no_batches(bench: EvmBench) -> None:
    request = bench.world.request(batch(bench, 1000, 2000))
    bench.adopt(2, keyset_payout=None)
    assert "unlisted-contract" in bench.codes(request)


def test_tokens_are_not_paid_by_the_contract_for_native_batches(bench: EvmBench) -> None:
    draft = bench.draft(1000, asset="USDX", to=raw_address(PAYOUT), value_wei=1000, gas_limit=100_000)
    draft.data = payout_calldata([Payout(raw_address(EVM_DESTINATION), 1000)])
    assert bench.codes(bench.world.request(draft)) == {"unknown-output", "unpaid-intent"}


# What sweeps do.


def test_a_flush_of_a_foreign_factory_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    assert bench.codes(bench.world.request(bench.world.sweep([0], to=MALLORY))) == {"unlisted-contract"}


def test_salts_that_this_signer_has_not_attested_are_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    assert bench.codes(bench.world.request(bench.world.sweep([0, 1]))) == {"foreign-forwarder"}
    data = flush_calldata([b"\xff" * 32], [])
    assert bench.codes(bench.world.request(bench.world.sweep([0], data=data))) == {"foreign-forwarder"}


def test_the_house_address_and_another_keysets_forwarder_are_no_salts_of_ours(bench: EvmBench) -> None:
    bench.service.attest(bench.world.attestation(0, branch=1, customer=None))
    other = bench.world.attestation(1, chain=OTHER_EVM_CHAIN, keyset="xeth-hot", asset="XETH")
    bench.service.attest(other)
    for index in (0, 1):
        assert bench.codes(bench.world.request(bench.world.sweep([index]))) == {"foreign-forwarder"}


def test_a_flush_of_an_unlisted_token_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    draft = bench.world.sweep([0], [USDX, named_address("fake token")])
    assert bench.codes(bench.world.request(draft)) == {"unlisted-token"}


def test_a_flush_that_lists_something_twice_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    for draft in (bench.world.sweep([0, 0]), bench.world.sweep([0], [USDX, USDX])):
        assert bench.codes(bench.world.request(draft)) == {"unknown-call"}


def test_value_or_hidden_calldata_with_a_flush_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    assert bench.codes(bench.world.request(bench.world.sweep([0], value_wei=1))) == {"value-with-call"}
    honest = flush_calldata([salt_of(0)], [])
    for data in (honest + b"\x00", honest + bytes(32), b"", selector("logic()")):
        assert bench.codes(bench.world.request(bench.world.sweep([0], data=data))) == {"unknown-call"}


def test_a_sweep_to_anywhere_else_than_the_key_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    draft = bench.world.sweep([0])
    draft.intents = [bench.world.house_intent(Kind.SWEEP, destination=EVM_DESTINATION)]
    assert bench.codes(bench.world.request(draft)) == {"bad-destination"}


@pytest.mark.parametrize(
    "change", [{"amount": "1"}, {"order": "ab" * 32}, {"asset": "USDX"}], ids=["amount", "order", "asset"]
)
@pytest.mark.parametrize("kind", [Kind.SWEEP, Kind.NONCE_FILL])
def test_an_intent_of_the_house_with_an_amount_order_or_token_is_refused(
    bench: EvmBench, kind: Kind, change: dict[str, str]
) -> None:
    attested(bench, 0)
    draft = bench.world.sweep([0]) if kind is Kind.SWEEP else bench.world.fill()
    draft.intents = [bench.world.house_intent(kind, **change)]
    assert bench.codes(bench.world.request(draft)) == {"house-intent"}


def test_a_payment_beside_a_sweep_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    world, order = bench.world, bench.world.order()
    draft = replace(world.sweep([0]), orders=[order])
    draft.intents = [*draft.intents, world.intent(order)]
    assert "mixed-intents" in bench.codes(world.request(draft))


def test_two_sweeps_in_one_transaction_are_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    draft = bench.world.sweep([0])
    draft.intents = [bench.world.house_intent(Kind.SWEEP) for _ in range(2)]
    assert bench.codes(bench.world.request(draft)) == {"mixed-intents"}


def test_an_order_that_comes_with_a_sweep_is_refused(bench: EvmBench) -> None:
    attested(bench, 0)
    draft = replace(bench.world.sweep([0]), orders=[bench.world.order()])
    assert bench.codes(bench.world.request(draft)) == {"stray-order"}


@pytest.mark.parametrize("change", [{"to": MALLORY}, {"value_wei": 1}, {"data": b"\x00"}])
def test_a_filled_nonce_that_does_anything_is_refused(bench: EvmBench, change: dict[str, Any]) -> None:
    assert bench.codes(bench.world.request(bench.world.fill(**change))) == {"unknown-call"}


def test_a_filled_nonce_for_anybody_else_is_refused(bench: EvmBench) -> None:
    draft = bench.world.fill()
    draft.intents = [bench.world.house_intent(Kind.NONCE_FILL, destination=EVM_DESTINATION)]
    assert bench.codes(bench.world.request(draft)) == {"bad-destination"}


@pytest.mark.parametrize("kind", [k for k in Kind if k not in EvmRules.kinds])
def test_kinds_that_evm_chains_do_not_have_are_refused(bench: EvmBench, kind: Kind) -> None:
    draft = bench.world.fill()
    draft.intents = [bench.world.house_intent(kind)]
    assert "kind-not-supported" in bench.codes(bench.world.request(draft))


@pytest.mark.parametrize("kind", [Kind.SWEEP, Kind.NONCE_FILL])
def test_a_payment_called_something_else_is_refused(bench: EvmBench, kind: Kind) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.intent(draft.orders[0], kind=kind, order=None)]
    assert {"stray-order", "house-intent", "bad-destination"} <= bench.codes(bench.world.request(draft))


# Gas, fees, caps.


def test_each_kind_of_call_has_its_gas_cap(bench: EvmBench) -> None:
    attested(bench, 0)
    world, caps = bench.world, GAS_CAPS
    cheap: dict[str, Any] = {"max_fee_wei": GWEI, "priority_wei": 0}
    for draft, cap in (
        (bench.draft(**cheap), caps.transfer),
        (bench.draft(1_000, asset="USDX", **cheap), caps.token),
        (replace(batch(bench, 1000, 2000), **cheap), caps.payout),
        (world.sweep([0], **cheap), caps.sweep),
        (world.fill(**cheap), caps.transfer),
    ):
        assert bench.codes(world.request(replace(draft, gas_limit=cap + 1))) == {"gas-cap"}
        assert bench.signatures(world.request(replace(draft, gas_limit=cap)))


def test_a_fee_per_gas_over_the_cap_is_refused(bench: EvmBench) -> None:
    assert bench.codes(bench.request(max_fee_wei=200 * GWEI + 1)) == {"feerate-cap"}
    assert bench.signatures(bench.request(max_fee_wei=200 * GWEI))


def test_gas_at_its_highest_counts_against_the_fee_cap(bench: EvmBench) -> None:
    attested(bench, 0)
    # 1,000,000 gas at 200 gwei are 0.2 ETH.
    sweep = bench.world.sweep([0], max_fee_wei=200 * GWEI, gas_limit=1_000_001)
    assert bench.codes(bench.world.request(sweep)) == {"fee-cap"}
    assert bench.signatures(bench.world.request(replace(sweep, gas_limit=1_000_000)))


def test_gas_at_its_highest_counts_against_the_orders_ceilings_together(bench: EvmBench) -> None:
    world = bench.world
    small = str(600_000 * GWEI)  # 60,000 gas at 10 gwei
    assert bench.codes(
        world.request(EvmDraft([world.order(fee_ceiling=small)], max_fee_wei=10 * GWEI + 1))
    ) == {"fee-ceiling"}
    draft = EvmDraft([world.order(fee_ceiling=small), world.order(fee_ceiling=small)], gas_limit=120_000)
    assert bench.signatures(world.request(replace(draft, max_fee_wei=10 * GWEI)))


def test_an_order_without_its_ceiling_does_not_lift_it(bench: EvmBench) -> None:
    assert bench.codes(bench.with_orders(bench.request())) == {"no-order", "fee-ceiling"}


def test_payments_at_the_cap_are_refused_per_asset(bench: EvmBench) -> None:
    assert bench.codes(bench.request(2 * ETHER)) == {"payment-cap"}
    assert bench.codes(bench.request(5_000 * 10**6, asset="USDX")) == {"payment-cap"}
    assert bench.signatures(bench.request(2 * ETHER - 1))
    assert bench.signatures(bench.request(5_000 * 10**6 - 1, asset="USDX", nonce=1))


def test_a_payment_above_the_cap_is_not_split_by_a_batch(bench: EvmBench) -> None:
    assert bench.codes(bench.world.request(batch(bench, 2 * ETHER, 1000))) == {"payment-cap"}


def under(bench: EvmBench, version: int, draft: EvmDraft) -> SignRequest:
    """The request decided under a version of the bundle."""
    intents = draft.intents or [bench.world.intent(order) for order in draft.orders]
    draft.intents = [msgspec.structs.replace(intent, policy_version=version) for intent in intents]
    return bench.world.request(draft)


def test_window_caps_hold_per_asset_and_gas_counts_in_that_of_the_native_asset(bench: EvmBench) -> None:
    fee = 60_000 * 20 * GWEI
    bench.adopt(2, cap_window_cap=str(ETHER + 2 * fee), usdx_window_cap="2000")
    bench.signatures(under(bench, 2, bench.draft(1500, asset="USDX")))
    assert bench.codes(under(bench, 2, bench.draft(501, asset="USDX", nonce=1))) == {"window-cap"}
    assert bench.codes(under(bench, 2, bench.draft(ETHER + 1, nonce=1))) == {"window-cap"}
    bench.signatures(under(bench, 2, bench.draft(ETHER, nonce=1)))
    # All is used: not even the gas of a sweep or of a filled nonce is left.
    assert bench.codes(under(bench, 2, bench.world.fill(2))) == {"window-cap"}


def test_fees_of_payments_sweeps_and_fills_count_in_one_fee_window(bench: EvmBench) -> None:
    attested(bench, 0)
    bench.adopt(2, network_fee_window_cap=str((60_000 + 500_000 + 21_000) * 20 * GWEI))
    bench.signatures(under(bench, 2, bench.draft(ETHER)))
    bench.signatures(under(bench, 2, bench.world.sweep([0], nonce=1)))
    bench.signatures(under(bench, 2, bench.world.fill(2)))
    assert bench.codes(under(bench, 2, bench.world.fill(3))) == {"fee-window"}
    bench.resolve("confirmed")
    bench.time += DAY - 1
    assert bench.codes(under(bench, 2, bench.world.fill(3))) == {"fee-window"}
    bench.time += 1
    bench.signatures(under(bench, 2, bench.world.fill(3)))


def test_a_replacement_counts_once_at_its_highest_fee_and_other_intents_at_its_nonce_count_fully(
    bench: EvmBench,
) -> None:
    fee = 60_000 * 20 * GWEI
    bench.adopt(2, cap_window_cap=str(2 * ETHER + 3 * fee))
    draft = bench.draft(ETHER)
    bench.signatures(under(bench, 2, draft))
    bench.signatures(under(bench, 2, replace(draft, max_fee_wei=40 * GWEI, priority_wei=2 * GWEI)))
    # One ETH and two fees are used. Another payment at the same nonce could be the one that confirms.
    assert bench.codes(under(bench, 2, bench.draft(ETHER + 1))) == {"window-cap"}
    bench.signatures(under(bench, 2, bench.draft(ETHER, max_fee_wei=19 * GWEI)))
    assert bench.codes(under(bench, 2, bench.draft(1, nonce=1))) == {"window-cap"}


# Sign once, and nonces.


def test_a_replaced_version_must_share_the_nonce(bench: EvmBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    higher: dict[str, Any] = {"max_fee_wei": 30 * GWEI, "priority_wei": 2 * GWEI}
    assert bench.codes(bench.world.request(replace(draft, nonce=1, **higher))) == {"conflicting-version"}
    assert bench.codes(bench.world.request(replace(draft, nonce=1))) == {"conflicting-version"}
    assert bench.signatures(bench.world.request(replace(draft, **higher)))


def test_a_sweep_and_a_fill_are_signed_once_too(bench: EvmBench) -> None:
    attested(bench, 0, 1)
    for draft in (bench.world.sweep([0]), bench.world.fill(1)):
        bench.signatures(bench.world.request(draft))
        later = replace(draft, nonce=draft.nonce + 5)
        assert bench.codes(bench.world.request(later)) == {"conflicting-version"}
        bench.signatures(bench.world.request(replace(draft, max_fee_wei=30 * GWEI)))
    # The same sweep with other forwarders at the same nonce: only one of both can be mined.
    sweep = bench.world.sweep([0], nonce=9)
    bench.signatures(bench.world.request(sweep))
    other = replace(bench.world.sweep([1], nonce=9), intents=sweep.intents)
    bench.signatures(bench.world.request(other))


def test_an_intent_is_not_paid_again_inside_a_batch(bench: EvmBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    both = EvmDraft([*draft.orders, bench.world.order()], nonce=1, gas_limit=200_000)
    assert bench.codes(bench.world.request(both)) == {"conflicting-version"}


def test_one_transaction_can_not_serve_two_intents_one_after_the_other(bench: EvmBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    twin = replace(draft, orders=[bench.world.order(10**17)])
    assert bench.codes(bench.world.request(twin)) == {"transaction-reused"}


def test_a_nonce_far_beyond_the_highest_signed_is_refused_and_the_mark_stays(bench: EvmBench) -> None:
    assert bench.codes(bench.request(nonce=256)) == {"nonce"}
    bench.signatures(bench.request(nonce=255))
    bench.signatures(bench.request(nonce=3))
    bench.restart()
    assert bench.codes(bench.request(nonce=512)) == {"nonce"}
    bench.signatures(bench.request(nonce=511))
    assert bench.codes(bench.request(nonce=2**64 - 2)) == {"nonce"}


def test_each_keyset_has_nonces_of_its_own(bench: EvmBench) -> None:
    bench.signatures(bench.request(nonce=255))
    world = bench.world
    order = world.order(chain=OTHER_EVM_CHAIN, asset="XETH")
    draft = EvmDraft(
        [order],
        nonce=256,
        chain=OTHER_EVM_CHAIN,
        chain_id=OTHER_EVM_CHAIN_ID,
        keyset="xeth-hot",
        intents=[world.intent(order, keyset="xeth-hot")],
    )
    assert bench.codes(world.request(draft)) == {"nonce"}


# Orders and context: the rules are those of BTC, and hold here too.


def test_an_order_signed_by_somebody_else_or_expired_is_refused(bench: EvmBench) -> None:
    draft = bench.draft()
    forged = sign_order(draft.orders[0], SigningKey.generate())
    assert bench.codes(bench.with_orders(bench.world.request(draft), forged)) == {"order-signature"}
    bench.time += 3600
    assert bench.codes(bench.world.request(draft)) == {"order-expired"}


def test_an_order_for_one_asset_is_not_paid_in_another(bench: EvmBench) -> None:
    order = bench.world.order(1_000_000, asset="USDX")
    draft = EvmDraft([order], to=raw_address(EVM_DESTINATION), value_wei=1_000_000, data=b"")
    draft.intents = [bench.world.intent(order, asset="ETH")]
    assert bench.codes(bench.world.request(draft)) == {"order-mismatch"}


def test_native_money_of_one_network_is_not_paid_under_the_name_of_another(bench: EvmBench) -> None:
    """It would count in the window of the other asset, and be worth something else."""
    draft = EvmDraft([bench.world.order(asset="XETH")])
    assert bench.codes(bench.world.request(draft)) == {"wrong-asset"}


def test_a_token_that_is_listed_on_another_network_only_is_no_token_here(bench: EvmBench) -> None:
    attested(bench, 0)
    there = named_address("token of the other network")
    bundle = bench.world.bundle(2)
    other = bench.world.asset_entry("OTHX", OTHER_EVM_CHAIN, 18, there)
    bench.adopt(2, assets=(*bundle.assets, other))
    sweep = under(bench, 2, bench.world.sweep([0], [there]))
    assert bench.codes(sweep) == {"unlisted-token"}
    payment = bench.draft(1_000, asset="USDX", to=raw_address(there))
    assert bench.codes(under(bench, 2, payment)) == {"unlisted-contract"}


def test_an_unlisted_asset_and_one_without_a_cap_are_refused(bench: EvmBench) -> None:
    order = bench.world.order(asset="DOGE")
    assert bench.codes(bench.world.request(EvmDraft([order]))) == {"no-cap"}
    request = bench.request(1_000, asset="USDX")
    bundle = bench.world.bundle(2)
    bench.adopt(2, caps=tuple(cap for cap in bundle.caps if cap.asset != "USDX"))
    assert bench.codes(request) == {"no-cap"}


@pytest.mark.parametrize("change", ["address", "attestation_key"])
def test_a_bundle_that_names_other_keys_is_not_signed_for(bench: EvmBench, change: str) -> None:
    request = bench.request()
    bench.adopt(2, **{f"keyset_{change}": getattr(bench.other.record, change)})
    assert bench.codes(request) == {"wrong-keyset"}


def test_the_btc_form_of_a_transaction_is_nothing_here(bench: EvmBench) -> None:
    psbt = base64.b64encode(b"psbt\xff\x00").decode()
    assert bench.codes(msgspec.structs.replace(bench.request(), transaction=psbt)) == {
        "malformed-transaction"
    }
