"""The guided tour as a user runs it: it holds, it says so in JSON, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo.tour import STEPS
from ops.devnet.files import part_directory
from ops.devnet.process import ManagedProcess, wait_until


def left_over(directory: str) -> list[str]:
    """Command lines of running processes that name this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if directory.encode() in command + environment and int(entry.name) != os.getpid():
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.timeout(1_000)
def test_the_tour_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    record_file = tmp_path / "tour.json"
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "demo", "--once", "--json", str(record_file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    record = json.loads(record_file.read_text())
    assert [step["name"] for step in record["steps"] if not step["ok"]] == [], done.stdout + done.stderr
    assert [step["name"] for step in record["steps"]] == ["start", *(name for name, _, _ in STEPS)]
    assert record["ok"] is True
    assert done.returncode == 0, done.stdout + done.stderr
    assert record["endpoints"]["api"].startswith("http://127.0.0.1:")
    assert not Path(record["endpoints"]["data"]).exists()
    assert left_over(record["endpoints"]["data"]) == []


@pytest.fixture
def kept() -> Iterator[Path]:
    """A data directory for `--keep` that PostgreSQL's user can pass through, unlike pytest's own."""
    directory = part_directory("strongroom-e2e-")
    yield directory
    shutil.rmtree(directory)


def test_ctrl_c_in_the_middle_ends_everything(kept: Path, tmp_path: Path) -> None:
    data = kept / "data"
    tour = ManagedProcess(
        "demo",
        [sys.executable, "-m", "ops.cli", "demo", "--once", "--keep", data],
        log_path=tmp_path / "demo.log",
        stop_signal=signal.SIGINT,
    )
    tour.start()
    monitor_log = data / "logs/monitor.log"
    wait_until(monitor_log.exists, timeout=60, what="the processes to be started")
    tour.send_signal(signal.SIGINT)
    assert tour.wait(timeout=60) == 130, tour.log_tail()
    assert left_over(str(data)) == []
    assert (data / "bundle.json").exists()
