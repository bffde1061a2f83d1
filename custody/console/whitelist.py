"""The verbs of `strongroom whitelist`: entries are confirmed here, with the caller's key."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from chains.errors import InvalidValue
from custody.console.operator import acting
from custody.console.outcome import Form, output
from custody.console.root import AsJson, IdArgument, app, connected, uuid_text
from custody.ids import new_id
from custody.whitelist import service
from policies.statements import WhitelistEntry

whitelist_app = typer.Typer(
    help="Destinations that customers, or the house, have listed.", no_args_is_help=True
)
app.add_typer(whitelist_app, name="whitelist")

_ENTRY: Final = (
    "id", "owner", "chain", "address", "state", "usable_at", "label", "provenance", "requested_by", "warnings",
)  # fmt: skip
_CHALLENGE: Final = ("id", "owner", "chain", "address", "text", "expires_at", "proved_at")
Owner = Annotated[str, typer.Option("--owner", help="The customer, or `house`.")]
Chain = Annotated[str, typer.Option("--chain", help="Id of the network.")]
AddressOption = Annotated[str, typer.Option("--address", help="In its canonical form.")]


@whitelist_app.command("add")
def add_entry(
    owner: Owner,
    chain: Chain,
    address: AddressOption,
    provenance: Annotated[
        str,
        typer.Option("--provenance", help="How you came by the address; kept in clear, so name no person."),
    ],
    label: Annotated[str | None, typer.Option("--label", help="For people; sealed.")] = None,
    entry_id: Annotated[str | None, typer.Option("--id", help="UUID of your choice for the entry.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask for an entry. It counts for nothing until it is confirmed and has cooled."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        entry = client.request_entry(
            uuid_text(entry_id) if entry_id else str(new_id()),
            owner=owner,
            chain=chain,
            address=address,
            provenance=provenance,
            label=label,
        )
        if shown.form is Form.PEOPLE:
            for warning in entry["warnings"]:
                typer.echo(f"WARNING: {warning}", err=True)
            typer.echo(
                f"confirm it with: strongroom whitelist confirm {entry['id']} --address {address}", err=True
            )
        shown.one(entry, _ENTRY)


@whitelist_app.command("confirm")
def confirm_entry(entry: IdArgument, address: AddressOption, *, as_json: AsJson = False) -> None:
    """Sign an entry with your caller's key. Give the address again: from where you know it, not from the API."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        found = client.get(f"/v1/whitelist/{uuid_text(entry)}")
        document: dict[str, Any] = {
            "v": 1,
            "id": found["id"],
            "caller": client.caller_id,
            "owner": found["owner"],
            "chain": found["chain"],
            "address": address,
            "issued_at": int(time.time()),
        }
        shown.one(client.confirm_entry(WhitelistEntry.from_object(document)), _ENTRY)


@whitelist_app.command("list")
def list_entries(
    owner: Owner,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Removed ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an owner's entries."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(
            [
                each
                for each in client.items("/v1/whitelist", {"owner": owner})
                if everything or each["state"] != "removed"
            ],
            ("id", "chain", "address", "state", "usable_at", "label"),
            none="There are no entries.",
        )


@whitelist_app.command("remove")
def remove_entry(entry: IdArgument, *, as_json: AsJson = False) -> None:
    """Remove an entry, at once."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.one(client.remove_entry(uuid_text(entry)), _ENTRY)


@whitelist_app.command("accept")
def accept_entry(
    entry: IdArgument,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept with what operators did.", prompt="Reason")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Accept a confirmed entry of the house, as an operator at the host: from now on it cools."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        id, bundle = UUID(uuid_text(entry)), at.bundle
        if bundle is None:
            raise InvalidValue("no bundle can be believed now: nothing is listed")
        with at.database.snapshot() as tx:
            about = service.get(tx, id)
        accepted = at.do(
            "accept-entry",
            {"entry": str(id), "chain": about.chain, "address": about.address, "reason": reason},
            lambda tx: service.accept(tx, id, bundle, by=at.person.id, now=at.clock()),
        )
    told = {"id": str(id), "owner": accepted.owner, "chain": accepted.chain, "address": accepted.address}
    shown.one({**told, "state": str(accepted.state)}, ("id", "owner", "chain", "address", "state"))


@whitelist_app.command("challenge")
def new_challenge(owner: Owner, chain: Chain, address: AddressOption, *, as_json: AsJson = False) -> None:
    """Make a text for the key of a destination to sign: proof of whose it is."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        body = {"owner": owner, "chain": chain, "address": address}
        shown.one(client.post("/v1/ownership-challenges", body), _CHALLENGE)


@whitelist_app.command("prove")
def give_proof(
    challenge: IdArgument,
    signature: Annotated[str, typer.Option("--signature", help="BTC: base64 (BIP322); EVM: hex (EIP-191).")],
    *,
    as_json: AsJson = False,
) -> None:
    """Hand in the signature of a challenge."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        path = f"/v1/ownership-challenges/{uuid_text(challenge)}/proof"
        shown.one(client.post(path, {"signature": signature}), _CHALLENGE)
