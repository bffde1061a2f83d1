"""FAULTS rows that concern paying on EVM chains, injected on anvil; after each the ledger equals the chain and what
is in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from chains.errors import NodeUnavailable
from chains.eth.network import EthNetwork
from chains.eth.node import EvmNode
from custody.signing.lifecycle import TransactionState
from ops.devnet.anvil import Anvil
from policies.intent import Kind
from tests.fakes.evm_desk import ETHER, GWEI
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.evm_till import EvmTill, TillOutside, open_evm_till
from tests.fakes.rpc_proxy import Fault, RpcProxy, rpc_proxy
from tests.fakes.teller import EAGER

USDX = 10**6


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[EvmTill]:
    with open_evm_till(database, outside, tmp_path) as opened:
        opened.fund()
        yield opened


@pytest.fixture
def proxy(till: EvmTill) -> Iterator[RpcProxy]:
    """The till's payment steps reach the node through it; the monitor does not."""
    with rpc_proxy(till.anvil) as opened:
        network = EthNetwork(till.anvil.chain_id, till.anvil.block_hash(0)[2:], till.outside.mode)
        node = EvmNode(EVM_CHAIN, network, opened.rpc_url, tokens=lambda: till.tokens, timeout_s=5)
        till.node.node = node
        yield opened
        till.node.node = till.adapter
        node.close()


def queued(till: EvmTill, units: int = ETHER) -> UUID:
    """One signed transaction that nobody has sent; its id."""
    till.request(till.customer("alice", ETH=3 * units), units)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    assert till.sign() == [transaction_id]
    return transaction_id


# ---------------------------------------------------------------------------------------------------------
# sending


def test_fault_3_when_the_reply_to_a_broadcast_is_lost_no_new_transaction_is_made(
    till: EvmTill, proxy: RpcProxy
) -> None:
    transaction_id = queued(till)
    proxy.faults["eth_sendRawTransaction"] = Fault.LOSE_REPLY
    with pytest.raises(NodeUnavailable):
        till.broadcast()
    signed = till.transaction(transaction_id).versions[0]
    assert signed.txid in till.pool()
    proxy.faults.clear()
    for _ in range(3):
        till.build()
        till.sign()
        till.broadcast()
    assert len(till.query("SELECT * FROM transactions")) == 1
    assert till.transaction(transaction_id).versions == (signed,)
    assert {params[0] for params in proxy.calls("eth_sendRawTransaction")} == {
        f"0x{till.raw_of(transaction_id).hex()}"
    }
    till.settle()
    assert till.states() == ["settled"]


def test_fault_4_a_node_that_says_yes_but_has_no_such_transaction_gets_it_again(
    till: EvmTill, proxy: RpcProxy
) -> None:
    transaction_id = queued(till)
    txid = till.transaction(transaction_id).versions[0].txid or ""
    proxy.faults["eth_sendRawTransaction"] = Fault.FAKE
    proxy.fake_result["eth_sendRawTransaction"] = f"0x{txid}"
    till.broadcast()
    assert "transaction.not_relayed" in till.alerts()
    assert txid not in till.pool()
    proxy.faults.clear()
    till.broadcast()
    assert txid in till.pool()
    sent = [params[0] for params in proxy.calls("eth_sendRawTransaction")]
    assert len(sent) == 2
    assert len(set(sent)) == 1
    assert "transaction.not_relayed" not in till.alerts()


def test_fault_5_what_the_node_dropped_from_its_pool_is_sent_again_the_same(till: EvmTill) -> None:
    transaction_id = queued(till)
    till.broadcast()
    txid = till.transaction(transaction_id).versions[0].txid or ""
    till.anvil.drop(f"0x{txid}")
    assert txid not in till.pool()
    till.mine()
    till.broadcast()
    assert txid in till.pool()
    assert len(till.transaction(transaction_id).versions) == 1
    till.settle()
    assert till.states() == ["settled"]


# ---------------------------------------------------------------------------------------------------------
# versions and races


