"""FAULTS rows 7, 8 and 10 to 15 on a real bitcoind and a real database, each injected for real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.tx import Transaction
from custody.monitor.monitor import Options
from custody.reconcile.service import reconcile
from ops.devnet.bitcoind import Bitcoind, OutsideWallet, sats_to_btc
from tests.fakes.desk import CHAIN, Desk, open_desk

UNITS = 2_345_678
ELSEWHERE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    # A node of its own: reorgs would disturb those who share one.
    with Bitcoind(tmp_path_factory.mktemp("chain-faults")) as node:
        yield node


class Payer(OutsideWallet):
    """Pays from deep coins that are no coinbase: a reorg does not make those immature. Others mine."""

    def mine(self, blocks: int) -> list[str]:
        return self.node.wallet("miner").mine(blocks)

    def send(self, address: str, amount_sats: int, *, feerate_sat_vb: int = 10) -> str:
        # Without a lock time, or a reorg to below the present height would make it invalid for a while.
        options = {"replaceable": True, "fee_rate": feerate_sat_vb, "locktime": 0}
        outputs = [{address: sats_to_btc(amount_sats)}]
        return str(self.rpc("send", outputs, None, "unset", None, options)["txid"])


@pytest.fixture(scope="module")
def payer(node: Bitcoind) -> OutsideWallet:
    miner, payer = node.wallet("miner"), node.wallet("payer")
    miner.mine(110)
    miner.send_many({payer.address(): 20_000_000 for _ in range(100)})
    miner.mine(20)
    return Payer(node, "payer")


@pytest.fixture
def desk(database: str, node: Bitcoind, payer: OutsideWallet) -> Iterator[Desk]:
    adapter = BitcoinNode(CHAIN, NETWORKS["regtest"], node.rpc_url, node.rest_url)
    # What other tests left in the mempool is not ours to see.
    payer.mine(1)
    height = int(node.rpc("getblockcount"))
    options = Options(start_height=height, held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0)
    with open_desk(database, adapter, options=options) as desk:
        desk.catch_up()
        yield desk
    adapter.close()


@pytest.fixture
def alice(desk: Desk) -> str:
    return desk.customer("alice")


def balanced(desk: Desk) -> None:
    """After every row: the ledger equals the chain, to the satoshi, by the node's own UTXO set."""
    desk.check()
    assert isinstance(desk.adapter, BitcoinNode)
    report = reconcile(desk.admin, desk.bundle, {CHAIN: desk.adapter})
    assert report.ok, report.differences()
    assert all(statement.difference_units == 0 for statement in report.statements)


def undo(node: Bitcoind, depth: int) -> list[str]:
    """Invalidate the last `depth` blocks; what they paid goes back to the mempool. Returns their hashes."""
    height = int(node.rpc("getblockcount"))
    hashes = [str(node.rpc("getblockhash", height - depth + 1 + at)) for at in range(depth)]
    node.rpc("invalidateblock", hashes[0])
    return hashes


def mine_without(
    node: Bitcoind, payer: OutsideWallet, blocks: int, *, only: list[str] | None = None
) -> list[str]:
    """Mine blocks that leave the mempool out, but for the transactions (txids or raw) in the first."""
    return [
        str(node.rpc("generateblock", payer.address(), (only or []) if at == 0 else [])["hash"])
        for at in range(blocks)
    ]


