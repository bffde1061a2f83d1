"""Whatever one field of an accepted request is changed to: it is refused, or what is signed has the same effect."""

from __future__ import annotations

import base64
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.eth.tx import UnsignedTx
from policies.canonical import Document
from policies.intent import Intent, Kind, TreasuryChange
from signers.ports import Refused, SignRequest
from tests.fakes.evm_signing import ETHER, FEEX, USDX, EvmDraft, named_address
from tests.fakes.signer import EvmBench

PRICES = itertools.count()
FORMS = ("native", "token", "batch", "sweep", "fill")


@pytest.fixture(scope="module")
def bench() -> Iterator[EvmBench]:
    with tempfile.TemporaryDirectory() as directory:
        made = EvmBench(Path(directory))
        for index in (0, 2):  # no other: another address of ours may be swept as well
            made.service.attest(made.world.attestation(index))
        # The windows are other tests' subject; here thousands of transactions are signed.
        made.adopt(
            2,
            cap_window_cap=str(10**9 * ETHER),
            usdx_window_cap=str(10**9 * ETHER),
            network_fee_window_cap=str(10**9 * ETHER),
        )
        yield made
        made.journal.close()


def honest(bench: EvmBench, form: str) -> SignRequest:
    """A request that is signed."""
    draft = {
        "native": lambda: bench.draft(ETHER),
        "token": lambda: bench.draft(1_000_000, asset="USDX"),
        "batch": lambda: EvmDraft(
            [bench.world.order(n, destination=named_address(f"payee {n}")) for n in (1000, 2000, 2000)],
            gas_limit=300_000,
        ),
        "sweep": lambda: bench.world.sweep([0, 2], [USDX, FEEX]),
        "fill": lambda: bench.world.fill(),
    }[form]()
    # Another price each time, or it would be a transaction that was signed for other intents before.
    draft.max_fee_wei += next(PRICES)
    return _decided(bench, draft)


def _decided(bench: EvmBench, draft: EvmDraft) -> SignRequest:
    intents = draft.intents or [bench.world.intent(order) for order in draft.orders]
    draft.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in intents]
    return bench.world.request(draft)


def effect(tx: UnsignedTx) -> tuple[Any, ...]:
    """What a transaction does, whatever it may cost and at which place in the queue."""
    return tx.chain_id, tx.to, tx.value_wei, tx.data


def transaction(request: SignRequest) -> UnsignedTx:
    return UnsignedTx.decode(base64.b64decode(request.transaction))


def is_signed(bench: EvmBench, request: SignRequest) -> bool:
    try:
        bench.service.sign(request)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("form", FORMS)
def test_the_honest_requests_are_signed(bench: EvmBench, form: str) -> None:
    assert is_signed(bench, honest(bench, form))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150)
@given(data=st.data())
def test_a_transaction_with_flipped_bytes_is_refused_or_has_the_same_effect(
    bench: EvmBench, form: str, data: st.DataObject
) -> None:
    request = honest(bench, form)
    raw = bytearray(base64.b64decode(request.transaction))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(bytes(raw)).decode())
    if is_signed(bench, changed):
        before, after = transaction(request), transaction(changed)
        assert effect(after) == effect(before)
        assert after.max_fee_wei <= int(bench.world.bundle(2).networks[0].fee_cap)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_transaction_with_one_other_field_is_refused_or_has_the_same_effect(
    bench: EvmBench, form: str, data: st.DataObject
) -> None:
    request = honest(bench, form)
    tx = transaction(request)
    name = data.draw(st.sampled_from(["chain_id", "nonce", "gas_limit", "to", "value_wei", "data"]))
    value: Any = data.draw(
        {
            "to": st.sampled_from([USDX, FEEX]).map(lambda text: bytes.fromhex(text[2:]))
            | st.binary(min_size=20, max_size=20),
            "data": st.binary(max_size=200) | st.just(tx.data + bytes(32)) | st.just(tx.data[:-32]),
        }.get(name, st.integers(1, 300) | st.integers(1, 2**64 - 2))
    )
    other = replace(tx, **{name: value})
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(other.encode()).decode())
    if is_signed(bench, changed):
        assert effect(transaction(changed)) == effect(tx)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60)
@given(data=st.data())
def test_an_intent_with_one_other_field_is_refused_or_is_of_the_same_effect(
    bench: EvmBench, form: str, data: st.DataObject
) -> None:
    request = honest(bench, form)
    at = data.draw(st.integers(0, len(request.intents) - 1))
    changed_intent = _mutated(request.intents[at], data)
    intents = [changed_intent if here == at else old for here, old in enumerate(request.intents)]
    changed = msgspec.structs.replace(request, intents=tuple(intents))
    if is_signed(bench, changed):
        # Only the house's own may get another name, and only as it has no order that would know it.
        assert changed_intent.kind is not Kind.PAYMENT or changed_intent == request.intents[at]
        same = msgspec.structs.replace(changed_intent, id=request.intents[at].id)
        assert same == request.intents[at]


@pytest.mark.parametrize("form", ["native", "token", "batch"])
@settings(max_examples=60)
@given(data=st.data())
def test_an_order_with_one_other_field_is_refused(bench: EvmBench, form: str, data: st.DataObject) -> None:
    request = honest(bench, form)
    signed = request.evidence.orders[0]
    order = _mutated(signed.order, data)
    if order != signed.order:
        lie = msgspec.structs.replace(signed, order=order)
        assert not is_signed(bench, bench.with_orders(request, lie, *request.evidence.orders[1:]))


def _mutated(document: Any, data: st.DataObject) -> Any:
    """A document with one field taken from a like one: of the right form, but another value."""
    assert isinstance(document, Document)
    values: dict[str, st.SearchStrategy[Any]] = {
        "id": st.uuids().map(str),
        "kind": st.sampled_from(Kind),
        "chain": st.sampled_from(["ethereum-devnet", "polygon-devnet", "bitcoin-regtest"]),
        "keyset": st.sampled_from(["eth-hot", "xeth-hot", "btc-hot"]),
        "tier": st.sampled_from(["hot", "warm", "cold"]),
        "asset": st.sampled_from(["ETH", "USDX", "FEEX", "XETH", "BTC"]),
        "destination": st.sampled_from(["mallory", "payee 2000", "usdx"]).map(named_address),
        "amount": st.integers(0, 10**30).map(str),
        "order": st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
        "policy_version": st.integers(1, 5),
        "change": st.builds(
            TreasuryChange,
            step=st.sampled_from(["propose", "accept"]),
            treasury=st.sampled_from(["mallory", "payee 2000"]).map(named_address),
        )
        | st.just(msgspec.UNSET),
        "caller": st.sampled_from(["exchange", "reader", "nobody"]),
        "customer": st.sampled_from(["alice", "mallory"]),
        "fee_ceiling": st.integers(0, 10**20).map(str),
        "expires_at": st.integers(0, 2**40),
    }
    name = data.draw(st.sampled_from([n for n in type(document).__struct_fields__ if n in values]))
    return msgspec.structs.replace(document, **{name: data.draw(values[name])})


def test_every_field_of_an_intent_is_mutated_above() -> None:
    assert set(Intent.__struct_fields__) == {
        "v", "kind", "id", "chain", "keyset", "tier", "asset", "destination", "amount", "order", "policy_version",
        "change",
    }  # fmt: skip
