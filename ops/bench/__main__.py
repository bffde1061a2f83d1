"""`python -m ops.bench [--json FILE] [--only NAME]`: every row of the comparison, or one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from ops.bench.compare import Row

ROWS: Final = {
    "block-scan": "ops.bench.blocks",
    "eth-block-scan": "ops.bench.eth_blocks",
    "coin-choice": "ops.bench.coins",
    "ledger": "ops.bench.ledger",
    "matching": "ops.bench.matching",
    "trading-ws": "ops.bench.trading_ws",
    "policy": "ops.bench.policy",
    "signing": "ops.bench.signing",
    "addresses": "ops.bench.addresses",
    "sweep-gas": "ops.bench.sweeps",
    "api": "ops.bench.api",
}
"""Name for `--only`, and the module whose `rows(progress)` yields the row."""


def measure(only: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Measures the rows that `only` names, or all if it is empty; yields each as it is done.

    Args:
        only: a name of `ROWS`, which may stand for several rows, or the name that one row is printed under.
        progress: is told what is being measured.

    Raises:
        typer.BadParameter: no row has that name.
    """
    chosen = [name for name in ROWS if not only or only == name or only.startswith(f"{name}-")]
    if not chosen:
        raise typer.BadParameter(f"no row {only!r}; there are {', '.join(ROWS)}")
    known = False
    for name in chosen:
        for row in importlib.import_module(ROWS[name]).rows(progress):
            if only in ("", name, row.name):
                known = True
                yield row
    if not known:
        raise typer.BadParameter(f"no row {only!r}; there are {', '.join(ROWS)}")


def bench(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
    only: Annotated[str, typer.Option(help=f"Only this row: {', '.join(ROWS)}.")] = "",
) -> None:
    """Measure our work beside a named peer's, interleaved in one run, as ratios."""
    console = Console()
    found: list[Row] = []
    with console.status("measuring") as status:
        for row in measure(only, status.update):
            found.append(row)
    _show(console, found)
    if json_file is not None:
        json_file.write_text(json.dumps([row.to_object() for row in found], indent=2) + "\n")


def _show(console: Console, found: list[Row]) -> None:
    """Prints two lines a row, which fit a terminal of 80 columns."""
    console.print("Strongroom beside its peers, same run, same machine", style="bold")
    for row in found:
        ratio = f"{row.to_object()['ratio']} times"
        rates = f"{_digits(row.ours)} beside {_digits(row.peer)} {row.unit}"
        console.print(f"{row.name:<24}{ratio:>14}   {rates}", highlight=False, soft_wrap=True)
        console.print(f"{'':<41}{row.peer_name}", style="dim", highlight=False, soft_wrap=True)


def _digits(value: float) -> str:
    # Four that count, but never as 1.027e+04.
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


if __name__ == "__main__":
    typer.run(bench)
