"""Somebody owns everything online and asks a Safe's owner for whatever he likes, with genuine orders and approvals.

Each request here is an honest one with one thing changed, so that nothing but that can be why it is refused. What the
bytes would do is read by safe-eth-py's contract interface where it matters, not by the code under test.
"""

from __future__ import annotations

import base64
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st
from safe_eth.eth.contracts import get_erc20_contract, get_multi_send_contract, get_safe_V1_4_1_contract
from web3 import Web3

from chains.eth.address import checksummed, raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import SafeMessage, SafeTx
from policies.bundle import Owner, SignedBundle
from policies.intent import Kind, Order
from policies.keys import SigningKey, sign_bundle
from signers.ports import Refused, SignRequest
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN_ID,
    EVM_DESTINATION,
    OTHER_EVM_CHAIN,
    OTHER_EVM_CHAIN_ID,
    PAYOUT,
    USDX,
    named_address,
)
from tests.fakes.safe_signing import SAFE, VAULT, OwnerBench, SafeDraft

MALLORY = named_address("mallory")
SENTINEL = "0x" + "00" * 19 + "01"
NOBODY = "0x" + "00" * 20
CONTRACT = get_safe_V1_4_1_contract(Web3(), SAFE)
TOKEN = get_erc20_contract(Web3(), to_checksum_address(USDX))
MULTI_SEND = get_multi_send_contract(Web3(), to_checksum_address(named_address("multi send")))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OwnerBench]:
    made = OwnerBench(tmp_path)
    yield made
    made.journal.close()


def call(contract: Any, name: str, *arguments: object) -> bytes:
    """Calldata of a call, as web3 writes it."""
    return bytes.fromhex(contract.encode_abi(name, args=list(arguments))[2:])


ADMINISTRATION = {
    "a new owner": call(CONTRACT, "addOwnerWithThreshold", MALLORY, 1),
    "an owner less": call(CONTRACT, "removeOwner", SENTINEL, MALLORY, 1),
    "another owner": call(CONTRACT, "swapOwner", SENTINEL, EVM_DESTINATION, MALLORY),
    "another threshold": call(CONTRACT, "changeThreshold", 1),
    "a module": call(CONTRACT, "enableModule", MALLORY),
    "a module less": call(CONTRACT, "disableModule", SENTINEL, MALLORY),
    "a guard": call(CONTRACT, "setGuard", MALLORY),
    "no guard": call(CONTRACT, "setGuard", NOBODY),
    "a fallback handler": call(CONTRACT, "setFallbackHandler", MALLORY),
    "a hash approved": call(CONTRACT, "approveHash", b"\x01" * 32),
    "set up again": call(CONTRACT, "setup", [MALLORY], 1, MALLORY, b"", MALLORY, NOBODY, 0, NOBODY),
    "another implementation": bytes.fromhex("7de7edef") + bytes(12) + raw_address(MALLORY),
    "a module's call": call(CONTRACT, "execTransactionFromModule", MALLORY, 1, b"", 0),
    "a simulation": call(CONTRACT, "simulateAndRevert", MALLORY, b""),
}


@pytest.mark.parametrize("data", ADMINISTRATION.values(), ids=ADMINISTRATION.keys())
@pytest.mark.parametrize("value", [0, 1])
def test_fault_45_who_rules_the_safe_and_what_it_runs_stays_as_it_is(
    bench: OwnerBench, data: bytes, value: int
) -> None:
    assert bench.codes(bench.asked(to=raw_address(SAFE), value_wei=value, data=data)) == {
        "safe-administration"
    }
    # Sent elsewhere it may be meant for another Safe of ours, or for a proxy of this one.
    for elsewhere in (USDX, MALLORY, PAYOUT):
        asked = bench.asked(to=raw_address(elsewhere), value_wei=value, data=data)
        assert bench.codes(asked) == {"safe-administration"}


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x12\x34\x56\x78", transfer_calldata(bytes(20), 1)], ids=bytes.hex
)
def test_the_safe_never_calls_itself_whatever_it_says(bench: OwnerBench, data: bytes) -> None:
    assert bench.codes(bench.asked(to=raw_address(SAFE), data=data)) == {"safe-administration"}


