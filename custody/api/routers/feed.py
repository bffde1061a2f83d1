"""The ordered event feed, and alerts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from custody.api import readmodel, schemas, views
from custody.api.calls import Call, Scope, needs
from custody.storage import events
from custody.web import paging

router = APIRouter(prefix="/v1", tags=["feed"])

Reader = Annotated[Call, Depends(needs(Scope.EVENTS_READ))]


@router.get("/events", response_model=schemas.Page[schemas.EventOut])
def list_events(call: Reader, after: paging.After = None, limit: paging.Limit = 100) -> Response:
    """Changes in the order of their commits, none ever missed.

    `next` goes on from here, also when nothing has come yet: keep it, and ask again with it.
    """
    position = paging.decode("events", after)
    with call.reading() as tx:
        found, following = events.after(tx, position, limit)
    return views.answer(views.events(call.bundle, found, following))


@router.get("/alerts", response_model=schemas.Page[schemas.AlertOut])
def list_alerts(
    call: Reader,
    state: Annotated[Literal["open", "all"], Query()] = "open",
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Troubles that somebody should look at, oldest first."""
    position = paging.decode_int("alerts", after)
    with call.reading() as tx:
        found = readmodel.alerts(tx, which=state, after=position or 0, limit=limit + 1)
    return views.page(
        "alerts", found, limit, lambda item: views.alert(call.bundle, item), lambda item: str(item.id)
    )
