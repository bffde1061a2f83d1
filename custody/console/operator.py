"""The verbs of an operator at the host: the brake, customers that are frozen, and what others ask for.

Each is an action of `policies.administration`: signed by the operator, asked of the policy, recorded (`acting`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from chains.errors import InvalidValue
from custody.audit import repository, seconding
from custody.console.acting import CONFIG_VARIABLE, Session, opened, session, worker_settings
from custody.console.outcome import Output, outcome, output
from custody.console.passphrase import PassphraseOption
from custody.console.root import AsJson, CustomerArgument, app
from custody.customers import service as customers
from custody.errors import NotFound
from custody.ports import Step
from custody.storage import alerts, events, halts
from custody.storage.db import Tx
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.wiring import wire
from policies.administration import APPROVE

operator = typer.Typer(
    help=f"What only an operator at the host may do. {CONFIG_VARIABLE} names the workers' settings file.",
    no_args_is_help=True,
)
app.add_typer(operator, name="operator")

Scope = Annotated[str, typer.Argument(help="`all`, the id of a chain, or `asset:` and the id of an asset.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")]


@contextmanager
def acting(shown: Output) -> Iterator[Session]:
    """The operator at work; errors become exit codes."""
    with outcome(shown), session() as found:
        yield found


@contextmanager
def workers_database(shown: Output) -> Iterator[Tx]:
    """A look at the workers' database; errors become exit codes."""
    with outcome(shown), opened(worker_settings()) as database, database.transaction() as tx:
        yield tx


def _scoped(scope: str) -> dict[str, str]:
    """The scope, and what of it rules can see."""
    kind, _, name = scope.rpartition(":")
    seen = {} if scope == halts.ALL else {"asset": name} if kind else {"chain": scope}
    return {"scope": scope, **seen}


