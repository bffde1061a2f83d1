"""Sweeps, for reading: workers plan them by themselves."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.errors import NotFound
from custody.sweeps import readmodel
from custody.sweeps.lifecycle import SweepState
from custody.web import paging

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

Reader = Annotated[Call, Depends(needs(Scope.EVENTS_READ))]


@router.get("", response_model=schemas.Page[schemas.SweepOut])
def list_sweeps(
    call: Reader,
    state: Annotated[SweepState | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Sweeps, oldest first: forwarders emptied into the treasury, and small coins gathered into one."""
    position = paging.decode_uuid("sweeps", after)
    with call.reading() as tx:
        found = readmodel.shown(tx, state=state, after=position, limit=limit + 1)
    return views.page(
        "sweeps", found, limit, lambda item: views.sweep(call.bundle, item), lambda item: str(item.id)
    )


@router.get("/{sweep}", response_model=schemas.SweepOut)
def show_sweep(call: Reader, sweep: schemas.UuidText) -> Response:
    """One sweep: what it moves, in which transaction, and at what fee."""
    with call.reading() as tx:
        found = readmodel.find(tx, UUID(sweep))
    if found is None:
        raise NotFound("sweep", sweep)
    return views.answer(views.sweep(call.bundle, found))
