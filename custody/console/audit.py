"""The verbs of `strongroom audit`: what operators did, and whether the record of it is whole."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from chains.errors import InvalidValue
from custody.audit import repository, verifying
from custody.audit.model import Record
from custody.console.acting import opened, worker_settings
from custody.console.outcome import Exit, outcome, output
from custody.console.root import AsJson, app
from custody.wiring import read_trust_root

audit_app = typer.Typer(
    help="What operators did, and whether the record of it is whole.", no_args_is_help=True
)
app.add_typer(audit_app, name="audit")

_PAGE: Final = 500
_SHORT: Final = ("number", "at", "operator", "origin", "action", "parameters", "outcome", "reason")


@audit_app.command("list")
def list_actions(
    operator: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    after: Annotated[int, typer.Option(help="Begin behind this row.", min=0)] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """List what operators did, were refused, and asked for, oldest first."""
    shown = output(as_json=as_json)
    found: list[Record] = []
    with outcome(shown), opened(worker_settings()) as database, database.snapshot() as tx:
        while page := repository.page(
            tx, after=found[-1].number if found else after, limit=_PAGE, operator=operator
        ):
            found += page
    shown.many([row.told() for row in found], _SHORT, none="No operator has done anything.")


@audit_app.command("verify")
def verify_actions(
    head: Annotated[
        str | None,
        typer.Option(help="NUMBER:HASH, as an earlier look printed it: what was cut off is found."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Look whether a row was changed, deleted, or written in somebody else's name. Exit 1: one was."""
    shown = output(as_json=as_json)
    with outcome(shown):
        known = None if head is None else _head(head)
        settings = worker_settings()
        root = read_trust_root(settings.trust_root_path)
        with opened(settings) as database, database.snapshot() as tx:
            found = verifying.verify(tx, root, known=known)
    number, last = found.head
    findings = [{"number": each.number, "finding": each.text} for each in found.findings]
    shown.line(
        {"rows": found.rows, "head": f"{number}:{last}", "findings": findings},
        "\n".join(
            [f"row {each.number}: {each.text}" for each in found.findings]
            + [f"{found.rows} rows, {len(findings) or 'no'} findings; keep the head: {number}:{last}"]
        ),
    )
    if findings:
        raise typer.Exit(int(Exit.REFUSED))


def _head(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"([0-9]{1,17}):([0-9a-f]{64})", text)
    if match is None:
        raise InvalidValue("--head: write NUMBER:HASH, as `strongroom audit verify` prints it")
    return int(match.group(1)), match.group(2)
