"""The verbs of `strongroom` that speak to the REST API. `ops.cli` adds those that run processes.

Exit codes: 0 done, 1 refused or a check failed, 2 wrong input, 3 not available now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import typer

from chains.errors import InvalidValue
from chains.types import Amount, Asset
from custody.console import settings, status
from custody.console.client import ApiClient
from custody.console.outcome import Exit, Form, Output, outcome, output
from custody.ids import new_id
from policies.intent import Order
from policies.keys import SigningKey

app = typer.Typer(
    name="strongroom",
    help="Custody for other people's coins: deposits, ledger, withdrawals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
CustomerArgument = Annotated[str, typer.Argument(help="Customer id.")]
CustomerOption = Annotated[str | None, typer.Option("--customer", help="Only this customer's.")]
StateOption = Annotated[str | None, typer.Option("--state", help="Only in this state.")]
AssetOption = Annotated[str, typer.Option("--asset", help="Asset id.")]
IdArgument = Annotated[str, typer.Argument(help="Id.", metavar="ID")]

_WITHDRAWAL = (
    "id", "customer", "asset", "amount", "fee", "destination", "state", "reason", "fee_ceiling", "network_fee", "txids",
    "confirmed_txid", "confirmations", "expires_at",
)  # fmt: skip
_DEPOSIT = ("id", "customer", "asset", "amount", "state", "confirmations", "confirmations_needed", "resource")
_SWEEP = ("id", "chain", "kind", "state", "reason", "addresses", "amounts", "network_fee", "txid")
_TIER = (
    "tier", "asset", "holds", "holding_cap", "excess", "payment_below", "window_cap", "window_seconds", "keyset",
)  # fmt: skip
_LINE = ("seq", "account", "type", "asset", "amount", "balance_before", "balance_after", "reference", "at")


@contextmanager
def connected(shown: Output) -> Iterator[ApiClient]:
    """A client from the settings; errors become exit codes."""
    with outcome(shown):
        found = settings.load()
        with ApiClient(
            found.api_url, found.audience, found.caller, SigningKey.load(found.caller_key)
        ) as client:
            yield client


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


customers = _group("customer", "Customers.")
accounts = _group("account", "Balances and statements of customers.")
addresses = _group("address", "Deposit addresses.")
deposits = _group("deposit", "Deposits.")
withdrawals = _group("withdrawal", "Withdrawals.")
sweeps = _group("sweep", "Sweeps: money that moves between addresses of ours.")
events = _group("event", "The event feed.")
ledger = _group("ledger", "The ledger.")


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


@ledger.command("statement")
def ledger_statement(
    customer: CustomerArgument, asset: AssetOption = "BTC", *, as_json: AsJson = False
) -> None:
    """Replay a customer's statement from zero and compare it with the balances; exit 1 on any difference."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        entry = _asset(client, asset)
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
        shown.one(client.deposit(_uuid(deposit)), (*_DEPOSIT, "address", "height", "created_at"))


