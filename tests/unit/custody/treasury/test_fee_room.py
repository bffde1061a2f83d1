"""A Bitcoin vault keeps the fee of the next refill: one that asked for its last satoshi could never be built."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from custody.treasury.fees import Observation
from custody.treasury.observing import REFILL_KVB, fee_room
from custody.treasury.planner import AssetState, Fees, TierState, plan
from policies.bundle import Bundle, Tier
from policies.rules import Holding
from tests.fakes.safe_signing import SafeWorld
from tests.fakes.signing import CHAIN, SoftKeys, World

BTC = 10**8
HOLDINGS = (
    Holding(tiers=("hot",), asset="BTC", at_most=str(100 * BTC), share=10_000, refill_below=30),
    Holding(tiers=("hot", "warm"), asset="BTC", at_most=str(1_100 * BTC), share=10_000),
)


def bundle(**changes: int | str) -> Bundle:
    found = World(SoftKeys.make().record).bundle()
    [network] = found.networks
    return msgspec.structs.replace(found, networks=(msgspec.structs.replace(network, **changes),))


def room(found: Bundle, feerate: int | None) -> int:
    seen = {} if feerate is None else {CHAIN: Observation(feerate, datetime.now(UTC), 0.0)}
    return fee_room(found, found.asset("BTC"), seen)


def test_it_is_the_fee_of_many_coins_at_the_present_price_within_the_networks_bounds() -> None:
    found = bundle(feerate_floor=1_000, feerate_cap=50_000, fee_cap=str(BTC))
    assert room(found, 20_000) == REFILL_KVB * 20_000
    assert room(found, 1) == REFILL_KVB * 1_000, "never below what is relayed"
    assert room(found, 900_000) == REFILL_KVB * 50_000, "never above what is signed for"
    assert room(found, None) == REFILL_KVB * 1_000, "while no price was seen"


def test_no_refill_may_cost_more_than_its_fee_cap_so_no_more_is_kept() -> None:
    assert room(bundle(feerate_floor=1_000, feerate_cap=50_000, fee_cap="77000"), 50_000) == 77_000


def test_who_carries_out_a_safes_refill_pays_its_gas() -> None:
    found = SafeWorld.make().bundle()
    assert fee_room(found, found.asset("ETH"), {}) == 0


@pytest.mark.parametrize("kept", [0, 500_000])
def test_a_plan_takes_all_but_what_is_kept(kept: int) -> None:
    """The hot wallet needs more than the vault has."""
    tiers: dict[Tier, TierState] = {
        "hot": TierState(tier="hot", wallet="btc-hot", present_units=0),
        "warm": TierState(tier="warm", wallet="btc-warm", present_units=3 * BTC, reserve_units=kept),
        "cold": TierState(tier="cold", wallet="btc-cold", present_units=0),
    }
    state = AssetState(
        asset="BTC", holdings=HOLDINGS, fees=Fees(1_000, 10_000), tiers=tiers, total_units=500 * BTC
    )
    up = [
        each
        for each in plan((state,), (), lambda asset, units: f"{units} {asset}")
        if each.target == "btc-hot"
    ]
    assert [each.units for each in up] == [3 * BTC - kept]
