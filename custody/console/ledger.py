"""The verbs of `strongroom ledger` at the host: the whole ledger recomputed, its heads, corrections by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Final

import typer

from chains.errors import InvalidValue
from chains.types import Amount
from custody.console.acting import worker_settings
from custody.console.operator import acting, utc_text, workers_database
from custody.console.outcome import Exit, outcome, output
from custody.console.root import AsJson, CustomerArgument, ledger
from custody.ledger import heads
from custody.ledger.adjustments import ACTION, Adjustment, Made, adjust, page
from custody.ledger.verify import Known, Verified, verify
from custody.wiring import Services, wire
from signers.ports import Refused, Sealing, SealRequest, SignerUnavailable

_HEAD: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


@ledger.command("verify")
def verify_ledger(
    head: Annotated[
        list[str] | None,
        typer.Option(help="NUMBER:DIGEST that somebody has kept; again for more. What was cut off is found."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Recompute every line's hash, all balances and sums, and the signed heads. Exit 1: something is wrong."""
    shown = output(as_json=as_json)
    with outcome(shown), wire(worker_settings(), pool_size=2) as services:
        bundle = services.bundle()
        kept = dict(_kept(text) for text in head or ())
        signer = _remembered(services)
        known = Known(
            keys={each.id: each.attestation_key for each in bundle.keysets},
            sealing=heads.sealing_keyset(bundle).id,
            heads=kept | ({} if signer is None else dict([signer])),
        )
        with _progress() as told, services.database.snapshot() as tx:
            found = verify(tx, known, told)
    flaws = [{"wrong": str(each.wrong), "where": each.where, "detail": each.detail} for each in found.flaws]
    shown.line(
        {
            "lines": found.lines,
            "accounts": found.accounts,
            "heads": found.heads,
            "head": found.head,
            "unsealed_lines": found.unsealed_lines,
            "signer": None if signer is None else f"{signer[0]}:{signer[1]}",
            "flaw_count": found.flaw_count,
            "flaws": flaws,
        },
        _told(found, heard=signer is not None),
    )
    if found.flaw_count:
        raise typer.Exit(int(Exit.REFUSED))


def _told(found: Verified, *, heard: bool) -> str:
    lines = [f"{each.wrong}: {each.where}: {each.detail}" for each in found.flaws]
    if found.flaw_count > len(found.flaws):
        lines.append(f"... and {found.flaw_count - len(found.flaws)} more")
    lines.append(
        f"{found.lines} lines of {found.accounts} accounts, {found.flaw_count or 'no'} flaws;"
        f" {found.heads} signed heads, {found.unsealed_lines} lines since the last"
    )
    if not heard:
        lines.append("the signer did not say which head it signed last: heads that were cut off are not seen")
    return "\n".join([*lines, f"keep the head: {found.head}"])


def _kept(text: str) -> tuple[int, str]:
    match = _HEAD.fullmatch(text)
    if match is None:
        raise InvalidValue("--head: write NUMBER:DIGEST, as `strongroom ledger verify` prints it")
    return int(match[1]), match[2]


def _remembered(services: Services) -> tuple[int, str] | None:
    """Number and digest of the head that the signer has signed last; None if it does not say, or has signed none."""
    keyset = heads.sealing_keyset(services.bundle()).id
    signer = services.signers.get(keyset)
    with suppress(Refused, SignerUnavailable):
        if isinstance(signer, Sealing):
            told = signer.seal(SealRequest(keyset=keyset))
            return None if told.number == 0 else (told.number, told.digest)
    return None


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where somebody is there to see it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("lines"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("lines", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@ledger.command("seal")
def seal_now(*, as_json: AsJson = False) -> None:
    """Have a signer seal what was booked until now. Workers do so every minute."""
    shown = output(as_json=as_json)
    with outcome(shown), wire(worker_settings(), pool_size=2) as services:
        done = heads.seal(services.database, services.bundle(), services.signers, now=services.clock())
    if done is None:
        shown.line({"number": 0, "digest": heads.NO_HEAD, "new": False}, "nothing was ever booked")
        return
    shown.line(
        {"number": done.number, "digest": done.digest, "keyset": done.keyset, "new": done.is_new},
        f"{'sealed' if done.is_new else 'nothing new since'}: head {done.number}:{done.digest}, by {done.keyset}",
    )


_ADJUSTMENT: Final = ("id", "customer", "asset", "units", "reason", "operator", "at")


@ledger.command("adjust")
def adjust_balance(
    customer: CustomerArgument,
    amount: Annotated[
        str,
        typer.Option(
            "--amount", help="Decimal number; with a minus (--amount=-1) it is taken from the customer."
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept for ever.", prompt="Reason")],
    asset: Annotated[str, typer.Option("--asset", help="Asset id.")] = "BTC",
    *,
    as_json: AsJson = False,
) -> None:
    """Correct what a customer has, against suspense. Two other operators approve it; then repeat the same command."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        if at.bundle is None:
            raise InvalidValue("no bundle can be believed: nothing can be adjusted")
        sign, text = (-1, amount[1:]) if amount.startswith("-") else (1, amount)
        units = sign * Amount.parse(at.bundle.asset(asset).asset(), text).units
        wanted = Adjustment(customer=customer, asset=asset, units=units, reason=reason)
        at.do(ACTION, wanted.parameters(), lambda tx: adjust(tx, wanted, by=at.person.id))
    shown.line(
        {**wanted.parameters(), "adjusted": True},
        f"{customer} has {amount} {asset} more: adjustment {wanted.id}",
    )


@ledger.command("adjustments")
def list_adjustments(
    customer: Annotated[str | None, typer.Option(help="Only this one's.")] = None, *, as_json: AsJson = False
) -> None:
    """List what was corrected by hand."""
    shown = output(as_json=as_json)
    found: list[Made] = []
    with workers_database(shown) as tx:
        while more := page(tx, after=found[-1].id if found else None, limit=500, customer=customer):
            found += more
    rows = [
        {**asdict(each), "id": str(each.id), "units": str(each.units), "at": utc_text(each.at)}
        for each in found
    ]
    shown.many(rows, _ADJUSTMENT, none="Nothing was adjusted.")
