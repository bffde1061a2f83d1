"""The main job on Ethereum, every process a real one, each of them killed with SIGKILL while it was needed.

Attested forwarder, deposit of ETH and of a token, finality, credit, sweep, signed order, signature, broadcast,
settlement, reconciliation. The node is killed as well, once so that it comes back without its last block, as after a
reorg, and once with a payment in its pool.
"""

from __future__ import annotations

from ops.demo import arrivals, ethereum
from ops.demo.ethereum import ETH_WEI, USDX_UNITS, await_swept
from ops.demo.evm_payments import await_in_pool
from ops.demo.world import World
from ops.stack.networks import ETHEREUM
from ops.stack.stack import Stack

DEPOSIT_WEI = 3 * ETH_WEI
TOKEN_UNITS = 700 * USDX_UNITS
PAYMENT_WEI = ETH_WEI // 2


def test_the_main_job_on_ethereum_survives_a_kill_of_every_process_between_its_steps(
    stack: Stack, world: World
) -> None:
    side = world.ethereum
    arrivals.customers(world)
    ethereum.gas(world)

    # Attested address; the signer and the API die after it.
    stack.restart("signer")
    shown = ethereum.new_address(world, side, "alice")
    stack.restart("signer")
    stack.restart("api")
    stack.await_ready()
    kept = [entry["address"] for entry in world.api.items("/v1/customers/alice/addresses")]
    assert kept == [shown]

    # A deposit; the monitor is dead while its block comes. Then the node dies, and has not saved that block.
    side.node.await_saved()
    state = side.node.directory / "state.json"
    saved = state.read_bytes()
    stack.kill("monitor")
    txid = side.pay(shown, DEPOSIT_WEI)
    side.node.mine()
    raw = side.node.rpc("eth_getRawTransactionByHash", f"0x{txid}")
    stack.start("monitor")
    world.await_deposit("alice", txid, "confirming")
    stack.kill(ETHEREUM.chain)
    state.write_bytes(saved)
    stack.start(ETHEREUM.chain)
    side.node.mine(2)
    assert not side.mined(txid)
    world.await_deposit("alice", txid, "orphaned", "seen")
    assert world.available("alice", "ETH") == 0
    side.node.send_raw(raw)
    token_txid = side.pay_token(world.contract_of("USDX"), shown, TOKEN_UNITS)
    side.node.mine()
    world.await_deposit("alice", txid, "confirming")

    # Finality; PostgreSQL dies under every process, and the monitor in the middle of its work.
    stack.kill("postgres")
    side.node.mine(1)
    stack.start("postgres")
    stack.kill("worker")
    side.node.finalize()
    stack.restart("monitor")
    for each in (txid, token_txid):
        world.await_deposit("alice", each, "credited")
    assert [line["type"] for line in world.statement("alice", "ETH")] == ["deposit"]
    world.books["ETH"].credit("alice", DEPOSIT_WEI)
    world.books["USDX"].credit("alice", TOKEN_UNITS)
    world.expect_balances("alice", asset="ETH")
    world.expect_balances("alice", asset="USDX")

    # The sweep is recorded while the signer is dead; the worker dies before it is signed, and after.
    stack.kill("signer")
    stack.start("worker")
    world.until(lambda: list(world.operator.items("/v1/sweeps")), bool, "a sweep")
    stack.restart("worker")
    stack.start("signer")
    world.until(side.unmined, bool, "the sweep to be in the pool")
    stack.restart("worker")
    [sweep_txid] = await_swept(world, side)
    flush = side.flush(sweep_txid)
    assert flush is not None
    assert len(flush.salts) == 1
    assert (side.node.balance_wei(shown), side.token_units(world.contract_of("USDX"), shown)) == (0, 0)

    # Signed order, accepted while nobody can work on it; the API dies right after its answer.
    stack.kill("worker")
    stack.kill("beat")
    payee = side.stranger()
    made = world.withdraw("alice", payee, PAYMENT_WEI, "ETH")
    stack.restart("api")
    stack.await_ready()
    assert world.api.withdrawal(made["id"])["state"] == "requested"
    due = DEPOSIT_WEI - PAYMENT_WEI - world.books["ETH"].read(made["fee"])
    assert world.available("alice", "ETH") == due

    # The transaction is recorded while the signer is dead; Redis loses everything meanwhile.
    stack.kill("signer")
    stack.restart("redis")
    stack.start("worker")
    stack.start("beat")
    world.await_withdrawal(made["id"], "signing")
    stack.restart("worker")
    stack.start("signer")

    # Signed and broadcast; the node dies with its pool. The same bytes are sent again.
    sent = world.await_withdrawal(made["id"], "broadcast")
    assert len(sent["txids"]) == 1
    await_in_pool(world, side, sent["txids"][0])
    side.node.await_saved()
    stack.restart(ETHEREUM.chain)
    assert not side.pending(sent["txids"][0])
    await_in_pool(world, side, sent["txids"][0], patience=150)

    # The worker dies again, and the block comes while it is dead.
    stack.kill("worker")
    side.node.finalize()
    stack.restart("beat")
    stack.start("worker")
    settled = world.await_withdrawal(made["id"], "settled")
    assert settled["txids"] == sent["txids"]
    assert side.node.balance_wei(payee) == PAYMENT_WEI
    world.book_payment("alice", settled, PAYMENT_WEI)
    world.expect_balances("alice", asset="ETH")

    # Every process has been killed; the ledger equals the chain to the wei and the token unit.
    books = world.books["ETH"]
    books.network_fees = {each: side.fee_wei(each) for each in side.sent()}
    assert len(books.network_fees) == 2
    assert side.holdings(None) == books.on_chain
    assert side.holdings(world.contract_of("USDX")) == world.books["USDX"].on_chain
    world.until(world.reconcile, lambda report: report["exit_code"] == 0, "nothing to differ")
    critical = [a for a in world.operator.items("/v1/alerts") if a["severity"] == "critical"]
    assert critical == []
