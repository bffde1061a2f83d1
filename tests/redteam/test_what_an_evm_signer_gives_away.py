"""Somebody owns everything online and asks an EVM signer for whatever he likes, with orders that callers did sign.

He sees all its signatures, and chooses which of them are mined.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.eth.address import raw_address
from chains.eth.erc20 import TRANSFER, decode_transfer, transfer_calldata
from chains.eth.payout import PAY, decode_payout
from chains.eth.safe import EXEC_TRANSACTION, decode_execution
from chains.eth.tx import SignedTx
from policies.intent import Kind, Order
from signers.ports import Refused
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    FACTORY,
    GWEI,
    PAYOUT,
    USDX,
    EvmDraft,
    named_address,
)
from tests.fakes.safe_signing import GAS_PAYER, SAFE, ExecutorBench, SafeWorld
from tests.fakes.signer import EvmBench

ETH_WINDOW = 3 * ETHER
USDX_WINDOW = 4_000
FEE_WINDOW = ETHER // 100
ORDERS = 8


@dataclass
class Attacker:
    """What he has: genuine orders, and every signature so far with the intents it was given for."""

    bench: EvmBench | ExecutorBench
    orders: list[Order]
    signed: list[tuple[SignedTx, frozenset[str]]] = field(default_factory=list)

    def ask(self, draft: EvmDraft) -> None:
        """Ask for a signature; what he gets is genuine."""
        intents = draft.intents or [self.bench.world.intent(order) for order in draft.orders]
        draft.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in intents]
        try:
            (signature,) = self.bench.signatures(self.bench.world.request(draft))
        except Refused:
            return
        tx = self.bench.world.tx(draft).signed(bytes.fromhex(signature.signature))
        assert tx.sender() == raw_address(self.bench.world.record.address) or draft.keyset == GAS_PAYER
        self.signed.append((tx, frozenset(intent.id for intent in draft.intents)))

    def payments(self, signed: SignedTx) -> list[tuple[str, bytes, int]]:
        """Who gets what when it is mined: read from the bytes, not from what was asked."""
        tx = signed.tx
        if tx.data[:4] == TRANSFER:
            assert tx.to == raw_address(USDX)
            transfer = decode_transfer(tx.data)
            return [("USDX", transfer.to, transfer.units)]
        if tx.data[:4] == PAY:
            assert tx.to == raw_address(PAYOUT)
            return [("ETH", payout.to, payout.units) for payout in decode_payout(tx.data)]
        if tx.data[:4] == EXEC_TRANSACTION:
            # The Safe pays, by its owners' word, and refunds nothing; the key pays the gas.
            assert (tx.to, tx.value_wei) == (raw_address(SAFE), 0)
            execution = decode_execution(tx.data, 0).tx
            assert (execution.operation, execution.refunds) == (0, False)
            return []
        if tx.data:
            assert (tx.to, tx.value_wei) == (raw_address(FACTORY), 0)  # it pays the treasury only
            return []
        return [("ETH", tx.to, tx.value_wei)] if tx.value_wei else []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def drafts(attacker: Attacker, data: st.DataObject) -> EvmDraft:
    """Something to ask for: honest, replaced, moved to another nonce, merged, or bent."""
    world, nonce = attacker.bench.world, data.draw(st.integers(0, 5))
    price = data.draw(st.integers(1, 40)) * GWEI
    kind = data.draw(st.sampled_from(["pay", "pay", "batch", "sweep", "fill", "execute", "rotate", "bend"]))
    if kind == "sweep":
        return world.sweep(
            data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)), nonce=nonce, max_fee_wei=price
        )
    if kind == "fill":
        return world.fill(nonce, max_fee_wei=price)
    if kind == "execute":
        return executions(attacker, data, nonce, price)
    if kind == "rotate":
        thief = named_address("mallory")
        intent = world.house_intent(Kind.ROTATION, destination=thief)
        return EvmDraft([], nonce, intents=[intent], to=raw_address(thief), value_wei=ETHER, data=b"")
    orders = data.draw(st.lists(st.sampled_from(attacker.orders), min_size=1, max_size=3, unique_by=id))
    if kind == "batch":
        orders = [order for order in orders if order.asset == "ETH"] or attacker.orders[:1]
        return EvmDraft(orders, nonce=nonce, max_fee_wei=price, gas_limit=150_000)
    draft = EvmDraft(orders[:1], nonce=nonce, max_fee_wei=price)
    if kind == "bend":
        mallory = raw_address(named_address("mallory"))
        bent: dict[str, Any] = data.draw(
            st.sampled_from(
                [
                    {"to": mallory},
                    {"value_wei": ETHER},
                    {"to": raw_address(USDX), "value_wei": 0, "data": transfer_calldata(mallory, 100)},
                    {"to": raw_address(PAYOUT), "value_wei": 1, "data": PAY},
                ]
            )
        )
        draft = replace(draft, **bent)
    return draft


def executions(attacker: Attacker, data: st.DataObject, nonce: int, price: int) -> EvmDraft:
    """Something of a Safe whose owners all sign whatever they are shown."""
    world = attacker.bench.world
    assert isinstance(world, SafeWorld)
    mallory = raw_address(named_address("mallory"))
    bent: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {},
                {"operation": 1},
                {"gas_price": 1, "refund_receiver": mallory},
                {"to": raw_address(SAFE), "value_wei": 0, "data": b"\x01"},
                {"to": raw_address(USDX), "value_wei": 0, "data": transfer_calldata(mallory, 100)},
            ]
        )
    )
    message = world.message(world.safe_draft(nonce=data.draw(st.integers(0, 2)), tx=bent))
    value = data.draw(st.sampled_from([0, 0, ETHER]))
    return world.execution(message, nonce=nonce, max_fee_wei=price, value_wei=value)


@settings(max_examples=25)
@given(data=st.data())
def test_whatever_he_has_mined_each_order_is_paid_once_at_most_and_all_within_the_caps(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = ExecutorBench(Path(directory))
        bench.adopt(
            2,
            cap_window_cap=str(ETH_WINDOW),
            usdx_window_cap=str(USDX_WINDOW),
            network_fee_window_cap=str(FEE_WINDOW),
        )
        for index in (0, 1):
            bench.service.attest(bench.world.attestation(index))
        attacker = Attacker(bench, [_order(bench, number) for number in range(ORDERS)])
        for _ in range(data.draw(st.integers(5, 30))):
            attacker.ask(drafts(attacker, data))
        bench.journal.close()
    _check(attacker)


def _order(bench: EvmBench | ExecutorBench, number: int) -> Order:
    asset = "USDX" if number % 3 == 2 else "ETH"
    units = 1_500 if asset == "USDX" else ETHER * (number + 1) // ORDERS
    return bench.world.order(units, asset=asset, destination=named_address(f"payee {number}"))


def _check(attacker: Attacker) -> None:
    nonces: dict[str, set[tuple[bytes, int]]] = defaultdict(set)
    paid: dict[str, int] = defaultdict(int)
    by_id = {order.id: order for order in attacker.orders}
    fees: dict[frozenset[str], int] = defaultdict(int)
    for signed, intents in attacker.signed:
        payments = attacker.payments(signed)
        # Every payment in the bytes is one of the orders it was signed for, and all of them are there.
        orders = [by_id[intent] for intent in intents if intent in by_id]
        assert sorted(payments) == sorted((o.asset, raw_address(o.destination), o.units) for o in orders)
        fees[intents] = max(fees[intents], signed.tx.max_fee_wei)
        for intent in intents:
            nonces[intent].add((signed.sender(), signed.tx.nonce))
    # Of a sender's transactions with one nonce only one can be mined; so no order is paid twice, whatever he chooses.
    assert all(len(used) == 1 for used in nonces.values())
    for intent in nonces:
        if intent in by_id:
            paid[by_id[intent].asset] += by_id[intent].units
    assert paid["ETH"] + sum(fees.values()) <= ETH_WINDOW
    assert paid["USDX"] <= USDX_WINDOW
    assert sum(fees.values()) <= FEE_WINDOW


def test_he_does_get_something_signed_so_the_test_above_says_something(bench: EvmBench) -> None:
    bench.adopt(2)
    attacker = Attacker(bench, [_order(bench, number) for number in range(ORDERS)])
    for nonce, order in enumerate(attacker.orders):
        attacker.ask(EvmDraft([order], nonce=nonce))
        attacker.ask(EvmDraft([order], nonce=nonce, max_fee_wei=30 * GWEI))
        attacker.ask(EvmDraft([order], nonce=nonce + 1))
    assert len(attacker.signed) == 2 * ORDERS
    assert sum(len(attacker.payments(signed)) for signed, _ in attacker.signed) == 2 * ORDERS


def after(bench: EvmBench, what: str) -> dict[str, Any]:
    """Fields of a bundle after which nothing new can be signed for the first network."""
    bundle = bench.world.bundle()
    match what:
        case "the caps are gone":
            return {"caps": ()}
        case "the key-sets are gone":
            return {"keysets": ()}
        case "the key-set is of another tier":
            return {"keyset_tier": "cold"}
        case "the key is another":
            return {"keyset_address": named_address("another key")}
        case "the network has another chain id":
            return {"network_chain_id": 5}
        case "the network is gone":
            return {
                "networks": bundle.networks[1:],
                "keysets": bundle.keysets[1:],
                "caps": bundle.caps[3:],
                "assets": bundle.assets[3:],
            }
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "the caps are gone",
        "the key-sets are gone",
        "the key-set is of another tier",
        "the key is another",
        "the network has another chain id",
        "the network is gone",
    ],
)
def test_what_was_signed_is_not_refused_later_and_nothing_else_gets_signed(
    bench: EvmBench, what: str
) -> None:
    bench.service.attest(bench.world.attestation(0))
    world = bench.world
    requests = [world.request(draft) for draft in (bench.draft(), world.sweep([0], nonce=1), world.fill(2))]
    other = bench.request(nonce=3)
    before = [bench.signatures(request) for request in requests]
    bench.adopt(2, **after(bench, what))
    for _ in range(2):
        assert [bench.signatures(request) for request in requests] == before
        assert bench.codes(other) & {
            "no-cap",
            "not-in-bundle",
            "wrong-keyset",
            "wrong-network",
        }
        bench.restart()
    # Nor does the memory of one transaction cover other intents.
    mixed = msgspec.structs.replace(requests[0], intents=other.intents, evidence=other.evidence)
    assert bench.codes(mixed)


def test_a_factory_that_changed_makes_old_salts_no_danger(bench: EvmBench) -> None:
    """A bundle with another factory: what is flushed there still goes only where the quorum's factory pays."""
    bench.service.attest(bench.world.attestation(0))
    sweep = bench.world.sweep([0])
    bench.adopt(2, keyset_factory=named_address("new factory"))
    sweep.intents = [msgspec.structs.replace(i, policy_version=2) for i in sweep.intents]
    assert bench.codes(bench.world.request(sweep)) == {"unlisted-contract"}


def test_keys_of_one_network_never_sign_what_is_valid_on_the_other(bench: EvmBench) -> None:
    """Every mixture of chain, key-set and chain id but the two honest ones."""
    world = bench.world
    chains = {EVM_CHAIN: ("ETH", "eth-hot", 31337), "polygon-devnet": ("XETH", "xeth-hot", 31338)}
    for chain, (asset, _, _) in chains.items():
        for _, keyset, _ in chains.values():
            for chain_id in (31337, 31338, 1):
                order = world.order(chain=chain, asset=asset)
                intent = world.intent(order, keyset=keyset)
                draft = EvmDraft([order], chain=chain, keyset=keyset, chain_id=chain_id, intents=[intent])
                if (asset, keyset, chain_id) == chains[chain]:
                    assert bench.signatures(world.request(draft))
                else:
                    assert bench.codes(world.request(draft)) & {"wrong-chain", "wrong-chain-id"}
