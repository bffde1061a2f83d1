"""Whatever people outside do, in whatever blocks: each arrival counts once, in both native modes, to the wei.

The truth is the chain's own: what a forwarder holds in the end, and what its flushes sent to the treasury.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.eth.address import raw_address
from chains.eth.contracts import artifact
from chains.eth.forwarder import agreed_forwarder
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.watch import WatchedSenders
from chains.ports import Observation
from chains.types import BlockRef
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, mined, outside_artifact, salt

ETHER = 10**18
FORWARDERS = 3
KINDS = (
    "plain",
    "by transfer",
    "by call",
    "many",
    "in vain",
    "reverted",
    "bequest",
    "token",
    "fee",
    "rogue",
    "flush",
)

actions = st.tuples(st.sampled_from(KINDS), st.integers(0, FORWARDERS - 1), st.integers(0, 1_000_000))
blocks = st.lists(st.lists(actions, max_size=6), min_size=1, max_size=4)


class Street:
    """People outside, some forwarders, and a reader in each mode."""

    def __init__(self, anvil: Anvil) -> None:
        self.anvil = anvil
        self.key, self.payer, self.stranger, admin, *_ = anvil.accounts()
        self.factory = deploy(anvil, self.payer, artifact("ForwarderFactory"), self.key, admin)
        self.wallet = deploy(anvil, self.payer, outside_artifact("ContractWallet"))
        self.plain = deploy(anvil, self.payer, outside_artifact("Token"), "T", "T", 0)
        self.fee = deploy(anvil, self.payer, outside_artifact("FeeToken"), 300)
        self.rogue = deploy(anvil, self.payer, outside_artifact("RogueLogs"))
        self.tokens = [self.plain, self.fee, self.rogue]
        mined(anvil, anvil.send_eth(self.payer, self.wallet.address, 1_000 * ETHER))
        for token in (self.plain, self.fee):
            token.do(self.payer, "mint", self.payer, 10**24)
        network = (anvil.chain_id, anvil.block_hash(0)[2:])
        self.nodes = {
            mode: EvmNode(
                "ethereum-devnet",
                EthNetwork(*network, mode),
                anvil.rpc_url,
                tokens=lambda: [token.address for token in self.tokens],
            )
            for mode in NativeMode
        }
        self.first_index = 0

    def fresh(self) -> list[str]:
        """Forwarders that nobody has used."""
        start, self.first_index = self.first_index, self.first_index + FORWARDERS
        code = self.factory.call("initcodeHash").hex()
        return [agreed_forwarder(self.factory.address, code, start + n) for n in range(FORWARDERS)]

    def act(self, kind: str, to: str, units: int, forwarders: list[str]) -> None:
        """One transaction of somebody, for the next block."""
        outside = self.anvil
        if kind == "plain":
            outside.transact(self.payer, to, value_wei=units, gas=100_000)
        elif kind == "by transfer":
            self._send(self.wallet, "payByTransfer", to, units)
        elif kind == "by call":
            self._send(self.wallet, "payByCall", to, units, b"")
        elif kind == "many":
            self._send(self.wallet, "payMany", [to, *forwarders, to], [units] * (len(forwarders) + 2))
        elif kind == "in vain":
            self._send(self.wallet, "payInVain", to, units)
        elif kind == "reverted":
            self._send(self.wallet, "payAndRevert", to, units)
        elif kind == "bequest":
            data = outside_artifact("Bequest").bytecode + raw_address(to).rjust(32, b"\0")
            outside.transact(self.payer, None, data, value_wei=units, gas=300_000)
        elif kind == "token":
            self._send(self.plain, "transfer", to, units)
        elif kind == "fee":
            self._send(self.fee, "transfer", to, units)
        elif kind == "rogue":
            self._send(self.rogue, "pretend", self.payer, to, units)
        else:
            index = self.first_index - FORWARDERS + forwarders.index(to)
            tokens = [token.address for token in self.tokens]
            data = self.factory.data("flush", [salt(index)], tokens)
            outside.transact(self.stranger, self.factory.address, data, gas=2_000_000)

    def _send(self, contract: Contract, function: str, *arguments: object) -> None:
        data = contract.data(function, *arguments)
        self.anvil.transact(self.payer, contract.address, data, gas=500_000)

    def observe(self, mode: NativeMode, forwarders: list[str]) -> tuple[BlockRef, Observation]:
        node = self.nodes[mode]
        scripts = {raw_address(self.key), *map(raw_address, forwarders)}
        tip = node.tip()
        return tip, node.observe_block(tip, scripts, WatchedSenders([self.key]))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    with Anvil(tmp_path_factory.mktemp("eth-properties-anvil")) as anvil:
        yield Street(anvil)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planned=blocks)
def test_all_that_arrives_counts_once_and_nothing_else_does(
    street: Street, planned: list[list[tuple[str, int, int]]]
) -> None:
    forwarders = street.fresh()
    seen: dict[NativeMode, Counter[tuple[bytes, str | None]]] = {mode: Counter() for mode in NativeMode}
    names: dict[NativeMode, list[str]] = {mode: [] for mode in NativeMode}
    treasury_before = _holdings(street, street.key)
    for block in planned:
        for kind, which, units in block:
            street.act(kind, forwarders[which], units, forwarders)
        street.anvil.mine()
        for mode in NativeMode:
            _, found = street.observe(mode, forwarders)
            assert found.consumptions == (), "the key did nothing"
            for receipt in found.receipts:
                seen[mode][receipt.script, receipt.contract] += receipt.units
                names[mode].append(receipt.resource)
    for mode in NativeMode:
        assert len(set(names[mode])) == len(names[mode])
    assert seen[NativeMode.TRACE] == seen[NativeMode.BALANCE]

    swept = {asset: units - treasury_before[asset] for asset, units in _holdings(street, street.key).items()}
    totals = dict.fromkeys(swept, 0)
    for (_, contract), units in seen[NativeMode.TRACE].items():
        totals[contract] += units
    for asset, units in swept.items():
        held = sum(_holdings(street, forwarder)[asset] for forwarder in forwarders)
        if asset == street.fee.address:
            # A flush costs its fee again, which is the house's: at most 3 % of what was swept, rounded up each time.
            assert held + units <= totals[asset] <= held + -(-units * 100 // 97) + len(planned) * 6
        else:
            assert totals[asset] == held + units


def _holdings(street: Street, address: str) -> dict[str | None, int]:
    node, raw = street.nodes[NativeMode.TRACE], raw_address(address)
    assets: list[str | None] = [None, *(token.address for token in street.tokens)]
    return dict(zip(assets, node.balances([(raw, asset) for asset in assets], node.tip()), strict=True))
