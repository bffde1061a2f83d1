"""The command `strongroom`: the console's verbs, the whole stack, the tour, the bench, a command per process.

Each imports what it needs when it runs, so that all start fast and a signer never holds the online service in
its memory.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

PROCESSES: Final = {
    "api": ("custody.api.__main__", "Serve the REST API (one process, for production)."),
    "monitor": ("custody.monitor.process", "Follow the chains and credit deposits (one process)."),
    "worker": ("custody.workers.main", "Decide, build, sign, broadcast, settle (one process)."),
    "trading": ("custody.trading.__main__", "Match orders and settle them in the ledger (one process)."),
    "beat": ("custody.workers.main", "Ring for the workers' steps (one process)."),
    "signer": ("signers.daemon", "Sign what its guard allows (one process)."),
    "verifier": ("signers.verifier.process", "Examine ledgers on own nodes, give verdicts (one process)."),
    "key": ("signers.cli.root", "Make, test, freeze, rotate and rescue keys (for those who hold them)."),
    "migrate": ("custody.storage.command", "Create or upgrade the database's schema and roles."),
    "reconcile": ("custody.reconcile.command", "Compare ledger, records and chain, to the base unit."),
}
"""Commands with settings of their own: module with `main(arguments) -> exit code`, and what it does."""


def writable(file: Path | None) -> Path | None:
    """Refuses a file that cannot be written before minutes of work end in nothing."""
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise typer.BadParameter(f"{file} cannot be written: name a file in a directory of yours")
    return file


_JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write a record for programs to this file.", callback=writable),
]


def up(
    *,
    data: Annotated[Path, typer.Option(help="Data directory, made if missing.", file_okay=False)] = Path(
        "strongroom-data"
    ),
    port: Annotated[
        int, typer.Option(help="Port of the API on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 8400,
) -> None:
    """Run the whole stack on private networks, in the foreground, until Ctrl-C."""
    from ops.stack.command import run

    run(data, port=port)


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False,
    json_file: _JsonFile = None,
    keep: Annotated[Path | None, typer.Option(help="Use this directory and leave all data in it.")] = None,
) -> None:
    """Take a guided tour on private networks; stays up afterwards until Ctrl-C."""
    from ops.demo.command import After, run

    sys.exit(run(After.END if once else After.STAY, json_file=json_file, keep=keep))


def rehearse(*, json_file: _JsonFile = None) -> None:
    """Rehearse a compromise: freeze, new keys, new bundle, rescue sweep, on a private network."""
    from ops.ceremonies.compromise import run

    sys.exit(run(json_file))


def bench(
    *,
    json_file: _JsonFile = None,
    only: Annotated[str, typer.Option(help="Only the row of this name.")] = "",
) -> None:
    """Measure our work beside named peers', in one run, as ratios."""
    from ops.bench.__main__ import bench as run

    run(json_file, only)


def main() -> None:
    """Entry point of `strongroom`."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROCESSES:
        sys.exit(_run_process(name, sys.argv[2:]))

    from custody.console.app import app
    from custody.console.approve import approvers  # noqa: F401 - add their verbs to the app
    from custody.console.audit import audit_app  # noqa: F401
    from custody.console.case import case_app  # noqa: F401
    from custody.console.cold import cold_app  # noqa: F401
    from custody.console.factory import factory_app  # noqa: F401
    from custody.console.ledger import verify_ledger  # noqa: F401
    from custody.console.officers import publish  # noqa: F401
    from custody.console.operator import operator  # noqa: F401
    from custody.console.policy import policy_app  # noqa: F401
    from custody.console.policy_proofs import prove_app  # noqa: F401
    from custody.console.proving import prove  # noqa: F401
    from custody.console.recovery import recovery_app  # noqa: F401
    from custody.console.refill import propose  # noqa: F401
    from custody.console.safes import safe_app  # noqa: F401
    from custody.console.sealed import sealing_key  # noqa: F401
    from custody.console.token import token  # noqa: F401
    from custody.console.whitelist import whitelist_app  # noqa: F401

    for command in (up, demo, rehearse, bench):
        app.command()(command)
    for process, (_, text) in PROCESSES.items():
        app.command(process, help=text)(_listed_only)
    app()


def _run_process(name: str, arguments: list[str]) -> int:
    # Before anything else is imported: a process is to hold its own part of the code and no other's.
    module = importlib.import_module(PROCESSES[name][0])
    given = [name, *arguments] if name in ("worker", "beat") else arguments
    code: int = module.main(given)
    return code


def _listed_only() -> None:
    """Stands in the list of commands; `main` runs processes before that list is made."""


if __name__ == "__main__":
    main()
