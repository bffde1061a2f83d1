"""The monitor on anvil: native and token deposits, finality, reorgs, strange tokens, and uses of our key by others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.eth.network import NativeMode
from chains.eth.node import EvmNode
from custody.monitor.lead import Chain, lead, lock_name
from custody.monitor.rescan import Added, rescan
from custody.screening import cases
from custody.screening.lifecycle import CaseEvent
from ops.devnet.anvil import Anvil
from ops.devnet.process import wait_until
from tests.fakes.evm_desk import CHAIN, ETHER, MINIMUM_WEI, EvmDesk, Outside, open_evm_desk
from tests.fakes.lists import Lists
from tests.support.evm import deploy, outside_artifact, salt, succeeded

UNITS = ETHER // 2
AMOUNTS = {"ETH": UNITS, "USDX": 5_000_000, "NORX": 6_000_000, "FEEX": 10_000}
FEEX_ARRIVED = 9_900


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("monitor-evm")) as node:
        yield Outside(node, NativeMode.TRACE)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[EvmDesk]:
    with open_evm_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def alice(desk: EvmDesk) -> str:
    return desk.customer("alice")


def test_a_deposit_is_confirming_until_its_block_is_final_and_then_credited_once(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    txid = outside.send("ETH", desk.address(alice).address, UNITS)
    desk.mine()
    assert desk.deposit(txid).state == "confirming"
    assert desk.balance(alice) == 0
    desk.exact()
    desk.mine(2 * outside.node.slots_in_an_epoch - 1)
    assert desk.deposit(txid).state == "confirming", "the newest finalised block is the one before"
    desk.mine()
    assert desk.deposit(txid).state == "credited"
    assert desk.balance(alice) == UNITS
    desk.exact()
    before = desk.contents()
    desk.restart()
    desk.mine(3)
    assert desk.contents() == before


def test_one_address_takes_every_listed_asset_of_its_chain(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    address = desk.address(alice).address
    paid = {asset: outside.send(asset, address, units) for asset, units in AMOUNTS.items()}
    desk.finalize()
    for asset, txid in paid.items():
        assert (desk.deposit(txid).asset, desk.deposit(txid).state) == (asset, "credited")
    assert {asset: desk.balance(alice, asset=asset) for asset in paid} == AMOUNTS | {"FEEX": FEEX_ARRIVED}
    desk.exact()


def test_what_is_below_the_minimum_of_its_asset_is_never_credited(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    address = desk.address(alice).address
    outside.send("ETH", address, MINIMUM_WEI - 1)
    outside.send("USDX", address, 999)
    outside.send("USDX", address, 1_000)
    desk.finalize()
    assert sorted(desk.states()) == ["below_minimum", "below_minimum", "credited"]
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (0, 1_000)
    desk.exact()


def test_a_listed_address_is_held_and_credited_when_its_case_is_released(
    database: str, outside: Outside, tmp_path: Path
) -> None:
    lists = Lists(tmp_path)
    with open_evm_desk(database, outside, screening=lists.screening) as desk:
        alice = desk.customer("alice")
        address = desk.address(alice).address
        lists.write(f"{address.lower()},,a court's order,")
        outside.send("USDX", address, 5_000_000)
        desk.finalize()
        assert (desk.states(), desk.alerts()) == (["held"], ["deposit.held"])
        desk.exact()
        with desk.admin.transaction() as tx:
            [case] = cases.page(tx)
            cases.resolve(tx, case.id, CaseEvent.RELEASE, "settled in court", by="test")
        desk.catch_up()
        assert (desk.states(), desk.balance(alice, asset="USDX")) == (["credited"], 5_000_000)
        desk.exact()


@pytest.mark.parametrize(("asset", "units"), [("USDX", 5_000_000), ("ETH", ETHER)])
def test_money_from_a_listed_sender_is_held_whichever_address_it_comes_to(
    database: str, outside: Outside, tmp_path: Path, asset: str, units: int
) -> None:
    lists = Lists(tmp_path)
    lists.write(f"{outside.payer.lower()},,sanctioned,OFAC")
    with open_evm_desk(database, outside, screening=lists.screening) as desk:
        alice = desk.customer("alice")
        outside.send(asset, desk.address(alice).address, units)
        desk.finalize()
        assert desk.states() == ["held"]
        with desk.admin.transaction() as tx:
            [case] = cases.page(tx)
        assert case.findings[0].listed == outside.payer.lower()


def test_what_comes_to_the_keys_own_address_is_nobodys_and_goes_to_suspense(
    desk: EvmDesk, outside: Outside
) -> None:
    desk.fund_gas(3 * ETHER)
    assert desk.states() == ["credited"]
    assert desk.balance(None, "suspense") == 3 * ETHER
    assert desk.alerts() == ["deposit.of_nobody"]
    desk.exact()


def test_finality_moves_the_anchor_and_credits_without_any_new_block(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    """On a real chain a block becomes final by votes; here the node's word on it is held back meanwhile."""
    txid = outside.send("ETH", desk.address(alice).address, UNITS)
    anchor, node = desk.node.anchor, desk.node
    node.anchor = lambda tip: 0  # type: ignore[method-assign]
    desk.finalize()
    assert desk.deposit(txid).state == "confirming"
    node.anchor = anchor  # type: ignore[method-assign]
    assert desk.monitor.step() is False, "no block came"
    assert desk.deposit(txid).state == "credited"
    [cursor] = desk.query("SELECT height, anchor FROM cursors")
    assert cursor["anchor"] == cursor["height"] - 2 * outside.node.slots_in_an_epoch


