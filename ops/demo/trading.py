"""The tour's chapter on trading: deposits go into trading, two customers trade, and withdraw what they got on chain."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from custody.ids import new_id
from ops.demo.evm_payments import await_in_pool
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.networks import USDX

MARKET: Final = "BTC-USDX"
BUYER, SELLER = "alice", "carol"
DOLLAR: Final = 10**USDX.decimals
BROUGHT: Final = {(SELLER, "BTC"): "0.02000000", (BUYER, "USDX"): "1240.000000"}
"""What the two move into trading."""
ASKS: Final = (("0.008", "60300"), ("0.012", "60400"))
"""Amount and price of the seller's orders."""
WANTED: Final = "0.02"
PAID: Final = 482_400_000 + 724_800_000
"""USDX units for both: 60,360 a bitcoin on average."""
TAKER_FEE: Final = PAID // 1_000
MAKER_FEE: Final = 482_400_000 * 8 // 10_000 + 724_800_000 * 8 // 10_000
WITHDRAWN_SATS: Final = 1_000_000
WITHDRAWN_DOLLARS: Final = 1_000


def trade(world: World) -> dict[str, Any]:
    """Deposits go into trading, two orders rest, a market order takes both, and each side is charged its fee."""
    for (customer, asset), amount in BROUGHT.items():
        move(world, customer, asset, amount, "trading")
    for number, (amount, price) in enumerate(ASKS, start=1):
        order = {"type": "limit", "side": "sell", "price": price, "base_amount": amount}
        place(world, SELLER, f"ask-{number}", order)
    order = {"type": "market", "side": "buy", "base_amount": WANTED}
    bought = place(world, BUYER, "buy", order)
    expect(bought["status"] == "filled", "the market order is filled", order=bought)
    expect(plain(bought["average_price"]) == "60360", "at 60,360 on average", order=bought)
    fills = world.trader.get(f"/v1/customers/{BUYER}/fills")["items"]
    expect(len(fills) == len(ASKS), "by both asks", fills=fills)
    usdx, bitcoin = world.books["USDX"], world.btc
    usdx.credit(BUYER, -PAID - TAKER_FEE)
    usdx.credit(SELLER, PAID - MAKER_FEE)
    usdx.fees_earned += TAKER_FEE + MAKER_FEE
    bitcoin.credit(BUYER, bitcoin.read("0.02000000"))
    bitcoin.credit(SELLER, -bitcoin.read("0.02000000"))
    settled = world.until(
        lambda: _lines(world, SELLER, "USDX"),
        lambda lines: sum(line["type"] == "fee" for line in lines) == len(ASKS),
        "the fills to be settled in the ledger",
    )
    return {
        "order": bought,
        "fills": fills,
        "fees": {"taker": usdx.show(TAKER_FEE), "maker": usdx.show(MAKER_FEE)},
        "ledger": settled,
    }


def proceeds(world: World) -> dict[str, Any]:
    """What they got goes back to funding and leaves on chain: bitcoin for one, dollars for the other."""
    for customer in (BUYER, SELLER):
        held = world.trader.get(f"/v1/customers/{customer}/balances")["balances"]
        for balance in held:
            expect(plain(balance["held"]) == "0", "no order holds anything", balance=balance)
            if plain(balance["free"]) != "0":
                move(world, customer, balance["asset"], balance["free"], "funding")
    world.expect_balances(BUYER, SELLER)
    world.expect_balances(BUYER, SELLER, asset="USDX")
    side, usdx = world.ethereum, world.contract_of(USDX.asset)
    address, stranger = world.outside.address(), side.stranger()
    bitcoin = world.withdraw(BUYER, address, WITHDRAWN_SATS)
    dollars = world.withdraw(SELLER, stranger, WITHDRAWN_DOLLARS * DOLLAR, "USDX")
    world.await_pending(world.await_withdrawal(bitcoin["id"], "broadcast")["txids"][-1])
    await_in_pool(world, side, world.await_withdrawal(dollars["id"], "broadcast")["txids"][-1])
    world.mine(CONFIRMATIONS)
    side.node.finalize()
    world.paid(BUYER, world.await_withdrawal(bitcoin["id"], "settled"), address, WITHDRAWN_SATS)
    settled = world.await_withdrawal(dollars["id"], "settled")
    arrived = side.token_units(usdx, stranger)
    expect(arrived == WITHDRAWN_DOLLARS * DOLLAR, "the dollars arrived once", arrived=arrived)
    world.book_payment(SELLER, settled, arrived)
    return {
        "withdrawals": [bitcoin["id"], dollars["id"]],
        "destinations": [address, stranger],
        "balances": {
            "BTC": world.expect_balances(BUYER, SELLER),
            "USDX": world.expect_balances(BUYER, SELLER, asset="USDX"),
        },
    }


def move(world: World, customer: str, asset: str, amount: str, to: str) -> dict[str, Any]:
    """Moves a customer's money between funding and trading, and waits until both sides have it."""
    body = {"id": str(new_id()), "asset": asset, "amount": amount, "to": to}
    path = f"/v1/customers/{customer}/transfers"
    world.trader.post(path, body)
    done = world.until(
        partial(world.trader.get, f"{path}/{to}/{body['id']}"),
        lambda transfer: transfer["state"] in ("done", "refused", "returned"),
        f"{customer}'s {amount} {asset} to be in {to}",
    )
    expect(done["state"] == "done", "the transfer is made", transfer=done)
    world.note(f"{customer} moves {amount} {asset} to {to}")
    return done


def place(world: World, customer: str, client_order_id: str, order: dict[str, str]) -> dict[str, Any]:
    """Places an order; the answer says what became of it at once."""
    body = {"client_order_id": client_order_id, "market": MARKET, **order}
    placed = world.trader.post(f"/v1/customers/{customer}/orders", body)
    world.note(f"{customer}: {order['side']} {order['base_amount']} BTC, {placed['status']}")
    return placed


def plain(decimal: str) -> str:
    """A decimal without the zeros at its end: `60360.000000` is `60360`."""
    return decimal.rstrip("0").rstrip(".") if "." in decimal else decimal


def _lines(world: World, customer: str, asset: str) -> list[dict[str, Any]]:
    lines = world.statement(customer, asset)
    return [line for line in lines if line["account"] == "trading" and line["reference"].startswith("trade:")]
