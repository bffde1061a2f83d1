"""One limit over all assets of a signer's hot key-sets, whatever each asset's own caps allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import Breaker, PriceBound
from signers.guard.limits import worth
from tests.fakes.evm_signing import EVM_KEYSET, GWEI, EvmDraft, EvmWorld, SoftEvmKeys
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY

PRICES = (
    PriceBound(asset="ETH", low="100000", high="500000"),
    PriceBound(asset="USDX", low="99", high="101"),
    PriceBound(asset="FEEX", low="1", high="1"),
    PriceBound(asset="XETH", low="100000", high="500000"),
)
"""In cents: 5,000.00 for one ETH, 1.01 for one USDX."""
WORLD = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", 31338).record)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def limited(bench: EvmBench, cents: int, *keysets: str, seconds: int = DAY) -> None:
    """Adopt version 2, with a breaker over these key-sets."""
    breaker = Breaker(
        id="all", keysets=keysets or (EVM_KEYSET, "xeth-hot"), value_cap=str(cents), window_seconds=seconds
    )
    bench.adopt(2, breakers=(breaker,), prices=PRICES)


def paying(bench: EvmBench, units: int, asset: str = "ETH", *, nonce: int = 0) -> EvmDraft:
    """A payment under version 2, whose fee of at most 60,000 * 20 gwei is worth 6.00."""
    draft = bench.draft(units, asset=asset, nonce=nonce, max_fee_wei=20 * GWEI)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    return draft


def test_assets_that_are_each_below_their_caps_are_stopped_together(bench: EvmBench) -> None:
    # 0.1 ETH: 500.00 and a fee of 6.00; 400 USDX: 404.00 and 6.00.
    limited(bench, 91_600)
    assert bench.signatures(bench.world.request(paying(bench, 10**17)))
    assert bench.signatures(bench.world.request(paying(bench, 400 * 10**6, "USDX", nonce=1)))
    assert bench.codes(bench.world.request(paying(bench, 1, nonce=2))) == {"value-cap"}
    bench.restart()
    assert bench.codes(bench.world.request(paying(bench, 1, nonce=2))) == {"value-cap"}


def test_a_cent_above_the_breaker_is_too_much(bench: EvmBench) -> None:
    limited(bench, 50_599)
    assert bench.codes(bench.world.request(paying(bench, 10**17))) == {"value-cap"}


def test_fees_of_the_houses_own_transactions_count_under_the_breaker(bench: EvmBench) -> None:
    limited(bench, 150)  # 21,000 * 20 gwei are worth 2.10
    fill = bench.world.fill()
    fill.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in fill.intents]
    assert bench.codes(bench.world.request(fill)) == {"value-cap"}


def test_without_a_breaker_over_its_key_set_nothing_is_signed(bench: EvmBench) -> None:
    limited(bench, 10**9, "xeth-hot")
    assert bench.codes(bench.world.request(paying(bench, 1))) == {"no-breaker"}


def test_a_breaker_over_key_sets_of_other_signers_lets_nothing_through(bench: EvmBench) -> None:
    other = bench.world.keyset_entry(bench.world.record, id="elsewhere", tier="cold")
    breaker = Breaker(id="all", keysets=(EVM_KEYSET, "elsewhere"), value_cap=str(10**30), window_seconds=DAY)
    keysets = (*bench.world.bundle().keysets, other)
    bench.adopt(2, breakers=(breaker,), prices=PRICES, keysets=keysets)
    assert bench.codes(bench.world.request(paying(bench, 1))) == {"breaker-elsewhere"}


@pytest.mark.parametrize("missing", ["ETH", "USDX"])
def test_without_a_price_of_what_is_paid_and_of_its_fee_nothing_is_paid(
    bench: EvmBench, missing: str
) -> None:
    prices = tuple(price for price in PRICES if price.asset != missing)
    bench.adopt(2, prices=prices)
    assert bench.codes(bench.world.request(paying(bench, 1, "USDX"))) == {"no-price"}


@given(units=st.integers(0, 10**30), high=st.integers(1, 10**12))
def test_what_something_is_worth_is_never_rounded_down(units: int, high: int) -> None:
    bundle = WORLD.bundle(prices=(PriceBound(asset="ETH", low="1", high=str(high)),))
    value = worth(bundle, "ETH", units)
    assert value * 10**18 >= units * high > (value - 1) * 10**18
