"""Workers write down what their nodes say a payment costs, by the step that replaces transactions; again and again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from custody.ports import Step
from custody.treasury.fees import observed, suggest
from custody.workers.steps import run
from ops.devnet.anvil import Anvil
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, GWEI
from tests.fakes.sweep_till import SweepOutside, open_sweep_till
from tests.fakes.till import Till


def look(till: Any) -> None:
    services: Any = SimpleNamespace(database=till.db, wallets=lambda: [till.site])
    run(Step.BUMP, services)


def test_the_estimate_of_a_bitcoin_node_within_the_bundles_bounds(till: Till) -> None:
    look(till)
    with till.db.snapshot() as tx:
        seen = observed(tx)[till.site.chain]
    assert till.site.network.feerate_floor <= seen.feerate <= till.site.network.feerate_cap
    assert seen.age_seconds < 60
    before = till.query("SELECT * FROM fee_observations")
    look(till)
    assert till.query("SELECT * FROM fee_observations") == before, "the same price again changes nothing"


def test_gas_of_an_evm_chain_as_it_rises(database: str, anvil: Anvil, tmp_path: Path) -> None:
    with open_sweep_till(database, SweepOutside(anvil), tmp_path) as till:
        look(till)
        anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(7 * GWEI))
        till.mine()
        look(till)
        price = till.node.gas_price()
        with till.db.snapshot() as tx:
            seen = observed(tx)[EVM_CHAIN]
        assert seen.feerate == price.now_wei > 5 * GWEI
        token = suggest(till.bundle, till.bundle.asset("USDX"), seen)
        assert token.native_asset == "ETH"
        assert 0 < (token.units or 0) < ETHER
