"""The tour's chapter on the policy: a destination must age, people must agree, and one officer can stop everything."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from ops.demo.record import expect
from ops.demo.world import CONFIRMATIONS, World
from ops.devnet.tools import CHECKOUT
from ops.stack.listing import CHAIN, DAY
from ops.stack.policy import FILE
from policies.bundle import SignedBundle

LARGE_SATS: Final = 6_000_000
"""Of those that the trial's policy has two people look at."""
SMALL_SATS: Final = 100_000
ORDERS_AND_APPROVES: Final = "dora"
"""A caller of the API who is a treasurer, too."""


def new_destination(world: World) -> dict[str, Any]:
    """A large payment to a new destination is refused. It is listed; a day passes; now nothing speaks against it."""
    address = world.large_destination = world.outside.address()
    early = world.withdraw("alice", address, LARGE_SATS)
    refused = world.await_withdrawal(early["id"], "rejected")
    expect(
        "new-destinations" in refused["reason"],
        "it is refused as its destination is new",
        reason=refused["reason"],
    )
    world.note(f"refused: {refused['reason']}")
    listed = list_destination(world, "alice", address)
    world.note(f"listed, to be used from {listed['usable_at']} on; the trial's clock is set a day forward")
    world.pass_time(DAY)
    return {
        "withdrawal": early["id"],
        "reason": refused["reason"],
        "entry": listed["id"],
        "destination": address,
    }


def approvals(world: World) -> dict[str, Any]:
    """dora orders, and may approve nothing of her own; ada and ben do, each after reading what it does."""
    made = world.withdraw_as(ORDERS_AND_APPROVES, world.order("alice", world.large_destination, LARGE_SATS))
    world.await_withdrawal(made["id"], "awaiting_approval")
    own = world.approve(made["id"], ORDERS_AND_APPROVES)
    expect(own.returncode != 0, "who has given an order approves nothing of it", said=own.stdout + own.stderr)
    for name in ("ada", "ben"):
        expect(
            world.api.withdrawal(made["id"])["state"] == "awaiting_approval",
            "it waits for two",
            approver=name,
        )
        given = world.approve(made["id"], name)
        expect(given.returncode == 0, f"{name} approves", said=given.stderr)
        world.note(f"{name} has approved")
    sent = world.await_withdrawal(made["id"], "broadcast")
    world.await_pending(sent["txids"][-1])
    world.mine(CONFIRMATIONS)
    settled = world.await_withdrawal(made["id"], "settled")
    world.paid("alice", settled, world.large_destination, LARGE_SATS)
    return {
        "withdrawal": made["id"],
        "amount": world.btc.show(LARGE_SATS),
        "asked": "2 of treasurers",
        "refused": ORDERS_AND_APPROVES,
        "approved": ["ada", "ben"],
        "balances": world.expect_balances("alice"),
    }


def freeze(world: World) -> dict[str, Any]:
    """One officer's word stops all paying, online and at the signer; only the quorum's next bundle lets it go on."""
    why = ("--reason", "something is wrong")
    told = world.terminal.json("freeze", "all", *world.terminal.officer_options(0), *why)
    address = world.outside.address()
    made = world.withdraw("alice", address, SMALL_SATS)
    waiting = world.until(
        lambda: world.api.withdrawal(made["id"]),
        lambda found: "fr" in found["reason"],
        "the freeze to hold it",
    )
    expect(waiting["txids"] == [], "nothing is paid", withdrawal=waiting)
    world.note(f"{waiting['state']}: {waiting['reason']}")
    draft = world.terminal.directory / "after-the-freeze.json"
    present = str(world.terminal.directory / "bundle.json")
    world.terminal.json(
        "policy",
        "draft",
        "--file",
        str(CHECKOUT / "ops" / "stack" / FILE),
        "--out",
        str(draft),
        "--waits-hours",
        "0",
    )
    for number in (0, 1):
        options = world.terminal.officer_options(number)
        done = world.terminal.run("key", "sign", str(draft), "--present", present, *options, "--yes")
        expect(done.returncode == 0, "an officer signs the next bundle", said=done.stderr)
    published = world.terminal.json("policy", "publish", str(draft))
    world.bundle = msgspec.json.decode(draft.read_bytes(), type=SignedBundle).bundle
    world.note(f"bundle {world.bundle.version} of the quorum lifts the freeze")
    sent = world.await_withdrawal(made["id"], "broadcast")
    world.await_pending(sent["txids"][-1])
    world.mine(CONFIRMATIONS)
    settled = world.await_withdrawal(made["id"], "settled")
    world.paid("alice", settled, address, SMALL_SATS)
    return {"frozen": told, "withdrawal": made["id"], "waited": waiting["reason"], "published": published}


def list_destination(world: World, customer: str, address: str) -> dict[str, Any]:
    """The exchange asks for an entry and confirms it, as it would type; returns it once it cools."""
    entry = str(uuid.uuid4())
    place = ("--chain", CHAIN, "--address", address)
    how = ("--owner", customer, "--provenance", "typed by the customer", "--id", entry)
    world.terminal.json("whitelist", "add", *how, *place, caller="exchange")
    world.terminal.json("whitelist", "confirm", entry, "--address", address, caller="exchange")

    def look() -> dict[str, Any]:
        found = world.terminal.json("whitelist", "list", "--owner", customer, caller="exchange")
        return next(each for each in found if each["id"] == entry)

    return world.until(look, lambda found: found["state"] == "cooling", "the entry to be listed")
