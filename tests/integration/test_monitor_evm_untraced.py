"""Blocks whose traces no node gives, for somebody made them long: native deposits in them are found by balances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chains.errors import NodeUnavailable
from chains.eth.network import NativeMode
from chains.eth.node import reader
from custody.monitor.lead import lock_name
from custody.monitor.rescan import Added, rescan
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import CHAIN, ETHER, EvmDesk, Outside, open_evm_desk
from tests.support.evm import deploy, outside_artifact, salt

UNITS = ETHER // 2
LIMIT_BYTES = 1024 * 1024
CALLS, CALL_BYTES = 40, 16 * 1024


class Crowd(Outside):
    """People outside, and somebody who wants no block to be read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bomb = deploy(self.node, self.payer, outside_artifact("TraceBomb"))

    def explode(self) -> str:
        """Waits for the next block, like all payments here; returns its txid."""
        data = self.bomb.data("explode", CALLS, CALL_BYTES)
        return self.node.transact(self.node.accounts()[2], self.bomb.address, data, gas=200_000)

    def pay_from_a_contract(self, to: str, units: int) -> str:
        data = self.wallet.data("payByTransfer", to, units)
        return self.node.transact(self.payer, self.wallet.address, data, gas=200_000)[2:]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("monitor-evm-untraced")) as node:
        yield Crowd(node, NativeMode.TRACE)


@pytest.fixture
def desk(database: str, outside: Crowd, monkeypatch: pytest.MonkeyPatch) -> Iterator[EvmDesk]:
    monkeypatch.setattr(reader, "TRACE_LIMITS", replace(reader.TRACE_LIMITS, size_bytes=LIMIT_BYTES))
    with open_evm_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def alice(desk: EvmDesk) -> str:
    return desk.customer("alice")


def modes(desk: EvmDesk, *heights: int) -> list[str | None]:
    rows = {row["height"]: row["native_mode"] for row in desk.query("SELECT height, native_mode FROM blocks")}
    return [rows[height] for height in heights]


def run_rescan(desk: EvmDesk, height: int) -> Added:
    with desk.db.session() as session:
        assert session.try_lock(lock_name(CHAIN))
        return rescan(
            desk.adapter, session, desk.bundle, desk.screening, height, resource_set=desk._resource_set
        )


def test_a_bomb_costs_little_gas_and_its_traces_are_long(desk: EvmDesk, outside: Crowd) -> None:
    txid = outside.explode()
    outside.node.mine()
    receipt = outside.node.receipt(txid)
    assert receipt is not None
    assert int(receipt["gasUsed"], 16) < 50_000
    traces = outside.node.rpc("trace_block", receipt["blockNumber"])
    assert sum(len(trace["action"]["input"]) for trace in traces) > LIMIT_BYTES


def test_a_deposit_in_a_block_without_traces_is_credited_once_and_the_next_blocks_are_traced(
    desk: EvmDesk, outside: Crowd, alice: str
) -> None:
    address = desk.address(alice).address
    start = outside.node.height()
    outside.explode()
    outside.pay_from_a_contract(address, UNITS)
    outside.send("ETH", address, 2 * UNITS)
    outside.send("USDX", address, 7_000_000)
    desk.mine()
    block = outside.node.block_hash(start + 1)[2:]
    native = next(each for each in desk.deposits() if each.asset == "ETH")
    assert (native.resource, native.units, native.state) == (f"{block}:{address}", 3 * UNITS, "confirming")
    later = outside.send("ETH", address, UNITS)
    desk.mine()
    assert desk.deposit(later).resource == f"{later}:trace:"
    assert modes(desk, start + 1, start + 2) == ["balance", "trace"]
    [alert] = desk.query("SELECT * FROM alerts WHERE type = 'block.untraced'")
    assert (alert["severity"], alert["subject"]) == ("warning", CHAIN)
    assert block in alert["message"]
    desk.finalize()
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (4 * UNITS, 7_000_000)
    desk.exact()
    before = desk.contents()
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before


