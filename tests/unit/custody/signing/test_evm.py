"""Which EVM payments go, with how much gas at which price, and what comes back signed: within everybody's limits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.eth.address import checksummed, parse_address, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.erc20 import decode_transfer
from chains.eth.gas import FeeOffer, GasPrice
from chains.eth.payout import decode_payout
from chains.eth.tx import UnsignedTx
from chains.ports import BroadcastResult, Header, Presence
from chains.types import BlockRef, TxId
from custody.signing.errors import DecodersDisagree, WrongSignature
from custody.signing.evm import finish as finishing
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.finish import finish
from custody.signing.evm.plan import Fitted, plan
from custody.signing.evm.site import EvmSite, evm_site
from custody.signing.model import Version, VersionState
from custody.signing.requests import Payee, house_intent, payment_intents
from policies.intent import Kind
from policies.keys import sign_order
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord
from signers.ports import InputSignature, SignResponse
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    GWEI,
    OTHER_EVM_CHAIN_ID,
    PAYOUT,
    USDX,
    EvmWorld,
    SoftEvmKeys,
    named_address,
)

KEYS = SoftEvmKeys.make()
WORLD = EvmWorld(KEYS.record, SoftEvmKeys.make("xeth-hot", OTHER_EVM_CHAIN_ID).record)
CONTRACT = named_address("a contract")
REFUSER = named_address("a contract that refuses")
PRICE = GasPrice(10 * GWEI, GWEI)


class PlainNode:
    """A node that knows two contracts, and what calls cost. Nothing here asks it for more."""

    def code(self, address: bytes) -> bytes:
        return b"\x60" if checksummed(address) in (CONTRACT, REFUSER, USDX, PAYOUT) else b""

    def estimate_gas(self, call: Call) -> int | Reverted:
        if checksummed(call.to) == REFUSER:
            return Reverted("no")
        if checksummed(call.to) == PAYOUT:
            return 30_000 + 35_000 * len(decode_payout(call.data))
        return 45_000

    def simulate(self, call: Call) -> bytes | Reverted:
        return (1).to_bytes(32, "big")

    def tip(self) -> BlockRef:
        raise AssertionError

    def header_at(self, height: int) -> Header | None:
        raise AssertionError

    def nonce(self, address: bytes, at: BlockRef) -> int:
        raise AssertionError

    def balances(self, wanted: Sequence[tuple[bytes, str | None]], at: BlockRef) -> list[int]:
        raise AssertionError

    def gas_price(self) -> GasPrice:
        raise AssertionError

    def broadcast(self, raw: bytes) -> BroadcastResult:
        raise AssertionError

    def presence(self, txid: TxId) -> Presence:
        raise AssertionError


SITE: EvmSite = evm_site(WORLD.bundle(), EVM_CHAIN, PlainNode())


def payee(
    units: int, asset: str = "ETH", ceiling: int = ETHER // 50, destination: str | None = None
) -> Payee:
    where = destination or named_address(f"{uuid.uuid4()}")
    order = WORLD.order(units, asset=asset, fee_ceiling=str(ceiling), destination=where)
    return Payee(sign_order(order, WORLD.caller), parse_address(where, EVM_CHAIN))


def fitted(payees: Sequence[Payee], available: Mapping[str, int], price: GasPrice = PRICE) -> Fitted:
    found = plan(SITE, payees, price, available).fitted
    assert found is not None
    return found


wanted = st.lists(
    st.tuples(
        st.integers(1, 5 * ETHER),
        st.sampled_from(["ETH", "ETH", "USDX"]),
        st.integers(0, ETHER // 50),
        st.sampled_from([None, None, None, CONTRACT, REFUSER]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80)
@given(wanted, st.integers(0, 20 * ETHER), st.integers(0, 10 * ETHER), st.integers(0, 199), st.integers(0, 5))
def test_a_plan_pays_within_all_limits_and_everybody_who_is_passed_over_has_a_reason(
    asked: list[tuple[int, str, int, str | None]], native: int, tokens: int, base_gwei: int, tip_gwei: int
) -> None:
    payees = [payee(units, asset, ceiling, where) for units, asset, ceiling, where in asked]
    price = GasPrice(base_gwei * GWEI, min(tip_gwei, 200 - base_gwei) * GWEI)
    found = plan(SITE, payees, price, {"ETH": native, "USDX": tokens})
    waiting = [id(each) for each, _ in found.waiting]
    assert len(set(waiting)) == len(waiting)
    if found.fitted is None:
        assert sorted(waiting) == sorted(map(id, payees))
        return
    chosen, fee = found.fitted.payees, found.fitted.gas_limit * found.fitted.offer.max_fee_wei
    assert not {id(each) for each in chosen} & set(waiting)
    assert fee <= sum(each.fee_ceiling for each in chosen)
    assert fee <= int(SITE.network.fee_cap)
    assert price.now_wei <= found.fitted.offer.max_fee_wei <= SITE.network.feerate_cap
    assert found.fitted.gas_limit <= found.fitted.draft.gas_cap
    [asset] = {each.signed.order.asset for each in chosen}
    paid = sum(each.units for each in chosen)
    assert paid + fee <= native if asset == "ETH" else paid <= tokens and fee <= native
    if len(chosen) > 1:
        assert asset == "ETH"
        assert not any(SITE.node.code(each.destination.script) for each in chosen)
    # Older ones that are not in it have a reason, or come with the next transaction of their kind.
    assert chosen[0] in payees


def test_what_is_called_says_exactly_what_the_orders_say() -> None:
    plenty = {"ETH": 100 * ETHER, "USDX": ETHER}
    one = payee(ETHER)
    single = fitted([one], plenty).draft
    assert (single.to, single.value_wei, single.data) == (one.destination.script, ETHER, b"")
    token = payee(7, "USDX")
    transfer = fitted([token], plenty).draft
    assert (transfer.to, transfer.value_wei) == (raw_address(USDX), 0)
    assert decode_transfer(transfer.data).to == token.destination.script
    many = [payee(n + 1) for n in range(3)]
    batch = fitted(many, plenty).draft
    assert (batch.to, batch.value_wei) == (raw_address(PAYOUT), 6)
    assert [p.to for p in decode_payout(batch.data)] == [each.destination.script for each in many]


def test_a_token_payment_needs_native_money_for_its_gas() -> None:
    found = plan(SITE, [payee(7, "USDX")], PRICE, {"ETH": 0, "USDX": 100})
    [(_, reason)] = found.waiting
    assert (found.fitted, reason.code) == (None, "insufficient-hot-funds")
    assert "ETH" in reason.detail


@pytest.mark.parametrize(
    ("ceiling", "code"), [(21_000 * 11 * GWEI - 1, "fee-ceiling"), (21_000 * 11 * GWEI, None)]
)
def test_an_order_that_does_not_pay_what_gas_costs_now_waits(ceiling: int, code: str | None) -> None:
    found = plan(SITE, [payee(ETHER, ceiling=ceiling)], PRICE, {"ETH": 100 * ETHER})
    assert [reason.code for _, reason in found.waiting] == ([] if code is None else [code])
    assert (found.fitted is None) == (code is not None)


# -------------------------------------------------------------------------------------------------------
# what comes back


def recorded(kind: Kind = Kind.PAYMENT) -> Version:
    offer = FeeOffer(20 * GWEI, GWEI)
    if kind is Kind.PAYMENT:
        one = payee(ETHER)
        intents, orders = payment_intents([one], SITE), [one.signed]
        draft = Draft.paying(SITE, [one])
    else:
        intents, orders = (house_intent(SITE, kind, str(uuid.uuid4()), SITE.wallet.address),), []
        draft = Draft.nothing(SITE)
    built = assemble(SITE, draft, intents, orders, nonce=5, gas_limit=21_000, offer=offer)
    return Version(
        transaction_id=uuid.uuid4(),
        version=1,
        request=built.request,
        unsigned=built.unsigned,
        content=built.content,
        resources=frozenset(built.resources),
        signed=None,
        txid=None,
        fee_units=built.fee_units,
        feerate=built.feerate,
        size=built.size,
        state=VersionState.BUILT,
        created_at=datetime.fromtimestamp(0, UTC),
    )


def answer(version: Version, keys: SoftEvmKeys[EvmKeysetRecord] = KEYS) -> SignResponse:
    digest = UnsignedTx.decode(version.unsigned).signing_hash
    signature = normalised(keys.signature(digest), keys.pubkey, digest)
    item = InputSignature(index=0, pubkey=keys.pubkey.hex(), signature=signature.hex())
    return SignResponse(signatures=(item,))


@pytest.mark.parametrize("kind", [Kind.PAYMENT, Kind.NONCE_FILL])
def test_a_signature_makes_bytes_that_two_decoders_read_as_the_recorded_transaction(kind: Kind) -> None:
    version = recorded(kind)
    assert version.resources == {f"{KEYS.record.address.lower()}:5"}
    assert version.fee_units == 21_000 * 20 * GWEI
    raw, txid = SITE.finish(version, answer(version))
    assert len(txid) == 64
    assert raw[0] == 2
    assert finish(version, answer(version), SITE.sender)[1]


def test_signatures_of_another_key_of_another_transaction_or_none_are_refused() -> None:
    version, other = recorded(), recorded()
    for wrong in (
        answer(version, SoftEvmKeys.make()),
        answer(other),
        SignResponse(signatures=()),
        SignResponse(signatures=(*answer(version).signatures, *answer(version).signatures)),
        SignResponse(signatures=(InputSignature(index=0, pubkey=KEYS.pubkey.hex(), signature="00"),)),
        SignResponse(signatures=(InputSignature(index=0, pubkey="00", signature=_text(version)),)),
        SignResponse(
            signatures=(InputSignature(index=1, pubkey=KEYS.pubkey.hex(), signature=_text(version)),)
        ),
    ):
        with pytest.raises(WrongSignature):
            SITE.finish(version, wrong)


def _text(version: Version) -> str:
    return answer(version).signatures[0].signature


def test_nothing_is_sent_that_the_second_decoder_reads_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    version, other = recorded(), recorded(Kind.NONCE_FILL)
    raw = SITE.finish(other, answer(other))[0]
    read = finishing._read_by_eth_account
    monkeypatch.setattr(finishing, "_read_by_eth_account", lambda _: read(raw))
    with pytest.raises(DecodersDisagree):
        SITE.finish(version, answer(version))


def test_every_version_with_a_nonce_conflicts_with_every_other() -> None:
    version = recorded()
    tx = UnsignedTx.decode(version.unsigned)
    dearer = replace(tx, max_fee_per_gas_wei=tx.max_fee_per_gas_wei * 2)
    assert dearer.content != tx.content
    assert dearer.resource(SITE.sender) == tx.resource(SITE.sender)
