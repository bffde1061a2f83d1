"""`python -m ops.bench [--json FILE] [--only NAME]`: every row of the comparison, or one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ops.bench.compare import Row

ROWS: Final = {
    "block-scan": "ops.bench.blocks",
    "coin-choice": "ops.bench.coins",
    "ledger": "ops.bench.ledger",
    "signing": "ops.bench.signing",
    "addresses": "ops.bench.addresses",
    "api": "ops.bench.api",
}
"""Name for `--only`, and the module whose `rows(progress)` yields the row."""


def measure(only: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Measures the row `only`, or all if it is empty; yields each as it is done.

    Raises:
        typer.BadParameter: no row has that name.
    """
    if only and only not in ROWS:
        raise typer.BadParameter(f"no row {only!r}; there are {', '.join(ROWS)}")
    for name, module in ROWS.items():
        if only in ("", name):
            yield from importlib.import_module(module).rows(progress)


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
            if not console.is_terminal:
                console.print(f"{row.name}: {row.ratio:.3g} times {row.peer_name}", highlight=False)
    console.print(_table(found))
    if json_file is not None:
        json_file.write_text(json.dumps([row.to_object() for row in found], indent=2) + "\n")


def _table(found: list[Row]) -> Table:
    table = Table(title="Strongroom beside its peers, same run, same machine")
    for heading in ("work", "ours", "peer", "unit", "beside"):
        table.add_column(heading, justify="right" if heading in ("ours", "peer") else "left")
    table.add_column("ratio", justify="right", style="bold")
    for row in found:
        value = row.to_object()
        table.add_row(
            row.name, f"{row.ours:,.4g}", f"{row.peer:,.4g}", row.unit, row.peer_name, str(value["ratio"])
        )
    return table


if __name__ == "__main__":
    typer.run(bench)