def test_a_rescan_reads_each_block_the_way_it_was_read_and_adds_nothing(
    desk: EvmDesk, outside: Crowd, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = desk.address(alice).address
    start = outside.node.height()
    outside.explode()
    outside.send("ETH", address, UNITS)
    desk.mine()
    outside.send("ETH", address, 2 * UNITS)
    desk.finalize()
    before = desk.contents()
    assert run_rescan(desk, start + 1) == Added()
    with monkeypatch.context() as patched:
        # Another node, which gives the long traces too.
        patched.setattr(reader, "TRACE_LIMITS", replace(reader.TRACE_LIMITS, size_bytes=2**30))
        assert run_rescan(desk, start + 1) == Added()
        # And one that gives none: what was read by traces is not read by balances now.
        patched.setattr(reader, "TRACE_LIMITS", replace(reader.TRACE_LIMITS, size_bytes=100))
        with pytest.raises(NodeUnavailable):
            run_rescan(desk, start + 1)
    desk.catch_up()
    assert desk.contents() == before
    assert desk.balance(alice) == 3 * UNITS
    desk.exact()


def test_the_block_where_following_began_is_read_by_the_first_rescan_and_the_same_way_by_the_next(
    desk: EvmDesk, outside: Crowd, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = desk.address(alice)
    outside.explode()
    outside.send("ETH", row.address, UNITS)
    outside.node.mine()
    height = outside.node.height()
    desk.execute("DELETE FROM cursors; DELETE FROM receipts; DELETE FROM blocks")
    desk.options = replace(desk.options, start_height=height)
    desk.restart()
    desk.finalize()
    assert (modes(desk, height), desk.deposits()) == ([None], [])
    assert run_rescan(desk, height) == Added(receipts=1, deposits=1)
    assert modes(desk, height) == ["balance"]
    monkeypatch.setattr(reader, "TRACE_LIMITS", replace(reader.TRACE_LIMITS, size_bytes=2**30))
    assert run_rescan(desk, height) == Added()
    assert desk.balance(alice) == UNITS
    desk.exact()


@pytest.mark.parametrize("again", [NativeMode.TRACE, NativeMode.BALANCE])
@pytest.mark.parametrize("first", [NativeMode.TRACE, NativeMode.BALANCE])
@pytest.mark.parametrize("undone", ["orphaned", "clawed_back"])
def test_a_payment_that_a_reorg_moves_to_another_block_is_credited_once_however_both_are_read(
    desk: EvmDesk, outside: Crowd, alice: str, first: NativeMode, again: NativeMode, undone: str
) -> None:
    address = desk.address(alice).address
    start = outside.node.height()
    if first is NativeMode.BALANCE:
        outside.explode()
    paid = outside.send("ETH", address, UNITS)
    if undone == "clawed_back":
        desk.finalize()
        assert desk.balance(alice) == UNITS
    else:
        desk.mine()
    assert modes(desk, start + 1) == [first]
    raw = str(outside.node.rpc("eth_getRawTransactionByHash", "0x" + paid))
    desk.reorg(outside.node.height() - start)
    assert (desk.states(), desk.balance(alice)) == ([undone], 0)
    assert modes(desk, start + 1) == ["trace"]
    desk.exact()
    desk.send_again([raw])
    if again is NativeMode.BALANCE:
        outside.explode()
    outside.node.mine()
    height = outside.node.height()
    desk.finalize()
    assert modes(desk, height) == [again]
    assert (desk.balance(alice), desk.states().count("credited")) == (UNITS, 1)
    desk.exact()
    before = desk.contents()
    assert run_rescan(desk, start + 1) == Added()
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before


def test_a_flush_our_own_payments_and_gas_money_in_such_a_block_reconcile(
    desk: EvmDesk, outside: Crowd, alice: str
) -> None:
    row = desk.address(alice)
    outside.send("ETH", row.address, 2 * UNITS)
    desk.fund_gas(3 * ETHER)
    outside.explode()
    outside.send("ETH", row.address, UNITS)
    data = desk.factory.data("flush", [salt(row.index)], [])
    outside.node.transact(outside.payer, desk.factory.address, data, gas=1_000_000)
    outside.send("ETH", desk.evm_keys.address, ETHER)
    desk.pay(alice, "ETH", UNITS // 2, outside.node.accounts()[7])
    desk.finalize()
    desk.track()
    assert desk.enforce().ok
    assert desk.balance(alice) == 3 * UNITS - UNITS // 2
    assert desk.balance(None, "suspense") == 4 * ETHER, "gas money there is a surplus"
    assert desk.halted() is None
    desk.exact()
