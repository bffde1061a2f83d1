"""The verbs of `strongroom cold`: requests that holders of a vault's keys sign offline, and what they bring back.

What changes anything is an action of an operator, as those of `strongroom operator` are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from msgspec import UnsetType

from chains.bbqr import FileType
from chains.errors import InvalidValue
from custody.console import codes
from custody.console.acting import CONFIG_VARIABLE, Session, opened, worker_settings
from custody.console.bringing import brought
from custody.console.operator import acting, utc_text
from custody.console.outcome import Exit, Output, outcome, output
from custody.console.pinned import pinned_bundle
from custody.console.root import AsJson, IdArgument, app, uuid_text
from custody.ports import Step, system_clock
from custody.signing import cancelling
from custody.signing.btc import bump
from custody.signing.btc.site import BtcSite
from custody.signing.cold import asking, bringing, handing
from custody.signing.cold.asking import Asking
from custody.signing.cold.bringing import Taken
from custody.signing.errors import BumpRefused
from custody.signing.evm import safe_cancel
from custody.signing.evm.safe_site import SafeSite
from custody.signing.sessions.model import Asked, Source
from custody.signing.site import Site
from custody.storage.db import Tx
from custody.wiring import Services, wire
from policies.bundle import Bundle
from policies.intent import Intent, Kind

cold_app = typer.Typer(
    help="Requests that holders of a vault's keys sign offline, by files or QR codes."
    f" {CONFIG_VARIABLE} names the workers' settings file.",
    no_args_is_help=True,
)
app.add_typer(cold_app, name="cold")

_SHORT: Final = ("id", "wallet", "kind", "does", "signed", "state", "expires_at")
_LONG: Final = (
    *(
        "id",
        "wallet",
        "kind",
        "does",
        "fee",
        "customers",
        "state",
        "needed",
        "signed",
        "holders",
        "expires_at",
    ),
    *("transaction", "version", "transaction_state", "content", "may_confirm", "trouble"),
)
_TAKEN: Final = ("file", "id", "kept", "known", "refused", "state", "signed", "needed", "node")
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")]
Holders = Annotated[
    list[str], typer.Option("--holder", help="Who gets it, by id in the vault; again for more.")
]


@contextmanager
def _at_work(shown: Output) -> Iterator[tuple[Session, Services]]:
    """The operator, and what he works with; errors become exit codes."""
    with acting(shown) as at, wire(at.settings, pool_size=2) as services:
        yield at, services


@contextmanager
def _looking(shown: Output) -> Iterator[tuple[Tx, Bundle]]:
    """The workers' database and the bundle, for somebody who only looks."""
    with outcome(shown):
        settings = worker_settings()
        bundle = pinned_bundle(settings.bundle_path, settings.trust_root_path, now=system_clock())
        with opened(settings) as database, database.snapshot() as tx:
            yield tx, bundle


@cold_app.command("list")
def list_requests(*, as_json: AsJson = False) -> None:
    """Show what waits for signatures, and what ended without and may be signed all the same; oldest first."""
    shown = output(as_json=as_json)
    with _looking(shown) as (tx, bundle):
        rows = [_told(each, bundle) for each in asking.open_requests(tx)]
    shown.many(rows, _SHORT, none="Nothing waits for signatures.")


