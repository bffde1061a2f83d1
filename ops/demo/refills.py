"""Money that moves between tiers, as the treasury proposes it and treasurers agree."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.devnet.bitcoind import btc_to_sats


def proposed(world: World, source: str, target: str, asset: str) -> dict[str, Any]:
    """Waits until the treasury wants something moved from one wallet to another, and returns it."""
    found = world.until(
        lambda: list(world.operator.items("/v1/refills", {"state": "proposed"})),
        partial(_on_the_way, source, target, asset),
        f"a refill from {source} to {target} to be proposed",
    )
    entry = _on_the_way(source, target, asset, found)
    assert entry is not None
    world.note(f"the treasury: {entry['amount']} {asset} from {source} to {target}, as {entry['about']}")
    return entry


def ask(world: World, source: str, target: str, amount: str) -> dict[str, Any]:
    """An operator wants something moved, and that is on its way to the people who approve it."""
    wanted = ("--from", source, "--to", target, "--amount", amount, "--reason", "to try it out")
    made = world.terminal.json("refill", "propose", *wanted)
    world.note(f"an operator: {made['amount']} from {source} to {target}")
    return dict(world.operator.get(f"/v1/refills/{made['id']}"))


def approve(world: World, refill: dict[str, Any], approvers: Sequence[str]) -> None:
    """Treasurers agree to a refill."""
    with ThreadPoolExecutor() as together:
        given = list(together.map(partial(world.approve, refill["id"]), approvers))
    expect(all(each.returncode == 0 for each in given), "they agree", said=[each.stderr for each in given])
    world.note(f"{' and '.join(approvers)} have agreed")


def await_refill(world: World, identity: str, state: str) -> dict[str, Any]:
    """Waits until a refill is in this state."""
    found = world.until(
        lambda: world.operator.get(f"/v1/refills/{identity}"),
        lambda entry: entry["state"] == state,
        f"refill {identity} to be {state}",
    )
    world.note(f"refill {identity} is {state}")
    return dict(found)


def move(world: World, source: str, target: str, asset: str, approvers: Sequence[str]) -> dict[str, Any]:
    """A refill on Bitcoin from the proposal to its last confirmation; its fee is in our own books."""
    refill = proposed(world, source, target, asset)
    approve(world, refill, approvers)
    return confirm(world, refill)


def confirm(world: World, refill: dict[str, Any]) -> dict[str, Any]:
    """Mines what carries a refill out on Bitcoin, and books its fee in our own books."""
    await_refill(world, refill["id"], "broadcast")
    pool = world.until(
        lambda: world.node.rpc("getrawmempool", True), lambda found: len(found) == 1, "its transaction"
    )
    [(txid, entry)] = pool.items()
    world.btc.network_fees[txid] = btc_to_sats(entry["fees"]["base"])
    world.mine(CONFIRMATIONS)
    return await_refill(world, refill["id"], "confirmed") | {"txid": txid}


def _on_the_way(
    source: str, target: str, asset: str, found: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    way = (source, target, asset)
    return next((each for each in found if (each["source"], each["target"], each["asset"]) == way), None)
