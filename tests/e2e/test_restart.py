"""The whole stack is stopped and started again in its directory, on other ports: it continues where it was."""

from __future__ import annotations

from ops.demo import arrivals, ethereum
from ops.demo.ethereum import ETH_WEI
from ops.demo.world import CONFIRMATIONS, World
from ops.devnet.postgres import Durability
from ops.stack.stack import Stack


def test_a_stack_started_again_in_its_directory_knows_everything(stack: Stack, world: World) -> None:
    for step in (arrivals.service, arrivals.customers, arrivals.addresses, arrivals.deposit_confirmed):
        step(world)
    address = world.outside.address()
    made = world.withdraw("alice", address, 1_000_000)
    sent = world.await_withdrawal(made["id"], "broadcast")
    world.await_pending(*sent["txids"])
    ethereum.gas(world)
    forwarder = ethereum.new_address(world, world.ethereum, "bob")
    txid = world.ethereum.pay(forwarder, ETH_WEI)
    world.ethereum.node.finalize()
    world.await_deposit("bob", txid, "credited", "swept")
    world.books["ETH"].credit("bob", ETH_WEI)
    version, keysets = stack.bundle.digest_hex(), stack.bundle.keysets
    stack.down()

    with Stack(stack.directory, durability=Durability.FAST) as again, World.of(again) as later:
        assert again.bundle.digest_hex() == version
        assert again.bundle.keysets == keysets
        shown = [entry["address"] for entry in later.api.items("/v1/customers/alice/addresses")]
        assert shown == [world.addresses["alice"]]
        later.addresses, later.books = world.addresses, world.books
        later.await_pending(*sent["txids"])
        later.mine(CONFIRMATIONS)
        settled = later.await_withdrawal(made["id"], "settled")
        assert settled["txids"] == sent["txids"]
        later.paid("alice", settled, address, 1_000_000)
        later.expect_balances("alice")
        side, payee = later.ethereum, later.ethereum.stranger()
        ordered = later.withdraw("bob", payee, ETH_WEI // 2, "ETH")
        later.await_withdrawal(ordered["id"], "broadcast")
        ethereum.await_swept(later, side)
        later.book_payment("bob", later.await_withdrawal(ordered["id"], "settled"), ETH_WEI // 2)
        later.expect_balances("bob", asset="ETH")
        assert side.node.balance_wei(payee) == ETH_WEI // 2
        fresh = later.api.new_address("alice", "BTC")["address"]
        assert fresh not in world.addresses.values()
        assert ethereum.new_address(later, side, "bob") != forwarder
        later.until(later.reconcile, lambda report: report["ok"], "nothing to differ")
