"""A Safe is read back from the chain: owners, threshold, code, and all that could act or answer in its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.errors import Reorganised
from chains.eth.abi import address_word
from chains.eth.address import checksummed, raw_address
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.safe import SafeTx
from chains.eth.safe_report import GUARD_SLOT, SafeReport, objections
from chains.types import BlockRef
from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.stack.safes import SafeContracts, check_safe, deploy_contracts, deploy_safe, safe_artifact
from tests.support.evm import Contract, mined, succeeded

MALLORY = checksummed(b"\xee" * 20)


@pytest.fixture(scope="module")
def contracts(anvil: Anvil) -> SafeContracts:
    return deploy_contracts(anvil, anvil.accounts()[0])


@pytest.fixture(scope="module")
def node(anvil: Anvil) -> Iterator[EvmNode]:
    network = EthNetwork(anvil.chain_id, anvil.block_hash(0)[2:], NativeMode.BALANCE)
    made = EvmNode("eth", network, anvil.rpc_url, tokens=lambda: ())
    yield made
    made.close()


@pytest.fixture
def owners(anvil: Anvil) -> list[str]:
    return anvil.accounts()[:3]


@pytest.fixture
def safe(anvil: Anvil, contracts: SafeContracts, owners: list[str]) -> Contract:
    address = deploy_safe(anvil, owners[0], contracts, owners, 1, salt=anvil.height())
    return Contract(anvil, address, safe_artifact("Safe").abi)


def read(node: EvmNode, safe: str) -> SafeReport:
    return node.safes.inspect(raw_address(safe), node.tip())


def administer(safe: Contract, owner: str, function: str, *arguments: object) -> None:
    """Have a Safe change itself; its one owner who must sign sends it, which counts as his signature."""
    tx = SafeTx(raw_address(safe.address), 0, safe.data(function, *arguments), int(safe.call("nonce")))
    signature = address_word(raw_address(owner)) + bytes(32) + b"\x01"
    receipt = mined(
        safe.node, safe.node.transact(owner, safe.address, tx.execution(signature), gas=1_000_000)
    )
    assert succeeded(receipt)


def test_a_fresh_safe_is_what_was_agreed(node: EvmNode, safe: Contract, owners: list[str]) -> None:
    report = read(node, safe.address)
    assert objections(report, [raw_address(owner) for owner in owners], 1) == []
    assert (report.version, report.threshold, report.nonce) == ("1.4.1", 1, 0)
    assert (report.modules, report.guard, report.fallback_handler) == ((), None, None)
    assert set(report.owners) == {raw_address(owner) for owner in owners}


def test_whatever_was_changed_afterwards_is_seen_and_earlier_blocks_are_as_they_were(
    node: EvmNode, safe: Contract, owners: list[str]
) -> None:
    due = [raw_address(owner) for owner in owners]
    fresh = node.tip()
    for function, arguments, word in (
        ("addOwnerWithThreshold", (MALLORY, 1), "is an owner, and should not be"),
        ("enableModule", (MALLORY,), "is a module"),
        ("setFallbackHandler", (MALLORY,), "fallback handler"),
        ("changeThreshold", (2,), "threshold is 2"),
    ):
        administer(safe, owners[0], function, *arguments)
        assert any(word in each for each in objections(read(node, safe.address), due, 1)), function
    assert objections(node.safes.inspect(raw_address(safe.address), fresh), due, 1) == []


def test_a_guard_and_another_singleton_are_seen(
    anvil: Anvil, node: EvmNode, safe: Contract, owners: list[str]
) -> None:
    due = [raw_address(owner) for owner in owners]
    word = "0x" + address_word(raw_address(MALLORY)).hex()
    anvil.rpc("anvil_setStorageAt", safe.address, "0x" + GUARD_SLOT.hex(), word)
    anvil.mine()
    [found] = objections(read(node, safe.address), due, 1)
    assert "is its guard" in found
    anvil.rpc("anvil_setStorageAt", safe.address, "0x" + "00" * 32, word)
    anvil.mine()
    report = read(node, safe.address)
    [found] = objections(report, due, 1)
    assert "official code" in found
    assert report.owners == (), "what foreign code says is not even asked"


def test_an_address_without_code_is_no_safe_and_a_block_that_is_gone_says_nothing(
    node: EvmNode, safe: Contract, owners: list[str]
) -> None:
    [found] = objections(read(node, owners[0]), [], 1)
    assert "no Safe is there" in found
    with pytest.raises(Reorganised):
        node.safes.inspect(raw_address(safe.address), BlockRef(node.tip().height, "ab" * 32))


def test_a_deployment_is_checked_before_it_is_used(
    anvil: Anvil, contracts: SafeContracts, safe: Contract, owners: list[str]
) -> None:
    with pytest.raises(DevnetError, match="threshold is 1, not 2"):
        check_safe(anvil, safe.address, owners, 2)
    swapped = SafeContracts(singleton=contracts.factory, factory=contracts.factory)
    with pytest.raises(DevnetError):
        deploy_safe(anvil, owners[0], swapped, owners, 2)
