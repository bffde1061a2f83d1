"""What those who run the service look at."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from custody.api import paging, parts, schemas, statusview, views
from custody.api.calls import Call, Scope, needs
from custody.screening import cases
from custody.screening.cases import CaseKind
from custody.screening.lifecycle import CaseState

router = APIRouter(prefix="/v1", tags=["operations"])

CaseReader = Annotated[Call, Depends(needs(Scope.CASES_READ))]
Reader = Annotated[Call, Depends(needs(Scope.EVENTS_READ))]


@router.get("/status", response_model=schemas.StatusOut)
def show_status(call: Reader) -> Response:
    """What runs, how far each chain is behind its node, what waits and why, halts, alerts, and what the tiers hold."""
    found = parts.look(call.services)
    with call.reading() as tx:
        return views.answer(statusview.status(tx, found, call.bundle, call.now))


@router.get("/cases", response_model=schemas.Page[schemas.CaseOut])
def list_cases(
    call: CaseReader,
    state: Annotated[CaseState | None, Query()] = None,
    kind: Annotated[CaseKind | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """What screening found about deposits and withdrawals, oldest first. Operators at the host decide about it."""
    position = paging.decode_uuid("cases", after)
    with call.reading() as tx:
        found = cases.page(tx, state=state, kind=kind, after=position, limit=limit + 1)
    return views.page("cases", found, limit, views.case, lambda item: str(item.id))
