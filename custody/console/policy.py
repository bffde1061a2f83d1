"""The verbs of `strongroom policy`: read, try, examine and draft the rules that decide about every operation.

All but `explain ID` work on files alone: the signed bundle, and a policy file that may take the place of its policy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from uuid import UUID

import msgspec
import typer

from chains.errors import InvalidValue
from custody.console.outcome import Exit, Form, Output, outcome, output
from custody.console.root import AsJson, app, uuid_text
from policies.bundle import Bundle, SignedBundle

if TYPE_CHECKING:
    from custody.storage.db import Tx
    from policies.explaining import Explanation

BUNDLE_VARIABLE: Final = "STRONGROOM_BUNDLE_PATH"
_DAY: Final = 86_400
_HOUR: Final = 3_600

policy_app = typer.Typer(
    help="The rules that decide about every operation: read, try, examine and draft them.",
    no_args_is_help=True,
)
app.add_typer(policy_app, name="policy")

BundleOption = Annotated[
    Path, typer.Option("--bundle", envvar=BUNDLE_VARIABLE, help="The signed bundle.", dir_okay=False)
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--file", help="A policy file (YAML) instead of the bundle's own policy.", dir_okay=False),
]
Spent = Annotated[
    str,
    typer.Option(
        "--spent",
        help="What windows hold, by the id of their rule: 'hot-window.BTC: 4.9 BTC'; others are empty.",
    ),
]


@policy_app.command("default")
def default() -> None:
    """Print the policy file that Strongroom is shipped with, to begin from."""
    typer.echo(resources.files("policies").joinpath("default.yaml").read_text(), nl=False)


@policy_app.command("show")
def show(
    bundle: BundleOption,
    file: PolicyFile = None,
    *,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Write it as a policy file, to go on from; it has no comments.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole policy in words, one sentence a rule."""
    from policies import words
    from policies.writing import written

    shown = output(as_json=as_json)
    with readable(shown):
        chosen = chosen_bundle(bundle, file)
        told = chosen.told
        if as_yaml:
            typer.echo(written(chosen.policy, chosen), nl=False)
            return
        if shown.form is Form.PEOPLE:
            typer.echo("\n".join(words.policy(chosen.policy, told, chosen.unit)))
            return
        sentences = {rule.id: words.rule(rule, told, chosen.unit) for rule in chosen.policy.rules}
        _print({"policy": msgspec.to_builtins(chosen.policy), "sentences": sentences, "unit": chosen.unit})


