"""The verbs of `strongroom policy` that look beyond single decisions: history under a draft, records, proofs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chains.errors import InvalidValue
from custody.console.outcome import Exit, Form, Output, output
from custody.console.policy import (
    BundleOption,
    PolicyFile,
    bundles_in_force,
    chosen_bundle,
    policy_app,
    readable,
)
from custody.console.root import AsJson
from policies.bundle import Bundle
from policies.rules import COLDER, Route, When

if TYPE_CHECKING:
    from custody.storage.db import Tx
    from policies.backtest import Event
    from policies.prover import Answer, Question, Step

_DAY: Final = 86_400
_SHOWN: Final = 20
"""Entries that people are shown of a long list."""

prove_app = typer.Typer(
    help="Prove what the policy never lets happen. Ends with 0 only where there is a proof; else with payments that it"
    " lets through, or `not proven`.",
    no_args_is_help=True,
)
policy_app.add_typer(prove_app, name="prove")

History = Annotated[
    Path | None,
    typer.Option(
        "--history",
        help="A file with one record a line instead of the database (policies/README.md).",
        dir_okay=False,
    ),
]
Days = Annotated[int, typer.Option("--days", help="So much of the history.", min=1, max=3_660)]
Tiers = Annotated[
    list[str] | None, typer.Option("--tier", help="Only what is paid from this tier; again for more.")
]
Scope = Annotated[
    str,
    typer.Option("--when", help="Only payments of this scope, as in a policy: 'kyc_below: 2, asset: BTC'."),
]
Timeout = Annotated[int, typer.Option("--timeout", help="Seconds for one formula.", min=1, max=3_600)]


@policy_app.command("backtest")
def backtest(
    bundle: BundleOption,
    file: PolicyFile = None,
    history: History = None,
    days: Days = 90,
    *,
    paid_at_once: Annotated[
        bool,
        typer.Option("--paid-at-once", help="For a history that doesn't say when payments were settled."),
    ] = False,
    unchanged: Annotated[
        bool, typer.Option("--unchanged", help="End with 1 if any decision would have been another.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Decide the recorded history once more under this policy, and show each decision that changes."""
    from policies.backtest import Backtest, Change
    from policies.deciding import decide

    shown = output(as_json=as_json)
    changes: list[Change] = []
    with readable(shown):
        chosen = chosen_bundle(bundle, file)
        run = Backtest(
            chosen.policy,
            lambda facts, spent: decide(chosen, facts, spent),
            paid="at-once" if paid_at_once else "as-recorded",
        )
        with _events(shown, history, days) as (events, _):
            changes.extend(run.run(events))
    if shown.form is Form.PROGRAMS:
        shown.one({**run.tally.to_object(), "changes": [change.to_object() for change in changes]}, ())
    else:
        _tell_changes(changes, chosen)
        counts = ", ".join(f"{count} {move}" for move, count in sorted(run.tally.moves.items()))
        typer.echo(
            f"{run.tally.decisions} decisions, {run.tally.changed} would change"
            + (f": {counts}" if counts else "")
        )
    raise typer.Exit(int(Exit.REFUSED if unchanged and changes else Exit.OK))


def _tell_changes(changes: list[Any], bundle: Bundle) -> None:
    for change in changes[:_SHOWN]:
        facts = change.facts
        amount = "" if facts.asset is None or facts.units is None else bundle.told(facts.asset, facts.units)
        typer.echo(_plain(f"{_utc(change.at)}  {change.payment}  {facts.customer or '-'}  {amount}"))
        typer.echo(_plain(f"    was {change.was}; becomes {change.becomes}"))
        for reason in change.reasons_now:
            typer.echo(_plain(f"    {reason}"))
    if len(changes) > _SHOWN:
        typer.echo(f"... and {len(changes) - _SHOWN} more: see all with --json")


