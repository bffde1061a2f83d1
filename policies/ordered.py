"""What an order says itself, as facts: the same for the online side and for signers, for its caller has signed it."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from policies.facts import Facts, Operation
from policies.intent import Context, Order


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


def _age(at: int | UnsetType, now: int) -> int | None:
    return None if isinstance(at, UnsetType) else max(0, now - at)
