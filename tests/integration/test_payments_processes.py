"""Workers, beat and signer as processes: killed with -9 at the worst moments, called twice, and with an empty
Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from custody.bell import QUEUE, CeleryBell
from custody.config import Secret
from custody.ports import Step
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.process import wait_until
from ops.devnet.redis import RedisServer
from tests.fakes.plant import Plant, plant_parts, running
from tests.fakes.rpc_proxy import Fault


@pytest.fixture
def plant(
    database: str, bitcoind: Bitcoind, tmp_path: Path, parts_directory: Path, redis_server: RedisServer
) -> Iterator[Plant]:
    with plant_parts(bitcoind, tmp_path, redis_server) as parts:
        plant = Plant(database, bitcoind, tmp_path, parts)
        with running(plant) as opened:
            yield opened


def wait_for_state(plant: Plant, state: str, *, timeout: float = 40) -> None:
    wait_until(lambda: plant.states() == [state], timeout=timeout, what=f"the withdrawal to be {state}")


def only_version(plant: Plant) -> tuple[str, bytes]:
    """Txid and bytes of the one version of the one transaction."""
    [row] = plant.query("SELECT txid, signed FROM transaction_versions")
    return row["txid"], bytes(row["signed"])


def test_worker_beat_and_signer_pay_without_anybody_else(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.worker.start()
    plant.beat.start()
    plant.request(alice, 1_000_000)
    wait_for_state(plant, "broadcast")
    wait_until(
        lambda: only_version(plant)[0] in plant.mempool(), timeout=20, what="the payment in the mempool"
    )
    plant.mine(1)
    wait_for_state(plant, "confirming")
    plant.mine(5)
    wait_for_state(plant, "settled")
    assert plant.worker.running
    assert plant.beat.running


def test_fault_1_killed_after_signing_before_the_broadcast_the_same_bytes_are_sent(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.request(alice, 1_000_000)
    plant.proxy.faults["sendrawtransaction"] = Fault.HOLD_REQUEST
    plant.worker.start()
    plant.beat.start()
    wait_until(
        lambda: bool(plant.proxy.calls("sendrawtransaction")), timeout=40, what="the worker to broadcast"
    )
    plant.worker.kill()
    txid, signed = only_version(plant)
    assert plant.mempool() == set()
    assert plant.states() == ["broadcast"]
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")  # the dead worker's claim is over
    plant.worker.start()
    wait_until(lambda: txid in plant.mempool(), timeout=40, what="the same transaction in the mempool")
    assert {params[0] for params in plant.proxy.calls("sendrawtransaction")} == {signed.hex()}
    assert only_version(plant) == (txid, signed)
    plant.mine(6)
    wait_for_state(plant, "settled")


def test_fault_2_killed_after_the_broadcast_before_recording_it_it_is_found_by_its_txid(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.request(alice, 1_000_000)
    plant.proxy.faults["sendrawtransaction"] = Fault.HOLD_REPLY
    plant.worker.start()
    plant.beat.start()
    wait_until(lambda: len(plant.mempool()) == 1, timeout=40, what="the payment in the mempool")
    plant.worker.kill()
    txid, signed = only_version(plant)
    assert plant.mempool() == {txid}
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")
    plant.worker.start()
    plant.mine(6)
    wait_for_state(plant, "settled")
    assert only_version(plant) == (txid, signed)


def test_the_signer_killed_in_between_is_asked_again_and_signs_once(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.daemon.kill()
    plant.request(alice, 1_000_000)
    plant.worker.start()
    plant.beat.start()
    wait_for_state(plant, "signing")
    wait_until(lambda: "signer.unavailable" in plant.alerts(), timeout=20, what="the alert")
    plant.daemon.start()
    wait_for_state(plant, "broadcast")
    assert plant.signer.status().signed == 1
    wait_until(lambda: "signer.unavailable" not in plant.alerts(), timeout=20, what="the alert to go")


def test_fault_38_when_redis_loses_everything_the_work_is_found_in_the_database(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.worker.start()
    plant.request(alice, 1_000_000)
    bell = CeleryBell(Secret(plant.redis_server.url))
    for _ in range(50):
        bell(Step.BUILD)
    plant.redis.flushall()
    plant.beat.start()
    wait_for_state(plant, "broadcast")
    wait_until(lambda: len(plant.mempool()) == 1, timeout=20, what="the payment in the mempool")
    plant.redis.flushall()
    plant.redis_server.kill()
    plant.mine(6)
    plant.redis_server.start()
    wait_for_state(plant, "settled", timeout=60)


def test_fault_39_a_task_delivered_twice_changes_nothing(plant: Plant) -> None:
    alice = plant.customer("alice", 5_000_000)
    plant.request(alice, 1_000_000)
    plant.proxy.faults["sendrawtransaction"] = Fault.HOLD_REPLY
    plant.worker.start()
    bell = CeleryBell(Secret(plant.redis_server.url))
    bell(Step.ROUTE)  # rings for the others by itself
    wait_until(lambda: len(plant.mempool()) == 1, timeout=40, what="the payment in the mempool")
    plant.worker.kill()
    unacknowledged = plant.redis.hlen("unacked")
    assert unacknowledged >= 1, "the killed worker's task was not acknowledged before it was done"
    plant.proxy.faults.clear()
    plant.execute("UPDATE transactions SET rebroadcast_at = now()")
    before = plant.contents()
    # What the broker does after a minute: it gives the task to somebody else. And everything else comes
    # twice, too.
    for tag in plant.redis.hkeys("unacked"):
        plant.redis.zadd(
            "unacked_index", {str(tag, "utf-8") if isinstance(tag, bytes) else tag: time.time() - 3600}
        )
    for step in list(Step) * 3:
        bell(step)
    other = plant.process("worker", "2")
    plant.worker.start()
    other.start()
    wait_until(
        lambda: plant.redis.hlen("unacked") == 0 and plant.redis.llen(QUEUE) == 0,
        timeout=60,
        what="all tasks to be done",
    )
    after = plant.contents()
    for row in (*before["transactions"], *after["transactions"]):
        del row["rebroadcast_at"], row["updated_at"], row["last_error"]
    assert after == before
    other.kill()


def test_a_worker_that_is_told_to_stop_ends_and_does_not_begin_anew(plant: Plant) -> None:
    plant.worker.start()
    CeleryBell(Secret(plant.redis_server.url))(Step.ROUTE)
    wait_until(
        lambda: plant.redis.llen(QUEUE) == 0 and plant.redis.hlen("unacked") == 0,
        timeout=40,
        what="the task to be done",
    )
    assert plant.worker.stop(timeout=20) == 0
    assert "anew" not in plant.worker.log_tail()


def test_a_worker_with_unusable_settings_does_not_start_and_says_what_to_write(plant: Plant) -> None:
    plant.worker.env = {**(plant.worker.env or {}), "STRONGROOM_REDIS_URL": "nowhere"}
    plant.worker.start()
    assert plant.worker.wait(timeout=30) == 2
    assert "redis_url: write redis://" in plant.worker.log_tail()


def test_a_bell_that_cannot_ring_neither_raises_nor_waits(redis_server: RedisServer) -> None:
    now = 100.0
    bell = CeleryBell(Secret("redis://127.0.0.1:1/0"), now=lambda: now)
    started = time.monotonic()
    for _ in range(100):
        bell(Step.SIGN)
    assert time.monotonic() - started < 3
    assert isinstance(bell._app(), Celery)
