"""Live progress of the tour on a terminal; one line a step where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ops.demo.record import Record, StepFailed, StepRecord

_LOG_LINES = 3


class Show:
    """Draws steps as they go. On a terminal the running step is live; else each line is printed once."""

    def __init__(self, console: Console, titles: list[str]) -> None:
        """Prepares the list of all steps, so that people see what is to come."""
        self.console = console
        self._titles = titles
        self._done: list[StepRecord] = []
        self._current: str | None = None
        self._notes: list[str] = []
        self._since = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        """Starts drawing."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing and leaves the finished list behind."""
        if self.console.is_terminal:
            self._live.stop()
            self.console.print(self._table(self._done))

    def begin(self, title: str) -> None:
        """A step begins."""
        self._current, self._notes, self._since = title, [], time.monotonic()

    def note(self, text: str) -> None:
        """Something happened within the step."""
        self._notes.append(text)
        if not self.console.is_terminal:
            self.console.print(f"      {text}", highlight=False, soft_wrap=True, markup=False)

    def end(self, step: StepRecord) -> None:
        """A step ended."""
        self._done.append(step)
        self._current = None
        if not self.console.is_terminal:
            mark = "ok  " if step.ok else "FAIL"
            self.console.print(
                f"{mark}  {step.title} ({step.seconds:.1f} s)", highlight=False, soft_wrap=True, markup=False
            )

    def _table(self, steps: list[StepRecord]) -> Table:
        table = Table.grid(padding=(0, 1))
        for step in steps:
            mark = Text("✓", style="bold green") if step.ok else Text("✗", style="bold red")
            table.add_row(mark, Text(step.title), Text(f"{step.seconds:.1f} s", style="dim"))
        return table

    def _render(self) -> RenderableType:
        table = self._table(self._done)
        if self._current is not None:
            elapsed = time.monotonic() - self._since
            table.add_row(
                self._spinner, Text(self._current, style="bold"), Text(f"{elapsed:.1f} s", style="dim")
            )
            for note in self._notes[-_LOG_LINES:]:
                table.add_row("", Text(note, style="dim"), "")
        coming = self._titles[len(self._done) + (self._current is not None) :]
        for title in coming:
            table.add_row(Text("·", style="dim"), Text(title, style="dim"), "")
        return Group(table)


def summary(console: Console, record: Record) -> None:
    """Prints what held, and where it did not, why."""
    held = sum(step.ok for step in record.steps)
    lines = [f"{held} of {len(record.steps)} steps held."]
    for step in record.steps:
        for asset, sums in step.detail.get("assets", {}).items():
            lines += ["", *_sums(asset, sums)]
    for step in record.steps:
        if not step.ok:
            lines.append(f"[bold red]{step.name}[/]: {step.detail.get('error', 'did not run')}")
    console.print(
        Panel("\n".join(lines), title="The tour", border_style="green" if record.ok else "red", expand=False)
    )


def _sums(asset: str, sums: dict[str, str]) -> list[str]:
    """The identity of one asset, a term a line, amounts flush right."""
    terms = [
        (f"{asset} on the chain", sums["on_chain"]),
        ("= owed to customers", sums["owed_to_customers"]),
        ("+ fees earned", sums["fees_earned"]),
        ("+ own money, on suspense", sums["suspense"]),
        ("- network fees paid", sums["network_fees"]),
        ("difference", sums["difference"]),
    ]
    shown = [
        (name, amount) for name, amount in terms if name[0] not in "+-" or set(amount.split()[0]) - set("0.")
    ]
    width = max(len(amount) for _, amount in shown)
    return [f"{name:<26}{amount:>{width}}" for name, amount in shown]


__all__ = ["Show", "StepFailed", "summary"]
