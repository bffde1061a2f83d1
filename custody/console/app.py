"""The verbs of `strongroom` that speak to the REST API. `ops.cli` adds those that run processes."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from chains.types import Amount, Asset
from custody.console import (
    status,
    tier,  # noqa: F401 - these add their verbs to the app
    withdrawals,  # noqa: F401
)
from custody.console.outcome import Exit, Form, output
from custody.console.root import (
    AsJson,
    AssetOption,
    CustomerArgument,
    CustomerOption,
    IdArgument,
    StateOption,
    accounts,
    addresses,
    app,
    asset_of,
    connected,
    customers,
    deposits,
    events,
    ledger,
    sweeps,
    uuid_text,
)

__all__ = ["app"]

_DEPOSIT = ("id", "customer", "asset", "amount", "state", "confirmations", "confirmations_needed", "resource")
_SWEEP = ("id", "chain", "kind", "state", "reason", "addresses", "amounts", "network_fee", "txid")
_PERIOD = ("at", "account", "type", "amount", "balance_before", "balance_after", "reference", "transfer")
_LINE = ("seq", "account", "type", "asset", "amount", "balance_before", "balance_after", "reference", "at")


@customers.command("create")
def create_customer(customer: CustomerArgument, *, as_json: AsJson = False) -> None:
    """Create a customer with an id of your choice."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.create_customer(customer), ("id", "state", "created_at"))


@customers.command("show")
def show_customer(customer: CustomerArgument, *, as_json: AsJson = False) -> None:
    """Show a customer."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(
            client.get(f"/v1/customers/{quote(customer, safe='')}"), ("id", "state", "reason", "created_at")
        )


@customers.command("list")
def list_customers(*, as_json: AsJson = False) -> None:
    """List customers."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.items("/v1/customers"), ("id", "state", "reason"), none="There are no customers.")


@addresses.command("new")
def new_address(
    customer: Annotated[str, typer.Option("--customer", help="Whose address.")],
    asset: AssetOption = "BTC",
    *,
    as_json: AsJson = False,
) -> None:
    """Make a deposit address, attested by the signer."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.new_address(customer, asset), ("address", "customer", "asset", "chain"))


@addresses.command("list")
def list_addresses(
    customer: Annotated[str, typer.Option("--customer", help="Whose addresses.")], *, as_json: AsJson = False
) -> None:
    """List a customer's deposit addresses."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(
            client.items(f"/v1/customers/{quote(customer, safe='')}/addresses"),
            ("address", "asset", "chain", "created_at"),
            none="There are no addresses.",
        )


@accounts.command("balances")
def balances(customer: CustomerArgument, *, as_json: AsJson = False) -> None:
    """Show what a customer has."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.balances(customer), ("asset", "available", "frozen"), none="There is nothing.")


@accounts.command("statement")
def statement(customer: CustomerArgument, asset: AssetOption = "BTC", *, as_json: AsJson = False) -> None:
    """Show every change of a customer's balances of one asset."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.statement(customer, asset), _LINE, none="Nothing has happened yet.")


