"""The verbs of an operator at the host: the brake, and customers that the service froze.

They use the workers' settings and database role, not the API: whoever takes the API can ask for payments, but
can lift neither a halt nor a freeze. `STRONGROOM_OPERATOR_CONFIG` names the workers' settings file where
`STRONGROOM_CONFIG` is another process's. Every change is an event with a reason and the operator's login name.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from chains.errors import InvalidValue
from custody.config import FILE_VARIABLE, Process, Settings, load
from custody.console.outcome import Output, outcome, output
from custody.console.root import AsJson, CustomerArgument, app
from custody.customers import service as customers
from custody.errors import InvalidConfiguration
from custody.officers.standing import Standing
from custody.ports import Step, system_clock
from custody.storage import alerts, events, halts
from custody.storage.db import Database, Tx
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.wiring import read_trust_root, wire

CONFIG_VARIABLE: Final = "STRONGROOM_OPERATOR_CONFIG"

operator = typer.Typer(
    help=f"What only an operator at the host may do. {CONFIG_VARIABLE} names the workers' settings file.",
    no_args_is_help=True,
)
app.add_typer(operator, name="operator")

Scope = Annotated[str, typer.Argument(help="`all`, the id of a chain, or `asset:` and the id of an asset.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")]


@contextmanager
def workers_database(shown: Output, *, scope: str | None = None) -> Iterator[Tx]:
    """A transaction on the workers' database; `scope`, if given, must be one that workers pay in."""
    with outcome(shown):
        settings = worker_settings()
        dsn = settings.database_url.reveal()
        with Database(dsn, application="strongroom-operator", pool_size=1) as database:
            if scope is not None:
                _check_scope(scope, settings, database)
            with database.transaction() as tx:
                yield tx


def utc_text(at: datetime) -> str:
    """A moment as the API writes it."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


def _check_scope(scope: str, settings: Settings, database: Database) -> None:
    """Refuse a brake where nobody looks: it would be believed to hold."""
    known = [halts.ALL, *sorted(settings.nodes)]
    if scope.startswith(halts.of_asset("")):
        # Only here is the bundle needed: without one that is valid, the wider brakes can still be put on.
        root = read_trust_root(settings.trust_root_path)
        bundle = Standing(settings.bundle_path, root, system_clock, lambda: database)()
        known += [halts.of_asset(entry.id) for entry in bundle.assets if entry.chain in settings.nodes]
    if scope not in known:
        raise InvalidValue(
            f"scope {scope!r}: write one of {', '.join(known)}, or asset:ID; nothing was changed"
        )


def worker_settings() -> Settings:
    """The workers' settings. Raises InvalidConfiguration."""
    variables = dict(os.environ)
    if variables.get(CONFIG_VARIABLE):
        variables[FILE_VARIABLE] = variables[CONFIG_VARIABLE]
    try:
        return load(Process.WORKER, variables)
    except InvalidConfiguration as error:
        hint = f"an operator uses the workers' settings: let {CONFIG_VARIABLE} name their file"
        raise InvalidConfiguration([*error.problems, hint]) from None


@operator.command("halts")
def show_halts(*, as_json: AsJson = False) -> None:
    """Show where paying is stopped, and why."""
    with workers_database(output(as_json=as_json)) as tx:
        rows = [{**row, "at": utc_text(row["at"])} for row in halts.in_force(tx)]
    output(as_json=as_json).many(rows, ("scope", "reason", "at"), none="Nothing is halted.")


@operator.command("halt")
def halt(scope: Scope, reason: Why, *, as_json: AsJson = False) -> None:
    """Stop paying: nothing is built, signed or broadcast in this scope until it is lifted."""
    shown = output(as_json=as_json)
    with workers_database(shown, scope=scope) as tx:
        halts.halt(tx, scope, f"{reason} (by {getpass.getuser()})")
    shown.line({"scope": scope, "halted": True}, f"paying is halted for {scope}")


@operator.command("lift")
def lift(scope: Scope, reason: Why, *, as_json: AsJson = False) -> None:
    """Let paying go on. First find out why it was halted: reconcile halts again while a difference is there."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        lifted = halts.lift(tx, scope)
        if lifted:
            events.emit(tx, "operator.lifted_halt", scope, {"reason": reason, "by": getpass.getuser()})
    text = f"the halt of {scope} is lifted" if lifted else f"there was no halt of {scope}"
    shown.line({"scope": scope, "halted": False, "lifted": lifted}, text)


@operator.command("sweep")
def sweep_now(
    chain: Annotated[str, typer.Argument(help="Id of the chain.")],
    *,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also what is below its floor, if it is worth its fee.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Plan sweeps now, without waiting for more to share a transaction. Workers sign and send them as always."""
    shown = output(as_json=as_json)
    pace = SweepPace(gather_seconds=0)
    if everything:
        pace = replace(pace, sweep_after_seconds=0, consolidate_above_coins=1)
    with outcome(shown), wire(worker_settings(), pool_size=2) as services:
        sites = {site.chain: site for site in services.sites()}
        if chain not in sites:
            raise InvalidValue(
                f"chain {chain!r}: write one of {', '.join(sorted(sites))}; nothing was planned"
            )
        done = sweep(services.database, sites[chain], pace, now=services.clock())
        with services.database.transaction() as tx:
            events.emit(tx, "operator.swept", chain, {"by": getpass.getuser(), "count": done})
        if done:
            services.wake(Step.SIGN)
    text = (
        f"{done} done on {chain}: see `strongroom sweep list`"
        if done
        else f"nothing is worth sweeping on {chain} now"
    )
    shown.line({"chain": chain, "count": done}, text)


@operator.command("freeze")
def freeze(customer: CustomerArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Stop a customer's withdrawals."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        customers.freeze(tx, customer, reason, by=getpass.getuser())
    shown.line({"customer": customer, "state": "frozen"}, f"{customer} is frozen")


@operator.command("unfreeze")
def unfreeze(customer: CustomerArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Let a frozen customer withdraw again."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        customers.unfreeze(tx, customer, reason, by=getpass.getuser())
    shown.line({"customer": customer, "state": "active"}, f"{customer} is active")


@operator.command("resolve")
def resolve(
    type_: Annotated[str, typer.Argument(help="Type of the alert, e.g. deposit.clawed_back.")],
    subject: Annotated[str, typer.Argument(help="Its subject.")],
    reason: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Close an alert that somebody has looked at."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        closed = alerts.resolve_alert(tx, type_, subject)
        if closed:
            detail = {"type": type_, "reason": reason, "by": getpass.getuser()}
            events.emit(tx, "operator.resolved_alert", subject, detail)
    about = f"alert {type_} about {subject}"
    text = f"the {about} is closed" if closed else f"there was no open {about}"
    shown.line({"type": type_, "subject": subject, "closed": closed}, text)