@pytest.mark.parametrize("data", [b"", *ADMINISTRATION.values()], ids=["nothing", *ADMINISTRATION.keys()])
def test_fault_45_a_delegatecall_runs_foreign_code_as_the_safe_and_is_refused(
    bench: OwnerBench, data: bytes
) -> None:
    """Bybit 2025: a delegatecall of a contract whose `transfer` wrote another implementation into slot 0."""
    asked = bench.asked(operation=1, to=raw_address(MALLORY), value_wei=0, data=data)
    assert "delegate-call" in bench.codes(asked)


def test_a_delegatecall_that_looks_like_a_payment_is_refused_and_for_nothing_else(bench: OwnerBench) -> None:
    assert bench.codes(bench.asked(operation=1)) == {"delegate-call"}
    assert bench.codes(bench.request(asset="USDX", tx={"operation": 1})) == {"delegate-call"}


def packed(to: str, value: int, data: bytes, operation: int = 0) -> bytes:
    """One call inside of MultiSend's argument."""
    return (
        bytes([operation])
        + raw_address(to)
        + value.to_bytes(32, "big")
        + len(data).to_bytes(32, "big")
        + data
    )


@pytest.mark.parametrize("operation", [0, 1])
@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(packed(EVM_DESTINATION, 5 * ETHER, b""), id="the payment itself"),
        pytest.param(
            packed(EVM_DESTINATION, 5 * ETHER, b"") + packed(MALLORY, ETHER, b""), id="a payment beside it"
        ),
        pytest.param(packed(SAFE, 0, ADMINISTRATION["a new owner"]), id="a new owner"),
        pytest.param(packed(MALLORY, 0, b"", 1), id="a delegatecall"),
    ],
)
def test_many_calls_in_one_are_refused_whatever_they_are(
    bench: OwnerBench, operation: int, hidden: bytes
) -> None:
    data = call(MULTI_SEND, "multiSend", hidden)
    for to in (MULTI_SEND.address, MALLORY, USDX):
        asked = bench.asked(to=raw_address(to), value_wei=0, data=data, operation=operation)
        codes = bench.codes(asked)
        assert codes == ({"multi-send", "delegate-call"} if operation else {"multi-send"})


ALLOWANCES = {
    "approve": call(TOKEN, "approve", MALLORY, 1),
    "an unlimited allowance": call(TOKEN, "approve", MALLORY, 2**256 - 1),
    "transferFrom": call(TOKEN, "transferFrom", SAFE, MALLORY, 10**9),
    "increaseAllowance": bytes.fromhex("39509351") + bytes(12) + raw_address(MALLORY) + b"\xff" * 32,
    "permit": bytes.fromhex("d505accf") + bytes(7 * 32),
    "permit of DAI": bytes.fromhex("8fcbaf0c") + bytes(8 * 32),
    "setApprovalForAll": bytes.fromhex("a22cb465") + bytes(12) + raw_address(MALLORY) + bytes(31) + b"\x01",
}


@pytest.mark.parametrize("data", ALLOWANCES.values(), ids=ALLOWANCES.keys())
@pytest.mark.parametrize("to", [USDX, named_address("unlisted token"), MALLORY])
def test_nobody_is_allowed_to_take_tokens_later(bench: OwnerBench, data: bytes, to: str) -> None:
    asked = bench.request(asset="USDX", tx={"to": raw_address(to), "data": data})
    assert bench.codes(asked) == {"allowance"}


REFUNDS: dict[str, dict[str, Any]] = {
    "a price": {"gas_price": 1},
    "everything, in one transaction": {"gas_price": ETHER, "base_gas": 1000},
    "tokens instead of ETH": {"gas_price": 1, "base_gas": 10**12, "gas_token": raw_address(USDX)},
    "to a friend": {"gas_price": 1, "base_gas": ETHER, "refund_receiver": raw_address(MALLORY)},
    "gas that nobody used": {"base_gas": 1},
    "a receiver for later": {"refund_receiver": raw_address(MALLORY)},
    "a token for later": {"gas_token": raw_address(USDX)},
    "gas that lets a failure pass": {"safe_tx_gas": 1},
}


@pytest.mark.parametrize("fields", REFUNDS.values(), ids=REFUNDS.keys())
@pytest.mark.parametrize("asset", ["ETH", "USDX"])
def test_the_safe_refunds_nothing(bench: OwnerBench, fields: dict[str, Any], asset: str) -> None:
    assert bench.codes(bench.request(asset=asset, tx=fields)) == {"refund-fields"}


