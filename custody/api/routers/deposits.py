"""Deposits, for reading: the monitor alone writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import readmodel, schemas, views
from custody.api.calls import Call, Scope, needs
from custody.deposits import repository
from custody.deposits.lifecycle import DepositState
from custody.deposits.model import Deposit
from custody.errors import NotFound
from custody.storage.db import Tx
from custody.web import paging

router = APIRouter(prefix="/v1/deposits", tags=["deposits"])

Reader = Annotated[Call, Depends(needs(Scope.DEPOSITS_READ))]


@router.get("", response_model=schemas.Page[schemas.DepositOut])
def list_deposits(
    call: Reader,
    customer: Annotated[schemas.NameText | None, Query()] = None,
    state: Annotated[DepositState | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Deposits, by id; follow `/v1/events` to learn of new ones in their order."""
    position = paging.decode_uuid("deposits", after)
    with call.reading() as tx:
        found = repository.deposits(tx, customer=customer, state=state, after=position, limit=limit + 1)
        rendered = _render(tx, call, found)
    return views.page("deposits", rendered, limit, lambda item: item, lambda item: str(item.id))


@router.get("/{deposit}", response_model=schemas.DepositOut)
def show_deposit(call: Reader, deposit: schemas.UuidText) -> Response:
    """One deposit."""
    with call.reading() as tx:
        found = repository.deposit(tx, UUID(deposit))
        if found is None:
            raise NotFound("deposit", deposit)
        return views.answer(_render(tx, call, [found])[0])


def _render(tx: Tx, call: Call, found: Sequence[Deposit]) -> list[schemas.DepositOut]:
    paid_to = repository.addresses_by_id(tx, {item.address_id for item in found})
    anchors = readmodel.anchors(tx)
    return [
        views.deposit(call.bundle, item, paid_to[item.address_id].address, anchors.get(item.chain, 0))
        for item in found
    ]
