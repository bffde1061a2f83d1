"""Approvals: what waits for people, and their answers. What counts is who signed an answer, not who hands it in."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from chains.errors import InvalidValue
from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.approvals import refills, service
from custody.approvals.model import Question
from custody.ports import Step
from custody.storage.db import Tx
from custody.treasury.model import Refill
from custody.web import paging
from custody.withdrawals.model import Withdrawal
from policies.canonical import decoder_for
from policies.intent import SignedApproval

router = APIRouter(prefix="/v1", tags=["approvals"])

Reader = Annotated[Call, Depends(needs(Scope.APPROVALS_READ))]
Giver = Annotated[Call, Depends(needs(Scope.APPROVALS_GIVE))]


@router.get("/approvals", response_model=schemas.Page[schemas.QuestionOut])
def list_pending(
    call: Reader,
    state: Annotated[Literal["pending"], Query(description="All that wait now.")] = "pending",
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Withdrawals and refills that wait for approval: signed orders, what is asked, and what was given."""
    position = paging.decode_uuid("approvals", after)
    most = limit + 1
    with call.reading() as tx:
        orders, ordered = service.pending(tx, call.bundle, after=position, limit=most, now=call.now)
        moves, moved = refills.pending(tx, call.bundle, after=position, limit=most, now=call.now)
    ids = sorted([*(each.id for each in orders), *(each.id for each in moves)])
    following = paging.encode("approvals", str(ids[limit - 1])) if len(ids) > limit else None
    shown = set(ids[:limit])
    asked: list[Question[Withdrawal] | Question[Refill]] = [*ordered, *moved]
    questions = sorted(asked, key=lambda each: each.subject.id)
    items = [views.question(each) for each in questions if each.subject.id in shown]
    return views.answer(schemas.Page[schemas.QuestionOut](items=items, next=following))


@router.post("/withdrawals/{withdrawal}/approvals", status_code=201, response_model=schemas.ApprovalOut)
def give_approval(call: Giver, withdrawal: schemas.UuidText, body: schemas.NewApproval) -> Response:
    """Approve a withdrawal, or reject it: one rejection ends it. The same answer again changes nothing."""
    signed = _read(body)

    def effect(tx: Tx) -> schemas.ApprovalOut:
        found = service.give(tx, UUID(withdrawal), signed, call.bundle, now=call.now)
        return schemas.ApprovalOut(
            digest=signed.approval.digest_hex(),
            withdrawal=found.id,
            refill=None,
            state=found.state,
            reason=found.reason,
        )

    return call.ring(Step.ROUTE, call.write(201, effect))


@router.post("/refills/{refill}/approvals", status_code=201, response_model=schemas.ApprovalOut)
def give_approval_of_refill(call: Giver, refill: schemas.UuidText, body: schemas.NewApproval) -> Response:
    """Approve a refill, or reject it: one rejection ends it. The same answer again changes nothing."""
    signed = _read(body)

    def effect(tx: Tx) -> schemas.ApprovalOut:
        found = refills.give(tx, UUID(refill), signed, call.bundle, now=call.now)
        return schemas.ApprovalOut(
            digest=signed.approval.digest_hex(),
            withdrawal=None,
            refill=found.id,
            state=found.state,
            reason=found.reason or found.about,
        )

    return call.ring(Step.TREASURY, call.write(201, effect))


def _read(body: schemas.NewApproval) -> SignedApproval:
    decoder_for(SignedApproval)
    try:
        return msgspec.convert(body.model_dump(), SignedApproval)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"approval: {error}") from None