@policy_app.command("replay")
def replay(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Only records of this bundle's version, by it; without it each by the bundle that was in force.",
            dir_okay=False,
        ),
    ] = None,
    history: History = None,
    days: Days = 90,
    *,
    as_json: AsJson = False,
) -> None:
    """Decide every record again by the bundle it names; ends with 1 if one decision is not the recorded one."""
    from policies.decision import describe
    from policies.records import Record, same
    from policies.records import replay as decide_again

    shown = output(as_json=as_json)
    versions, elsewhere, different = Counter[int](), Counter[int](), list[dict[str, Any]]()
    with readable(shown):
        if bundle is None and history is not None:
            raise InvalidValue("name the signed bundle of a history in a file: --bundle FILE")
        with _events(shown, history, days) as (events, tx):
            by_version = _bundles(bundle, tx)
            for record in events:
                if not isinstance(record, Record):
                    continue
                found = by_version(record.bundle_version)
                if found is None:
                    elsewhere[record.bundle_version] += 1
                    continue
                versions[record.bundle_version] += 1
                decision = decide_again(record, found)
                if not same(record, decision):
                    now = describe(decision)
                    different.append({"id": record.facts.id, "recorded": record.decided, "again": now})
    if shown.form is Form.PROGRAMS:
        told = {
            "replayed": _by_version(versions),
            "no_bundle": _by_version(elsewhere),
            "different": different,
        }
        shown.one(told, ())
    else:
        for each in different[:_SHOWN]:
            then, today = _outcome(each["recorded"]), _outcome(each["again"])
            typer.echo(_plain(f"{each['id']}: recorded {then}, again {today}"))
        told_text = f"{versions.total()} records decided again, {len(different)} differ"
        skipped = f"; {elsewhere.total()} of other versions" if elsewhere else ""
        typer.echo(told_text + skipped)
    raise typer.Exit(int(Exit.REFUSED if different else Exit.OK))


def _outcome(described: Mapping[str, Any]) -> str:
    return str(described["tier"] if described["outcome"] == "route" else described["outcome"])


def _by_version(counts: Counter[int]) -> dict[str, int]:
    return {str(version): counts[version] for version in sorted(counts)}


def _bundles(bundle: Path | None, tx: Tx | None) -> Callable[[int], Bundle | None]:
    """The bundle of a version: the one that is named, or what was in force once by the quorum's signatures."""
    if bundle is not None or tx is None:
        chosen = chosen_bundle(cast(Path, bundle), None)
        return lambda version: chosen if version == chosen.version else None
    return bundles_in_force(tx)


@prove_app.command("never")
def never(
    when: Annotated[str, typer.Argument(help="A scope, as in a policy: 'destination_younger_than: 24h'.")],
    bundle: BundleOption,
    file: PolicyFile = None,
    tier: Tiers = None,
    timeout: Timeout = 30,
    *,
    as_json: AsJson = False,
) -> None:
    """No withdrawal of this scope is ever paid. What is not known of a payment may be so."""
    from policies.prover import LEAVING, Ever

    _prove(
        bundle,
        file,
        timeout,
        lambda chosen: Ever(_scope(when, chosen), _tiers(tier) or LEAVING),
        as_json=as_json,
    )


@prove_app.command("approved")
def approved(
    bundle: BundleOption,
    by: Annotated[str, typer.Option("--by", help="'3 organisations' or '2 people'.")],
    file: PolicyFile = None,
    tier: Tiers = None,
    when: Scope = "",
    timeout: Timeout = 30,
    *,
    as_json: AsJson = False,
) -> None:
    """Every payment is approved by so many different people, or organisations."""
    from policies.prover import LEAVING, Guarded

    def question(chosen: Bundle) -> Question:
        count, _, kind = by.partition(" ")
        if not count.isdigit() or kind not in ("people", "organisations"):
            raise InvalidValue(f"--by {by!r}: write '3 organisations' or '2 people'")
        distinct = cast(Literal["people", "organisations"], kind)
        return Guarded(_tiers(tier) or LEAVING, int(count), distinct, _scope(when, chosen))

    _prove(bundle, file, timeout, question, as_json=as_json)


