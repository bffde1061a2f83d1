"""Tiers, and money that moves between them, for reading: workers propose and carry out by themselves."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, treasuryviews, views
from custody.api.calls import Call, Scope, needs
from custody.treasury import repository, service
from custody.treasury.holdings import holdings, together
from custody.treasury.lifecycle import OPEN, RefillState
from custody.web import paging

router = APIRouter(prefix="/v1", tags=["treasury"])

Reader = Annotated[Call, Depends(needs(Scope.CUSTOMERS_READ))]
_MOST_OPEN = 1_000


@router.get("/tiers", response_model=schemas.Tiers)
def list_tiers(call: Reader) -> Response:
    """What each tier may pay, which signers enforce by their own counters, what it holds and should hold, and what
    moves between tiers now."""
    with call.reading() as tx:
        found, groups = holdings(tx, call.bundle), together(tx, call.bundle)
        refills = repository.page(tx, states=OPEN, limit=_MOST_OPEN)
    return views.answer(treasuryviews.tiers(call.bundle, found, groups, refills))


@router.get("/refills", response_model=schemas.Page[schemas.RefillOut])
def list_refills(
    call: Reader,
    state: Annotated[RefillState | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Refills, oldest first: need that flows up, an excess that flows down."""
    position = paging.decode_uuid("refills", after)
    with call.reading() as tx:
        found = repository.page(
            tx, states=None if state is None else [state], after=position, limit=limit + 1
        )
    return views.page(
        "refills",
        found,
        limit,
        lambda item: treasuryviews.refill(call.bundle, item),
        lambda item: str(item.id),
    )


@router.get("/refills/{refill}", response_model=schemas.RefillDetail)
def show_refill(call: Reader, refill: schemas.UuidText) -> Response:
    """One refill, and what happened to it."""
    with call.reading() as tx:
        found = service.get(tx, UUID(refill))
        history = repository.history(tx, found.id)
    return views.answer(treasuryviews.refill_with_history(call.bundle, found, history))