def test_a_deposit_is_credited_after_six_blocks_and_again_changes_nothing(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    desk.catch_up()
    assert desk.deposit(txid).state == "seen"
    for confirmations in range(1, 6):
        payer.mine(1)
        desk.catch_up()
        assert desk.deposit(txid).state == "confirming"
        assert desk.deposit(txid).depth(int(node.rpc("getblockcount"))) == confirmations
        balanced(desk)
    payer.mine(1)
    desk.catch_up()
    assert desk.deposit(txid).state == "credited"
    assert desk.balance(alice) == UNITS
    balanced(desk)
    before = desk.contents()
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before


def test_row_7_a_reorg_shallower_than_the_confirmations_goes_back_to_confirming(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(4)
    desk.catch_up()
    assert desk.deposit(txid).state == "confirming"
    undo(node, 4)
    mine_without(node, payer, 5)
    desk.catch_up()
    assert desk.deposit(txid).state == "seen"
    balanced(desk)
    payer.mine(1)
    desk.catch_up()
    assert desk.deposit(txid).state == "confirming"
    payer.mine(5)
    desk.catch_up()
    assert desk.deposit(txid).state == "credited"
    assert desk.balance(alice) == UNITS
    assert not desk.frozen(alice)
    balanced(desk)


def test_row_7_a_chain_that_only_lost_blocks_is_followed_down_and_up_again(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(2)
    desk.catch_up()
    hashes = undo(node, 2)
    desk.catch_up()
    assert desk.deposit(txid).state == "seen"
    balanced(desk)
    node.rpc("reconsiderblock", hashes[0])
    desk.catch_up()
    assert desk.deposit(txid).state == "confirming"
    assert desk.deposit(txid).block_hash == hashes[0]
    balanced(desk)


def test_row_8_a_reorg_deeper_than_the_confirmations_reverses_the_credit_freezes_and_alerts(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(7)
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    # The customer has spent part of it already.
    desk.spend(alice, 2_000_000)
    with desk.admin.transaction() as tx:
        tx.execute("DELETE FROM alerts")
    undo(node, 7)
    mine_without(node, payer, 8)
    desk.catch_up()
    assert desk.deposit(txid).state == "clawed_back"
    assert desk.balance(alice) == 0
    assert desk.balance(None, "suspense") == -2_000_000, "the shortfall is the house's"
    assert desk.frozen(alice)
    assert "deposit.clawed_back" in desk.alerts()
    desk.check()
    # Mined again and deep enough: the house gets back what it bore before the customer gets the rest.
    payer.mine(6)
    desk.catch_up()
    assert desk.deposit(txid).state == "credited"
    assert desk.deposit(txid).credits == 2
    assert desk.balance(None, "suspense") == 0
    assert desk.balance(alice) == UNITS - 2_000_000
    assert desk.frozen(alice), "an operator decides about the freeze"
    balanced(desk)


def test_row_8_a_credited_deposit_that_is_deep_enough_on_the_new_branch_keeps_its_credit(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(7)
    desk.catch_up()
    first = desk.deposit(txid)
    undo(node, 7)
    mine_without(node, payer, 8, only=[txid])
    desk.catch_up()
    again = desk.deposit(txid)
    assert again.state == "credited"
    assert again.credits == 1
    assert again.block_hash != first.block_hash
    assert not desk.frozen(alice)
    assert "deposit.clawed_back" not in desk.alerts()
    balanced(desk)


def test_row_8_a_deep_reorg_while_the_monitor_was_down_is_found_at_its_next_start(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    before = payer.send(desk.address(alice).address, UNITS)
    payer.mine(6)
    desk.catch_up()
    assert desk.deposit(before).state == "credited"
    during = payer.send(desk.address(alice).address, 500_000)
    payer.mine(3)
    undo(node, 9)
    mine_without(node, payer, 4, only=[before])
    payer.mine(10)
    desk.restart()
    desk.catch_up()
    assert (desk.deposit(before).state, desk.deposit(before).credits) == ("credited", 1)
    assert desk.deposit(during).state == "credited"
    assert desk.balance(alice) == UNITS + 500_000
    balanced(desk)


def test_row_8_a_deposit_and_its_undoing_while_the_monitor_was_down_are_found_at_its_next_starts(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(6)
    desk.restart()
    desk.catch_up()
    assert desk.deposit(txid).state == "credited"
    undo(node, 6)
    mine_without(node, payer, 8)
    desk.restart()
    desk.catch_up()
    assert desk.deposit(txid).state == "clawed_back"
    payer.mine(1)
    undo(node, 1)
    mine_without(node, payer, 2)
    desk.restart()
    desk.catch_up()
    assert desk.deposit(txid).state == "clawed_back"
    assert desk.balance(alice) == 0
    balanced(desk)
    payer.mine(6)
    desk.restart()
    desk.catch_up()
    assert (desk.deposit(txid).state, desk.balance(alice)) == ("credited", UNITS)
    balanced(desk)


def test_row_10_a_deposit_double_spent_in_a_reorg_is_reversed(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    address = desk.address(alice).address
    txid = payer.send(address, UNITS)
    conflict = _conflict_of(payer, txid)
    payer.mine(6)
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    undo(node, 6)
    mine_without(node, payer, 7, only=[conflict])
    desk.catch_up()
    assert desk.deposit(txid).state == "clawed_back"
    assert desk.balance(alice) == 0
    assert desk.balance(None, "suspense") == 0
    assert desk.frozen(alice)
    payer.mine(10)
    desk.catch_up()
    assert desk.deposit(txid).state == "clawed_back"
    balanced(desk)


def test_row_10_a_confirming_deposit_double_spent_in_a_reorg_is_orphaned(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS)
    conflict = _conflict_of(payer, txid)
    payer.mine(2)
    desk.catch_up()
    undo(node, 2)
    mine_without(node, payer, 3, only=[conflict])
    desk.catch_up()
    assert desk.deposit(txid).state == "orphaned"
    payer.mine(6)
    desk.catch_up()
    assert desk.deposit(txid).state == "orphaned"
    assert desk.balance(alice) == 0
    balanced(desk)


def test_row_11_the_same_blocks_replayed_change_nothing(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    payer.send(desk.address(alice).address, UNITS)
    payer.mine(6)
    desk.catch_up()
    before = desk.contents()
    # The cursor goes back, as after a restored backup of it alone: the same blocks come again.
    height = int(node.rpc("getblockcount")) - 6
    block = str(node.rpc("getblockhash", height))
    desk.execute("UPDATE cursors SET height = %s, hash = %s, anchor = %s", height, block, height)
    desk.execute("DELETE FROM consumptions WHERE height > %s", height)
    desk.execute("DELETE FROM receipts WHERE height > %s", height)
    desk.execute("DELETE FROM blocks WHERE height > %s", height)
    desk.restart()
    desk.catch_up()
    assert desk.contents() == before
    balanced(desk)


def test_row_12_an_unconfirmed_deposit_replaced_by_rbf_is_credited_once(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS, feerate_sat_vb=5)
    desk.catch_up()
    bumped = str(payer.rpc("bumpfee", txid, {"fee_rate": 30})["txid"])
    desk.catch_up()
    assert desk.deposit(txid).state == "orphaned"
    assert desk.deposit(bumped).state == "seen"
    payer.mine(6)
    desk.catch_up()
    assert desk.deposit(txid).state == "orphaned"
    assert desk.deposit(bumped).state == "credited"
    assert desk.balance(alice) == UNITS
    balanced(desk)


def test_row_12_an_unconfirmed_deposit_replaced_by_one_that_does_not_pay_us_leaves_no_phantom(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS, feerate_sat_vb=5)
    desk.catch_up()
    options = {"outputs": [{ELSEWHERE: sats_to_btc(UNITS)}], "fee_rate": 50}
    payer.rpc("bumpfee", txid, options)
    desk.catch_up()
    assert desk.deposit(txid).state == "orphaned"
    payer.mine(6)
    desk.catch_up()
    assert desk.states() == ["orphaned"]
    assert desk.balance(alice) == 0
    assert desk.query("SELECT * FROM receipts") == []
    balanced(desk)


def test_row_13_a_payer_who_bumps_by_cpfp_gets_one_credit(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    txid = payer.send(desk.address(alice).address, UNITS, feerate_sat_vb=1)
    desk.catch_up()
    [change] = [
        coin for coin in payer.rpc("listunspent", 0) if coin["txid"] == txid and coin["confirmations"] == 0
    ]
    inputs = [{"txid": txid, "vout": change["vout"]}]
    child = payer.rpc("send", [{ELSEWHERE: "0.01"}], None, "unset", None, {"inputs": inputs, "fee_rate": 60})
    desk.catch_up()
    payer.mine(6)
    desk.catch_up()
    assert desk.states() == ["credited"]
    assert desk.balance(alice) == UNITS
    assert child["complete"]
    balanced(desk)


def test_row_14_a_malleated_txid_is_matched_by_what_it_pays_and_credited_once(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    """A P2PKH input's signature push is rewritten with OP_PUSHDATA1: valid for consensus, another txid."""
    legacy = payer.address("legacy")
    funding = payer.send(legacy, 10_000_000)
    payer.mine(1)
    vout = next(
        at
        for at, out in enumerate(payer.rpc("gettransaction", funding, True, True)["decoded"]["vout"])
        if out["scriptPubKey"].get("address") == legacy
    )
    outputs = [{desk.address(alice).address: sats_to_btc(UNITS)}]
    raw = node.rpc("createrawtransaction", [{"txid": funding, "vout": vout}], outputs)
    fee_left = {"fee": 10_000_000 - UNITS}
    assert fee_left["fee"] > 0
    signed = payer.rpc("signrawtransactionwithwallet", raw)["hex"]
    original = str(node.rpc("sendrawtransaction", signed, 0))
    desk.catch_up()
    assert desk.deposit(original).state == "seen"

    malleated = _malleate(bytes.fromhex(signed))
    other = Transaction.parse(malleated).txid.hex
    assert other != original
    mine_without(node, payer, 1, only=[malleated.hex()])
    desk.catch_up()
    assert desk.deposit(original).state == "orphaned"
    assert desk.deposit(other).state == "confirming"
    payer.mine(5)
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    assert sorted(desk.states()) == ["credited", "orphaned"]
    balanced(desk)


def test_row_15_blocks_nobody_announced_are_found_by_walking_the_headers(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    """No ZMQ at all here: many blocks at once, more than one commit takes, with deposits among them."""
    paid = []
    for _ in range(4):
        paid.append(payer.send(desk.address(alice).address, UNITS))
        payer.mine(30)
    desk.catch_up()
    assert [desk.deposit(txid).state for txid in paid] == ["credited"] * 4
    assert desk.balance(alice) == 4 * UNITS
    balanced(desk)


def test_row_15_a_tip_that_moves_while_blocks_are_read_is_caught_by_the_recheck(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, alice: str
) -> None:
    """Between reading and committing, the block that was read leaves the best chain: nothing of it is committed."""
    txid = payer.send(desk.address(alice).address, UNITS)
    payer.mine(1)
    adapter = desk.adapter
    assert isinstance(adapter, BitcoinNode)
    read = adapter.observe_block
    moved: list[str] = []

    def observe_and_reorg(*arguments: object) -> object:
        observation = read(*arguments)  # type: ignore[arg-type]
        if not moved:
            moved.extend(undo(node, 1))
            mine_without(node, payer, 2)
        return observation

    adapter.observe_block = observe_and_reorg  # type: ignore[assignment,method-assign]
    try:
        before = desk.contents()
        with pytest.raises(Exception, match="left the best chain"):
            desk.monitor.step()
        assert desk.contents() == before
    finally:
        del adapter.observe_block
    desk.catch_up()
    assert desk.deposit(txid).state == "seen"
    payer.mine(6)
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    balanced(desk)


def _conflict_of(payer: OutsideWallet, txid: str) -> str:
    """A signed transaction that spends an input of `txid` to somebody else. It is not sent."""
    spent = payer.rpc("gettransaction", txid, True, True)["decoded"]["vin"][0]
    value = payer.rpc("gettransaction", spent["txid"], True, True)["decoded"]["vout"][spent["vout"]]["value"]
    amount = int(value * 100_000_000) - 20_000
    raw = payer.node.rpc(
        "createrawtransaction",
        [{"txid": spent["txid"], "vout": spent["vout"]}],
        [{payer.address(): sats_to_btc(amount)}],
    )
    signed = payer.rpc("signrawtransactionwithwallet", raw)
    assert signed["complete"]
    return str(signed["hex"])


def _malleate(raw: bytes) -> bytes:
    """The same transaction with the first push of its first input's scriptSig written the long way."""
    tx = Transaction.parse(raw)
    [txin] = tx.inputs
    script = txin.script_sig
    assert script, "a legacy input"
    assert script[0] < 0x4C
    longer = b"\x4c" + script
    at = raw.index(bytes([len(script)]) + script)
    return raw[:at] + bytes([len(longer)]) + longer + raw[at + 1 + len(script) :]
