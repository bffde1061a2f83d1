"""What is wanted, and by whom: the intents of a request and the orders that payments carry out. Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, NetworkEntry, WalletEntry
from policies.intent import Intent, Kind, SignedOrder
from signers.ports import Reason, SignRequest

ORDER_SCOPE: Final = "withdrawals:sign"
"""Scope of callers whose orders signers believe."""


def intent_reasons(
    request: SignRequest,
    bundle: Bundle,
    keyset: WalletEntry,
    network: NetworkEntry,
    kinds: Container[Kind],
    *,
    now: int,
) -> list[Reason]:
    """Every intent is a payment that carries out exactly one order, or the one intent of the house's own."""
    reasons: list[Reason] = []
    orders = {signed.order.id: signed for signed in request.evidence.orders}
    payments = [intent for intent in request.intents if intent.kind is Kind.PAYMENT]
    if len(orders) != len(request.evidence.orders) or not orders.keys() <= {i.id for i in payments}:
        reasons.append(Reason("stray-order", "an order comes twice, or belongs to no payment"))
    if (not payments and len(request.intents) > 1) or 0 < len(payments) < len(request.intents):
        reasons.append(Reason("mixed-intents", "the house's own intents come alone, one a transaction"))
    for intent in request.intents:
        if (intent.chain, intent.keyset, intent.tier) != (request.chain, keyset.id, keyset.tier):
            reasons.append(
                Reason("wrong-keyset", f"intent {intent.id} is for another chain, key-set or tier")
            )
        if intent.kind not in kinds:
            reasons.append(Reason("kind-not-supported", f"{intent.kind}: not signed on {request.chain}"))
        elif intent.kind is Kind.PAYMENT:
            reasons += _payment_reasons(intent, orders.get(intent.id), bundle, now=now)
        elif (intent.order, intent.amount, intent.asset) != (None, "0", network.native_asset):
            reasons.append(
                Reason("house-intent", f"{intent.kind} {intent.id} has no order, no amount, the native asset")
            )
    return reasons


def _payment_reasons(intent: Intent, signed: SignedOrder | None, bundle: Bundle, *, now: int) -> list[Reason]:
    reasons: list[Reason] = []
    try:
        asset = bundle.asset(intent.asset)
    except InvalidValue as error:
        return [Reason("wrong-asset", str(error))]
    if asset.chain != intent.chain:
        reasons.append(Reason("wrong-asset", f"{asset.id} is on {asset.chain}, not on {intent.chain}"))
    if "fee-on-transfer" in asset.traits:
        # The token decides what arrives, so no order for an amount can be kept.
        reasons.append(Reason("asset-not-payable", f"{asset.id} takes a fee on transfer"))
    if signed is None:
        return [*reasons, Reason("no-order", f"intent {intent.id} has no order")]
    return reasons + _order_reasons(intent, signed, bundle, now=now)


def _order_reasons(intent: Intent, signed: SignedOrder, bundle: Bundle, *, now: int) -> list[Reason]:
    """The order is the one that the intent names, says the same, is genuine and in time."""
    order, reasons = signed.order, []
    if intent.order != order.digest_hex():
        reasons.append(Reason("order-changed", f"the order of intent {intent.id} is not the one it names"))
    theirs = (order.chain, order.asset, order.destination, order.units)
    if theirs != (intent.chain, intent.asset, intent.destination, intent.units) or order.units == 0:
        reasons.append(Reason("order-mismatch", f"intent {intent.id} is not what its order asks for"))
    if now >= order.expires_at:
        reasons.append(
            Reason("order-expired", f"order {order.id} expired at {order.expires_at}; now is {now}")
        )
    try:
        caller = bundle.caller(order.caller)
        if now >= caller.not_after:
            reasons.append(Reason("caller-expired", f"caller {caller.id} ended at {caller.not_after}"))
        if ORDER_SCOPE not in caller.scopes:
            reasons.append(Reason("caller-scope", f"caller {caller.id} lacks the scope {ORDER_SCOPE}"))
        signed.verify(caller.key)
    except InvalidValue as error:
        reasons.append(Reason("caller-unknown", str(error)))
    except PermanentError as error:
        reasons.append(Reason("order-signature", f"order {order.id}: {error}"))
    return reasons
