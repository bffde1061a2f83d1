"""The tour's chapter on the warm tier: hot gives what it has too much, then two of three signers pay what is large."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from ops.demo import ethereum, payments, refills
from ops.demo.arrivals import attested
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.listing import ASSET, BTC_SATS, ETH_WEI
from ops.stack.members import MEMBERS
from ops.stack.names import BTC_KEYSET, BTC_WARM, WARM_THRESHOLD
from policies.bundle import EvmVault

DAN: Final = "dan"
DAN_SATS: Final = 5 * BTC_SATS // 2
DAN_WEI: Final = 8 * ETH_WEI
SAFE_BEGINS_WEI: Final = 20 * ETH_WEI
LARGE_WEI: Final = 5 * ETH_WEI
ORDERS_AND_APPROVES: Final = "dora"
TREASURERS: Final = ("ada", "ben")
AWAY: Final = f"signer-{MEMBERS[-1][0]}"
"""The member that is stopped."""
_FEE_ROOM_SATS: Final = 100_000
_ROUND_SATS: Final = BTC_SATS // 100


def funds(world: World) -> dict[str, Any]:
    """dan pays in more than hot may hold. The treasury wants the excess in warm; two treasurers agree, and it goes."""
    new_customer(world, DAN)
    txid = world.pay(DAN, DAN_SATS)
    world.await_pending(txid)
    world.mine(CONFIRMATIONS)
    world.await_deposit(DAN, txid, "credited")
    world.btc.credit(DAN, DAN_SATS)
    before = world.tiers(ASSET)
    world.note(f"hot holds {before['hot']['holds']} BTC and may hold {before['hot']['holding_cap']} BTC")
    moved = refills.move(world, BTC_KEYSET, BTC_WARM, ASSET, TREASURERS)
    after = world.tiers(ASSET)
    world.note(f"{moved['amount']} BTC went from hot to warm")
    return {"before": before, "refill": moved, "after": after, "balances": world.expect_balances(DAN)}


def bitcoin(world: World) -> dict[str, Any]:
    """A payment above hot's band: two must agree, whoever ordered it is none of them; then two of three sign."""
    free_sats = world.btc.read(world.tiers(ASSET)["warm"]["free"])
    amount_sats = (min(free_sats, DAN_SATS) - _FEE_ROOM_SATS) // _ROUND_SATS * _ROUND_SATS
    address = world.outside.address()
    made = world.withdraw_as(ORDERS_AND_APPROVES, world.order(DAN, address, amount_sats))
    world.note(f"dora orders {world.btc.show(amount_sats)} for dan")
    refused = agree(world, made["id"], TREASURERS, away=AWAY)
    sent = world.await_withdrawal(made["id"], "broadcast")
    txid = sent["txids"][-1]
    world.await_pending(txid)
    signatures = _signatures(world, txid)
    expect(signatures == {WARM_THRESHOLD}, "two of the three have signed each input", signatures=signatures)
    world.mine(CONFIRMATIONS)
    settled = world.await_withdrawal(made["id"], "settled")
    world.paid(DAN, settled, address, amount_sats)
    world.start(AWAY)
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(amount_sats),
        "refused": refused,
        "approved": list(TREASURERS),
        "away": AWAY,
        "signatures_of_each_input": WARM_THRESHOLD,
        "txid": settled["confirmed_txid"],
        "network_fee": settled["versions"][-1]["network_fee"],
        "balances": world.expect_balances(DAN),
    }


