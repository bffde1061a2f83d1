"""What the treasury sees and proposes on an EVM chain: a gas payer that runs low is topped up, out of hot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from chains.eth.network import NativeMode
from custody.treasury import fees, observing, repository, service
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import ETHER, GWEI
from tests.fakes.evm_signing import EVM_KEYSET
from tests.fakes.safe_till import GAS_PAYER, VAULT, SafeOutside, SafeTill
from tests.fakes.teller import opened


@pytest.fixture
def till(database: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeTill]:
    with Anvil(tmp_path_factory.mktemp("treasury-evm")) as node:
        outside = SafeOutside(node, NativeMode.TRACE)
        with opened(SafeTill(database, outside, tmp_path)) as till:
            till.fund()
            till.fund_safe(ETH=40 * ETHER)
            yield till


def test_a_gas_payer_that_runs_low_is_topped_up_and_gas_for_payments_stays_with_the_hot_key(
    till: SafeTill,
) -> None:
    held = till.in_wallet(GAS_PAYER)
    [payer] = till.bundle.gas_payers
    larger = msgspec.structs.replace(payer, holding_cap=str(10 * held + 10))
    bundle = msgspec.structs.replace(till.bundle, gas_payers=(larger,))
    with till.db.transaction() as tx:
        fees.observe(tx, till.chain, GWEI)
    with till.db.snapshot() as tx:
        [seen] = observing.payers(tx, bundle)
        found = {state.asset: state for state in observing.states(tx, bundle)}
    assert (seen.wallet, seen.held_units) == (GAS_PAYER, held)
    hot, safe = found["ETH"].tiers["hot"], found["ETH"].tiers["warm"]
    assert (hot.wallet, hot.present_units) == (EVM_KEYSET, till.in_wallet(EVM_KEYSET))
    assert (safe.wallet, safe.present_units) == (VAULT, till.in_wallet(VAULT))
    assert hot.reserve_units > 0 == safe.reserve_units
    assert service.propose_due(till.db, bundle, now=int(time.time())) == 1
    assert service.propose_due(till.db, bundle, now=int(time.time())) == 0, "again changes nothing"
    with till.db.snapshot() as tx:
        [refill] = repository.page(tx, limit=9)
    assert (refill.source, refill.target, refill.why) == (EVM_KEYSET, GAS_PAYER, "gas")
    assert refill.units == min(9 * held + 10, hot.free_units)
    assert refill.destination == larger.address
