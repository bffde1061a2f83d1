"""Suggested fee ceilings: room for the price to double, never beyond the bundle's caps, nothing out of old prices."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.treasury.fees import (
    FRESH_SECONDS,
    HEADROOM,
    NATIVE_GAS,
    PAYMENT_VB,
    TOKEN_GAS,
    Observation,
    suggest,
)
from policies.bundle import Bundle
from tests.fakes.evm_signing import GWEI, OTHER_EVM_CHAIN_ID, EvmWorld, SoftEvmKeys
from tests.fakes.signing import SoftKeys, World

AT = datetime(2026, 3, 2, tzinfo=UTC)
EVM = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", OTHER_EVM_CHAIN_ID).record).bundle()
BTC = World(SoftKeys.make().record).bundle()


def seen(feerate: int, age_seconds: float = 1.0) -> Observation:
    return Observation(feerate, AT, age_seconds)


@pytest.mark.parametrize(
    ("bundle", "asset"), [(bundle, entry.id) for bundle in (BTC, EVM) for entry in bundle.assets]
)
@given(feerate=st.integers(0, 10**15))
def test_no_suggestion_is_beyond_the_cap_of_one_transaction(bundle: Bundle, asset: str, feerate: int) -> None:
    entry = bundle.asset(asset)
    network = bundle.network(entry.chain)
    found = suggest(bundle, entry, seen(feerate))
    assert found.units is not None
    assert 0 < found.units <= int(network.fee_cap)
    assert found.native_asset == network.native_asset
    assert found.reason == ""


def test_an_order_has_room_for_the_price_to_double() -> None:
    eth, usdx = EVM.asset("ETH"), EVM.asset("USDX")
    assert suggest(EVM, eth, seen(3 * GWEI)).units == 3 * GWEI * HEADROOM * NATIVE_GAS
    assert suggest(EVM, usdx, seen(3 * GWEI)).units == 3 * GWEI * HEADROOM * TOKEN_GAS


def test_what_a_customer_pays_for_a_native_withdrawal_may_be_spent_on_it() -> None:
    btc = BTC.asset("BTC")
    paid = int(btc.withdrawal_fee)
    assert suggest(BTC, btc, seen(2_000)).units == max(2_000 * HEADROOM * PAYMENT_VB // 1000, paid)
    assert suggest(BTC, btc, seen(40_000)).units == 40_000 * HEADROOM * PAYMENT_VB // 1000 > paid


@pytest.mark.parametrize(
    ("observation", "why"),
    [
        (None, "no worker has seen yet"),
        (seen(3 * GWEI, FRESH_SECONDS + 1), f"was last seen {FRESH_SECONDS + 1} s ago"),
    ],
)
def test_nothing_is_suggested_without_a_price_or_by_an_old_one(
    observation: Observation | None, why: str
) -> None:
    found = suggest(EVM, EVM.asset("USDX"), observation)
    assert found.units is None
    assert why in found.reason
