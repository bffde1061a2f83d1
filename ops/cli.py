"""The command `strongroom`: the console's verbs, the whole stack, the tour, the bench, a command per process.

Each command imports what it needs when it runs, so that all start fast and a signer never holds the online
service in its memory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_Json = Annotated[Path | None, typer.Option("--json", help="Write a machine-readable record to this file.")]


def up(
    data: Annotated[Path, typer.Option(help="Data directory, made if missing.")] = Path("strongroom-data"),
    port: Annotated[int, typer.Option(help="Port of the API on 127.0.0.1; 0 takes a free one.")] = 8400,
) -> None:
    """Run the whole stack on a private regtest network, in the foreground, until Ctrl-C."""
    from ops.stack.command import run

    run(data, port=port)


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False,
    json_file: _Json = None,
    keep: Annotated[Path | None, typer.Option(help="Use this directory and leave all data in it.")] = None,
) -> None:
    """Take a guided tour on a private regtest network; stays up afterwards until Ctrl-C."""
    from ops.demo.command import After, run

    sys.exit(run(After.END if once else After.STAY, json_file=json_file, keep=keep))


def bench(
    json_file: _Json = None,
    only: Annotated[str, typer.Option(help="Only the row of this name.")] = "",
) -> None:
    """Measure our work beside named peers', in one run, as ratios."""
    from ops.bench.__main__ import bench as run

    run(json_file, only)


def main() -> None:
    """Entry point of `strongroom`."""
    if sys.argv[1:2] == ["signer"]:
        # Before anything of `custody` is loaded.
        from signers.daemon import main as signer

        sys.argv[:2] = ["strongroom signer"]
        sys.exit(signer())

    from custody.console.app import app

    for command in (up, demo, bench):
        app.command()(command)
    app()


if __name__ == "__main__":
    main()