@withdrawals.command("create")
def create_withdrawal(
    customer: Annotated[str, typer.Option("--customer", help="Whose money.")],
    amount: Annotated[str, typer.Option("--amount", help="What arrives, e.g. 0.01.")],
    to: Annotated[str, typer.Option("--to", help="Destination address.")],
    asset: AssetOption = "BTC",
    fee_ceiling: Annotated[
        str | None,
        typer.Option(help="Most network fee it may cause, in the chain's own asset; suggested if not given."),
    ] = None,
    expires_in: Annotated[int, typer.Option(help="Seconds until the order ends.", min=60)] = 3600,
    order_id: Annotated[str | None, typer.Option("--id", help="UUID of your choice for the order.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Sign an order with your caller's key and request the withdrawal."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        terms = client.asset(asset)
        value = Asset(terms["id"], terms["chain"], terms["decimals"])
        units = Amount.parse(value, amount).units
        if units == 0:
            raise InvalidValue("amount 0: nothing would arrive")
        native = _asset(client, terms["native_asset"])
        ceiling, why = (fee_ceiling, "as given") if fee_ceiling else _ceiling(client, terms)
        order = Order(
            v=1,
            id=_uuid(order_id) if order_id else str(new_id()),
            caller=client.caller_id,
            customer=customer,
            chain=value.chain,
            asset=value.id,
            destination=to,
            amount=str(units),
            fee_ceiling=str(Amount.parse(native, ceiling).units),
            expires_at=int(time.time()) + expires_in,
        )
        if shown.form is Form.PEOPLE:
            # On stderr before it is sent: if no answer comes, this is the id to ask about.
            typer.echo(f"order {order.id}, fee ceiling {ceiling} {native.id} ({why})", err=True)
        shown.one(client.withdraw(Order.from_object(order.to_object())), _WITHDRAWAL)


def _ceiling(client: ApiClient, terms: dict[str, Any]) -> tuple[str, str]:
    """The fee ceiling for an order whose caller names none, and where it comes from."""
    fees = client.get("/v1/fees", {"chain": terms["chain"]})["items"]
    found = next(each for each in fees if each["asset"] == terms["id"])
    if found["fee_ceiling"] is not None:
        return str(found["fee_ceiling"]["amount"]), "suggested at the present price"
    if terms["id"] == terms["native_asset"]:
        # The fee a customer pays bounds what the house pays for it.
        return str(terms["withdrawal_fee"]), f"the withdrawal fee: {found['reason']}"
    raise InvalidValue(
        f"--fee-ceiling: say how much {terms['native_asset']} the chain may cost at most ({found['reason']})"
    )


@withdrawals.command("show")
def show_withdrawal(withdrawal: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a withdrawal."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.withdrawal(_uuid(withdrawal)), _WITHDRAWAL)


@withdrawals.command("list")
def list_withdrawals(
    customer: CustomerOption = None, state: StateOption = None, *, as_json: AsJson = False
) -> None:
    """List withdrawals."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(
            client.withdrawals(customer=customer, state=state),
            ("id", "customer", "asset", "amount", "state", "reason", "confirmed_txid"),
            none="There are no withdrawals.",
        )


@withdrawals.command("cancel")
def cancel_withdrawal(withdrawal: IdArgument, *, as_json: AsJson = False) -> None:
    """Cancel a withdrawal that no transaction pays yet."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.cancel_withdrawal(_uuid(withdrawal)), _WITHDRAWAL)


@withdrawals.command("bump")
def bump_withdrawal(
    withdrawal: IdArgument,
    feerate: Annotated[
        int | None,
        typer.Option(
            help="BTC: sat/kvB; EVM: wei per gas at most, tips included (1 gwei is 1000000000). Raised to the"
            " least that a replacement needs; the present estimate if not given.",
            min=1,
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask for a replacement of its transaction with a higher fee."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(
            client.bump_withdrawal(_uuid(withdrawal), feerate=feerate),
            ("id", "withdrawal", "transaction", "feerate"),
        )


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
        shown.one(client.sweep(_uuid(sweep)), (*_SWEEP, "created_at", "updated_at"))


@app.command("tier")
def show_tiers(*, as_json: AsJson = False) -> None:
    """Show what each tier may pay, and what it holds."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(
            client.get("/v1/tiers")["items"],
            (
                "tier",
                "asset",
                "holds",
                "holding_cap",
                "excess",
                "payment_below",
                "window_cap",
                "window_seconds",
                "keyset",
            ),
            none="The bundle has no caps: nothing may be paid.",
        )


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


def _asset(client: ApiClient, asset: str) -> Asset:
    terms = client.asset(asset)
    return Asset(terms["id"], terms["chain"], terms["decimals"])


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidValue(f"id {text[:64]!r}: expected a UUID") from None
