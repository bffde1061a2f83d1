"""Signing sessions of vaults, for reading: who has signed, how many are missing, until when. Nobody signs here."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, sessionviews, views
from custody.api.calls import Call, Scope, needs
from custody.signing.cold import asking
from custody.signing.sessions.lifecycle import SessionState
from custody.web import paging

router = APIRouter(prefix="/v1", tags=["treasury"])

Reader = Annotated[Call, Depends(needs(Scope.CUSTOMERS_READ))]


@router.get("/sessions", response_model=schemas.Page[schemas.SessionOut])
def list_sessions(
    call: Reader,
    wallet: Annotated[str | None, Query(description="Id of the vault.")] = None,
    state: Annotated[SessionState | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """What members of vaults were asked to sign, oldest first: one session for each version of a transaction."""
    position = paging.decode_uuid("sessions", after)
    with call.reading() as tx:
        found = asking.page(tx, wallet=wallet, state=state, after=position, limit=limit + 1)
    return views.page(
        "sessions",
        found,
        limit,
        lambda item: sessionviews.session(call.bundle, item),
        lambda item: str(item.session.id),
    )


@router.get("/sessions/{session}", response_model=schemas.SessionOut)
def show_session(call: Reader, session: schemas.UuidText) -> Response:
    """One session."""
    with call.reading() as tx:
        found = asking.request(tx, UUID(session))
    return views.answer(sessionviews.session(call.bundle, found))
