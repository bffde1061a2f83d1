"""The main job on Bitcoin, every process a real one, each of them killed with SIGKILL while it was needed.

Attested address, deposit, six blocks, credit, signed order, signature, broadcast, settlement, reconciliation:
between every two steps the process that does the step is killed, and Redis and PostgreSQL once each. Nothing
may be lost, credited twice or paid twice, and nobody restores anything by hand.
"""

from __future__ import annotations

from functools import partial

from ops.demo import arrivals
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.stack import Stack

DEPOSIT_SATS = 40_000_000
PAYMENT_SATS = 3_000_000


def waiting_for_the_verifier(world: World) -> int:
    """How many transactions wait for its word, as the status says it."""
    [part] = [part for part in world.api.status()["parts"] if part["name"] == "verifier"]
    assert part["ok"], part
    return int(part["detail"].removeprefix("transactions that wait for final blocks: "))


def test_the_main_job_survives_a_kill_of_every_process_between_its_steps(stack: Stack, world: World) -> None:
    arrivals.service(world)

    # Attested address; the signer and the API die after it.
    arrivals.customers(world)
    stack.restart("signer")
    arrivals.addresses(world)
    shown = world.addresses["alice"]
    stack.restart("signer")
    stack.restart("api")
    stack.await_ready()
    kept = [entry["address"] for entry in world.api.items("/v1/customers/alice/addresses")]
    assert kept == [shown]

    # Deposit, seen; the monitor dies, and is dead while the block comes.
    txid = world.pay("alice", DEPOSIT_SATS)
    world.await_deposit("alice", txid, "seen")
    stack.kill("monitor")
    world.mine(1)
    stack.start("monitor")
    world.await_deposit("alice", txid, "confirming")

    # Six blocks; PostgreSQL dies under every process, and the monitor in the middle of its work.
    stack.kill("postgres")
    world.mine(2)
    stack.start("postgres")
    world.mine(CONFIRMATIONS - 3)
    stack.restart("monitor")
    world.await_deposit("alice", txid, "credited")
    assert [line["type"] for line in world.statement("alice")] == ["deposit"]
    assert world.available("alice") == DEPOSIT_SATS
    world.btc.balances["alice"] = DEPOSIT_SATS

    # Signed order, accepted while nobody can work on it; the API dies right after its answer.
    stack.kill("worker")
    stack.kill("beat")
    address = world.outside.address("bech32m")
    made = world.withdraw("alice", address, PAYMENT_SATS)
    stack.restart("api")
    stack.await_ready()
    assert world.api.withdrawal(made["id"])["state"] == "requested"
    fee_sats = world.btc.read(made["fee"])
    assert world.available("alice") == DEPOSIT_SATS - PAYMENT_SATS - fee_sats

    # The transaction is recorded while the signer is dead; Redis loses everything meanwhile.
    stack.kill("signer")
    stack.restart("redis")
    stack.start("worker")
    stack.start("beat")
    world.await_withdrawal(made["id"], "signing")
    stack.restart("worker")
    stack.start("signer")

    # Signed and broadcast; the verifier dies, the worker dies again, and six blocks come while it is dead.
    sent = world.await_withdrawal(made["id"], "broadcast")
    world.await_pending(*sent["txids"])
    assert len(sent["txids"]) == 1
    stack.kill("verifier")
    stack.kill("worker")
    world.mine(CONFIRMATIONS)
    stack.restart("beat")
    stack.start("worker")
    settled = world.await_withdrawal(made["id"], "settled")
    assert settled["txids"] == sent["txids"]
    world.paid("alice", settled, address, PAYMENT_SATS)
    world.expect_balances("alice")

    # The verifier, which was dead as well, finds what became of it and tells the signer.
    assert waiting_for_the_verifier(world) == 1
    stack.start("verifier")
    world.until(partial(waiting_for_the_verifier, world), lambda count: count == 0, "the verifier's word")

    # Every process has been killed; the ledger equals the chain to the satoshi.
    report = world.reconcile()
    assert report["exit_code"] == 0, report
    critical = [a for a in world.operator.items("/v1/alerts") if a["severity"] == "critical"]
    assert critical == []