@policy_app.command("explain")
def explain(
    withdrawal: Annotated[
        str | None, typer.Argument(help="Id of a withdrawal: why it was decided as it was.", metavar="[ID]")
    ] = None,
    given: Annotated[
        str | None, typer.Option(help="Facts instead: 'amount: 0.1 BTC, destination_age: 2h'.")
    ] = None,
    spent: Spent = "",
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", envvar=BUNDLE_VARIABLE, help="The signed bundle.", dir_okay=False),
    ] = None,
    file: PolicyFile = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say why the policy answers as it does: rules that fit and that don't, and what is left in each window.

    For a withdrawal the facts and windows are those of its record, the rules those of the bundle that was in force
    then, as officers had lowered it. The workers' settings say where the records are.
    """
    shown = output(as_json=as_json)
    with readable(shown):
        if (withdrawal is None) is (given is None):
            raise InvalidValue("name a withdrawal, or facts with --given, and not both")
        if bundle is None and (given is not None or file is not None):
            raise InvalidValue(f"name the signed bundle: --bundle FILE, or {BUNDLE_VARIABLE}")
        recorded: Mapping[str, Any] | None = None
        if given is not None:
            explanation = _of_facts(chosen_bundle(cast(Path, bundle), file), given, spent)
        else:
            explanation, recorded = _of_record(shown, str(withdrawal), bundle, file)
        if shown.form is Form.PROGRAMS:
            _print({**explanation.describe(), "recorded": recorded})
            return
        if recorded is not None:
            what = recorded.get("tier") or recorded["outcome"]
            typer.echo(f"The record says {what}, and not the same as this: it was edited.")
        typer.echo("\n".join(explanation.lines()))


@policy_app.command("test")
def run_cases(bundle: BundleOption, file: PolicyFile = None, *, as_json: AsJson = False) -> None:
    """Ask the policy all its cases; ends with 1 if an answer is not the expected one."""
    from policies.cases import answer, judge_all

    shown = output(as_json=as_json)
    with readable(shown):
        outcomes = judge_all(chosen_bundle(bundle, file))
        wrong = [each for each in outcomes if each.wrong]
        if shown.form is Form.PROGRAMS:
            _print(
                [
                    {
                        "case": each.case.id,
                        "expected": each.case.expect,
                        "answer": answer(each.decision),
                        "ok": not each.wrong,
                        "wrong": list(each.wrong),
                    }
                    for each in outcomes
                ]
            )
        else:
            for each in wrong:
                typer.echo(f"{each.case.id}: " + "; ".join(each.wrong))
            typer.echo(f"{len(outcomes) - len(wrong)} of {len(outcomes)} cases are as expected")
    raise typer.Exit(int(Exit.REFUSED if wrong else Exit.OK))


@policy_app.command("lint")
def lint(
    bundle: BundleOption,
    file: PolicyFile = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Examine the policy for what can't have been meant; ends with 1 if there is such a thing."""
    from policies.lint import lint as examine

    shown = output(as_json=as_json)
    with readable(shown):
        found = examine(chosen_bundle(bundle, file))
        if shown.form is Form.PROGRAMS:
            _print([each.describe() for each in found])
        else:
            for each in found:
                typer.echo(str(each))
            counts = [
                f"{sum(f.severity == kind for f in found)} {kind}s" for kind in ("error", "warning", "note")
            ]
            typer.echo(", ".join(counts))
    severe = {"error", "warning"} if strict else {"error"}
    raise typer.Exit(int(Exit.REFUSED if severe & {each.severity for each in found} else Exit.OK))


