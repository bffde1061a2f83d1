"""Worker, beat and signer as processes on an EVM chain, the key in SoftHSM: killed with -9 at the worst moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.eth.tx import SignedTx
from ops.devnet.anvil import Anvil
from ops.devnet.process import wait_until
from ops.devnet.redis import RedisServer
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_till import TillOutside
from tests.fakes.plant import EvmPlant, plant_parts, running
from tests.fakes.rpc_proxy import Fault


@pytest.fixture
def plant(
    database: str, anvil: Anvil, tmp_path: Path, parts_directory: Path, redis_server: RedisServer
) -> Iterator[EvmPlant]:
    with plant_parts(anvil, tmp_path, redis_server) as parts:
        plant = EvmPlant(database, TillOutside(anvil), tmp_path, parts)
        with running(plant) as opened:
            opened.fund()
            yield opened


def wait_for_state(plant: EvmPlant, state: str, *, timeout: float = 60) -> None:
    wait_until(lambda: plant.states() == [state], timeout=timeout, what=f"the withdrawal to be {state}")


def payment(plant: EvmPlant) -> tuple[str, bytes]:
    """Txid and bytes of the one version of the one payment."""
    [row] = plant.query(
        "SELECT v.txid, v.signed FROM transaction_versions v JOIN transactions t ON t.id = v.transaction_id"
        " WHERE t.kind = 'payment'"
    )
    return row["txid"], bytes(row["signed"])


def settle(plant: EvmPlant) -> None:
    plant.mine()
    plant.finalize()
    wait_for_state(plant, "settled")


def test_worker_beat_and_a_key_in_the_hsm_pay_without_anybody_else(plant: EvmPlant) -> None:
    alice = plant.customer("alice", ETH=5 * ETHER)
    destination = plant.nobody()
    plant.worker.start()
    plant.beat.start()
    plant.request(alice, ETHER, destination=destination)
    wait_for_state(plant, "broadcast")
    wait_until(lambda: payment(plant)[0] in plant.pool(), timeout=30, what="the payment in the pool")
    signed = SignedTx.decode(payment(plant)[1])
    assert signed.sender() == plant.site.sender
    plant.mine()
    wait_for_state(plant, "confirming")
    settle(plant)
    assert plant.has(destination) == ETHER
    assert plant.worker.running
    assert plant.beat.running


def test_fault_1_killed_after_signing_before_the_broadcast_the_same_bytes_are_sent(plant: EvmPlant) -> None:
    alice = plant.customer("alice", ETH=5 * ETHER)
    plant.request(alice, ETHER)
    plant.proxy.faults["eth_sendRawTransaction"] = Fault.HOLD_REQUEST
    plant.worker.start()
    plant.beat.start()
    wait_until(
        lambda: bool(plant.proxy.calls("eth_sendRawTransaction")), timeout=60, what="the worker to broadcast"
    )
    wait_for_state(plant, "broadcast")
    plant.worker.kill()
    txid, signed = payment(plant)
    assert txid not in plant.pool()
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")  # the dead worker's claim is over
    plant.worker.start()
    wait_until(lambda: txid in plant.pool(), timeout=60, what="the same transaction in the pool")
    assert payment(plant) == (txid, signed)
    settle(plant)


def test_fault_2_killed_after_the_broadcast_before_recording_it_it_is_found_by_its_content(
    plant: EvmPlant,
) -> None:
    alice = plant.customer("alice", ETH=5 * ETHER)
    destination = plant.nobody()
    plant.request(alice, ETHER, destination=destination)
    plant.proxy.faults["eth_sendRawTransaction"] = Fault.HOLD_REPLY
    plant.worker.start()
    plant.beat.start()
    wait_until(lambda: bool(plant.pool()), timeout=60, what="the payment in the pool")
    wait_for_state(plant, "broadcast")
    plant.worker.kill()
    txid, signed = payment(plant)
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")
    plant.worker.start()
    settle(plant)
    assert payment(plant) == (txid, signed)
    assert plant.has(destination) == ETHER
