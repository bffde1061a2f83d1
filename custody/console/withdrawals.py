"""The verbs of `strongroom withdrawal`: orders are signed here, with the caller's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from chains.errors import InvalidValue
from chains.types import Amount, Asset
from custody.console.client import ApiClient
from custody.console.clock import present
from custody.console.outcome import Form, output
from custody.console.root import (
    AsJson,
    AssetOption,
    CustomerOption,
    IdArgument,
    StateOption,
    asset_of,
    connected,
    uuid_text,
    withdrawals,
)
from custody.ids import new_id
from policies.intent import Order

_WITHDRAWAL = (
    "id", "customer", "asset", "amount", "fee", "destination", "state", "reason", "fee_ceiling", "network_fee", "txids",
    "confirmed_txid", "confirmations", "expires_at",
)  # fmt: skip


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
    kyc_level: Annotated[int | None, typer.Option(help="How well the customer is identified.", min=0)] = None,
    new_device: Annotated[
        bool | None, typer.Option("--new-device/--known-device", help="Of the session.")
    ] = None,
    new_ip: Annotated[bool | None, typer.Option("--new-ip/--known-ip", help="Of the session.")] = None,
    password_changed_at: Annotated[int | None, typer.Option(help="UNIX seconds.", min=0)] = None,
    mfa_changed_at: Annotated[int | None, typer.Option(help="UNIX seconds.", min=0)] = None,
    mfa_methods: Annotated[
        list[str] | None,
        typer.Option("--mfa-method", help="Second factor that was passed, such as totp; may be repeated."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Sign an order with your caller's key and request the withdrawal.

    What you say of customer and session is signed too; rules that ask for what you leave out deny.
    """
    shown = output(as_json=as_json)
    with connected(shown) as client:
        terms = client.asset(asset)
        value = Asset(terms["id"], terms["chain"], terms["decimals"])
        units = Amount.parse(value, amount).units
        if units == 0:
            raise InvalidValue("amount 0: nothing would arrive")
        native = asset_of(client, terms["native_asset"])
        ceiling, why = (fee_ceiling, "as given") if fee_ceiling else _ceiling(client, terms)
        order = Order(
            v=1,
            id=uuid_text(order_id) if order_id else str(new_id()),
            caller=client.caller_id,
            customer=customer,
            chain=value.chain,
            asset=value.id,
            destination=to,
            amount=str(units),
            fee_ceiling=str(Amount.parse(native, ceiling).units),
            expires_at=int(present()) + expires_in,
        )
        told = {
            "kyc_level": kyc_level,
            "new_device": new_device,
            "new_ip": new_ip,
            "password_changed_at": password_changed_at,
            "mfa_changed_at": mfa_changed_at,
            "mfa_methods": mfa_methods or None,
        }
        context = {name: value for name, value in told.items() if value is not None}
        document = order.to_object() | ({"context": context} if context else {})
        if shown.form is Form.PEOPLE:
            # On stderr before it is sent: if no answer comes, this is the id to ask about.
            typer.echo(f"order {order.id}, fee ceiling {ceiling} {native.id} ({why})", err=True)
        shown.one(client.withdraw(Order.from_object(document)), _WITHDRAWAL)


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
        shown.one(client.withdrawal(uuid_text(withdrawal)), _WITHDRAWAL)


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
        shown.one(client.cancel_withdrawal(uuid_text(withdrawal)), _WITHDRAWAL)


@withdrawals.command("travel-rule")
def attach_travel_rule(
    withdrawal: IdArgument,
    file: Annotated[Path, typer.Argument(help="IVMS101 as JSON.", exists=True, dir_okay=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Attach originator and beneficiary data to a withdrawal that needs it."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        try:
            data = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except msgspec.MsgspecError:
            raise InvalidValue(f"{file} is no JSON object") from None
        shown.one(
            client.attach_travel_rule(uuid_text(withdrawal), data),
            ("withdrawal", "state", "attached_at", "delivered_at"),
        )


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
            client.bump_withdrawal(uuid_text(withdrawal), feerate=feerate),
            ("id", "withdrawal", "transaction", "feerate"),
        )
