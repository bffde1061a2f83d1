"""The process `strongroom monitor` on an EVM chain: it is killed within a commit, restarted, and told to rescan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.eth.network import NativeMode
from ops.devnet.anvil import Anvil
from ops.devnet.process import ManagedProcess, wait_until
from ops.stack.quorum import make_quorum, publish
from tests.fakes.desk import as_role
from tests.fakes.evm_desk import CHAIN, ETHER, EvmDesk, Outside, open_evm_desk

UNITS = ETHER // 2


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with Anvil(tmp_path_factory.mktemp("monitor-evm-process")) as node:
        yield Outside(node, NativeMode.TRACE)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[EvmDesk]:
    with open_evm_desk(database, outside) as desk:
        yield desk


class Processes:
    """Monitors of one desk, each a process."""

    def __init__(self, desk: EvmDesk, directory: Path) -> None:
        quorum = make_quorum(directory / "officers")
        bundle, root = publish(directory, quorum.sign(desk.bundle), quorum.trust_root(minimum_version=1))
        self.directory = directory
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")},
            "STRONGROOM_DATABASE_URL": as_role(desk.dsn, "strongroom_monitor"),
            "STRONGROOM_BUNDLE_PATH": str(bundle),
            "STRONGROOM_TRUST_ROOT_PATH": str(root),
            "STRONGROOM_NODES": json.dumps({CHAIN: {"rpc_url": desk.anvil.rpc_url}}),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
        }
        self.started: list[ManagedProcess] = []

    def start(self) -> ManagedProcess:
        number = len(self.started)
        process = ManagedProcess(
            f"monitor-{number}",
            [sys.executable, "-m", "custody.monitor"],
            log_path=self.directory / f"monitor-{number}.log",
            env=self.env,
        )
        process.start()
        self.started.append(process)
        return process

    def rescan(self, height: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "custody.monitor", "--rescan-from", str(height)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def monitors(desk: EvmDesk, tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(desk, tmp_path)
    yield processes
    for process in processes.started:
        process.kill()


def wait_for(desk: EvmDesk, process: ManagedProcess) -> None:
    def at_tip() -> bool:
        [cursor] = desk.query("SELECT height, hash FROM cursors")
        return bool(desk.anvil.block_hash(desk.anvil.height())[2:] == cursor["hash"])

    wait_until(
        at_tip,
        timeout=30,
        what="the monitor to reach the tip",
        stop_waiting=lambda: None if process.running else process.log_tail(),
    )


@pytest.mark.parametrize("table", ["cursors", "receipts", "deposits", "ledger_lines"])
def test_killed_within_its_commit_a_monitor_has_done_nothing_and_its_successor_credits_once(
    desk: EvmDesk, outside: Outside, monitors: Processes, table: str
) -> None:
    alice = desk.customer("alice")
    row = desk.address(alice)
    first = monitors.start()
    wait_for(desk, first)
    outside.send("ETH", row.address, UNITS)
    outside.send("USDX", row.address, 7_000_000)
    outside.node.mine()
    wait_for(desk, first)
    wait_until(lambda: desk.states() == ["confirming"] * 2, timeout=20, what="the deposits")
    before = desk.contents()
    with desk.admin.transaction() as tx:
        tx.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
        if table == "ledger_lines":  # written when something is credited, with a new block or without one
            outside.node.finalize()
        else:  # not final, so the only commit there can be is that of the block
            outside.send("ETH", row.address, UNITS)
            outside.node.mine()
        waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        wait_until(
            lambda: tx.one(waiting.encode(), [table])["n"] > 0, timeout=20, what="the monitor at the lock"
        )
        first.kill()
    assert desk.contents() == before
    outside.send("ETH", row.address, UNITS)
    outside.node.finalize()
    second = monitors.start()
    wait_for(desk, second)
    wait_until(lambda: desk.states() == ["credited"] * len(desk.states()), timeout=20, what="the credits")
    paid = UNITS * (2 if table == "ledger_lines" else 3)
    assert (desk.balance(alice), desk.balance(alice, asset="USDX")) == (paid, 7_000_000)
    assert second.stop() == 0
    desk.exact()
    done = monitors.rescan(1)
    assert done.returncode == 0, done.stderr
    assert "0 receipts, 0 consumptions, 0 deposits" in done.stdout


def test_a_node_of_another_network_is_never_believed(
    desk: EvmDesk, outside: Outside, monitors: Processes, tmp_path: Path
) -> None:
    """Same keys, same addresses, another chain id: what is paid there is nothing here."""
    alice = desk.customer("alice")
    row = desk.address(alice)
    with Anvil(tmp_path / "other", chain_id=31338) as other:
        monitors.env["STRONGROOM_NODES"] = json.dumps({CHAIN: {"rpc_url": other.rpc_url}})
        other.send_eth(other.accounts()[0], row.address, UNITS)
        other.mine(20)
        process = monitors.start()
        wait_until(
            lambda: not process.running or "31338" in process.log_tail(),
            timeout=30,
            what="the monitor to refuse",
        )
        process.kill()
    assert desk.query("SELECT * FROM receipts") == []
    assert desk.states() == []
