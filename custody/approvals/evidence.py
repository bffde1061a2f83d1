"""What a signer is shown of approvals. It judges them itself; here is only what would count if it saw as we do."""

from __future__ import annotations

import msgspec

from custody.approvals import judging, repository
from custody.storage.db import Tx
from policies.bundle import Bundle
from policies.intent import Kind
from signers.ports import SignRequest


def with_approvals(tx: Tx, request: SignRequest, bundle: Bundle, *, now: int) -> SignRequest:
    """The request with the approvals that count now, of each payment and refill in it.

    Args:
        request: as it is recorded.
        bundle: the one in force.
        now: UNIX seconds.
    """
    orders = {signed.order.id: signed.order for signed in request.evidence.orders}
    asked = {
        intent.digest_hex(): intent
        for intent in request.intents
        if intent.kind is Kind.REFILL or (intent.kind is Kind.PAYMENT and intent.id in orders)
    }
    if not asked:
        return request
    approved = tuple(
        signed
        for digest, said in repository.about(tx, list(asked)).items()
        for signed in judging.heard(
            said, asked[digest], orders.get(asked[digest].id), bundle, now=now
        ).approved
    )
    if not approved:
        return request
    evidence = msgspec.structs.replace(request.evidence, approvals=approved)
    return msgspec.structs.replace(request, evidence=evidence)
