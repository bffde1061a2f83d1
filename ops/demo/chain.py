"""The tour's chapter on refills: a busy hour empties hot, and money comes up from cold to warm and from warm to hot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from ops.demo import cold, payments, refills, warm
from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.listing import ASSET, BTC_SATS
from ops.stack.names import BTC_COLD, BTC_KEYSET, BTC_WARM

PAYMENTS: Final = 16
EACH_SATS: Final = 499 * BTC_SATS // 10_000
"""Small enough for hot alone."""
_DIGITS: Final = 5
"""So much of an amount is typed to sign it."""


def busy(world: World) -> dict[str, Any]:
    """Many small withdrawals leave hot with less than 30 % of what it may hold: the treasury asks for more."""
    before = world.tiers(ASSET)
    addresses = [world.outside.address() for _ in range(PAYMENTS)]
    with ThreadPoolExecutor(8) as together:
        made = list(together.map(lambda address: world.withdraw(cold.EVA, address, EACH_SATS), addresses))
    world.note(f"eva withdraws {PAYMENTS} times {world.btc.show(EACH_SATS)}")
    waiting = {entry["id"]: address for entry, address in zip(made, addresses, strict=True)}
    states = world.until(
        partial(_step, world, tuple(waiting)),
        lambda found: all(entry["state"] == "settled" for entry in found),
        "all of them to be settled",
    )
    for settled in states:
        world.paid(cold.EVA, settled, waiting[settled["id"]], EACH_SATS)
    after = world.tiers(ASSET)
    world.note(
        f"hot holds {after['hot']['holds']} BTC, of {after['hot']['holding_cap']} BTC that it may hold"
    )
    return {
        "withdrawals": len(made),
        "each": world.btc.show(EACH_SATS),
        "before": before,
        "after": after,
        "balances": world.expect_balances(cold.EVA),
    }


def refill(world: World) -> dict[str, Any]:
    """Warm has nothing to give: cold gives to warm, signed offline; then warm to hot, signed by two of three."""
    before = world.terminal.run("tier").stdout
    up = refills.proposed(world, BTC_COLD, BTC_WARM, ASSET)
    refills.approve(world, up, cold.TREASURERS)
    request = cold.await_request(world, BTC_COLD)
    signed = cold.sign_request(world, request, "psbt", amount=up["amount"][:_DIGITS])
    first = refills.confirm(world, up)
    second = refills.move(world, BTC_WARM, BTC_KEYSET, ASSET, warm.TREASURERS)
    hot = world.tiers(ASSET)["hot"]
    expect(
        world.btc.read(hot["holds"]) >= world.btc.read(hot["refill_below"]),
        "hot has enough again",
        tier=hot,
    )
    world.note(f"hot holds {hot['holds']} BTC again")
    after = world.terminal.run("tier").stdout
    return {
        "tiers_before": before.splitlines(),
        "from_cold": first,
        "signed": signed,
        "from_warm": second,
        "tiers_after": after.splitlines(),
        "reconciled": payments.reconcile(world)["assets"],
        "verified": payments.verify(world)["examined"],
    }


def _step(world: World, identities: tuple[str, ...]) -> list[dict[str, Any]]:
    """Mines what waits, and says how withdrawals are."""
    found = [dict(world.api.withdrawal(identity)) for identity in identities]
    if world.node.rpc("getrawmempool"):
        world.mine(CONFIRMATIONS)
    return found
