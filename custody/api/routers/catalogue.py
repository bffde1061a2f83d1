"""What the bundle says of networks and assets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.errors import NotFound
from custody.treasury.fees import observed, suggest

router = APIRouter(prefix="/v1", tags=["catalogue"])

Reader = Annotated[Call, Depends(needs(Scope.CUSTOMERS_READ))]


@router.get("/networks", response_model=schemas.Networks)
def list_networks(call: Reader) -> Response:
    """The chains, and from when on a payment on each is settled."""
    with call.reading():
        return views.answer(views.networks(call.bundle))


@router.get("/assets", response_model=schemas.Assets)
def list_assets(call: Reader) -> Response:
    """Assets, their decimals, and the terms for deposits and withdrawals."""
    with call.reading():
        return views.answer(views.assets(call.bundle))


@router.get("/fees", response_model=schemas.Fees)
def list_fees(call: Reader, chain: Annotated[schemas.NameText | None, Query()] = None) -> Response:
    """Which `fee_ceiling` an order should have now, for each asset: room for the present price to double."""
    if chain is not None and all(network.chain != chain for network in call.bundle.networks):
        raise NotFound("network", chain)
    with call.reading() as tx:
        seen = observed(tx)
        found = [
            suggest(call.bundle, entry, seen.get(entry.chain))
            for entry in call.bundle.assets
            if chain in (None, entry.chain)
        ]
        return views.answer(views.fees(call.bundle, found))