def safe(world: World) -> dict[str, Any]:
    """The same on Ethereum: two of a Safe's three owners sign, and the gas payer carries it out."""
    side, payee = world.ethereum, world.ethereum.stranger()
    vault = world.safe("warm")
    fund_safe(world, vault, SAFE_BEGINS_WEI)
    ethereum.new_address(world, side, DAN)
    txid = side.pay(side.addresses[DAN], DAN_WEI)
    side.node.finalize()
    world.await_deposit(DAN, txid, "credited")
    world.books["ETH"].credit(DAN, DAN_WEI)
    made = world.withdraw_as(ORDERS_AND_APPROVES, world.order(DAN, payee, LARGE_WEI, "ETH"))
    agree(world, made["id"], TREASURERS, away=AWAY)
    settled = settle_safe(world, made["id"])
    world.start(AWAY)
    carried = settled["confirmed_txid"]
    sender = side.transaction(carried)["from"]
    assert side.gas_payer is not None
    expect(sender == side.gas_payer.address.lower(), "the gas payer has sent it", sender=sender)
    arrived = side.node.balance_wei(payee)
    expect(arrived == LARGE_WEI, "the payee has it, once", arrived=arrived)
    left = side.node.balance_wei(vault.address)
    expect(left == SAFE_BEGINS_WEI - LARGE_WEI, "the Safe has paid it, and no gas", left=left)
    world.book_payment(DAN, settled, LARGE_WEI)
    return {
        "withdrawal": made["id"],
        "amount": world.books["ETH"].show(LARGE_WEI),
        "safe": vault.address,
        "away": AWAY,
        "txid": carried,
        "gas_payer": side.gas_payer.address,
        "balances": world.expect_balances(DAN, asset="ETH"),
        "reconciled": payments.reconcile(world)["assets"],
        "verified": payments.verify(world)["examined"],
    }


def new_customer(world: World, name: str) -> None:
    """A customer with a Bitcoin address."""
    world.api.create_customer(name)
    world.addresses[name] = attested(world, name, ASSET).address


def agree(world: World, identity: str, approvers: Sequence[str], *, away: str | None = None) -> str:
    """Approvers agree to what dora has ordered, and dora herself may not; returns what she was told.

    Args:
        world: ours.
        identity: of the withdrawal.
        approvers: as many as are needed.
        away: a process that is stopped before the last of them agrees.
    """
    world.await_withdrawal(identity, "awaiting_approval")
    with ThreadPoolExecutor() as together:
        own = together.submit(world.approve, identity, ORDERS_AND_APPROVES)
        given = list(together.map(partial(world.approve, identity), approvers[:-1]))
    expect(own.result().returncode != 0, "who has given an order approves nothing of it")
    expect(all(each.returncode == 0 for each in given), "they agree", said=[each.stderr for each in given])
    waiting = world.api.withdrawal(identity)
    expect(waiting["state"] == "awaiting_approval", "it waits for the last one", withdrawal=waiting)
    if away is not None:
        world.stop(away)
        world.note(f"{away} is stopped")
    last = world.approve(identity, approvers[-1])
    expect(last.returncode == 0, f"{approvers[-1]} agrees", said=last.stderr)
    world.note(f"{' and '.join(approvers)} have agreed; dora, who ordered it, may not")
    return own.result().stderr.strip()[:300]


def settle_safe(world: World, identity: str) -> dict[str, Any]:
    """Mines what the gas payer sends until a Safe's payment is settled, and returns it."""
    side = world.ethereum

    def look() -> dict[str, Any]:
        if side.unmined():
            side.node.finalize()
        return dict(world.api.withdrawal(identity))

    settled = world.until(look, lambda entry: entry["state"] == "settled", f"{identity} to be settled")
    world.note(f"withdrawal {identity} is settled")
    return settled


def fund_safe(world: World, vault: EvmVault, wei: int) -> None:
    """Operators send a Safe what it begins with: nobody's deposit, so it is booked to suspense."""
    side, books = world.ethereum, world.books["ETH"]
    side.node.send_eth(side.house, vault.address, wei)
    side.node.finalize()
    books.suspense += wei
    world.await_suspense(vault.address, "ETH", wei)
    world.note(f"operators send {books.show(wei)} to the {vault.tier} Safe {vault.address}")


def _signatures(world: World, txid: str) -> set[int]:
    """How many signatures the inputs of a transaction have: all between the first, empty item and the script."""
    inputs = world.node.rpc("getrawtransaction", txid, True)["vin"]
    return {sum(bool(item) for item in entry["txinwitness"][1:-1]) for entry in inputs}
