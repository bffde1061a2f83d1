"""Withdrawals: request by a signed order, read, cancel, bump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import acting, readmodel, repository, schemas, views
from custody.api.calls import Call, Scope, needs
from custody.api.errors import BumpPending, NotBumpable
from custody.errors import InvalidConfiguration
from custody.ids import new_id
from custody.ports import Step
from custody.storage.db import Tx
from custody.travelrule import ivms101
from custody.travelrule import service as travelrule
from custody.web import paging
from custody.whitelist import service as whitelist
from custody.withdrawals import service
from custody.withdrawals.lifecycle import WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.intent import Order, SignedOrder

router = APIRouter(prefix="/v1/withdrawals", tags=["withdrawals"])

Writer = Annotated[Call, Depends(needs(Scope.WITHDRAWALS_WRITE))]
Reader = Annotated[Call, Depends(needs(Scope.WITHDRAWALS_READ))]
Operator = Annotated[Call, Depends(needs(Scope.OPERATOR))]


@router.post("", status_code=201, response_model=schemas.WithdrawalOut)
def request_withdrawal(call: Writer, body: schemas.NewWithdrawal) -> Response:
    """Request a withdrawal. The money is held at once; `state` tells how far it is from then on."""
    signed = SignedOrder(Order.from_object(body.order.model_dump(exclude_unset=True)), body.signature)

    def effect(tx: Tx) -> schemas.WithdrawalOut:
        requested = service.request(tx, signed, call.caller, call.bundle, now=call.now)
        alike = whitelist.similar(
            tx, requested.customer, requested.chain, requested.destination, call.services.ends
        )
        shown = _render(tx, call, [requested])[0]
        return shown.model_copy(update={"warnings": views.warnings(alike)})

    return call.ring(Step.ROUTE, call.write(201, effect))


@router.get("/{withdrawal}", response_model=schemas.WithdrawalOut)
def show_withdrawal(call: Reader, withdrawal: schemas.UuidText) -> Response:
    """One withdrawal, with all versions of the transaction that pays it."""
    with call.reading() as tx:
        return views.answer(_render(tx, call, [service.get(tx, UUID(withdrawal))])[0])


@router.get("", response_model=schemas.Page[schemas.WithdrawalOut])
def list_withdrawals(
    call: Reader,
    customer: Annotated[schemas.NameText | None, Query()] = None,
    state: Annotated[WithdrawalState | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Withdrawals, by id (UUIDv7 ids: oldest first)."""
    position = paging.decode_uuid("withdrawals", after)
    with call.reading() as tx:
        found = service.page(tx, customer=customer, state=state, after=position, limit=limit + 1)
        rendered = _render(tx, call, found)
    return views.page("withdrawals", rendered, limit, lambda item: item, lambda item: str(item.id))


@router.post("/{withdrawal}/cancel", response_model=schemas.WithdrawalOut)
def cancel_withdrawal(
    call: Writer, withdrawal: schemas.UuidText, body: schemas.Empty | None = None
) -> Response:
    """Cancel a withdrawal that no transaction pays yet; the held money is available again."""

    def effect(tx: Tx) -> schemas.WithdrawalOut:
        return _render(tx, call, [service.cancel(tx, UUID(withdrawal), call.caller)])[0]

    return call.write(200, effect)


@router.put("/{withdrawal}/travel-rule", response_model=schemas.TravelRuleOut)
def attach_travel_rule(call: Writer, withdrawal: schemas.UuidText, body: schemas.NewTravelRule) -> Response:
    """Attach originator and beneficiary data. It is sealed at once, and never shown again here; the same again changes
    nothing. A withdrawal that needs it waits for it until its order expires."""
    if call.services.sealing is None:
        raise InvalidConfiguration(["sealing_keys_path: without keys no personal data is taken in"])
    keys, data = call.services.sealing(), ivms101.read(body.ivms101)

    def effect(tx: Tx) -> schemas.TravelRuleOut:
        return views.travel_rule(travelrule.attach(tx, keys, UUID(withdrawal), data, call.caller))

    return call.ring(Step.ROUTE, call.put(effect))


@router.post("/{withdrawal}/bump", status_code=202, response_model=schemas.BumpOut)
def bump_withdrawal(call: Operator, withdrawal: schemas.UuidText, body: schemas.NewBump) -> Response:
    """Ask for a replacement with a higher fee; a worker makes it, within caps and fee ceilings."""

    def effect(tx: Tx) -> schemas.BumpOut:
        found = service.get(tx, UUID(withdrawal))
        if found.transaction_id is None or found.state is not WithdrawalState.BROADCAST:
            raise NotBumpable(str(found.id), found.state)
        request_id = new_id()
        if not repository.request_bump(tx, request_id, found.transaction_id, body.feerate, call.caller.id):
            raise BumpPending(f"a bump of transaction {found.transaction_id} is asked for and not done yet")
        return schemas.BumpOut(
            id=request_id, withdrawal=found.id, transaction=found.transaction_id, feerate=body.feerate
        )

    asked = {"withdrawal": withdrawal, "feerate": "" if body.feerate is None else str(body.feerate)}
    return call.ring(Step.BUMP, acting.write(call, "bump", asked, 202, effect))


def _render(tx: Tx, call: Call, found: Sequence[Withdrawal]) -> list[schemas.WithdrawalOut]:
    ids = [item.transaction_id for item in found if item.transaction_id is not None]
    transactions = readmodel.transactions(tx, ids)
    anchors = readmodel.anchors(tx) if ids else {}
    return [
        views.withdrawal(
            call.bundle,
            item,
            transactions.get(item.transaction_id) if item.transaction_id is not None else None,
            anchors.get(item.chain, 0),
        )
        for item in found
    ]
