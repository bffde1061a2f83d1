"""Chains whose node has no traces: native deposits are what a forwarder's balance gained in a block, net of flushes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.eth.network import NativeMode
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import ETHER, EvmDesk, Outside, open_evm_desk
from tests.support.evm import salt

UNITS = ETHER // 2


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("monitor-evm-balance")) as node:
        yield Outside(node, NativeMode.BALANCE)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[EvmDesk]:
    with open_evm_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def alice(desk: EvmDesk) -> str:
    return desk.customer("alice")


def paid_from_a_contract(outside: Outside, to: str, units: int) -> None:
    data = outside.wallet.data("payByTransfer", to, units)
    outside.node.transact(outside.payer, outside.wallet.address, data, gas=200_000)


def test_what_several_payers_bring_in_one_block_is_one_deposit_of_their_sum(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row = desk.address(alice)
    outside.send("ETH", row.address, UNITS)
    paid_from_a_contract(outside, row.address, 2 * UNITS)
    outside.send("USDX", row.address, 7_000_000)
    desk.finalize()
    assert sorted(desk.states()) == ["credited", "credited"]
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (3 * UNITS, 7_000_000)
    desk.exact()
    before = desk.contents()
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before


def test_a_deposit_and_a_flush_in_one_block_are_told_apart(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row = desk.address(alice)
    outside.send("ETH", row.address, UNITS)
    outside.node.transact(
        outside.payer, desk.factory.address, desk.factory.data("flush", [salt(row.index)], []), gas=1_000_000
    )
    # Estimated before the forwarder exists, the gas would not do for paying it.
    outside.node.transact(outside.payer, row.address, value_wei=2 * UNITS, gas=100_000)
    desk.finalize()
    assert outside.node.balance_wei(desk.evm_keys.address) == UNITS, "the flush came after the first"
    assert desk.balance(alice) == 3 * UNITS
    desk.exact()


def test_money_for_gas_is_a_surplus_here_and_payments_and_sweeps_reconcile(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row = desk.address(alice)
    outside.send("ETH", row.address, UNITS)
    outside.send("USDX", row.address, 7_000_000)
    outside.send("ETH", desk.evm_keys.address, 10 * ETHER)
    desk.finalize()
    assert desk.enforce().ok
    assert desk.balance(None, "suspense") == 10 * ETHER
    desk.exact()
    desk.flush([row])
    desk.mine()
    desk.exact()
    desk.pay(alice, "ETH", UNITS // 2, outside.node.accounts()[7])
    desk.pay(alice, "USDX", 1_000_000, outside.node.accounts()[7])
    desk.finalize()
    desk.track()
    desk.exact()
    assert desk.balance(alice, asset="USDX") == 6_000_000
    assert len(desk.deposits()) == 2, "what moves between our own addresses is no deposit"
    assert desk.halted() is None


def test_a_reorg_of_finalised_blocks_reverses_the_credit_and_what_is_mined_again_is_credited_once(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    outside.send("ETH", desk.address(alice).address, UNITS)
    desk.finalize()
    assert desk.balance(alice) == UNITS
    removed = desk.reorg(2 * outside.node.slots_in_an_epoch + 1)
    assert (desk.states(), desk.balance(alice)) == (["clawed_back"], 0)
    desk.exact()
    desk.send_again(removed)
    desk.finalize()
    assert (sorted(desk.states()), desk.balance(alice)) == (["clawed_back", "credited"], UNITS)
    desk.exact()
