"""What one officer has signed. It counts whoever hands it in, and is told to signers by the officers themselves."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response

from custody.api import schemas
from custody.api.calls import Call, Scope, needs
from custody.officers import service, statements
from custody.storage.db import Tx
from policies.statements import SignedFreeze

router = APIRouter(prefix="/v1", tags=["operations"])

Giver = Annotated[Call, Depends(needs(Scope.STATEMENTS_GIVE))]


@router.post("/statements", status_code=201, response_model=schemas.StatementOut)
def take_statement(call: Giver, body: schemas.NewStatement) -> Response:
    """Freeze a scope, lower a number, or veto a bundle, as one officer. The same again changes nothing.

    Only a higher bundle of the quorum ends a freeze or raises a number again; a veto is for good.
    """
    document = msgspec.json.encode({body.kind: body.statement, "signature": body.signature})
    signed = statements.read(body.kind, document)

    def effect(tx: Tx) -> schemas.StatementOut:
        root = call.services.root
        service.take(tx, signed, call.bundle, root)
        freezes = service.genuine(tx, "freeze", call.bundle, root)
        return schemas.StatementOut(
            kind=body.kind,
            digest=statements.statement_of(signed).digest_hex(),
            frozen=sorted({each.freeze.scope for each in freezes if isinstance(each, SignedFreeze)}),
        )

    return call.write(201, effect)
