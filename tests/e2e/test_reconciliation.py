"""FAULTS row 49: ledger and chain differ by one satoshi. The running system finds it by itself and stops paying."""

from __future__ import annotations

import psycopg

from ops.demo import arrivals
from ops.demo.world import World
from ops.stack.stack import Stack

STOLEN_SATS = 1


def test_one_satoshi_too_few_on_the_books_halts_all_paying(stack: Stack, world: World) -> None:
    for step in (arrivals.service, arrivals.customers, arrivals.addresses, arrivals.deposit_confirmed):
        step(world)
    assert world.reconcile()["ok"] is True

    # Somebody with the database owner's rights edits what we own by one satoshi.
    with psycopg.connect(stack.postgres.owner_dsn()) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "UPDATE ledger_accounts SET balance = balance + %s WHERE kind = 'chain_assets'", [STOLEN_SATS]
        )

    alerts = world.until(
        lambda: [a for a in world.operator.items("/v1/alerts") if a["type"] == "reconcile.difference"],
        bool,
        "the alarm",
    )
    assert alerts[0]["severity"] == "critical"
    report = world.reconcile()
    assert (report["ok"], report["exit_code"]) == (False, 1)
    made = world.withdraw("alice", world.outside.address(), 1_000_000)
    for _ in range(3):  # the workers look every second, and at every wake-up
        world.mine(1)
        world.await_monitor()
        stack.restart("worker")
        stack.await_ready()
    halted = world.api.withdrawal(made["id"])
    assert (halted["state"], halted["txids"]) == ("requested", [])
    assert 'strongroom_halted{scope="all"} 1.0' in world.operator.send("GET", "/metrics").text
