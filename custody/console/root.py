"""What all verbs of `strongroom` that speak to the REST API share: the app and its groups, options, the client.

Exit codes: 0 done, 1 refused or a check failed, 2 wrong input, 3 not available now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

import typer

from chains.errors import InvalidValue
from chains.types import Asset
from custody.console import settings
from custody.console.client import ApiClient
from custody.console.outcome import Output, outcome
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
refills = _group("refill", "Refills: money that moves between tiers.")
events = _group("event", "The event feed.")
ledger = _group("ledger", "The ledger.")


def asset_of(client: ApiClient, asset: str) -> Asset:
    """An asset of the bundle as a value type. Raises ApiRefused if there is none."""
    terms = client.asset(asset)
    return Asset(terms["id"], terms["chain"], terms["decimals"])


def uuid_text(text: str) -> str:
    """An id as the API wants it. Raises InvalidValue if it is no UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidValue(f"id {text[:64]!r}: expected a UUID") from None
