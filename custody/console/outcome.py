"""How a command ends and what it prints: tables for people, JSON for programs, exit codes with a meaning."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from chains.errors import InvalidValue, StrongroomError
from custody.errors import InvalidConfiguration
from custody.web.client import ApiRefused, ApiUnavailable
from policies.keys import UnusableKey

_ID_WIDTH: Final = 36
"""Characters of a UUID."""
_ENDLESS: Final = 10_000
"""Columns of a terminal that fits everything."""


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    REFUSED = 1
    """The service said no, or a check failed."""
    USAGE = 2
    """Wrong input or configuration: nothing was sent, or the service could not read it."""
    UNAVAILABLE = 3
    """No answer, or not now: the same command can succeed later."""


class Form(StrEnum):
    """For whom to print."""

    PEOPLE = "people"
    PROGRAMS = "programs"


@dataclass(frozen=True, slots=True)
class Output:
    """Where answers go."""

    form: Form

    def one(self, value: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Show one object: all of it as JSON, or `fields` of it as a table."""
        if self.form is Form.PROGRAMS:
            _print_json(value)
            return
        _people().print(_entry(value, fields))

    def many(self, values: Iterable[Mapping[str, Any]], columns: Sequence[str], *, none: str) -> None:
        """Show a list: a JSON array, or a table with `columns`; `none` is said of an empty one.

        A terminal too narrow for the table's whole words gets one entry below the other: of an amount or a
        transaction id in pieces nothing can be read or copied.
        """
        if self.form is Form.PROGRAMS:
            _print_json(list(values))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            # A cut id is of no use to whoever wants to copy it.
            whole = name == "id"
            table.add_column(name, overflow="fold", no_wrap=whole, min_width=_ID_WIDTH if whole else None)
        shown = list(values)
        for value in shown:
            table.add_row(*(Text(_text(value.get(name))) for name in columns))
        people = _people()
        if not shown:
            typer.echo(none)
        elif (
            Measurement.get(people, people.options.update(max_width=_ENDLESS), table).minimum <= people.width
        ):
            people.print(table)
        else:
            for number, value in enumerate(shown):
                people.print(*([""] if number else []), _entry(value, columns), sep="\n")

    def line(self, value: Mapping[str, Any], text: str) -> None:
        """Show one entry of a stream: one line of JSON, or `text`."""
        typer.echo(json.dumps(value) if self.form is Form.PROGRAMS else text)


def output(*, as_json: bool) -> Output:
    """The output for a command's `--json` flag."""
    return Output(Form.PROGRAMS if as_json else Form.PEOPLE)


@contextmanager
def outcome(shown: Output) -> Iterator[None]:
    """Turn errors into a sentence on stderr (for programs: an object on stdout) and an exit code."""
    try:
        yield
    except ApiRefused as error:
        code = Exit.USAGE if error.status in (400, 413) else Exit.REFUSED
        _fail(shown, str(error), error.problem, code)
    except ApiUnavailable as error:
        _fail(shown, str(error), error.problem, Exit.UNAVAILABLE)
    except (InvalidValue, InvalidConfiguration, UnusableKey) as error:
        _fail(shown, str(error), {}, Exit.USAGE)
    except StrongroomError as error:
        _fail(shown, str(error), {}, Exit.UNAVAILABLE if error.transient else Exit.REFUSED)


def _fail(shown: Output, sentence: str, problem: Mapping[str, Any], code: Exit) -> None:
    if shown.form is Form.PROGRAMS:
        _print_json(problem or {"title": sentence, "retryable": code is Exit.UNAVAILABLE})
    else:
        typer.echo(sentence, err=True)
    raise typer.Exit(int(code))


def _entry(value: Mapping[str, Any], fields: Sequence[str]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name in fields:
        table.add_row(name, Text(_text(value.get(name))))
    return table


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _people() -> Console:
    # Piped output is not cut to a terminal's width that nobody has.
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


def _text(value: object) -> str:
    if value in (None, "", []):
        return "-"
    if isinstance(value, list):
        return "\n".join(_text(item) for item in value)
    if isinstance(value, Mapping):
        if set(value) == {"asset", "amount"}:
            return f"{value['amount']} {value['asset']}"
        return json.dumps(value)
    return str(value)