# Another Safe, another chain, another time.


def test_fault_46_what_is_signed_is_for_this_safe_on_this_chain(bench: OwnerBench) -> None:
    for chain_id in (1, OTHER_EVM_CHAIN_ID, EVM_CHAIN_ID + 2**32):
        assert bench.codes(bench.request(chain_id=chain_id)) == {"wrong-chain-id"}
    assert bench.codes(bench.request(safe=named_address("cold safe"))) == {"wrong-safe"}
    assert bench.codes(bench.request(safe=bench.owners[0].record.address)) == {"wrong-safe"}
    order = bench.world.order(chain=OTHER_EVM_CHAIN, asset="XETH")
    intent = bench.world.safe_intent(order)
    draft = SafeDraft([order], chain=OTHER_EVM_CHAIN, chain_id=OTHER_EVM_CHAIN_ID, intents=[intent])
    assert bench.codes(bench.world.safe_request(draft)) == {"wrong-chain"}


def test_a_blind_hash_or_another_message_is_nothing_to_sign(bench: OwnerBench) -> None:
    honest = bench.request()
    message = SafeMessage.decode(base64.b64decode(honest.transaction))
    encoded = message.encode()
    for raw in (
        message.signing_hash,
        b"\x19\x01" + message.signing_hash * 2,
        b"\x19Ethereum Signed Message:\n32" + message.signing_hash,
        encoded[32:],
        encoded + bytes(32),
        encoded[:-1],
        # The data's offset points elsewhere, its length lies, or dirt stands above an address or in the padding.
        encoded[:128] + (352).to_bytes(32, "big") + encoded[160:] + bytes(32),
        encoded[:-32] + (1).to_bytes(32, "big"),
        encoded[:64] + b"\x01" + encoded[65:],
    ):
        request = msgspec.structs.replace(honest, transaction=base64.b64encode(raw).decode())
        assert bench.codes(request) == {"malformed-transaction"}


def test_an_order_is_paid_at_one_nonce_whichever_way_he_asks(bench: OwnerBench) -> None:
    draft = bench.world.safe_draft()
    bench.signatures(bench.world.safe_request(draft))
    for nonce in (1, 5, 255):
        again = SafeDraft(draft.orders, nonce=nonce)
        assert bench.codes(bench.world.safe_request(again)) == {"conflicting-version"}
    bench.restart()
    again = SafeDraft(draft.orders, nonce=1)
    assert bench.codes(bench.world.safe_request(again)) == {"conflicting-version"}
    # WazirX 2024: what failed once is not signed anew beside what may still be carried out.
    with_other_intent = SafeDraft([bench.world.order(5 * ETHER)], nonce=0)
    assert bench.codes(bench.world.safe_request(with_other_intent)) == {"transaction-reused"}


# The bundle that he shows.


def forged(bench: OwnerBench, **vault: Any) -> SignedBundle:
    """A bundle of a higher version whose Safe has other owners or another threshold, signed by himself."""
    bundle = bench.world.bundle(2, **{f"vault_{name}": value for name, value in vault.items()})
    mallory = SigningKey.generate()
    return sign_bundle(bundle, {"olga": mallory, "felix": mallory})


def test_other_owners_or_another_threshold_are_believed_of_the_quorum_only(bench: OwnerBench) -> None:
    owners = bench.world.vault_entry().owners
    swapped = (Owner(id="warm-b", organisation="org-warm-b", address=MALLORY), owners[0], owners[2])
    for fields in ({"owners": swapped}, {"address": MALLORY}, {"threshold": 3}):
        bundle = forged(bench, **fields)
        with pytest.raises(Refused):
            bench.desk.deliver(bundle)
        (bench.directory / "bundle.json").write_bytes(bundle.encode())
        troubles: list[str] = []
        bench.trust.refresh(troubles.append)
        assert troubles
        bench.restart()
        assert bench.service.status().bundle_version == 1
        # The honest bytes still are what it signs, and his Safe is not.
        assert bench.codes(bench.request(safe=MALLORY)) == {"wrong-safe"}
    assert bench.signatures(bench.request())


def test_an_owner_that_the_quorum_has_replaced_signs_nothing_more(bench: OwnerBench) -> None:
    owners = bench.world.vault_entry().owners
    replaced = (Owner(id="warm-a", organisation="org-warm-a", address=MALLORY), *owners[1:])
    bench.adopt(2, vault_owners=replaced)
    assert bench.codes(bench.request()) == {"wrong-keyset"}