@accounts.command("period")
def period(
    customer: CustomerArgument,
    since: Annotated[str, typer.Option("--since", help="First moment, e.g. 2026-11-01T00:00:00Z.")],
    until: Annotated[str, typer.Option("--until", help="First moment that is no more in it.")],
    asset: AssetOption = "BTC",
    *,
    as_json: AsJson = False,
) -> None:
    """Print a statement over a period as CSV: opening balances, every line, closing balances. Or as JSON."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        path = f"/v1/customers/{quote(customer, safe='')}/statement/period"
        query = {"asset": asset, "since": since, "until": until}
        found = client.get(path, query)
    if shown.form is Form.PROGRAMS:
        shown.one(found, ())
        return
    rows = csv.writer(sys.stdout)
    rows.writerow(_PERIOD)
    kinds = ("available", "frozen", "trading")
    for name, at in (("opening", since), ("closing", until)):
        if name == "closing":
            rows.writerows([[line[field] for field in _PERIOD] for line in found["lines"]])
        rows.writerows([[at, kind, name, "", "", found[name][kind], "", ""] for kind in kinds])


@ledger.command("statement")
def ledger_statement(
    customer: CustomerArgument, asset: AssetOption = "BTC", *, as_json: AsJson = False
) -> None:
    """Replay a customer's statement from zero and compare it with the balances; exit 1 on any difference."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        entry = asset_of(client, asset)
        lines = list(client.statement(customer, asset))
        balance = next((found for found in client.balances(customer) if found["asset"] == asset), None)
        replayed = _replay(entry, lines)
        stated = {
            name: (balance or {}).get(name, Amount(entry, 0).decimal()) for name in ("available", "frozen")
        }
        differs = any(replayed.get(name, Amount(entry, 0).decimal()) != stated[name] for name in stated)
        if shown.form is Form.PROGRAMS:
            shown.one({"ok": not differs, "replayed": replayed, "balances": stated, "lines": lines}, ())
        else:
            shown.many(lines, _LINE, none="Nothing has happened yet.")
            said = ", ".join(f"{name} {amount} {asset}" for name, amount in stated.items())
            typer.echo(f"replayed from zero: {'DIFFERS from' if differs else 'equals'} the balances: {said}")
    if differs:
        raise typer.Exit(int(Exit.REFUSED))


def _replay(asset: Asset, lines: list[dict[str, Any]]) -> dict[str, str]:
    """Balances by account after adding up all lines; a gap in an account's numbers shows as a difference."""
    units: dict[str, int] = {}
    last: dict[str, int] = {}
    for line in lines:
        account = str(line["account"])
        if line["seq"] != last.get(account, 0) + 1:
            return {account: f"line {line['seq']} follows line {last.get(account, 0)}"}
        last[account] = line["seq"]
        text = str(line["amount"])
        amount = Amount.parse(asset, text.removeprefix("-")).units
        units[account] = units.get(account, 0) + (-amount if text.startswith("-") else amount)
    return {account: Amount(asset, total).decimal() for account, total in units.items()}


@deposits.command("list")
def list_deposits(
    customer: CustomerOption = None, state: StateOption = None, *, as_json: AsJson = False
) -> None:
    """List deposits."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.deposits(customer=customer, state=state), _DEPOSIT, none="There are no deposits.")


@deposits.command("show")
def show_deposit(deposit: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a deposit."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.deposit(uuid_text(deposit)), (*_DEPOSIT, "address", "height", "created_at"))


@events.command("follow")
def follow_events(
    after: Annotated[
        str | None, typer.Option(help="Cursor from which to go on; from the beginning if not given.")
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when there is nothing new.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print events as they come, until Ctrl-C. The last line for programs holds the cursor to go on from."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        cursor = after
        try:
            while True:
                found, cursor = client.events(cursor)
                for event in found:
                    shown.line(
                        event,
                        f"{event['at']}  {event['type']:<24} {event['subject']}  {json.dumps(event['data'])}",
                    )
                if found:
                    continue
                if once:
                    break
                time.sleep(1)
        except KeyboardInterrupt:
            pass
        shown.line({"next": cursor}, f"go on with: --after {cursor}")


@sweeps.command("list")
def list_sweeps(state: StateOption = None, *, as_json: AsJson = False) -> None:
    """List sweeps, oldest first."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.sweeps(state=state), _SWEEP, none="There are no sweeps.")


@sweeps.command("show")
def show_sweep(sweep: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a sweep."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.sweep(uuid_text(sweep)), (*_SWEEP, "created_at", "updated_at"))


@app.command("alerts")
def show_alerts(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show troubles that somebody should look at."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(
            client.items("/v1/alerts", {"state": "all" if everything else "open"}),
            ("severity", "type", "subject", "message", "at", "resolved_at"),
            none="There are no open alerts.",
        )


@app.command("status")
def show_status(*, as_json: AsJson = False) -> None:
    """Show what runs, how far each chain is, what waits and why.

    Exit 3: a part is missing. Exit 1: paying is halted, or a critical alert is open.
    """
    shown = output(as_json=as_json)
    with connected(shown) as client:
        code = status.show(client, shown)
    if code:
        raise typer.Exit(int(code))
