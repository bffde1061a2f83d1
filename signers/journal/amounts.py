"""What a transaction that is about to be signed adds to the counters, and what the log tells of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from signers.guard.examined import Examined, Exposure
from signers.ports import LogPayment


def exposed(examined: Examined[Any]) -> Iterator[tuple[Exposure, str, str, int]]:
    """What a transaction may cost, by kind, scope and key."""
    for cap in examined.grounds.caps:
        for intent_id, units in examined.payments(cap.asset):
            yield Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", intent_id, units
    group, fee = examined.fee_group, examined.unsigned.fee_units
    yield examined.chain_fees, examined.request.chain, group, fee
    if examined.grounds.caps:
        yield Exposure.TIER_FEES, examined.tier_fees, group, fee
    if examined.breaker is not None:
        for key, units in examined.value:
            yield Exposure.VALUE, examined.breaker.id, key, units


def told_of(examined: Examined[Any]) -> dict[str, Any]:
    """A transaction as the log tells it."""
    request = examined.request
    customers = {signed.order.id: signed.order.customer for signed in request.evidence.orders}
    return {
        "chain": request.chain,
        "keyset": request.keyset,
        "content": examined.unsigned.content,
        "fee": str(examined.unsigned.fee_units),
        "payments": [
            LogPayment(
                intent=intent.id,
                kind=intent.kind,
                asset=intent.asset,
                units=intent.amount,
                destination=intent.destination,
                customer=customers.get(intent.id),
            )
            for intent in request.intents
        ],
    }
