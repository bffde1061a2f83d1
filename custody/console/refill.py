"""The verbs `strongroom refill propose|decline`: actions of an operator, as those of `strongroom operator` are.

What is proposed by hand asks the same people as what the treasury proposes, and moves no more: signers decide by
themselves.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from chains.errors import InvalidValue
from chains.types import Amount
from custody.console.operator import acting, utc_text
from custody.console.outcome import output
from custody.console.root import AsJson, IdArgument, refills, uuid_text
from custody.storage.db import Tx
from custody.treasury import service
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why

_SHOWN = ("id", "asset", "amount", "source", "target", "destination", "state", "reason", "created_at")
Reason = Annotated[
    str, typer.Option("--reason", help="Why; kept with the refill and in the event feed.", prompt="Reason")
]


@refills.command("propose")
def propose(
    source: Annotated[
        str, typer.Option("--from", help="Wallet that the money leaves: its id in the bundle.")
    ],
    target: Annotated[str, typer.Option("--to", help="Wallet of another tier, or gas payer, that gets it.")],
    amount: Annotated[str, typer.Option("--amount", help="What arrives, as a decimal number.")],
    reason: Reason,
    asset: Annotated[str, typer.Option("--asset", help="Asset id.")] = "BTC",
    *,
    as_json: AsJson = False,
) -> None:
    """Propose that money moves between tiers. Who has to approve it says the policy."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        if at.bundle is None:
            raise InvalidValue("no bundle can be believed: nothing can be proposed")
        bundle, entry = at.bundle, at.bundle.asset(asset)
        units = Amount.parse(entry.asset(), amount).units
        wanted = Proposal(source, target, asset, units, Why.NEED, reason)

        def effect(tx: Tx) -> Refill:
            return service.ask(tx, bundle, wanted, by=at.person.id, now=at.clock())

        told = {"source": source, "target": target, "asset": asset, "chain": entry.chain}
        found = at.do("propose-refill", {**told, "units": str(units), "reason": reason}, effect)
        shown.one(_told(found, bundle.told(asset, found.units)), _SHOWN)


@refills.command("decline")
def decline(refill: IdArgument, reason: Reason, *, as_json: AsJson = False) -> None:
    """Call off a refill that no transaction carries out yet. The treasury does not propose the same for some hours."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        id = UUID(uuid_text(refill))
        with at.database.snapshot() as tx:
            about = service.get(tx, id)
        told = {"refill": str(id), "asset": about.asset, "chain": about.chain, "reason": reason}
        found = at.do(
            "decline-refill",
            told,
            lambda tx: service.decline(tx, id, f"operator: {at.person.id} called it off: {reason}"),
        )
        amount = str(found.units) if at.bundle is None else at.bundle.told(found.asset, found.units)
        shown.one(_told(found, amount), _SHOWN)


def _told(refill: Refill, amount: str) -> dict[str, Any]:
    return {
        "id": str(refill.id),
        "chain": refill.chain,
        "asset": refill.asset,
        "amount": amount,
        "units": str(refill.units),
        "source": refill.source,
        "target": refill.target,
        "destination": refill.destination,
        "state": refill.state.value,
        "reason": refill.reason or refill.about,
        "created_at": utc_text(refill.created_at),
    }