# ------------------------------------------------------------------------------------------------------ reorgs


def test_fault_7_a_reorg_above_the_finalised_block_goes_back_to_confirming(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row = desk.address(alice)
    paid = [outside.send("ETH", row.address, UNITS), outside.send("USDX", row.address, 7_000_000)]
    desk.mine(2)
    removed = desk.reorg(2)
    assert desk.states() == ["orphaned", "orphaned"]
    assert desk.query("SELECT * FROM receipts") == []
    desk.exact()
    desk.send_again(removed)
    desk.mine()
    assert [desk.deposit(txid).state for txid in paid] == ["confirming", "confirming"]
    desk.finalize()
    assert [(desk.deposit(txid).state, desk.deposit(txid).credits) for txid in paid] == [("credited", 1)] * 2
    assert not desk.frozen(alice)
    assert "chain.deep_reorg" not in desk.alerts()
    desk.exact()


def test_fault_7_a_transaction_that_a_reorg_mines_in_another_block_stays_one_deposit(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    txid = outside.send("USDX", desk.address(alice).address, 7_000_000)
    desk.mine(3)
    first = desk.deposit(txid)
    raw = str(outside.node.rpc("eth_getRawTransactionByHash", "0x" + txid))
    outside.node.reorg(3, instead=[(raw, 1)])
    desk.catch_up()
    again = desk.deposit(txid)
    assert (again.id, again.resource) == (first.id, first.resource)
    assert again.block_hash != first.block_hash
    desk.finalize()
    assert (desk.states(), desk.balance(alice, asset="USDX")) == (["credited"], 7_000_000)
    desk.exact()


def test_fault_8_a_reorg_of_finalised_blocks_reverses_the_credit_freezes_and_alerts(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    address = desk.address(alice).address
    txid = outside.send("ETH", address, UNITS)
    token = outside.send("USDX", address, 7_000_000)
    desk.finalize()
    assert desk.balance(alice) == UNITS
    desk.spend(alice, UNITS // 5)
    removed = desk.reorg(2 * outside.node.slots_in_an_epoch + 1)
    assert (desk.deposit(txid).state, desk.deposit(token).state) == ("clawed_back", "clawed_back")
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (0, 0)
    assert desk.balance(None, "suspense") == -(UNITS // 5), "the shortfall is the house's"
    assert desk.frozen(alice)
    assert {"chain.deep_reorg", "deposit.clawed_back"} <= set(desk.alerts())
    desk.exact()
    desk.send_again(removed)
    desk.finalize()
    assert (desk.deposit(txid).state, desk.deposit(txid).credits) == ("credited", 2)
    assert desk.balance(None, "suspense") == 0
    assert desk.balance(alice) == UNITS - UNITS // 5
    desk.exact()


def test_fault_10_a_deposit_whose_payer_used_the_nonce_otherwise_in_a_reorg_is_reversed(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    node, payer = outside.node, outside.node.accounts()[1]
    nonce = int(node.rpc("eth_getTransactionCount", payer, "latest"), 16)
    txid = node.transact(payer, desk.address(alice).address, value_wei=UNITS, nonce=nonce)[2:]
    desk.finalize()
    assert desk.deposit(txid).state == "credited"
    node.reorg(2 * node.slots_in_an_epoch + 1)
    node.transact(payer, payer, nonce=nonce)
    desk.finalize()
    assert (desk.deposit(txid).state, desk.balance(alice)) == ("clawed_back", 0)
    assert desk.frozen(alice)
    desk.finalize()
    assert desk.deposit(txid).state == "clawed_back"
    desk.exact()


def test_fault_11_the_same_blocks_replayed_change_nothing(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    start = outside.node.height()
    address = desk.address(alice).address
    outside.send("ETH", address, UNITS)
    outside.send("USDX", address, 7_000_000)
    desk.finalize()
    before = desk.contents()
    # The cursor goes back, as after a restored backup of it alone: the same blocks come again.
    block = outside.node.block_hash(start)[2:]
    desk.execute("UPDATE cursors SET height = %s, hash = %s, anchor = %s", start, block, start)
    for table in ("consumptions", "receipts", "blocks"):
        desk.execute(f"DELETE FROM {table} WHERE height > %s", start)
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before
    desk.exact()
    assert run_rescan(desk, start + 1) == Added()
    assert desk.contents() == before


def test_a_rescan_finds_what_came_to_an_address_and_in_a_token_that_were_not_known_then(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    start = outside.node.height()
    row = desk.address(alice)
    [stored] = desk.query("SELECT * FROM addresses WHERE id = %s", row.id)
    desk.execute("DELETE FROM addresses WHERE id = %s", row.id)
    desk.restart()
    outside.send("ETH", row.address, UNITS)
    outside.send("USDX", row.address, 7_000_000)
    desk.finalize()
    assert desk.states() == []
    with desk.admin.transaction() as tx:
        fields = {name: value for name, value in stored.items() if name != "id"}
        names, values = ", ".join(fields), ", ".join(f"%({name})s" for name in fields)
        tx.execute(f"INSERT INTO addresses ({names}) VALUES ({values})".encode(), fields)
    assert run_rescan(desk, start + 1) == Added(receipts=2, deposits=2)
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (UNITS, 7_000_000)
    assert run_rescan(desk, start + 1) == Added()
    desk.catch_up()
    desk.exact()


def run_rescan(desk: EvmDesk, height: int) -> Added:
    with desk.db.session() as session:
        assert session.try_lock(lock_name(CHAIN))
        return rescan(
            desk.adapter, session, desk.bundle, desk.screening, height, resource_set=desk._resource_set
        )


# --------------------------------------------------------------------------------------------- strange arrivals


def test_fault_24_of_a_token_that_takes_a_fee_the_balance_difference_is_credited(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    address = desk.address(alice).address
    first = outside.send("FEEX", address, 10_000)
    second = outside.send("FEEX", address, 20_000)
    desk.finalize()
    credited = desk.balance(alice, asset="FEEX")
    assert credited == outside.feex.call("balanceOf", address) == 29_700
    assert desk.deposit(first).units + desk.deposit(second).units == credited
    desk.exact()


def test_fault_24_a_token_that_returns_nothing_is_credited_like_any_other(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    txid = outside.send("NORX", desk.address(alice).address, 5_000)
    desk.finalize()
    assert (desk.deposit(txid).units, desk.balance(alice, asset="NORX")) == (5_000, 5_000)
    desk.exact()


def test_fault_24_a_token_that_returns_false_moves_and_credits_nothing(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    token = deploy(outside.node, outside.payer, outside_artifact("FalseToken"))
    token.do(outside.payer, "mint", outside.payer, 1_000_000)
    desk.list_token("FALSE", token)
    address = desk.address(alice).address
    token.do(outside.payer, "transfer", address, 5_000)
    desk.finalize()
    assert desk.states() == []
    token.do(outside.payer, "setRefuses", False)
    token.do(outside.payer, "transfer", address, 6_000)
    desk.finalize()
    assert (desk.states(), desk.balance(alice, asset="FALSE")) == (["credited"], 6_000)
    desk.exact()


def test_fault_25_a_rogue_contract_that_emits_transfers_credits_nothing(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    """Unlisted, it is never looked at; listed by mistake, its words are held against balances."""
    address = desk.address(alice).address
    rogue = deploy(outside.node, outside.payer, outside_artifact("RogueLogs"))
    lies = (
        ("pretend", (outside.usdx.address, address, 10**12)),
        ("pretendCollectible", (outside.payer, address, 1)),
        ("pretendBriefly", (outside.payer, address)),
    )
    for function, arguments in lies:
        rogue.do(outside.payer, function, *arguments)
    outside.unlisted.do(outside.payer, "transfer", address, 10**12)
    desk.finalize()
    assert desk.states() == []
    desk.list_token("ROGUE", rogue)
    for function, arguments in lies:
        rogue.do(outside.payer, function, *arguments)
    desk.finalize()
    assert (desk.states(), desk.balance(alice, asset="ROGUE")) == ([], 0)
    desk.exact()


def test_fault_25_a_reverted_transfer_credits_nothing(desk: EvmDesk, outside: Outside, alice: str) -> None:
    poor = outside.node.accounts()[3]
    failed = outside.usdx.attempt(poor, "transfer", desk.address(alice).address, 5_000)
    assert not succeeded(failed)
    desk.finalize()
    assert desk.states() == []
    desk.exact()


def test_fault_26_ether_by_an_internal_call_is_seen_once_before_and_after_the_forwarder_exists(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row, wallet = desk.address(alice), outside.wallet
    before = wallet.do(outside.payer, "payByTransfer", row.address, UNITS)
    desk.finalize()
    assert desk.balance(alice) == UNITS
    assert desk.deposits()[0].txid == before["transactionHash"][2:]
    desk.fund_gas()
    desk.flush([row])
    desk.finalize()
    assert outside.node.balance_wei(row.address) == 0
    assert outside.node.rpc("eth_getCode", row.address, "latest") != "0x", "it exists now"
    desk.track()
    wallet.do(outside.payer, "payByTransfer", row.address, 2 * UNITS)
    wallet.do(outside.payer, "payByCall", row.address, 3 * UNITS, b"")
    wallet.do(outside.payer, "payMany", [row.address, row.address], [UNITS, UNITS])
    wallet.do(outside.payer, "payInVain", row.address, 9 * UNITS)
    desk.finalize()
    assert desk.balance(alice) == 8 * UNITS
    assert sorted(d.units for d in desk.deposits() if d.customer == alice) == [
        *(UNITS, UNITS, UNITS, 2 * UNITS, 3 * UNITS)
    ]
    desk.exact()
    before_again = desk.contents()
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before_again


def test_a_flush_by_a_stranger_moves_what_is_ours_between_our_addresses_only(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    row = desk.address(alice)
    outside.send("ETH", row.address, UNITS)
    outside.send("USDX", row.address, 7_000_000)
    desk.finalize()
    desk.factory.do(outside.payer, "flush", [salt(row.index)], [outside.usdx.address])
    desk.finalize()
    assert outside.node.balance_wei(desk.evm_keys.address) == UNITS
    assert len(desk.deposits()) == 2
    assert desk.alerts() == []
    desk.exact()


# ----------------------------------------------------------------------------------- our key in others' hands


def test_fault_22_a_nonce_used_outside_the_service_halts_at_first_sight_and_the_loss_is_booked_when_final(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    desk.fund_gas(10 * ETHER)
    outside.send("ETH", desk.address(alice).address, UNITS)
    desk.finalize()
    thief = outside.node.accounts()[5]
    desk.steal(thief, ETHER)
    desk.mine()
    assert "which is not ours" in str(desk.halted())
    assert "coin.foreign_spend" in desk.alerts()
    report = desk.enforce()
    assert {check.number for check in report.checks if not check.ok} == {3, 7}
    assert desk.query("SELECT * FROM variances") == [], "not final, not booked"
    desk.finalize()
    desk.enforce()
    [loss] = desk.query("SELECT * FROM variances")
    assert (loss["kind"], loss["units"] < -ETHER) == ("loss", True), "what it moved, and its gas"
    assert desk.balance(None, "suspense") == 10 * ETHER + int(loss["units"])
    assert desk.balance(alice) == UNITS, "the house bears it"
    assert {"variance.loss", "coin.foreign_spend"} <= set(desk.alerts())
    desk.exact()
    before = desk.contents()
    desk.enforce()
    assert desk.contents() == before
    # The next foreign use is another one.
    desk.steal(thief, 1)
    desk.finalize()
    assert not desk.enforce().ok
    desk.exact()


def test_fault_22_a_foreign_use_that_a_reorg_undoes_leaves_no_loss(desk: EvmDesk, outside: Outside) -> None:
    desk.fund_gas(10 * ETHER)
    desk.steal(outside.node.accounts()[5], ETHER)
    desk.finalize()
    desk.enforce()
    assert desk.balance(None, "suspense") < 9 * ETHER
    desk.reorg(2 * outside.node.slots_in_an_epoch + 1)
    report = desk.enforce()
    assert report.ok, report.differences()
    assert [row["state"] for row in desk.query("SELECT state FROM variances")] == ["undone"]
    assert desk.balance(None, "suspense") == 10 * ETHER
    desk.exact()
    desk.finalize()
    desk.enforce()
    desk.exact()


# ------------------------------------------------------------------------------------------------ a silent node


def test_fault_17_a_node_that_stalls_stops_crediting_raises_an_alert_and_is_caught_up_with(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    txid = outside.send("ETH", desk.address(alice).address, UNITS)
    outside.node.finalize()
    stop = threading.Event()
    impatient = EvmNode(CHAIN, desk.node.network, outside.node.rpc_url, tokens=tuple, timeout_s=0.5)
    followed = Chain(
        adapter=impatient,
        bundle=lambda: desk.bundle,
        screening=desk.screening,
        wait=stop.wait,
        options=desk.options,
        resource_set=desk._resource_set,
        alert_after_seconds=0,
    )
    pid = outside.node.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    leader = threading.Thread(target=lead, args=(desk.db, followed, stop))
    leader.start()
    try:
        wait_until(lambda: desk.alerts() == ["monitor.stalled"], timeout=30, what="the alert")
        assert desk.states() == []
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: desk.states() == ["credited"], timeout=30, what="the credit")
        wait_until(lambda: desk.alerts() == [], timeout=30, what="the end of the alert")
    finally:
        os.kill(pid, signal.SIGCONT)
        stop.set()
        leader.join()
        impatient.close()
    assert desk.deposit(txid).state == "credited"
    desk.exact()