@cold_app.command("show")
def show_request(request: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a request: what it does, who has got it, who has signed, and until when."""
    shown = output(as_json=as_json)
    with _looking(shown) as (tx, bundle):
        row = _told(asking.request(tx, UUID(uuid_text(request))), bundle)
    shown.one(row, _LONG)


@cold_app.command("export")
def export(
    request: IdArgument,
    holders: Holders,
    *,
    out: Annotated[
        Path, typer.Option("--out", help="File to write; it must not be there yet.", dir_okay=False)
    ],
    qr: Annotated[bool, typer.Option("--qr", help="Show it as QR codes (BBQr), too.")] = False,
    png: Annotated[
        Path | None,
        typer.Option("--png", help="Folder: write those codes as pictures.", exists=True, file_okay=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a request for holders to sign: a PSBT, or JSON for a Safe. From then on they count as having signed."""
    shown = output(as_json=as_json)
    with _at_work(shown) as (at, services):
        if out.exists():
            raise InvalidValue(f"{out} is there already: name another file; nothing was handed out")
        asked, site = _find(at, services, request)
        daemons = services.members(site.wallet.id)
        ready = handing.prepare(
            at.database,
            site,
            asked.session.id,
            holders,
            services.verifiers,
            daemons=daemons,
            clock=services.clock,
        )
        at.do(
            "cold-export",
            {
                "request": str(asked.session.id),
                "wallet": site.wallet.id,
                "holders": ",".join(ready.holders),
                "sha256": hashlib.sha256(ready.file).hexdigest(),
            },
            lambda tx: handing.hand_out(tx, site, ready, now=services.clock()),
        )
        _write(out, ready.file)
        kind = FileType.PSBT if ready.kind == "psbt" else FileType.JSON
        pictures = () if png is None else codes.write_pictures(kind, ready.file, png, out.stem)
        if qr:
            codes.show(kind, ready.file)
    names = ", ".join(ready.holders)
    shown.line(
        {
            "id": str(asked.session.id),
            "file": str(out),
            "pictures": [str(each) for each in pictures],
            "kind": ready.kind,
            "holders": list(ready.holders),
        },
        f"{out}: for {names}, who may sign from now on; bring it back with `strongroom cold import`",
    )


@cold_app.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="What holders have signed: files, or pictures (PNG, JPEG) of QR codes; a folder: all pictures in it.",
            exists=True,
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Bring signatures, of one holder or several, in any order, from any standard signer. Exit 1: one was refused."""
    shown = output(as_json=as_json)
    rows = []
    with _at_work(shown) as (at, services):
        vaults = {site.wallet.id: site for site in services.wallets() if site.is_vault}
        # All is read before anything is kept: who names a wrong file brings nothing by halves.
        for path, raw in brought(files, lambda words: typer.echo(words, err=True)):
            at.do("cold-import", {"sha256": hashlib.sha256(raw).hexdigest()}, lambda tx: None)
            taken = bringing.take(at.database, vaults, raw)
            rows.append(_taken(path, taken))
        services.wake(Step.BROADCAST)
    shown.many(rows, _TAKEN, none="Nothing was brought.")
    if any(row["refused"] for row in rows):
        raise typer.Exit(int(Exit.REFUSED))


@cold_app.command("unsigned")
def unsigned(
    request: IdArgument,
    holder: Annotated[str, typer.Option("--holder", help="Who says so, by id in the vault.")],
    reason: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Note that a holder has neither signed a request nor passed it on; enough of them free it, though one may lie."""
    shown = output(as_json=as_json)
    with _at_work(shown) as (at, services):
        asked, site = _find(at, services, request)
        said = {"request": str(asked.session.id), "holder": holder, "reason": reason}
        at.do("cold-unsigned", said, lambda tx: None)
        became = cancelling.not_signed(at.database, site, asked.session.id, holder, reason)
    _tell(shown, asked, became)


@cold_app.command("abandon")
def abandon(request: IdArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Ask nobody any more. If too few may have signed, what it serves is free; else rebuild or cancel it next."""
    shown = output(as_json=as_json)
    with _at_work(shown) as (at, services):
        asked, site = _find(at, services, request)
        _record(at, "cold-abandon", asked, reason)
        became = cancelling.abandon(at.database, site, asked.transaction.id, reason)
    _tell(shown, asked, became)


@cold_app.command("rebuild")
def rebuild(
    request: IdArgument,
    reason: Why,
    *,
    feerate: Annotated[
        int | None,
        typer.Option("--feerate", help="sat per 1,000 vB; the present estimate if not given.", min=1),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask anew for what was not signed in time: the same coins, or the same nonce, so that only one can confirm."""
    shown = output(as_json=as_json)
    with _at_work(shown) as (at, services):
        asked, site = _find(at, services, request)
        if isinstance(site, SafeSite) and feerate is not None:
            raise BumpRefused("a Safe's transaction pays no fee: leave --feerate out")
        _record(at, "cold-rebuild", asked, reason)
        number, now = asked.version.version, services.clock()
        if isinstance(site, BtcSite):
            number = bump.rebuild(at.database, site, asked.transaction.id, feerate, now=now)
        elif isinstance(site, SafeSite):
            safe_cancel.ask_again(at.database, site, asked.transaction.id, now=now)
        services.wake(Step.SIGN)
    shown.line(
        {"transaction": str(asked.transaction.id), "version": number},
        f"version {number} of {asked.transaction.id} waits for signatures: see `strongroom cold list`",
    )


@cold_app.command("cancel")
def cancel(request: IdArgument, reason: Why, *, as_json: AsJson = False) -> None:
    """Give up what may have been signed: ask for one that spends the same and pays nobody. Money stays held until one
    of both is final."""
    shown = output(as_json=as_json)
    with _at_work(shown) as (at, services):
        asked, site = _find(at, services, request)
        _record(at, "cold-cancel", asked, reason)
        instead = cancelling.cancel(at.database, site, asked.transaction.id, reason)
        services.wake(Step.SIGN)
    shown.line(
        {"transaction": str(asked.transaction.id), "cancelled_by": str(instead)},
        f"{instead} takes its place once it is signed and final: see `strongroom cold list`",
    )


def _find(at: Session, services: Services, request: str) -> tuple[Asking, Site]:
    """A request and its vault's site. Raises NotFound, InvalidValue."""
    with at.database.snapshot() as tx:
        found = asking.request(tx, UUID(uuid_text(request)))
    for site in services.wallets():
        if site.wallet.id == found.session.wallet:
            return found, site
    raise InvalidValue(
        f"the bundle has no vault {found.session.wallet}, or its chain has no node in the settings"
    )


def _record(at: Session, action: str, asked: Asking, reason: str) -> None:
    """Before it is done: what it does has transactions of its own."""
    said = {"request": str(asked.session.id), "transaction": str(asked.transaction.id), "reason": reason}
    at.do(action, said, lambda tx: None)


def _tell(shown: Output, asked: Asking, became: cancelling.Outcome) -> None:
    texts = {
        cancelling.Outcome.FREE: "too few can have signed: what it serves is tried anew",
        cancelling.Outcome.HELD: "it may be signed all the same, so its money stays held: rebuild or cancel it",
    }
    value = {"id": str(asked.session.id), "transaction": str(asked.transaction.id), "outcome": became.value}
    shown.line(value, texts[became])


def _write(path: Path, data: bytes) -> None:
    """Write a new file, whole and on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _taken(path: Path, taken: Taken) -> dict[str, Any]:
    session = taken.session
    return {
        "file": str(path),
        "id": str(session.id),
        "kept": list(taken.kept),
        "known": list(taken.known),
        "refused": list(taken.refused),
        "state": session.state.value,
        "signed": sorted(session.signed),
        "needed": session.threshold,
        "node": taken.objection,
    }


def _told(asked: Asking, bundle: Bundle) -> Mapping[str, Any]:
    session = asked.session
    native = bundle.network(asked.transaction.chain).native_asset
    return {
        "id": str(session.id),
        "wallet": session.wallet,
        "kind": asked.transaction.kind,
        "does": [_does(intent, bundle) for intent in asked.intents],
        "fee": bundle.told(native, asked.version.fee_units),
        "customers": list(asked.customers),
        "state": session.state.value,
        "needed": f"{session.threshold} of {session.members}",
        "signed": sorted(session.signed),
        "holders": [_holder(each) for each in session.asked.values()],
        "expires_at": utc_text(session.expires_at),
        "transaction": str(asked.transaction.id),
        "version": asked.version.version,
        "transaction_state": asked.transaction.state.value,
        "content": asked.version.content,
        "may_confirm": session.may_confirm,
        "trouble": asked.transaction.last_error,
    }


def _does(intent: Intent, bundle: Bundle) -> str:
    if intent.kind in (Kind.PAYMENT, Kind.REFILL):
        return f"{bundle.told(intent.asset, intent.units)} to {intent.destination}"
    if not isinstance(intent.change, UnsetType):
        treasury = intent.change.treasury or "nobody else"
        return f"{intent.change.step} {treasury} as whom forwarders of {intent.destination} pay"
    return f"{intent.kind} to {intent.destination}"


def _holder(asked: Asked) -> str:
    if asked.response is not None:
        return f"{asked.member}: has signed"
    got = f"got it at {utc_text(asked.asked_at)}" if asked.source is Source.FILE else "was asked"
    return (
        f"{asked.member}: {got}; {f'has not signed: {asked.refused}' if asked.refused else 'may have signed'}"
    )