def utc_text(at: datetime) -> str:
    """A moment as the API writes it."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


def _check_scope(scope: str, at: Session) -> None:
    """Refuse a brake where nobody looks: it would be believed to hold."""
    known = [halts.ALL, *sorted(at.settings.nodes)]
    # Only for these the bundle is needed: without one that is valid, the wider brakes can still be put on.
    assets = () if at.bundle is None else at.bundle.assets
    known += [halts.of_asset(entry.id) for entry in assets if entry.chain in at.settings.nodes]
    if scope not in known:
        raise InvalidValue(
            f"scope {scope!r}: write one of {', '.join(known)}, or asset:ID; nothing was changed"
        )


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
    with acting(shown) as at:
        _check_scope(scope, at)
        at.do(
            "halt",
            {**_scoped(scope), "reason": reason},
            lambda tx: halts.halt(tx, scope, f"{reason} (by {at.person.id})"),
        )
    shown.line({"scope": scope, "halted": True}, f"paying is halted for {scope}")


@operator.command("lift")
def lift(scope: Scope, reason: Why, *, as_json: AsJson = False) -> None:
    """Let paying go on. First find out why it was halted: reconcile halts again while a difference is there."""
    shown = output(as_json=as_json)

    def effect(tx: Tx) -> bool:
        found = halts.lift(tx, scope)
        if found:
            events.emit(tx, "operator.lifted_halt", scope, {"reason": reason, "by": at.person.id})
        return found

    with acting(shown) as at:
        lifted = at.do("lift", {**_scoped(scope), "reason": reason}, effect)
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
    with acting(shown) as at, wire(at.settings, pool_size=2) as services:
        sites = {site.chain: site for site in services.sites() if site.wallet.tier == "hot"}
        if chain not in sites:
            raise InvalidValue(
                f"chain {chain!r}: write one of {', '.join(sorted(sites))}; nothing was planned"
            )
        # Recorded before it is planned: each sweep has transactions of its own.
        at.do(
            "sweep",
            {"chain": chain, "which": "everything" if everything else "usual"},
            lambda tx: events.emit(tx, "operator.swept", chain, {"by": at.person.id}),
        )
        done = sweep(services.database, sites[chain], pace, now=services.clock())
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
    with acting(shown) as at:
        at.do(
            "freeze-customer",
            {"customer": customer, "reason": reason},
            lambda tx: customers.freeze(tx, customer, reason, by=at.person.id),
        )
    shown.line({"customer": customer, "state": "frozen"}, f"{customer} is frozen")


@operator.command("unfreeze")
def unfreeze(customer: CustomerArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Let a frozen customer withdraw again."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        at.do(
            "unfreeze-customer",
            {"customer": customer, "reason": reason},
            lambda tx: customers.unfreeze(tx, customer, reason, by=at.person.id),
        )
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

    def effect(tx: Tx) -> bool:
        found = alerts.resolve_alert(tx, type_, subject)
        if found:
            detail = {"type": type_, "reason": reason, "by": at.person.id}
            events.emit(tx, "operator.resolved_alert", subject, detail)
        return found

    with acting(shown) as at:
        closed = at.do("close-alert", {"type": type_, "subject": subject, "reason": reason}, effect)
    about = f"alert {type_} about {subject}"
    text = f"the {about} is closed" if closed else f"there was no open {about}"
    shown.line({"type": type_, "subject": subject, "closed": closed}, text)


@operator.command("waiting")
def show_waiting(*, as_json: AsJson = False) -> None:
    """Show what operators have asked for and others must approve."""
    shown = output(as_json=as_json)
    with workers_database(shown) as tx:
        rows = [row.told() for row in repository.waiting(tx, valid_seconds=seconding.VALID_SECONDS)]
    shown.many(rows, ("number", "operator", "action", "parameters", "reason", "at"), none="Nothing waits.")


@operator.command("approve")
def approve_action(
    number: Annotated[int, typer.Argument(help="Of the row, as `strongroom operator waiting` shows it.")],
    group: Annotated[
        str | None,
        typer.Option("--group", help="Of the policy, for which you approve, if you are in several."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Approve what another operator has asked for; he then repeats it."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        with at.database.snapshot() as tx:
            asked = repository.find(tx, number)
        if asked is None:
            raise NotFound("row", str(number))
        typer.echo(f"{asked.operator} asks for {asked.action} {asked.parameters}", err=True)
        said = {
            "number": str(number),
            "hash": asked.hash,
            "group": seconding.group_of(at.person.id, group, at.bundle),
        }
        at.do(APPROVE, said, lambda tx: None)
    shown.line(
        {"number": number, "approved": True}, f"row {number} has your approval: {asked.operator} repeats it"
    )


@operator.command("enrol")
def enrol(
    name: Annotated[str, typer.Argument(help="The id that the bundle will have for you.")],
    *,
    organisation: Annotated[str, typer.Option(help="To which you belong.")],
    role: Annotated[
        list[str], typer.Option("--role", help="support, treasury, compliance, security or auditor; again.")
    ],
    not_after: Annotated[
        datetime,
        typer.Option(help="When your grant ends (UTC).", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ],
    key: Annotated[
        Path, typer.Option("--key", help="A file: made, and encrypted, if it is not there.", dir_okay=False)
    ],
    passphrase_fd: PassphraseOption = None,
    as_json: AsJson = False,
) -> None:
    """Make your key, and print the record (JSON) that officers put into the next bundle, under `operators`."""
    from custody.console import enrolling  # loads passkeys, which no other verb here needs

    with outcome(output(as_json=as_json)):
        ends = int(not_after.replace(tzinfo=UTC).timestamp())
        person = enrolling.Person(name, organisation, tuple(role), ends)
        record = enrolling.enrolled_operator(person, key, passphrase_fd)
        typer.echo(enrolling.shown(record))
        typer.echo(f"Officers who enter it hear from you: {enrolling.fingerprint(record)}", err=True)
