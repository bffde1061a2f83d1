"""What those who run the service look at."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response

from custody.api import parts, schemas, statusview, views
from custody.api.calls import Call, Scope, needs
from custody.audit import repository as actions
from custody.screening import cases, verdicts
from custody.screening.cases import CaseKind
from custody.screening.lifecycle import CaseState
from custody.web import paging

router = APIRouter(prefix="/v1", tags=["operations"])

CaseReader = Annotated[Call, Depends(needs(Scope.CASES_READ))]
ActionReader = Annotated[Call, Depends(needs(Scope.ACTIONS_READ))]
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


@router.get("/screenings/{subject}", response_model=schemas.Page[schemas.ScreeningOut])
def list_screenings(
    call: CaseReader,
    subject: Annotated[schemas.UuidText, Path(description="Id of a deposit or a withdrawal.")],
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """What providers said about a deposit or a withdrawal, and by which version of their lists, oldest first."""
    position = paging.decode_int("screenings", after) or 0
    with call.reading() as tx:
        found = verdicts.page(tx, UUID(subject), after=position, limit=limit + 1)
    return views.page("screenings", found, limit, views.screening, lambda item: str(item.id))


@router.get("/operator-actions", response_model=schemas.Page[schemas.ActionOut])
def list_actions(
    call: ActionReader,
    operator: Annotated[schemas.NameText | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """What operators did, were refused and asked for, oldest first. `strongroom audit verify` proves it whole."""
    position = paging.decode_int("operator-actions", after) or 0
    with call.reading() as tx:
        found = actions.page(tx, after=position, limit=limit + 1, operator=operator)
    return views.page("operator-actions", found, limit, views.action, lambda item: str(item.number))
