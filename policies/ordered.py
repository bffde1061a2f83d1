"""What orders and intents of the house say themselves, as facts: the same for the online side and for signers."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from policies.bundle import Bundle
from policies.facts import HOUSE, Facts, Operation, Ownership
from policies.intent import Context, Intent, Order
from policies.values import value_of


def facts_of(order: Order, /, *, now: int, **known: Any) -> Facts:
    """The facts of a withdrawal that its order gives; all others are unknown, but those that the caller knows.

    Args:
        order: genuine, or not: that is for the caller to find out.
        now: UNIX seconds; what was changed after it was changed just now.
        known: more facts by their names, none that an order gives.
    """
    context = Context() if isinstance(order.context, UnsetType) else order.context
    methods = context.mfa_methods
    return Facts(
        operation=Operation.WITHDRAWAL,
        now=now,
        id=order.id,
        chain=order.chain,
        asset=order.asset,
        units=order.units,
        destination=order.destination,
        customer=order.customer,
        initiator=order.caller,
        expires_at=order.expires_at,
        kyc_level=None if context.kyc_level is UNSET else context.kyc_level,
        new_device=None if context.new_device is UNSET else context.new_device,
        new_ip=None if context.new_ip is UNSET else context.new_ip,
        password_age_seconds=_age(context.password_changed_at, now),
        mfa_age_seconds=_age(context.mfa_changed_at, now),
        mfa_methods=None if isinstance(methods, UnsetType) else frozenset(methods),
        **known,
    )


def facts_of_refill(intent: Intent, bundle: Bundle, /, *, now: int, **known: Any) -> Facts:
    """The facts of a refill that its intent and the bundle give; others are unknown, but those that the caller knows.

    Args:
        intent: of a refill, whose destination was found to be an address of the house.
        bundle: knows prices.
        now: UNIX seconds.
        known: more facts by their names, none of those.
    """
    return Facts(
        operation=Operation.REFILL,
        now=now,
        id=intent.id,
        chain=intent.chain,
        asset=intent.asset,
        units=intent.units,
        value=value_of(bundle, intent.asset, intent.units),
        source=intent.keyset,
        destination=intent.destination,
        ownership=Ownership.HOUSE,
        customer=HOUSE,
        initiator=HOUSE,
        **known,
    )


def facts_of_change(intent: Intent, /, *, now: int) -> Facts:
    """The facts of an administration that its intent gives: what an operator asks for with the same words.

    Args:
        intent: with a change of a factory's treasury, which leaves the initiator open: a signer knows none.
        now: UNIX seconds.
    """
    step = "" if isinstance(intent.change, UnsetType) else intent.change.step
    return Facts(
        operation=Operation.ADMINISTRATION,
        now=now,
        id=intent.id,
        chain=intent.chain,
        action=f"{step}-treasury",
        initiator=HOUSE,
    )


def _age(at: int | UnsetType, now: int) -> int | None:
    return None if isinstance(at, UnsetType) else max(0, now - at)
