"""`strongroom demo`: brings the stack up, takes the tour, says what held, and stays until Ctrl-C or ends."""

from __future__ import annotations

import enum
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from ops.demo.record import Record, StepRecord
from ops.demo.show import Show, summary
from ops.demo.tour import STEPS
from ops.demo.tour import run as take_tour
from ops.demo.world import World
from ops.devnet.errors import DevnetError
from ops.devnet.external import VARIABLE
from ops.devnet.files import part_directory
from ops.stack.command import end_on_sigterm, show_hints
from ops.stack.stack import Stack
from ops.stack.supervise import Supervisor

_START: Final = "Starting PostgreSQL, Redis, three nodes, four HSM tokens, and ten processes"


class After(enum.Enum):
    """What happens after the tour."""

    STAY = "stay"
    END = "end"


def run(after: After, *, json_file: Path | None, keep: Path | None) -> int:
    """Runs the tour and returns the exit code: 0 only if everything held; 2 for a directory in use.

    Args:
        after: stay up until Ctrl-C, or end.
        json_file: where the record goes.
        keep: data directory that is left as it is; None makes one that is removed, unless a step failed.
    """
    console = Console()
    end_on_sigterm()
    if keep is not None and keep.exists() and not (keep.is_dir() and not any(keep.iterdir())):
        console.print(
            f"{keep} is not an empty directory: the tour begins anew, so name one that is or is not there yet",
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return 2
    directory = keep if keep is not None else part_directory("strongroom-demo-")
    try:
        stack = Stack(directory, database_url=os.environ.get(VARIABLE))
    except (DevnetError, OSError) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        return 2
    record = Record()
    try:
        with Show(console, [_START, *(title for _, title, _ in STEPS)]) as show:
            if _start(stack, show, record):
                with World.of(stack) as world:
                    take_tour(world, show, record)
        _write(record, json_file)
        summary(console, record)
        if record.ok and after is After.STAY:
            _stay(stack, console)
    except KeyboardInterrupt:
        console.print("stopping")
        if not record.ok:
            _write(record, json_file)
            return 130
    finally:
        _take_down(stack, console, kept=keep is not None or record.failed)
    return 0 if record.ok else 1


def _start(stack: Stack, show: Show, record: Record) -> bool:
    step = StepRecord("start", _START)
    record.steps.append(step)
    show.begin(_START)
    stack.tell = show.note
    started = time.monotonic()
    try:
        stack.up()
        step.ok = True
        record.endpoints.update(
            api=stack.api_url,
            openapi=f"{stack.api_url}/openapi.json",
            metrics=f"{stack.api_url}/metrics",
            bitcoind_rest=stack.node.rest_url,
            **{network.chain: anvil.rpc_url for network, anvil in stack.chains.items()},
            data=str(stack.directory),
        )
        step.detail.update(
            processes={name: stack.processes[name].pid for name in stack.names},
            bundle=stack.bundle.digest_hex(),
            officers=[officer.id for officer in stack.trust.quorum.officers],
        )
    except DevnetError as error:
        step.detail["error"] = str(error)
    step.seconds = time.monotonic() - started
    show.end(step)
    return step.ok


def _stay(stack: Stack, console: Console) -> None:
    show_hints(stack, console, title="It stays up until Ctrl-C")
    supervisor = Supervisor(stack.processes, console.print)
    supervisor.start()
    try:
        signal.pause()
    finally:
        supervisor.stop()


def _take_down(stack: Stack, console: Console, *, kept: bool) -> None:
    # A second Ctrl-C must not leave anything running.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kept:
        stack.down()
        console.print(f"data and logs are in {stack.directory}", highlight=False, soft_wrap=True)
    else:
        stack.remove()


def _write(record: Record, json_file: Path | None) -> None:
    if json_file is not None:
        record.write(json_file)