@pytest.mark.parametrize("row", ["6", "28"])
def test_fault_6_and_28_when_the_older_version_is_mined_there_is_one_payment_and_its_own_fee_is_booked(
    till: EvmTill, row: str
) -> None:
    till.price(1)
    destination = till.nobody()
    till.request(till.customer("alice", ETH=3 * ETHER), ETHER, destination=destination)
    transaction_id = till.send()
    till.price(10)
    till.bump(transaction_id)
    till.sign()
    first, second = till.transaction(transaction_id).versions
    if row == "6":
        till.broadcast()
        assert second.txid in till.pool()
        till.anvil.drop(f"0x{second.txid}")
        till.anvil.send_raw("0x" + till.raw_of(transaction_id, 1).hex())
    till.mine()
    till.track()
    found = till.transaction(transaction_id)
    assert (found.state, found.confirmed_txid) == ("confirming", first.txid)
    till.settle()
    assert till.states() == ["settled"]
    [used] = till.query("SELECT fee_units FROM consumptions")
    assert till.balance(None, "network_fees") == -used["fee_units"]
    assert till.has(destination) == ETHER
    before = till.contents()
    till.broadcast()
    till.track()
    assert till.contents() == before


def test_fault_18_of_many_workers_that_take_withdrawals_each_is_taken_once_and_each_nonce(
    till: EvmTill,
) -> None:
    till.fund("USDX", 100 * USDX)
    alice = till.customer("alice", USDX=100 * USDX)
    for _ in range(3):
        till.request(alice, USDX, asset="USDX")
    till.route()
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        for _ in range(4):
            till.build()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while till.build() is not None:
        pass
    ids = [row["id"] for row in till.query("SELECT id FROM transactions")]
    assert sorted(till.tx_of(each).nonce for each in ids) == [0, 1, 2]
    signed: list[UUID] = []
    threads = [threading.Thread(target=lambda: signed.extend(till.sign())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(signed) == sorted(ids)
    assert till.service.status().signed == 3
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"] * 3


# ---------------------------------------------------------------------------------------------------------
# reorgs


def test_fault_9_a_payment_that_a_reorg_drops_for_good_is_sent_again_the_same(till: EvmTill) -> None:
    transaction_id = queued(till)
    till.broadcast()
    till.mine()
    till.track()
    assert till.states() == ["confirming"]
    [dropped] = till.reorg(1)
    assert dropped == "0x" + till.raw_of(transaction_id).hex()
    till.mine()
    till.track()
    assert till.states() == ["broadcast"]
    txid = till.transaction(transaction_id).versions[0].txid
    assert txid not in till.pool()
    till.check()
    till.broadcast()
    assert txid in till.pool()
    till.settle()
    assert till.states() == ["settled"]
    assert len(till.transaction(transaction_id).versions) == 1


def test_a_final_payment_that_a_reorg_undoes_all_the_same_is_held_again_and_settles_again(
    till: EvmTill,
) -> None:
    # What calls itself final is undone: that must not happen, and if it does the books follow.
    alice = "alice"
    transaction_id = queued(till)
    till.broadcast()
    till.mine()
    height = till.anvil.height()
    till.settle()
    assert till.states() == ["settled"]
    till.reorg(till.anvil.height() - height + 1)
    till.mine()
    till.track()
    assert till.states() == ["broadcast"]
    assert "transaction.final_undone" in till.alerts()
    assert till.balance(alice, "frozen") == ETHER + ETHER // 1000
    assert (till.balance(None, "network_fees"), till.balance(None, "fees_earned")) == (0, 0)
    till.broadcast()
    assert till.transaction(transaction_id).versions[0].txid in till.pool()
    till.settle()
    assert till.states() == ["settled"]
    assert till.query("SELECT settlements FROM withdrawals") == [{"settlements": 2}]


# ---------------------------------------------------------------------------------------------------------
# nonces


def test_fault_21_a_gap_that_the_node_made_is_filled_with_the_same_bytes(till: EvmTill) -> None:
    till.fund("USDX", 100 * USDX)
    alice = till.customer("alice", USDX=100 * USDX)
    ids = []
    for _ in range(3):
        till.request(alice, USDX, asset="USDX")
        ids.append(till.send())
    first = till.transaction(ids[0]).versions[0]
    till.anvil.drop(f"0x{first.txid}")
    till.mine(3)
    till.track()
    assert till.states() == ["broadcast"] * 3, "the others wait for the dropped one"
    assert till.fill_gap() is None
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"] * 3
    assert len(till.query("SELECT * FROM transactions")) == 3


def test_fault_21_a_gap_that_a_refusal_left_with_nothing_else_to_pay_is_filled_by_a_transfer_of_nothing(
    till: EvmTill,
) -> None:
    till.fund("USDX", 100 * USDX)
    alice = till.customer("alice", USDX=100 * USDX)
    refused = till.request(alice, USDX, asset="USDX")
    till.route()
    first = till.build()
    till.request(alice, 2 * USDX, asset="USDX")
    till.route()
    second = till.build()
    assert first is not None
    assert second is not None
    till.refuse(first)
    till.execute("UPDATE withdrawals SET not_before = now() + interval '1 day' WHERE id = %s", refused.id)
    assert till.sign() == [second]
    till.broadcast()
    till.mine(2)
    till.track()
    assert till.transaction(second).state == "broadcast"
    filled = till.fill_gap()
    assert filled is not None
    assert till.fill_gap() is None
    tx = till.tx_of(filled)
    assert (tx.nonce, tx.to, tx.value_wei, tx.data) == (0, till.site.sender, 0, b"")
    assert till.sign() == [filled]
    till.broadcast()
    till.settle()
    assert till.transaction(filled).state == "final"
    assert till.transaction(filled).kind == Kind.NONCE_FILL
    assert till.transaction(second).state == "final"
    till.execute("UPDATE withdrawals SET not_before = now() WHERE id = %s", refused.id)
    assert till.send() is not None
    till.settle()
    assert till.states() == ["settled", "settled"]


def test_fault_22_a_nonce_that_somebody_else_uses_stops_all_paying_and_fails_what_had_it_once_that_is_final(
    till: EvmTill,
) -> None:
    transaction_id = queued(till)
    foreign = till.sign_with_the_key(till.nobody(), ETHER // 2, nonce=0)
    till.anvil.send_raw("0x" + foreign.hex())
    till.mine()
    till.track()
    assert till.halted() is not None
    assert "coin.foreign_spend" in till.alerts()
    assert till.states() == ["broadcast"], "nothing is given up before the foreign transaction is final"
    till.settle()
    assert till.states() == ["failed"]
    assert till.transaction(transaction_id).state is TransactionState.DEAD
    assert till.balance("alice", "frozen") == 0
    till.enforce()
    till.check()
    # What was lost is in suspense; an operator who knows why lifts the halt, and the next nonce is taken.
    till.lift_halt()
    till.request("alice", ETHER)
    after = till.send()
    assert till.tx_of(after).nonce == 1
    till.settle()
    assert till.states() == ["failed", "settled"]


def test_a_nonce_that_the_chain_has_used_unseen_by_the_monitor_is_not_taken(till: EvmTill) -> None:
    queued(till)
    till.broadcast()
    till.settle()
    foreign = till.sign_with_the_key(till.nobody(), 1, nonce=1)
    till.request("alice", ETHER)
    till.route()
    till.anvil.send_raw("0x" + foreign.hex())
    till.anvil.mine()  # and the monitor is asleep
    assert till.build() is None
    assert len(till.query("SELECT * FROM transactions")) == 1
    till.catch_up()
    till.finalize()
    till.enforce()


# ---------------------------------------------------------------------------------------------------------
# reverts and fees


def test_fault_23_the_hold_of_a_payment_that_reverts_stays_until_that_is_final_and_its_gas_is_booked(
    till: EvmTill,
) -> None:
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.fund("PAUX", 1000)
    alice = till.customer("alice", PAUX=500)
    withdrawal = till.request(alice, 100, asset="PAUX")
    till.route()
    transaction_id = till.build()
    till.sign()
    assert transaction_id is not None
    till.outside.paux.do(till.outside.payer, "setPaused", True)  # between the estimate and the block
    till.catch_up()
    till.broadcast()
    till.mine()
    till.track()
    assert till.transaction(transaction_id).state is TransactionState.CONFIRMING
    assert till.withdrawal(withdrawal.id).state == "broadcast"
    assert till.withdrawal(withdrawal.id).reason.startswith("reverted")
    assert "transaction.reverted" in till.alerts()
    assert till.balance(alice, "frozen", "PAUX") == 100
    till.check()
    till.settle()
    assert till.transaction(transaction_id).state is TransactionState.DEAD
    ended = till.withdrawal(withdrawal.id)
    assert (ended.state, ended.reason.partition(":")[0]) == ("failed", "reverted")
    assert (till.balance(alice, "frozen", "PAUX"), till.balance(alice, asset="PAUX")) == (0, 500)
    [used] = till.query("SELECT fee_units FROM consumptions")
    assert till.balance(None, "network_fees") == -used["fee_units"] < 0
    assert "transaction.dead" in till.alerts()
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.catch_up()
    # The nonce is used: the next payment takes the one after it.
    till.request(alice, 100, asset="PAUX")
    assert till.tx_of(till.send()).nonce == 1
    till.settle()
    assert till.states() == ["failed", "settled"]


def test_a_payment_that_reverted_in_a_block_that_a_reorg_undoes_is_paid_after_all(till: EvmTill) -> None:
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.fund("PAUX", 1000)
    alice = till.customer("alice", PAUX=500)
    till.request(alice, 100, asset="PAUX")
    till.route()
    transaction_id = till.build()
    till.sign()
    assert transaction_id is not None
    till.outside.paux.do(till.outside.payer, "setPaused", True)
    till.catch_up()
    till.broadcast()
    till.mine()
    till.track()
    assert till.states() == ["broadcast"]
    till.reorg(2)  # the pause, too, never happened
    till.mine()
    till.track()
    assert till.withdrawal(till.query("SELECT id FROM withdrawals")[0]["id"]).reason.startswith("reorg")
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"]
    assert till.transaction(transaction_id).state is TransactionState.FINAL


def test_fault_27_in_a_fee_spike_the_head_is_bumped_up_to_the_cap_then_waits_with_an_alert(
    till: EvmTill,
) -> None:
    till.pace = replace(EAGER, bump_after_blocks=2)
    alice = till.customer("alice", ETH=3 * ETHER)
    till.price(1)
    till.request(alice, ETHER, fee_ceiling=str(21_000 * 60 * GWEI))
    transaction_id = till.send()

    def blocks_without_it() -> None:
        # The base fee is above what it offers, so blocks come without it; nodes may even forget it.
        for txid in till.pool():
            till.anvil.drop(f"0x{txid}")
        till.mine(2)

    till.price(20)
    assert till.bump_stuck() == 0, "not before it has waited for blocks"
    blocks_without_it()
    assert till.bump_stuck() == 1
    till.sign()
    till.broadcast()
    assert till.tx_of(transaction_id, 2).max_fee_per_gas_wei == 41 * GWEI
    till.price(100)
    blocks_without_it()
    assert till.bump_stuck() == 1
    till.sign()
    assert till.tx_of(transaction_id, 3).max_fee_per_gas_wei == 60 * GWEI, "all that its order allows"
    blocks_without_it()
    assert till.bump_stuck() == 0
    assert "transaction.bump_capped" in till.alerts()
    assert len(till.transaction(transaction_id).versions) == 3
    till.price(1)
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"]
    assert "transaction.bump_capped" not in till.alerts()
