"""The process `strongroom monitor` on real parts: killed within any statement of its commits, run twice, commanded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from ops.devnet.bitcoind import Bitcoind, OutsideWallet
from ops.devnet.process import ManagedProcess, wait_until
from ops.stack.quorum import make_quorum, publish
from tests.fakes.desk import CHAIN, Desk, as_role, open_desk

UNITS = 3_456_789


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    with Bitcoind(tmp_path_factory.mktemp("monitor-process")) as node:
        yield node


@pytest.fixture(scope="module")
def payer(node: Bitcoind) -> OutsideWallet:
    wallet = node.wallet("payer")
    wallet.mine(130)
    return wallet


@pytest.fixture
def desk(database: str, node: Bitcoind, payer: OutsideWallet) -> Iterator[Desk]:
    adapter = BitcoinNode(CHAIN, NETWORKS["regtest"], node.rpc_url, node.rest_url)
    with open_desk(database, adapter) as desk:
        yield desk
    adapter.close()


class Processes:
    """Monitors of one desk, each a process."""

    def __init__(self, desk: Desk, node: Bitcoind, directory: Path, *, zmq: bool) -> None:
        quorum = make_quorum(directory / "officers")
        bundle, root = publish(directory, quorum.sign(desk.bundle), quorum.trust_root(minimum_version=1))
        urls = {"rpc_url": node.rpc_url, "rest_url": node.rest_url, "zmq_url": node.zmq_url if zmq else ""}
        self.directory = directory
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")},
            "STRONGROOM_DATABASE_URL": as_role(desk.dsn, "strongroom_monitor"),
            "STRONGROOM_BUNDLE_PATH": str(bundle),
            "STRONGROOM_TRUST_ROOT_PATH": str(root),
            "STRONGROOM_NODES": json.dumps({CHAIN: urls}),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
        }
        self.started: list[ManagedProcess] = []

    def start(self, *arguments: str) -> ManagedProcess:
        number = len(self.started)
        process = ManagedProcess(
            f"monitor-{number}",
            [sys.executable, "-m", "custody.monitor", *arguments],
            log_path=self.directory / f"monitor-{number}.log",
            env=self.env,
        )
        process.start()
        self.started.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "custody.monitor", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def monitors(desk: Desk, node: Bitcoind, tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(desk, node, tmp_path, zmq=True)
    yield processes
    for process in processes.started:
        process.kill()


def at_tip(desk: Desk, node: Bitcoind) -> bool:
    rows = desk.query("SELECT hash FROM cursors")
    return [row["hash"] for row in rows] == [node.rpc("getbestblockhash")]


def wait_for(desk: Desk, node: Bitcoind, process: ManagedProcess) -> None:
    wait_until(
        lambda: at_tip(desk, node),
        timeout=30,
        what="the monitor to reach the tip",
        stop_waiting=lambda: None if process.running else process.log_tail(),
    )


@pytest.mark.parametrize(
    "table",
    [
        "cursors",
        "blocks",
        "receipts",
        "deposits",
        "deposit_events",
        "ledger_lines",
        "ledger_transfers",
        "events",
    ],
)
def test_killed_within_its_commit_a_monitor_has_done_nothing_and_its_successor_credits_once(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, monitors: Processes, table: str
) -> None:
    """A lock stops the monitor in the middle of the transaction that credits; kill -9 hits it exactly there."""
    alice = desk.customer("alice")
    first = monitors.start()
    wait_for(desk, node, first)
    payer.send(desk.address(alice).address, UNITS)
    mining = desk.address(alice)
    payer.mine(5)
    wait_for(desk, node, first)
    wait_until(lambda: desk.states() == ["confirming"], timeout=20, what="five confirmations")
    before = desk.contents()
    with desk.admin.transaction() as tx:
        tx.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
        # New coins for another address of hers: this block credits one deposit and brings the next.
        node.rpc("generatetoaddress", 1, mining.address)
        waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        wait_until(
            lambda: tx.one(waiting.encode(), [table])["n"] > 0, timeout=20, what="the monitor at the lock"
        )
        first.kill()
    assert desk.contents() == before
    second = monitors.start()
    wait_for(desk, node, second)
    assert (desk.states(), desk.balance(alice)) == (["credited", "confirming"], UNITS)
    desk.check()


def test_of_two_monitors_one_leads_and_the_other_takes_over_when_it_is_killed(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, monitors: Processes
) -> None:
    alice = desk.customer("alice")
    first = monitors.start()
    wait_for(desk, node, first)
    second = monitors.start()
    wait_until(
        lambda: "another monitor leads" in second.log_tail(), timeout=30, what="the second one to stand by"
    )
    payer.send(desk.address(alice).address, UNITS)
    payer.mine(3)
    wait_for(desk, node, first)
    first.kill()
    payer.mine(3)
    wait_for(desk, node, second)
    assert (desk.states(), desk.balance(alice)) == (["credited"], UNITS)
    assert "leading" in second.log_tail()
    assert second.stop() == 0
    desk.check()


def test_row_15_a_monitor_without_announcements_follows_all_the_same(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, tmp_path: Path
) -> None:
    processes = Processes(desk, node, tmp_path, zmq=False)
    alice = desk.customer("alice")
    process = processes.start()
    try:
        wait_for(desk, node, process)
        payer.send(desk.address(alice).address, UNITS)
        wait_until(lambda: desk.states() == ["seen"], timeout=20, what="the mempool sighting")
        payer.mine(6)
        wait_until(lambda: desk.balance(alice) == UNITS, timeout=20, what="the credit")
    finally:
        process.kill()
    desk.check()


def test_a_node_that_restarts_is_waited_for(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, monitors: Processes
) -> None:
    alice = desk.customer("alice")
    process = monitors.start()
    wait_for(desk, node, process)
    node.stop()
    wait_until(lambda: "a pass failed" in process.log_tail(), timeout=20, what="a pass without the node")
    node.start()
    payer.node.wallet("payer")
    payer.send(desk.address(alice).address, UNITS)
    payer.mine(6)
    wait_until(lambda: desk.balance(alice) == UNITS, timeout=30, what="the credit")
    desk.check()


def test_the_command_rescans(desk: Desk, node: Bitcoind, payer: OutsideWallet, monitors: Processes) -> None:
    alice = desk.customer("alice")
    payer.send(desk.address(alice).address, UNITS)
    payer.mine(6)
    process = monitors.start("--start-height", str(int(node.rpc("getblockcount"))))
    wait_for(desk, node, process)
    assert desk.states() == []
    refused = monitors.run("--rescan-from", "1")
    assert refused.returncode == 3
    assert "is running: stop it first" in refused.stderr
    assert process.stop() == 0
    done = monitors.run("--rescan-from", "1")
    assert done.returncode == 0, done.stderr
    assert "1 receipts, 0 consumptions, 1 deposits" in done.stdout
    assert desk.balance(alice) == UNITS
    desk.check()
