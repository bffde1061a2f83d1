"""What the trading core asks for: to settle its fills, and to move customers' money between funding and trading.

Its key reaches `trading` accounts, and a customer's own funding account. It cannot withdraw, and creates or reads no
customer.
"""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.storage.db import Tx
from custody.trades import repository, service
from custody.trades.model import Batch, Evidence, Fill, Move
from custody.web import paging
from custody.web.errors import InvalidCursor

router = APIRouter(prefix="/v1/trading", tags=["trading"])

Core = Annotated[Call, Depends(needs(Scope.TRADING))]


def _evidence(call: Call) -> Evidence:
    return Evidence(
        call.caller.id, call.request.body.decode(), call.token.canonical().decode(), call.signature
    )


@router.post("/settlements", status_code=201, response_model=schemas.SettlementOut)
def settle(call: Core, body: schemas.NewSettlement) -> Response:
    """Settle fills: all of the batch or nothing. The very same batch again changes nothing, under any key.

    A batch begins with the sequence that follows the one where the core's last batch ended.
    """
    batch = Batch(UUID(body.core), body.first, body.last, body.complete, tuple(map(_fill, body.fills)))

    def effect(tx: Tx) -> schemas.SettlementOut:
        now = service.settle(tx, call.bundle, batch, _evidence(call))
        return schemas.SettlementOut(
            core=batch.core,
            first=batch.first,
            last=batch.last,
            complete=batch.complete,
            fills=len(batch.fills),
            settled="now" if now else "before",
        )

    answer = call.write(201, effect)
    if answer.status_code == 409:
        # Whatever was begun is undone by now: the alert is a transaction of its own.
        with call.services.database.transaction() as tx:
            service.note_refusal(tx, batch.core, json.loads(bytes(answer.body))["detail"])
    return answer


def _fill(fill: schemas.FillIn) -> Fill:
    return Fill(
        sequence=fill.sequence,
        index=fill.index,
        base=fill.base,
        quote=fill.quote,
        buyer=fill.buyer,
        seller=fill.seller,
        base_units=int(fill.base_units),
        quote_units=int(fill.quote_units),
        buyer_fee=int(fill.buyer_fee),
        seller_fee=int(fill.seller_fee),
    )


@router.post("/transfers", status_code=201, response_model=schemas.TradingTransferOut)
def move(call: Core, body: schemas.NewTradingTransfer) -> Response:
    """Move a customer's own money from funding to trading, or back. The same id again changes nothing."""
    wanted = Move(UUID(body.id), body.customer, body.asset, int(body.units), body.to)

    def effect(tx: Tx) -> schemas.TradingTransferOut:
        moved = service.move(tx, call.bundle, wanted, _evidence(call))
        return schemas.TradingTransferOut(
            id=wanted.id,
            customer=wanted.customer,
            asset=wanted.asset,
            units=str(wanted.units),
            to=wanted.target,
            at=moved.at,
        )

    return call.write(201, effect)


@router.get("/balances", response_model=schemas.TradingBalances)
def list_balances(
    call: Core,
    core: Annotated[schemas.UuidText, Query(description="Whose cursor to tell.")],
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """How far a core is settled, and what the ledger has in trading accounts that are not empty."""
    position = paging.decode("trading-balances", after) or "/"
    customer, slash, asset = position.partition("/")
    if not slash:
        raise InvalidCursor("this cursor was not given for this list")
    with call.reading() as tx:
        cursor = repository.cursor(tx, UUID(core))
        found = repository.balances(tx, after=(customer, asset), limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return views.answer(
        schemas.TradingBalances(
            core=UUID(core),
            settled=schemas.SettledOut(
                last=cursor.last,
                complete=cursor.complete,
                fill_sequence=cursor.fill[0],
                fill_index=cursor.fill[1],
            ),
            items=[
                schemas.TradingBalanceOut(customer=each.customer, asset=each.asset, units=str(each.units))
                for each in found[:limit]
            ],
            next=None if last is None else paging.encode("trading-balances", f"{last.customer}/{last.asset}"),
        )
    )
