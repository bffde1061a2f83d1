"""The verbs of an operator at the host: the brake, and customers that the service froze.

They use the workers' settings and database role, not the API: whoever takes the API can ask for payments, but
can lift neither a halt nor a freeze. Every change is an event with a reason and the operator's login name.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from custody.config import Process, load
from custody.console.app import AsJson, CustomerArgument, app
from custody.console.outcome import Form, Output, outcome, output
from custody.customers import service as customers
from custody.storage import alerts, events, halts
from custody.storage.db import Database, Tx

operator = typer.Typer(help="What only an operator at the host may do.", no_args_is_help=True)
app.add_typer(operator, name="operator")

_PEOPLE: Final = Output(Form.PEOPLE)
Scope = Annotated[str, typer.Argument(help="`all`, or a chain id of the bundle.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")]


@contextmanager
def _database(shown: Output) -> Iterator[Tx]:
    with (
        outcome(shown),
        Database(
            load(Process.WORKER).database_url.reveal(), application="strongroom-operator", pool_size=1
        ) as db,
        db.transaction() as tx,
    ):
        yield tx


@operator.command("halts")
def show_halts(*, as_json: AsJson = False) -> None:
    """Show where paying is stopped, and why."""
    with _database(output(as_json=as_json)) as tx:
        rows = [{**row, "at": row["at"].isoformat()} for row in halts.in_force(tx)]
    output(as_json=as_json).many(rows, ("scope", "reason", "at"), none="Nothing is halted.")


@operator.command("halt")
def halt(scope: Scope, reason: Why) -> None:
    """Stop paying: nothing is built, signed or broadcast in this scope until it is lifted."""
    with _database(_PEOPLE) as tx:
        halts.halt(tx, scope, f"{reason} (by {getpass.getuser()})")
    typer.echo(f"paying is halted for {scope}")


@operator.command("lift")
def lift(scope: Scope, reason: Why) -> None:
    """Let paying go on. First find out why it was halted: reconcile halts again while a difference is there."""
    with _database(_PEOPLE) as tx:
        halts.lift(tx, scope)
        events.emit(tx, "operator.lifted_halt", scope, {"reason": reason, "by": getpass.getuser()})
    typer.echo(f"no halt is in force for {scope}")


@operator.command("freeze")
def freeze(customer: CustomerArgument, reason: Why) -> None:
    """Stop a customer's withdrawals."""
    with _database(_PEOPLE) as tx:
        customers.freeze(tx, customer, reason, by=getpass.getuser())
    typer.echo(f"{customer} is frozen")


@operator.command("unfreeze")
def unfreeze(customer: CustomerArgument, reason: Why) -> None:
    """Let a frozen customer withdraw again."""
    with _database(_PEOPLE) as tx:
        customers.unfreeze(tx, customer, reason, by=getpass.getuser())
    typer.echo(f"{customer} is active")


@operator.command("resolve")
def resolve(
    type_: Annotated[str, typer.Argument(help="Type of the alert, e.g. deposit.clawed_back.")],
    subject: Annotated[str, typer.Argument(help="Its subject.")],
    reason: Why,
) -> None:
    """Close an alert that somebody has looked at."""
    with _database(_PEOPLE) as tx:
        alerts.resolve_alert(tx, type_, subject)
        events.emit(
            tx, "operator.resolved_alert", subject, {"type": type_, "reason": reason, "by": getpass.getuser()}
        )
    typer.echo(f"no open alert {type_} about {subject}")
