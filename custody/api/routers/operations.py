"""What those who run the service look at."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from custody.api import parts, schemas, statusview, views
from custody.api.calls import Call, Scope, needs

router = APIRouter(prefix="/v1", tags=["operations"])

Reader = Annotated[Call, Depends(needs(Scope.EVENTS_READ))]


@router.get("/status", response_model=schemas.StatusOut)
def show_status(call: Reader) -> Response:
    """What runs, how far each chain is behind its node, what waits and why, halts, alerts, and what the tiers hold."""
    found = parts.look(call.services)
    with call.reading() as tx:
        return views.answer(statusview.status(tx, found, call.bundle, call.now))