@prove_app.command("outflow")
def outflow(
    bundle: BundleOption,
    at_most: Annotated[str, typer.Option("--at-most", help="'5 BTC', or in value: '500_000 USD'.")],
    within: Annotated[str, typer.Option("--within", help="'24h'.")],
    file: PolicyFile = None,
    tier: Tiers = None,
    of_one: Annotated[
        str | None, typer.Option("--of-one", help="`customer` or `initiator`: by any single one alone.")
    ] = None,
    when: Scope = "",
    timeout: Timeout = 30,
    *,
    unapproved: Annotated[
        bool, typer.Option("--unapproved", help="Only what needs nobody's approval.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """No more than this leaves within any such time."""
    from policies.notation import Money, duration
    from policies.prover import LEAVING, Outflow

    def question(chosen: Bundle) -> Question:
        money = Money({entry.id: entry.asset() for entry in chosen.assets}, chosen.unit)
        measured = money.measured(at_most)
        if measured.payments or of_one not in (None, "customer", "initiator"):
            raise InvalidValue("write an amount or a value, and `customer` or `initiator` after --of-one")
        return Outflow(
            at_most=measured.units,
            within_seconds=duration(within),
            asset=measured.asset,
            tiers=_tiers(tier) or LEAVING,
            of_one=cast(Literal["customer", "initiator"] | None, of_one),
            approved="nobody" if unapproved else "anybody",
            when=_scope(when, chosen),
        )

    _prove(bundle, file, timeout, question, as_json=as_json)


def _prove(bundle: Path, file: Path | None, timeout: int, question: Any, *, as_json: bool) -> None:
    from policies.prover import Prover

    shown = output(as_json=as_json)
    with readable(shown):
        chosen = chosen_bundle(bundle, file)
        asked = question(chosen)
        with Console(stderr=True).status("proving"):
            answer = Prover.of_bundle(chosen, timeout_ms=timeout * 1_000).ask(asked)
        if shown.form is Form.PROGRAMS:
            shown.one(_described(answer), ())
        else:
            _tell(answer, chosen)
    raise typer.Exit(int(Exit.OK if answer.outcome == "proven" else Exit.REFUSED))


def _described(answer: Answer) -> dict[str, Any]:
    from policies import decision as decisions
    from policies import facts as known

    return {
        "outcome": answer.outcome,
        "says": answer.says,
        "rests_on": list(answer.rests_on),
        "at_most": None if answer.most is None else str(answer.most),
        "reached": None if answer.reached is None else str(answer.reached),
        "approvers": [
            {"id": name, "organisation": organisation, "group": group}
            for name, organisation, group in answer.approvers
        ],
        "steps": [
            {"facts": known.describe(step.facts), "decision": decisions.describe(step.decision)}
            for step in answer.steps
        ],
    }


def _tell(answer: Answer, bundle: Bundle) -> None:
    typer.echo(f"{answer.outcome.replace('-', ' ')}: {answer.says}")
    if answer.rests_on:
        typer.echo(f"  by the windows of {', '.join(answer.rests_on)}")
    lines = list(_alike(answer.steps, bundle))
    for line in lines[:_SHOWN]:
        typer.echo(f"  {line}")
    if len(lines) > _SHOWN:
        typer.echo(f"  ... and {len(lines) - _SHOWN} more: see all with --json")
    for name, organisation, group in answer.approvers:
        typer.echo(f"  approved by {name} of {organisation}, for {group}")


def _alike(steps: Sequence[Step], bundle: Bundle) -> Iterator[str]:
    """A line for each payment, or for several of one amount and time."""

    def kind(step: Step) -> tuple[Any, ...]:
        facts = step.facts
        return facts.now, facts.asset, facts.units, tuple(reason.rule for reason in step.decision.reasons)

    for _, found in groupby(steps, key=kind):
        alike = list(found)
        facts = alike[0].facts
        amount = "" if facts.asset is None or facts.units is None else bundle.told(facts.asset, facts.units)
        customers = sorted({str(step.facts.customer) for step in alike})
        whose = customers[0] if len(customers) == 1 else f"{len(customers)} customers"
        times = f"{len(alike)} payments of {amount}" if len(alike) > 1 else amount
        why = "; ".join(dict.fromkeys(map(str, alike[0].decision.reasons)))
        yield f"{_utc(facts.now)}  {times} by {whose}: {why}"


def _scope(text: str, bundle: Bundle) -> When:
    """A scope as a policy file has it, on one line."""
    from policies.reading import read_policy

    groups = [f"{group.id}: [{', '.join(group.addresses)}]" for group in bundle.policy.addresses]
    lines = [
        f"rules: [{{id: question, deny: asked, when: {{{text}}}}}]",
        f"addresses: {{{', '.join(groups)}}}",
    ]
    return read_policy("\n".join(lines), bundle, file="--when").rules[0].when


def _tiers(tiers: list[str] | None) -> tuple[Route, ...]:
    for tier in tiers or ():
        if tier not in COLDER or tier == "ledger":
            raise InvalidValue(f"--tier {tier!r}: write hot, warm or cold")
    return tuple(cast(Route, tier) for tier in tiers or ())


@contextmanager
def _events(shown: Output, file: Path | None, days: int) -> Iterator[tuple[Iterator[Event], Tx | None]]:
    """The history, of the file or the workers' database, with a bar that shows how far it is; and the database."""
    from policies.backtest import read_history

    if file is not None:
        try:
            with file.open("rb") as lines:
                yield _counted(read_history(lines)), None
        except OSError as error:
            raise InvalidValue(f"{file}: {error.strerror}") from None
        return
    from custody.console.operator import workers_database
    from custody.withdrawals.history import history

    with workers_database(shown) as tx:
        yield _counted(history(tx, since=int(time.time()) - days * _DAY)), tx


def _counted(events: Iterator[Event]) -> Iterator[Event]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task("deciding", total=None)
        for count, event in enumerate(events, 1):
            if count % 1_000 == 0:
                bar.update(task, completed=count)
            yield event


def _plain(text: str) -> str:
    """Without what a terminal would obey: records in a file are anybody's."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _utc(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