@policy_app.command("draft")
def draft(
    bundle: BundleOption,
    file: Annotated[Path, typer.Option("--file", help="The policy file (YAML).", dir_okay=False)],
    out: Annotated[Path, typer.Option(help="The draft; it must not exist.", dir_okay=False)],
    days: Annotated[int, typer.Option(help="Until the draft expires.", min=1, max=3_660)] = 30,
    waits_hours: Annotated[
        int | None,
        typer.Option(
            help="In force so many hours from now; the time for vetoes and an hour if not given.", min=0
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Draft the next bundle, with this policy, for the officers to read and sign, and show what it changes.

    Nothing is drafted whose cases fail, or that lint finds an error in.
    """
    from policies.bundle.changes import successor_of
    from policies.bundle.differences import differences

    shown = output(as_json=as_json)
    with readable(shown):
        present = _signed(bundle).bundle
        wanted = chosen_bundle(bundle, file)
        warnings = _examined(wanted)
        now = int(time.time())
        waits = present.veto_seconds + _HOUR if present.veto_seconds else 0
        waits = waits if waits_hours is None else waits_hours * _HOUR
        drafted = successor_of(wanted, now=now, lasts=days * _DAY, in_force_from=now + waits if waits else 0)
        _write(out, SignedBundle(bundle=drafted, signatures=()))
        changes = differences(present, drafted)
        if shown.form is Form.PROGRAMS:
            told = {"version": drafted.version, "out": str(out), "changes": changes, "warnings": warnings}
            _print({**told, "digest": drafted.digest_hex()})
            return
        typer.echo(f"{out}: version {drafted.version}, to be signed by the quorum. It changes:")
        for line in [f"  {change}" for change in changes] + warnings:
            typer.echo(line)
        sign = f"strongroom key sign {out} --present {bundle} --officer NAME --key FILE"
        typer.echo(f"Each officer reads and signs it:  {sign}")


# What the verbs share


@contextmanager
def readable(shown: Output) -> Iterator[None]:
    """As `outcome`; programs get the mistakes of a file one by one, with their places."""
    from policies.nodes import Unreadable

    with outcome(shown):
        try:
            yield
        except Unreadable as error:
            if shown.form is Form.PEOPLE:
                raise
            mistakes = [{"line": m.line, "column": m.column, "says": m.says} for m in error.mistakes]
            _print({"title": f"{error.file} can't be read", "mistakes": mistakes, "retryable": False})
            raise typer.Exit(int(Exit.USAGE)) from None


def chosen_bundle(bundle: Path, file: Path | None) -> Bundle:
    """The bundle, with the policy of a file if one is named; consistent."""
    from policies.bundle.checks import check_consistent
    from policies.reading import read_policy

    found = _signed(bundle).bundle
    if file is not None:
        policy = read_policy(_text(file), found, file=str(file))
        found = msgspec.structs.replace(found, policy=policy)
    check_consistent(found)
    return found


def _signed(path: Path) -> SignedBundle:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SignedBundle)
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"{path}: {error}; expected a bundle with its signatures") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{path} is no text in UTF-8") from None


def _of_facts(bundle: Bundle, given: str, spent: str) -> Explanation:
    from policies.explaining import explain as explained
    from policies.reading_cases import read_facts

    facts, filled = read_facts(given, spent, bundle)
    limited = {rule.id for rule in bundle.policy.rules if rule.limit is not None}
    unknown = sorted(filled.keys() - limited)
    if unknown:
        raise InvalidValue(f"no rule {unknown[0]} has a limit")
    return explained(bundle, facts, lambda key, limit: filled.get(key.rule, 0))


def _of_record(
    shown: Output, withdrawal: str, bundle: Path | None, file: Path | None
) -> tuple[Explanation, Mapping[str, Any] | None]:
    """Why it was decided so; and what the record says, where that is not the same."""
    from custody.console.operator import workers_database
    from custody.withdrawals.repository import decision_of
    from policies.engine import SpentTable
    from policies.explaining import explain as explained
    from policies.overlays import with_limits
    from policies.records import read, same

    with workers_database(shown) as tx:
        stored = decision_of(tx, UUID(uuid_text(withdrawal)))
        if stored is None:
            raise InvalidValue(f"withdrawal {withdrawal}: there is none, or nothing was decided about it yet")
        record = read(stored)
        if bundle is not None and file is not None:
            # A draft has windows of its own, which the record knows nothing of.
            drafted = chosen_bundle(bundle, file)
            return explained(drafted, record.facts, lambda key, limit: record.spent.get(key, 0)), None
        named = None if bundle is None else chosen_bundle(bundle, None)
        if named is None or named.version != record.bundle_version:
            named = bundles_in_force(tx)(record.bundle_version)
    if named is None:
        raise InvalidValue(
            f"it was decided under version {record.bundle_version} of the bundle, which was never in force here by the"
            " quorum's signatures: name that one with --bundle"
        )
    explanation = explained(with_limits(named, record.lowered), record.facts, SpentTable(record.spent))
    return explanation, None if same(record, explanation.decision) else record.decided


def bundles_in_force(tx: Tx) -> Callable[[int], Bundle | None]:
    """By version, what was in force here by the quorum's signatures, as the workers' settings name its root."""
    from custody.console.acting import worker_settings
    from custody.officers.service import once_in_force
    from custody.wiring import read_trust_root

    root = read_trust_root(worker_settings().trust_root_path)
    known: dict[int, Bundle | None] = {}

    def of_version(version: int) -> Bundle | None:
        if version not in known:
            known[version] = once_in_force(tx, version, root)
        return known[version]

    return of_version


def _examined(bundle: Bundle) -> list[str]:
    """Warnings of lint. Raises InvalidValue where it finds an error, or a case fails."""
    from policies.cases import judge_all
    from policies.lint import lint as examine

    failed = [f"case {each.case.id}: {'; '.join(each.wrong)}" for each in judge_all(bundle) if each.wrong]
    found = examine(bundle)
    failed += [str(each) for each in found if each.severity == "error"]
    if failed:
        raise InvalidValue("\n".join(["nothing was drafted:", *failed]))
    return [str(each) for each in found if each.severity == "warning"]


def _write(path: Path, signed: SignedBundle) -> None:
    try:
        with path.open("xb") as file:
            file.write(signed.encode())
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}; name a file that is not there yet") from None


def _print(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
