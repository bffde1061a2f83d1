"""Worker, beat and signer as processes, the key in SoftHSM: forwarders are emptied by nobody else, kill -9 included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.anvil import Anvil
from ops.devnet.process import wait_until
from ops.devnet.redis import RedisServer
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_till import TillOutside
from tests.fakes.plant import EvmPlant, plant_parts, running
from tests.fakes.rpc_proxy import Fault

USDX = 10**6


@pytest.fixture
def plant(
    database: str, anvil: Anvil, tmp_path: Path, parts_directory: Path, redis_server: RedisServer
) -> Iterator[EvmPlant]:
    with (
        plant_parts(anvil, tmp_path, redis_server) as parts,
        running(EvmPlant(database, TillOutside(anvil), tmp_path, parts)) as opened,
    ):
        opened.fund(units=ETHER)
        yield opened


def start(plant: EvmPlant) -> None:
    plant.worker.start()
    plant.beat.start()


def wait_for(plant: EvmPlant, *states: str) -> None:
    def seen() -> list[str]:
        return [row["state"] for row in plant.query("SELECT state FROM sweeps ORDER BY id")]

    wait_until(lambda: seen() == list(states), timeout=60, what=f"the sweeps to be {', '.join(states)}")


def versions(plant: EvmPlant) -> list[tuple[str, bytes]]:
    rows = plant.query("SELECT txid, signed FROM transaction_versions ORDER BY created_at")
    return [(row["txid"], bytes(row["signed"])) for row in rows]


def finish(plant: EvmPlant) -> None:
    """The flush is mined and final, and the workers have looked at what it left."""
    [(txid, _)] = versions(plant)
    wait_until(lambda: txid in plant.pool(), timeout=60, what="the flush in the pool")
    plant.mine()
    plant.finalize()
    wait_for(plant, "confirmed")
    wait_until(
        lambda: (
            {row["state"] for row in plant.query("SELECT state FROM deposits WHERE customer_id IS NOT NULL")}
            == {"swept"}
        ),
        timeout=60,
        what="the deposits to count as swept",
    )


def test_workers_sweep_what_customers_pay_in_without_anybody_else(plant: EvmPlant) -> None:
    plant.customer("alice", USDX=60 * USDX)
    start(plant)
    wait_for(plant, "broadcast")
    finish(plant)
    assert plant.has(plant.world.record.address, "USDX") == 60 * USDX
    assert plant.balance("alice", asset="USDX") == 60 * USDX


def test_fault_1_killed_after_signing_before_the_broadcast_the_same_flush_is_sent(plant: EvmPlant) -> None:
    plant.customer("alice", USDX=60 * USDX)
    plant.proxy.faults["eth_sendRawTransaction"] = Fault.HOLD_REQUEST
    start(plant)
    wait_until(
        lambda: bool(plant.proxy.calls("eth_sendRawTransaction")), timeout=60, what="the worker to broadcast"
    )
    plant.worker.kill()
    before = versions(plant)
    assert before[0][0] not in plant.pool()
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")  # the dead worker's claim is over
    plant.worker.start()
    finish(plant)
    assert versions(plant) == before
    assert len(plant.query("SELECT * FROM sweeps")) == 1
