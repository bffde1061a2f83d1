"""A payment for which the trial's policy asks two treasurers waits for them, in a whole running system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ops.demo import arrivals
from ops.demo.policy import list_destination
from ops.demo.world import CONFIRMATIONS, World
from ops.stack.config import client_file, clock_file
from ops.stack.listing import DAY
from ops.stack.stack import Stack
from policies.keys import sign_order

LARGE_SATS = 6_000_000


def approve(stack: Stack, *arguments: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`strongroom approve`, as an operator's terminal runs it."""
    environment = {
        **os.environ,
        "STRONGROOM_CLIENT": str(client_file(stack.directory, "operator")),
        "STRONGROOM_BUNDLE_PATH": str(stack.directory / "bundle.json"),
        "STRONGROOM_TRUST_ROOT_PATH": str(stack.directory / "trust-root.json"),
        "STRONGROOM_DEMO_CLOCK": str(clock_file(stack.directory)),
    }
    name = [] if key is None else ["--approver", key.stem, "--key", str(key), "--yes"]
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", "approve", *arguments, *name, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def by_dora(world: World, stack: Stack, address: str) -> dict[str, Any]:
    """A withdrawal that the treasurer who is a caller too has ordered."""
    dora = stack.trust.callers["dora"]
    order = msgspec.structs.replace(world.order("alice", address, LARGE_SATS), caller=dora.id)
    with stack.client("dora") as api:
        body = {"order": order.to_object(), "signature": sign_order(order, dora.key).signature}
        return api.post("/v1/withdrawals", body)


def test_large_payments_wait_for_two_treasurers_and_who_ordered_one_is_none_of_them(
    stack: Stack, world: World
) -> None:
    for step in (arrivals.service, arrivals.customers, arrivals.addresses, arrivals.deposit_confirmed):
        step(world)
    keys = {
        name: stack.directory / "officers" / "approvers" / f"{name}.pem" for name in ("ada", "ben", "cleo")
    }
    keys["dora"] = stack.trust.callers["dora"].key_file
    first, second = world.outside.address(), world.outside.address()
    for address in (first, second):
        list_destination(world, "alice", address)
    world.pass_time(DAY)
    plain = world.withdraw("alice", first, LARGE_SATS)
    own = by_dora(world, stack, second)
    for made in (plain, own):
        world.await_withdrawal(made["id"], "awaiting_approval")
    waiting = json.loads(approve(stack).stdout)
    # The vault is to be filled for them, too: that is another question.
    payments = [each for each in waiting if not each["does"].startswith("move")]
    assert {(each["id"], each["genuine"]) for each in payments} == {
        (plain["id"], "yes"),
        (own["id"], "yes"),
    }

    refused = approve(stack, own["id"], key=keys["dora"])
    assert (refused.returncode, "has given this order" in refused.stdout + refused.stderr) == (2, True)
    for made, names in ((plain, ("dora", "ada")), (own, ("ben", "cleo"))):
        for name in names:
            assert world.api.withdrawal(made["id"])["state"] == "awaiting_approval"
            given = approve(stack, made["id"], key=keys[name])
            assert given.returncode == 0, given.stderr
    mined: set[str] = set()
    for made in (plain, own):
        # They share a transaction, or the second waits for the change of the first.
        sent = world.until(
            partial(world.api.withdrawal, made["id"]),
            lambda entry: entry["state"] in ("broadcast", "confirming", "settled"),
            "it to be sent",
        )
        if not mined.issuperset(sent["txids"]):
            world.await_pending(*sent["txids"])
            world.mine(CONFIRMATIONS)
            mined.update(sent["txids"])
    settled = [world.await_withdrawal(made["id"], "settled") for made in (plain, own)]
    for found, address in zip(settled, (first, second), strict=True):
        world.paid("alice", found, address, LARGE_SATS)
    world.expect_balances("alice")
    world.until(world.reconcile, lambda report: report["ok"], "nothing to differ")
