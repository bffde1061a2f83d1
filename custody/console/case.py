"""The verbs of `strongroom case`: what screening found, and what a person decides about it.

Deciding is an action of an operator, as those of `strongroom operator` are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from custody.console.operator import acting, utc_text, workers_database
from custody.console.outcome import output
from custody.console.root import AsJson, IdArgument, app, uuid_text
from custody.screening import cases, verdicts
from custody.screening.cases import Case, CaseKind
from custody.screening.lifecycle import CaseEvent, CaseState
from custody.screening.verdicts import Screened

case_app = typer.Typer(help="What screening found, until somebody decides about it.", no_args_is_help=True)
app.add_typer(case_app, name="case")

_PAGE: Final = 500
_SHORT: Final = ("id", "kind", "subject", "state", "reason", "opened_at")
_VERDICT: Final = ("at", "provider", "version", "verdict", "reason")
_LONG: Final = (*_SHORT, "chain", "address", "findings", "resolution", "resolved_by", "resolved_at")
Why = Annotated[
    str, typer.Option("--reason", help="Why; kept with the case and in the event feed.", prompt="Reason")
]


@case_app.command("list")
def list_cases(
    state: Annotated[
        CaseState | None, typer.Option(help="Only in this state; open ones if not given.")
    ] = None,
    kind: Annotated[CaseKind | None, typer.Option(help="Only about these.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List cases, oldest first."""
    shown = output(as_json=as_json)
    wanted = state or (None if everything else CaseState.OPEN)
    found: list[Case] = []
    with workers_database(shown) as tx:
        while page := cases.page(
            tx, state=wanted, kind=kind, after=found[-1].id if found else None, limit=_PAGE
        ):
            found += page
    shown.many([_told(case) for case in found], _SHORT, none="There are no such cases.")


@case_app.command("show")
def show_case(case: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a case with everything that was found."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        found = cases.find(tx, UUID(uuid_text(case)))
    shown.one(_told(found), _LONG)


@case_app.command("verdicts")
def show_verdicts(
    subject: Annotated[str, typer.Argument(help="Id of a withdrawal or a deposit.", metavar="ID")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what providers said about a withdrawal or a deposit, and by which version of their lists, oldest first."""
    shown = output(as_json=as_json)
    found: list[Screened] = []
    with workers_database(shown) as tx:
        id = UUID(uuid_text(subject))
        while page := verdicts.page(tx, id, after=found[-1].id if found else 0, limit=_PAGE):
            found += page
    rows = [
        {"at": utc_text(each.at), "kind": each.kind.value, "subject": str(each.subject), **_said(said)}
        for each in found
        for said in each.verdicts
    ]
    shown.many(rows, _VERDICT, none="Nobody was asked about it.")


@case_app.command("release")
def release_case(case: IdArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Find nothing wrong: the deposit is credited, the withdrawal goes on as if nothing had been found."""
    _resolve(case, CaseEvent.RELEASE, reason, as_json=as_json)


@case_app.command("refuse")
def refuse_case(case: IdArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Say no, for good: the deposit is quarantined, the withdrawal rejected and its money given back."""
    _resolve(case, CaseEvent.REFUSE, reason, as_json=as_json)


def _resolve(case: str, event: CaseEvent, reason: str, *, as_json: bool) -> None:
    shown = output(as_json=as_json)
    with acting(shown) as at:
        id = UUID(uuid_text(case))
        with at.database.snapshot() as tx:
            about = cases.find(tx, id)
        found = at.do(
            f"{event}-case",
            {
                "case": str(id),
                "about": about.kind,
                "subject": str(about.subject),
                "chain": about.chain,
                "reason": reason,
            },
            lambda tx: cases.resolve(tx, id, event, reason, by=at.person.id),
        )
    shown.one(_told(found), _LONG)


def _said(verdict: Mapping[str, Any]) -> dict[str, Any]:
    reasons = "; ".join(finding["reason"] for finding in verdict.get("findings", ()))
    return {
        "provider": verdict["provider"],
        "version": verdict.get("version"),
        "verdict": verdict["verdict"],
        "reason": verdict.get("why") or reasons,
        "findings": verdict.get("findings", []),
    }


def _told(case: Case) -> dict[str, Any]:
    return {
        "id": str(case.id),
        "kind": case.kind.value,
        "subject": str(case.subject),
        "state": case.state.value,
        "reason": case.reason,
        "chain": case.chain,
        "address": case.address,
        "findings": [each.describe() for each in case.findings],
        "resolution": case.resolution,
        "resolved_by": case.resolved_by,
        "opened_at": utc_text(case.opened_at),
        "resolved_at": None if case.resolved_at is None else utc_text(case.resolved_at),
    }
