"""What EVM keys do for the house: a gas payer sends what owners of Safes have signed, a hot key moves all it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import raw_address
from chains.eth.erc20 import decode_transfer, transfer_calldata
from chains.eth.safe import decode_execution, owners_of
from policies.intent import Kind
from signers.errors import Withheld, WrongSignature
from signers.keys.keyset import GasPayerRecord
from signers.ports import AttestRequest, Refused
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    EVM_DESTINATION,
    FEEX,
    GAS_CAPS,
    GWEI,
    USDX,
    EvmDraft,
    SoftEvmKeys,
    named_address,
)
from tests.fakes.safe_signing import GAS_PAYER, SAFE, VAULT, ExecutorBench
from tests.fakes.signer import EvmBench

CHEAP: dict[str, Any] = {"max_fee_wei": GWEI, "priority_wei": 0}
NEW_KEY = SoftEvmKeys.make("eth-hot-2").record


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ExecutorBench]:
    made = ExecutorBench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


# Executions.


@pytest.mark.parametrize("asset", ["ETH", "USDX"])
@pytest.mark.parametrize("owners", [(0, 1), (1, 2), (0, 1, 2)])
def test_what_enough_owners_have_signed_is_carried_out(
    bench: ExecutorBench, asset: str, owners: tuple[int, ...]
) -> None:
    world = bench.world
    message = world.message(world.safe_draft(asset=asset, nonce=3))
    draft = world.execution(message, world.signatures_blob(message, owners))
    (signature,) = bench.signatures(world.request(draft))
    signed = world.tx(draft).signed(bytes.fromhex(signature.signature))
    assert signed.sender() == raw_address(world.gas.record.address)
    execution = decode_execution(signed.tx.data, 3)
    assert execution.tx == message.tx
    assert len(owners_of(message.signing_hash, execution.signatures)) == len(owners)


def test_an_execution_that_is_asked_for_again_gets_the_same_signature(bench: ExecutorBench) -> None:
    request = bench.request(bench.message())
    first = bench.signatures(request)
    bench.restart()
    assert bench.signatures(request) == first


def test_an_execution_has_a_gas_cap_of_its_own_and_counts_in_the_fee_window(bench: ExecutorBench) -> None:
    world, message = bench.world, bench.message()
    draft = world.execution(message, **CHEAP)
    over = replace(draft, gas_limit=GAS_CAPS.execution + 1)
    assert bench.codes(world.request(over)) == {"gas-cap"}
    assert bench.signatures(world.request(replace(draft, gas_limit=GAS_CAPS.execution)))
    bench.adopt(2, network_fee_window_cap=str(GAS_CAPS.execution * GWEI))
    later = world.execution(bench.message(nonce=1), nonce=1, **CHEAP)
    later.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in later.intents]
    assert bench.codes(world.request(later)) == {"fee-window"}


def test_too_few_owners_or_others_are_refused(bench: ExecutorBench) -> None:
    world, message = bench.world, bench.message()
    stranger = SoftEvmKeys.make()
    honest = world.owner_signature(message, 0)
    world.owners.append(stranger)  # type: ignore[arg-type]  # only its key is used
    forged = world.signatures_blob(message, (0, 3))
    world.owners.pop()
    ordered = world.signatures_blob(message)
    for blob in (
        honest,
        forged,
        ordered[65:] + ordered[:65],
        honest + honest,
        # Owners of another kind: a contract (v 0), an approved hash (v 1), eth_sign (v 31 and 32).
        *(ordered[:64] + bytes([v]) + ordered[65:] for v in (0, 1, 31, 32)),
        # Enough, and one of nobody behind it.
        ordered + b"\x01" * 64 + b"\x1b",
    ):
        assert bench.codes(bench.request(message, blob)) == {"owner-signatures"}


def test_signatures_for_another_nonce_chain_or_safe_carry_out_nothing(bench: ExecutorBench) -> None:
    world, message = bench.world, bench.message()
    for other in (
        replace(message, tx=replace(message.tx, nonce=1)),
        replace(message, chain_id=1),
        replace(message, safe=raw_address(named_address("another safe"))),
        replace(message, tx=replace(message.tx, value_wei=message.tx.value_wei + 1)),
    ):
        blob = world.signatures_blob(other)
        assert bench.codes(bench.request(message, blob)) == {"owner-signatures"}
    assert bench.codes(bench.request(message, safe_nonce=5)) == {"owner-signatures"}


@pytest.mark.parametrize(
    ("tx", "code"),
    [
        pytest.param({"operation": 1}, "delegate-call", id="delegatecall"),
        pytest.param({"gas_price": 1}, "refund-fields", id="refund"),
        pytest.param({"refund_receiver": b"\x01" * 20}, "refund-fields", id="receiver"),
        pytest.param({"safe_tx_gas": 50_000}, "refund-fields", id="safeTxGas"),
        pytest.param({"to": raw_address(SAFE), "value_wei": 1}, "safe-administration", id="itself"),
        pytest.param({"data": b"\x01"}, "unlisted-contract", id="calldata"),
        pytest.param({"to": raw_address(USDX), "value_wei": 1}, "unknown-call", id="no transfer"),
    ],
)
def test_even_what_the_owners_have_signed_is_carried_out_only_if_it_moves_money_and_nothing_else(
    bench: ExecutorBench, tx: dict[str, Any], code: str
) -> None:
    assert bench.codes(bench.request(bench.message(**tx))) == {code}


def test_an_execution_is_of_a_safe_of_the_bundle_and_pays_nothing_itself(bench: ExecutorBench) -> None:
    message = bench.message()
    elsewhere = raw_address(named_address("another safe"))
    assert bench.codes(bench.request(message, to=elsewhere)) == {"wrong-safe"}
    assert bench.codes(bench.request(message, value_wei=1)) == {"value-with-call"}
    assert bench.codes(bench.request(message, destination=EVM_DESTINATION)) == {"bad-destination"}
    data = bench.world.execution(message).data
    assert data is not None
    for bent in (data + bytes(32), data[:-1], data[:4], b"", transfer_calldata(elsewhere, 1)):
        assert bench.codes(bench.request(message, data=bent)) == {"unknown-call"}


def test_the_nonce_of_the_safe_comes_with_executions_only(bench: ExecutorBench) -> None:
    world = bench.world
    assert bench.codes(bench.request(bench.message(), safe_nonce=None)) == {"malformed-request"}
    payment = EvmDraft([world.order()], safe_nonce=0)
    assert bench.codes(world.request(payment)) == {"malformed-request"}


def test_a_payment_can_not_be_an_execution(bench: ExecutorBench) -> None:
    world, draft = bench.world, bench.world.execution(bench.message())
    order = world.order(999)
    hot = replace(draft, keyset=world.record.id, safe_nonce=None)
    as_payment = replace(hot, orders=[order], intents=[world.intent(order)])
    assert bench.codes(world.request(as_payment)) == {"unlisted-contract"}
    as_fill = replace(hot, intents=[world.house_intent(Kind.NONCE_FILL)], gas_limit=21_000)
    assert bench.codes(world.request(as_fill)) == {"unknown-call"}


def test_the_hot_key_executes_nothing(bench: ExecutorBench) -> None:
    world, message = bench.world, bench.message()
    intent = world.house_intent(Kind.EXECUTION, destination=SAFE)
    draft = world.execution(message, keyset=world.record.id, intents=[intent])
    assert bench.codes(world.request(draft)) == {"malformed-request"}
    unsaid = replace(draft, safe_nonce=None)
    assert "kind-not-supported" in bench.codes(world.request(unsaid))


# What a gas payer is beside that.


def test_a_gas_payer_fills_a_nonce_and_signs_it_once(bench: ExecutorBench) -> None:
    draft = gas_fill(bench)
    first = bench.signatures(bench.world.request(draft))
    assert bench.signatures(bench.world.request(draft)) == first
    assert bench.service.status().signed == 1
    assert bench.codes(bench.world.request(replace(draft, nonce=1))) == {"conflicting-version"}


@pytest.mark.parametrize(
    ("bent", "code"),
    [
        ({"value_wei": 1}, "unknown-call"),
        ({"data": b"\x01"}, "unknown-call"),
        ({"to": raw_address(EVM_DESTINATION)}, "unknown-call"),
        ({"data": b"\x09\x5e\xa7\xb3" + bytes(64)}, "allowance"),
        ({"gas_limit": GAS_CAPS.transfer + 1}, "gas-cap"),
        ({"chain_id": 1}, "wrong-chain-id"),
        ({"max_fee_wei": 201 * GWEI}, "feerate-cap"),
        ({"nonce": 256}, "nonce"),
    ],
)
def test_what_fills_a_gas_payers_nonce_does_nothing_else(
    bench: ExecutorBench, bent: dict[str, Any], code: str
) -> None:
    assert bench.codes(bench.world.request(replace(gas_fill(bench), **bent))) == {code}


def test_a_gas_payers_fill_is_to_itself(bench: ExecutorBench) -> None:
    world = bench.world
    intent = world.gas_intent(Kind.NONCE_FILL, destination=world.record.address)
    draft = replace(gas_fill(bench), intents=[intent])
    assert bench.codes(world.request(draft)) == {"bad-destination"}


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.EXECUTION, Kind.NONCE_FILL}))
def test_a_gas_payer_signs_executions_and_fills_only(bench: ExecutorBench, kind: Kind) -> None:
    world = bench.world
    intent = world.gas_intent(kind)
    assert "kind-not-supported" in bench.codes(world.request(replace(gas_fill(bench), intents=[intent])))


def test_a_gas_payer_that_pays_an_order_is_refused(bench: ExecutorBench) -> None:
    world = bench.world
    order = world.order(999)
    intent = world.intent(order, keyset=GAS_PAYER)
    draft = EvmDraft([order], keyset=GAS_PAYER, intents=[intent])
    assert "kind-not-supported" in bench.codes(world.request(draft))


def test_a_gas_payer_of_the_bundle_is_this_one_on_its_network(bench: ExecutorBench) -> None:
    request = bench.world.request(gas_fill(bench))
    bench.adopt(2, gas_address=named_address("another key"))
    assert bench.codes(request) == {"wrong-keyset"}
    bench.adopt(3, network_chain_id=5)
    assert bench.codes(request) == {"wrong-network"}
    bench.adopt(4, gas_payers=())
    assert bench.codes(request) == {"not-in-bundle"}


@pytest.mark.parametrize("state", ["pre-active", "suspended", "compromised", "destroyed"])
def test_a_gas_payer_that_is_not_in_use_signs_nothing(bench: ExecutorBench, state: str) -> None:
    bench.adopt(2, gas_state=state)
    fill = replace(gas_fill(bench), intents=[bench.world.gas_intent(Kind.NONCE_FILL, policy_version=2)])
    assert bench.codes(bench.world.request(fill)) == {"key-state"}


def test_a_breaker_that_counts_what_others_sign_stops_the_gas_payer(bench: ExecutorBench) -> None:
    bundle = bench.world.bundle(2)
    breakers = tuple(
        msgspec.structs.replace(each, keysets=(*each.keysets, "elsewhere"))
        if GAS_PAYER in each.keysets
        else each
        for each in bundle.breakers
    )
    elsewhere = bench.world.keyset_entry(NEW_KEY, id="elsewhere", state="suspended")
    bench.adopt(2, breakers=breakers, keysets=(*bundle.keysets, elsewhere))
    assert bench.codes(bench.world.request(gas_fill(bench))) == {"breaker-elsewhere"}


def test_a_frozen_gas_payer_sends_nothing(bench: ExecutorBench) -> None:
    bench.freeze(f"wallet:{GAS_PAYER}")
    assert bench.codes(bench.request(bench.message())) == {"frozen"}


def test_what_a_gas_payer_burns_counts_in_the_windows_of_the_hot_tier(bench: ExecutorBench) -> None:
    fill = replace(gas_fill(bench), gas_limit=100_000, max_fee_wei=10 * GWEI, priority_wei=0)  # 0.001 ETH
    bench.adopt(2, network_fee_window_cap=str(ETHER // 1000))
    intents = [bench.world.gas_intent(Kind.NONCE_FILL, policy_version=2) for _ in range(2)]
    bench.signatures(bench.world.request(replace(fill, intents=intents[:1])))
    assert bench.codes(bench.world.request(replace(fill, intents=intents[1:], nonce=1))) == {"fee-window"}


def test_a_gas_payer_attests_no_address(bench: ExecutorBench) -> None:
    request = AttestRequest(chain=EVM_CHAIN, keyset=GAS_PAYER, customer=None, asset="ETH", branch=1, index=0)
    with pytest.raises(Refused, match="not-in-bundle"):
        bench.service.attest(request)


def test_fault_31_a_wrong_signature_of_a_gas_payer_is_caught_before_release(bench: ExecutorBench) -> None:
    good, request = bench.world.gas, bench.request(bench.message())
    bench.world.gas = _Wrong(good.record, good.attestation, good.pubkey, good.secret)
    bench.restart()
    with pytest.raises(WrongSignature):
        bench.service.sign(request)
    bench.world.gas = good
    bench.restart()
    assert bench.signatures(request)
    assert bench.service.status().signed == 1


class _Wrong(SoftEvmKeys[GasPayerRecord]):
    """A backend that signs another digest."""

    def signature(self, digest: bytes) -> bytes:
        return super().signature(bytes([digest[0] ^ 1]) + digest[1:])


def gas_fill(bench: ExecutorBench) -> EvmDraft:
    """A filled nonce of the gas payer."""
    intents = [bench.world.gas_intent(Kind.NONCE_FILL)]
    to = raw_address(bench.world.gas.record.address)
    return EvmDraft([], intents=intents, to=to, value_wei=0, data=b"", gas_limit=21_000, keyset=GAS_PAYER)


@pytest.mark.parametrize("state", ["pre-active", "suspended", "destroyed"])
def test_nothing_is_carried_out_for_a_safe_that_is_not_in_use(bench: ExecutorBench, state: str) -> None:
    bench.adopt(2, vault_state=state)
    draft = bench.world.execution(bench.message())
    draft.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in draft.intents]
    assert bench.codes(bench.world.request(draft)) == {"key-state"}


def test_a_freeze_of_the_safe_holds_its_executions(bench: ExecutorBench) -> None:
    bench.freeze(f"wallet:{VAULT}")
    assert bench.codes(bench.request(bench.message())) == {"frozen"}


def test_a_frozen_token_is_not_carried_out_of_a_safe_either(bench: ExecutorBench) -> None:
    world = bench.world
    message = world.message(world.safe_draft(asset="USDX"))
    request = bench.request(message)
    bench.signatures(request)
    bench.freeze("asset:USDX")
    with pytest.raises(Withheld, match="asset:USDX"):
        bench.service.sign(request)
    later = world.message(world.safe_draft(asset="USDX", nonce=1))
    assert bench.codes(world.request(world.execution(later, nonce=1))) == {"frozen"}
    native = world.message(world.safe_draft(asset="ETH", nonce=1))
    assert bench.signatures(world.request(world.execution(native, nonce=1)))


def test_a_frozen_token_is_not_collected_from_forwarders_while_others_are(hot: EvmBench) -> None:
    world = hot.world
    hot.service.attest(world.attestation(0))
    hot.freeze("asset:USDX")
    assert hot.codes(world.request(world.sweep([0], [USDX, FEEX]))) == {"frozen"}
    assert hot.signatures(world.request(world.sweep([0], [FEEX])))


# Rotations.


def followed(hot: EvmBench, state: str) -> None:
    """Adopt a bundle in which another key has followed this one."""
    world = hot.world
    bundle = world.bundle(2)
    old = world.keyset_entry(world.record, state=state)
    new = world.keyset_entry(NEW_KEY)
    hot.adopt(2, keysets=(old, new, *bundle.keysets[1:]))


def rotation(hot: EvmBench, **changes: Any) -> EvmDraft:
    """What moves 7 ETH to the key that follows."""
    intent = hot.world.house_intent(Kind.ROTATION, destination=NEW_KEY.address, policy_version=2)
    fields: dict[str, Any] = {
        "to": raw_address(NEW_KEY.address),
        "value_wei": 7 * ETHER,
        "data": b"",
        "intents": [intent],
    }
    return EvmDraft([], **(fields | changes))


def token_rotation(hot: EvmBench, token: str, to: str = NEW_KEY.address, **changes: Any) -> EvmDraft:
    """What moves a token there."""
    data = transfer_calldata(raw_address(to), 10**12)
    return rotation(hot, **({"to": raw_address(token), "value_wei": 0, "data": data} | changes))


@pytest.mark.parametrize("state", ["deactivated", "compromised"])
def test_everything_moves_to_the_key_that_follows_and_nowhere_else(hot: EvmBench, state: str) -> None:
    followed(hot, state)
    world = hot.world
    draft = rotation(hot)
    (signature,) = hot.signatures(world.request(draft))
    signed = world.tx(draft).signed(bytes.fromhex(signature.signature))
    assert (signed.tx.to, signed.tx.value_wei) == (raw_address(NEW_KEY.address), 7 * ETHER)
    # Also of a token that takes a fee on transfer: what can't be paid out can be saved.
    for nonce, token in enumerate((USDX, FEEX), start=1):
        (signature,) = hot.signatures(world.request(token_rotation(hot, token, nonce=nonce)))
        tx = world.tx(token_rotation(hot, token, nonce=nonce))
        assert decode_transfer(tx.data).to == raw_address(NEW_KEY.address)
    thief = raw_address(EVM_DESTINATION)
    for bad, code in (
        (rotation(hot, to=thief), "rotation-target"),
        (rotation(hot, to=raw_address(world.record.address)), "rotation-target"),
        (token_rotation(hot, USDX, EVM_DESTINATION), "rotation-target"),
        (token_rotation(hot, named_address("unlisted")), "unlisted-contract"),
        (rotation(hot, data=b"\x00"), "unlisted-contract"),
        (token_rotation(hot, USDX, value_wei=1), "value-with-call"),
        (token_rotation(hot, USDX, data=b"\x09\x5e\xa7\xb3" + bytes(64)), "allowance"),
    ):
        assert hot.codes(world.request(replace(bad, nonce=9))) == {code}
    elsewhere = world.house_intent(Kind.ROTATION, destination=EVM_DESTINATION, policy_version=2)
    assert hot.codes(world.request(rotation(hot, nonce=9, intents=[elsewhere]))) == {"bad-destination"}


def test_rotations_have_the_gas_caps_of_what_they_are(hot: EvmBench) -> None:
    followed(hot, "compromised")
    for draft, cap in (
        (rotation(hot, **CHEAP), GAS_CAPS.transfer),
        (token_rotation(hot, USDX, nonce=1, **CHEAP), GAS_CAPS.token),
    ):
        assert hot.codes(hot.world.request(replace(draft, gas_limit=cap + 1))) == {"gas-cap"}
        assert hot.signatures(hot.world.request(replace(draft, gas_limit=cap)))


def test_a_key_in_use_moves_nothing_to_another(hot: EvmBench) -> None:
    hot.adopt(2)
    assert hot.codes(hot.world.request(rotation(hot))) == {"key-state", "rotation-target", "bad-destination"}


def test_without_an_active_key_there_is_nowhere_to_go(hot: EvmBench) -> None:
    hot.adopt(2, keyset_state="compromised")
    assert hot.codes(hot.world.request(rotation(hot))) == {"rotation-target"}