# Everything at once.


@dataclass
class Attacker:
    """What he has: genuine orders with approvals, and every signature so far with what it was given for."""

    bench: OwnerBench
    orders: list[Order]
    signed: list[tuple[SafeTx, frozenset[str]]] = field(default_factory=list)

    def ask(self, request: SignRequest) -> None:
        try:
            self.bench.service.sign(request)
        except Refused:
            return
        message = SafeMessage.decode(base64.b64decode(request.transaction))
        assert (message.chain_id, checksummed(message.safe)) == (EVM_CHAIN_ID, SAFE)
        self.signed.append((message.tx, frozenset(intent.id for intent in request.intents)))


fields_to_bend = st.fixed_dictionaries(
    {},
    optional={
        "to": st.sampled_from([raw_address(MALLORY), raw_address(SAFE), raw_address(USDX), bytes(20)]),
        "value_wei": st.sampled_from([0, 1, ETHER, 2**200]),
        "data": st.sampled_from(
            [b"", transfer_calldata(raw_address(MALLORY), 1), *ADMINISTRATION.values(), *ALLOWANCES.values()]
        ),
        "operation": st.sampled_from([0, 1]),
        "gas_price": st.sampled_from([0, 1]),
        "refund_receiver": st.sampled_from([bytes(20), raw_address(MALLORY)]),
    },
)


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_he_has_carried_out_each_order_is_paid_once_at_most_and_nothing_else_happens(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = OwnerBench(Path(directory))
        world = bench.world
        orders = [
            world.order(10**6 * n, asset="USDX") if n % 3 == 0 else world.order(n * ETHER)
            for n in range(1, 7)
        ]
        attacker = Attacker(bench, orders)
        for _ in range(data.draw(st.integers(5, 25))):
            chosen = data.draw(st.lists(st.sampled_from(orders), min_size=1, max_size=2, unique_by=id))
            bent = data.draw(st.one_of(st.just({}), fields_to_bend))
            draft = SafeDraft(chosen, nonce=data.draw(st.integers(0, 4)), tx=bent)
            attacker.ask(world.safe_request(draft))
        bench.journal.close()
    paid: dict[str, set[int]] = defaultdict(set)
    by_id = {order.id: order for order in orders}
    for tx, intents in attacker.signed:
        (intent,) = intents
        order = by_id[intent]
        assert (tx.operation, tx.gas_price, tx.base_gas, tx.safe_tx_gas) == (0, 0, 0, 0)
        assert (tx.gas_token, tx.refund_receiver) == (bytes(20), bytes(20))
        if order.asset == "ETH":
            assert (tx.to, tx.value_wei, tx.data) == (raw_address(order.destination), order.units, b"")
        else:
            sent = call(TOKEN, "transfer", order.destination, order.units)
            assert (tx.to, tx.value_wei, tx.data) == (raw_address(USDX), 0, sent)
        paid[intent].add(tx.nonce)
    # Of transactions with one nonce only one can be carried out.
    assert all(len(nonces) == 1 for nonces in paid.values())


def test_he_does_get_something_signed_so_the_test_above_says_something(bench: OwnerBench) -> None:
    orders = [bench.world.order(ETHER), bench.world.order(10**6, asset="USDX")]
    attacker = Attacker(bench, orders)
    for nonce, order in enumerate(orders):
        attacker.ask(bench.world.safe_request(SafeDraft([order], nonce=nonce)))
    assert len(attacker.signed) == 2


def test_the_house_asks_for_nothing_that_pays_a_stranger(bench: OwnerBench) -> None:
    for kind in Kind:
        if kind is Kind.PAYMENT:
            continue
        intent = bench.world.safe_house_intent(kind, MALLORY)
        draft = SafeDraft([], intents=[intent], tx={"to": raw_address(MALLORY), "value_wei": ETHER})
        expected = {
            Kind.REFILL: "refill-target",
            Kind.CANCELLATION: "bad-destination",
            Kind.ADMINISTRATION: "unlisted-contract",
        }.get(kind)
        codes = bench.codes(bench.world.safe_request(draft))
        assert codes & ({expected} if expected else {"kind-not-supported", "key-state"})
    assert bench.service.status().keysets == (VAULT,)
