"""The tour on EVM networks, payments: three assets, one that is stuck, one that fails, and a second network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ops.demo.ethereum import ETH_WEI, USDX_UNITS, await_swept, new_address
from ops.demo.evm import EvmSide
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, PATIENCE_SECONDS, World
from ops.devnet.anvil import AnvilRefused
from ops.stack.networks import ETHEREUM, POLYGON, USDX

_SPIKE_WEI = 50 * 10**9
_CALM_WEI = 10**9


def three_assets(world: World) -> dict[str, Any]:
    """BTC, ETH and USDX at once; the ETH goes to two people in one transaction."""
    side, usdx = world.ethereum, world.contract_of(USDX.asset)
    bitcoin = world.outside.address("bech32m")
    wishes = (
        ("carol", bitcoin, 1_000_000, "BTC"),
        ("alice", side.stranger(), ETH_WEI // 4, "ETH"),
        ("bob", side.stranger(), ETH_WEI // 5, "ETH"),
        ("alice", side.stranger(), 250 * USDX_UNITS, "USDX"),
    )
    with ThreadPoolExecutor(len(wishes)) as together:
        made = list(together.map(lambda wish: world.withdraw(*wish), wishes))
    sent = [world.await_withdrawal(entry["id"], "broadcast") for entry in made]
    expect(sent[1]["txids"] == sent[2]["txids"], "the ETH leaves in one transaction", sent=sent)
    world.await_pending(sent[0]["txids"][-1])
    for entry in sent[1:]:
        await_in_pool(world, side, entry["txids"][-1])
    world.mine(CONFIRMATIONS)
    side.node.finalize()
    settled = [world.await_withdrawal(entry["id"], "settled") for entry in made]
    customer, address, units, _ = wishes[0]
    world.paid(customer, settled[0], address, units)
    for entry, (customer, address, units, asset) in zip(settled[1:], wishes[1:], strict=True):
        arrived = side.node.balance_wei(address) if asset == "ETH" else side.token_units(usdx, address)
        expect(arrived == units, f"{address} received the amount once", arrived=arrived, due=units)
        world.book_payment(customer, entry, units)
    return {
        "withdrawals": [entry["id"] for entry in settled],
        "amounts": [world.books[asset].show(units) for _, _, units, asset in wishes],
        "destinations": [address for _, address, _, _ in wishes],
        "txids": [entry["confirmed_txid"] for entry in settled],
        "network_fees": {
            txid: world.books["ETH"].show(side.fee_wei(txid))
            for txid in dict.fromkeys(entry["confirmed_txid"] for entry in settled[1:])
        },
        "balances": {
            "BTC": world.expect_balances("carol"),
            "ETH": world.expect_balances("alice", "bob", asset="ETH"),
            "USDX": world.expect_balances("alice", asset="USDX"),
        },
    }


def stuck(world: World) -> dict[str, Any]:
    """Fees jump and blocks pass without the payment. A replacement has the same nonce, so only one can be mined."""
    side, address, units = world.ethereum, world.ethereum.stranger(), ETH_WEI // 8
    made = world.withdraw("carol", address, units, "ETH")
    first = world.await_withdrawal(made["id"], "broadcast")
    old = first["txids"][-1]
    await_in_pool(world, side, old)
    nonces = [int(side.transaction(old)["nonce"], 16)]
    side.node.set_next_base_fee(_SPIKE_WEI)
    side.node.mine()  # anvil forgets what pays too little for a block
    expect(not side.mined(old), "the payment pays too little for the block")
    world.note(
        f"{old} is stuck: the base fee is {_SPIKE_WEI // 10**9} gwei now; an operator asks for four times that"
    )
    world.operator.bump_withdrawal(made["id"], feerate=4 * _SPIKE_WEI)
    second = world.until(
        lambda: world.api.withdrawal(made["id"]),
        lambda entry: len(entry["txids"]) == 2,
        "a second signed version",
    )
    new = second["txids"][-1]
    await_in_pool(world, side, new)
    nonces.append(int(side.transaction(new)["nonce"], 16))
    expect(nonces[0] == nonces[1], "the replacement has the nonce of the first version", nonces=nonces)
    side.node.mine()
    side.node.set_next_base_fee(_CALM_WEI)
    side.node.finalize()
    settled = world.await_withdrawal(made["id"], "settled")
    expect(settled["confirmed_txid"] == new, "the second version confirmed", withdrawal=settled)
    expect(not side.mined(old), "the first version did not")
    arrived = side.node.balance_wei(address)
    expect(arrived == units, f"{address} received the amount once", arrived=arrived, due=units)
    world.book_payment("carol", settled, units)
    return {
        "withdrawal": made["id"],
        "amount": world.books["ETH"].show(units),
        "nonce": nonces[0],
        "first_txid": old,
        "txid": new,
        "network_fee": world.books["ETH"].show(side.fee_wei(new)),
        "balances": world.expect_balances("carol", asset="ETH"),
    }


def reverted(world: World) -> dict[str, Any]:
    """A payee that takes the money when asked, and refuses in the block: the hold ends when that is final."""
    side, units = world.ethereum, ETH_WEI // 10
    payee = side.contract("RevertingReceiver")
    side.call(payee, "setRefuses(bool)", False)
    side.node.mine()
    made = world.withdraw("bob", payee, units, "ETH")
    sent = world.await_withdrawal(made["id"], "broadcast")
    txid = sent["txids"][-1]
    await_in_pool(world, side, txid)
    side.call_first(payee, "setRefuses(bool)", True)
    side.node.mine()
    expect(int(side.receipt(txid)["status"], 16) == 0, "the payment fails in its block")
    world.await_monitor(side.network.chain)
    held = world.until(
        lambda: world.api.withdrawal(made["id"]),
        lambda entry: "revert" in entry["reason"],
        "the withdrawal to say why it waits",
    )
    world.note(f"{txid} failed in its block; the withdrawal is {held['state']}: {held['reason']}")
    expect(held["state"] not in ("failed", "settled"), "a failure that is not final ends nothing", held=held)
    fee = world.books["ETH"].read(held["fee"])
    before = world.books["ETH"].balances["bob"]
    now = world.available("bob", "ETH")
    expect(now == before - units - fee, "the money is still held", available=now)
    side.node.finalize()
    failed = world.await_withdrawal(made["id"], "failed")
    expect(side.node.balance_wei(payee) == 0, "the payee has nothing")
    [alert] = [
        entry
        for entry in world.operator.items("/v1/alerts")
        if entry["severity"] == "critical" and made["id"] in entry["data"].get("withdrawals", ())
    ]
    world.known_alerts.add(alert["id"])
    return {
        "withdrawal": made["id"],
        "amount": world.books["ETH"].show(units),
        "txid": txid,
        "while_not_final": {"state": held["state"], "reason": held["reason"]},
        "state": failed["state"],
        "reason": failed["reason"],
        "alert": alert["message"],
        "network_fee": world.books["ETH"].show(side.fee_wei(txid)),
        "balances": world.expect_balances("bob", asset="ETH"),
    }


def second_network(world: World) -> dict[str, Any]:
    """A deposit and a payment on another chain id: the same code, another line of the bundle, nothing crosses."""
    side, first = world.chains[POLYGON.chain], world.ethereum
    asset = side.network.native_asset
    books, sent_on_first = world.books[asset], first.sent()
    address = new_address(world, side, "carol")
    side.pay(address, ETH_WEI)
    side.node.mine()
    deposit = world.until(
        lambda: next(
            (entry for entry in world.api.deposits(customer="carol") if entry["asset"] == asset), None
        ),
        bool,
        f"the deposit on {side.network.chain}",
    )
    assert deposit is not None
    side.node.finalize()
    books.credit("carol", ETH_WEI)
    world.expect_balances("carol", asset=asset)
    payee, units = side.stranger(), ETH_WEI // 3
    made = world.withdraw("carol", payee, units, asset)
    txid = world.await_withdrawal(made["id"], "broadcast")["txids"][-1]
    await_in_pool(world, side, txid)
    raw = side.node.rpc("eth_getRawTransactionByHash", f"0x{txid}")
    refusal = _offer(first, raw)
    side.node.finalize()
    settled = world.await_withdrawal(made["id"], "settled")
    expect(side.node.balance_wei(payee) == units, f"{payee} received the amount once")
    expect(first.node.balance_wei(payee) == 0, "and on Ethereum nothing")
    await_swept(world, side)
    chain_ids = {int(side.transaction(entry)["chainId"], 16) for entry in side.sent()}
    expect(chain_ids == {POLYGON.chain_id}, "each transaction names its network", chain_ids=chain_ids)
    expect(first.sent() == sent_on_first, "the key of Ethereum sent nothing meanwhile")
    world.book_payment("carol", settled, units)
    return {
        "chain": side.network.chain,
        "chain_id": POLYGON.chain_id,
        "beside": {"chain": ETHEREUM.chain, "chain_id": ETHEREUM.chain_id},
        "address": address,
        "deposit": deposit["id"],
        "withdrawal": made["id"],
        "txid": txid,
        "ethereum_says": refusal,
        "balances": world.expect_balances("carol", asset=asset),
    }


def _offer(side: EvmSide, raw: str) -> str:
    """Offers another network's transaction to a node, which must refuse it; returns its words."""
    try:
        txid = side.node.send_raw(raw)
    except AnvilRefused as refusal:
        return refusal.message
    expect(False, "a node of another network refuses the transaction", txid=txid)
    raise AssertionError


def await_in_pool(world: World, side: EvmSide, txid: str, *, patience: float = PATIENCE_SECONDS) -> None:
    """Waits until the node has a transaction in its pool."""
    what = f"{txid} to be in the pool of {side.network.chain}"
    world.until(lambda: side.pending(txid), bool, what, patience=patience)
