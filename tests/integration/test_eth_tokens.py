"""Looking at tokens before they are listed: real code on a real node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.eth.address import checksummed, raw_address
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode, inspect_token
from ops.devnet.anvil import Anvil
from tests.support.evm import deploy, mined, outside_artifact


@pytest.fixture
def node(anvil: Anvil) -> Iterator[EvmNode]:
    network = EthNetwork(anvil.chain_id, anvil.block_hash(0)[2:], NativeMode.TRACE)
    adapter = EvmNode("ethereum-devnet", network, anvil.rpc_url, tokens=tuple)
    yield adapter
    adapter.close()


@pytest.mark.parametrize("decimals", [0, 6, 18, 24])
def test_a_plain_token_has_its_decimals_and_no_traits(anvil: Anvil, node: EvmNode, decimals: int) -> None:
    token = deploy(anvil, anvil.accounts()[0], outside_artifact("Token"), "T", "T", decimals)
    report = inspect_token(node, token.address)
    assert (report.decimals, report.traits, report.obstacles) == (decimals, (), ())


@pytest.mark.parametrize(
    ("name", "arguments", "trait"),
    [
        ("NoReturnToken", (), "no-return"),
        ("FeeToken", (100,), "fee-on-transfer"),
        ("PausableToken", (), "pausable"),
        ("BlacklistToken", (), "blacklist"),
    ],
)
def test_a_token_that_departs_from_the_standard_is_found_out_and_may_be_listed(
    anvil: Anvil, node: EvmNode, name: str, arguments: tuple[object, ...], trait: str
) -> None:
    token = deploy(anvil, anvil.accounts()[0], outside_artifact(name), *arguments)
    report = inspect_token(node, token.address)
    assert report.traits == (trait,)
    assert any(reason.startswith(trait) for reason in report.reasons)
    assert report.obstacles == ()


def test_a_rebasing_token_cannot_be_listed(anvil: Anvil, node: EvmNode) -> None:
    token = deploy(anvil, anvil.accounts()[0], outside_artifact("RebasingToken"))
    report = inspect_token(node, token.address)
    assert "rebasing" in report.traits
    assert any("rebasing" in obstacle for obstacle in report.obstacles)


def test_behind_a_proxy_the_real_code_is_looked_at(anvil: Anvil, node: EvmNode) -> None:
    sender = anvil.accounts()[0]
    token = deploy(anvil, sender, outside_artifact("PausableToken"))
    runtime = bytes.fromhex("363d3d373d3d3d363d73") + raw_address(token.address)
    runtime += bytes.fromhex("5af43d82803e903d91602b57fd5bf3")
    clone = bytes.fromhex("3d602d80600a3d3981f3") + runtime
    address = mined(anvil, anvil.transact(sender, None, clone, gas=1_000_000))["contractAddress"]
    report = inspect_token(node, checksummed(bytes.fromhex(address[2:])))
    assert report.traits == ("pausable",)
    assert any("code can be changed" in reason for reason in report.reasons)


def test_what_is_no_token_cannot_be_listed(anvil: Anvil, node: EvmNode) -> None:
    nobody = inspect_token(node, checksummed(b"\x99" * 20))
    assert nobody.obstacles == ("there is no contract at this address",)
    wallet = deploy(anvil, anvil.accounts()[0], outside_artifact("ContractWallet"))
    assert len(inspect_token(node, wallet.address).obstacles) == 2
    eater = deploy(anvil, anvil.accounts()[0], outside_artifact("GasEatingToken"))
    assert inspect_token(node, eater.address).decimals is None
