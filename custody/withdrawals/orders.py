"""What is checked of an order, when it arrives and again before it is paid. Pure."""

from __future__ import annotations

from custody.errors import ExpiredOrder, OrderMismatch
from custody.withdrawals.destinations import check_payable, destination_of, smallest_payment
from custody.withdrawals.model import Withdrawal
from policies.bundle import Bundle, Caller
from policies.intent import Order, SignedOrder

SIGNING_SCOPE = "withdrawals:sign"
"""Scope of callers whose key may sign orders."""
SIGNERS_BEHIND_SECONDS = 60
"""How far a signer's clock may be behind ours: what it would call too long is not taken in."""


def check_order(signed: SignedOrder, caller: Caller, bundle: Bundle, *, now: int) -> None:
    """Check everything about a signed order that needs no database.

    Raises:
        OrderMismatch: its caller, chain, amount or expiry is not what it must be.
        ExpiredOrder: its time is over.
        BadSignature: not signed by the caller's key.
        InvalidAddress: the destination is no address of the order's chain, or one that nothing may be paid to.
        InvalidValue: the bundle does not know its asset, or it cannot be paid.
    """
    order = signed.order
    if order.caller != caller.id:
        raise OrderMismatch("caller", caller.id, order.caller)
    if SIGNING_SCOPE not in caller.scopes:
        raise OrderMismatch("caller", f"one with the scope {SIGNING_SCOPE}", caller.id)
    if now >= caller.not_after:
        raise OrderMismatch("caller", "one whose key is still valid", caller.id)
    signed.verify(caller.key)
    if now >= order.expires_at:
        raise ExpiredOrder(order.expires_at, now)
    latest = now + bundle.longest_order_seconds - SIGNERS_BEHIND_SECONDS
    if order.expires_at > latest:
        # So long could a cancelled order still be signed, by whoever holds all of the online side.
        raise OrderMismatch("expires_at", f"at most {latest} now", str(order.expires_at))
    asset = bundle.asset(order.asset)
    if order.chain != asset.chain:
        raise OrderMismatch("chain", asset.chain, order.chain)
    check_payable(asset)
    smallest = smallest_payment(destination_of(bundle, order.chain, order.destination))
    if order.units < smallest:
        raise OrderMismatch("amount", f"at least {smallest} base units (less is not relayed)", order.amount)


def check_row(withdrawal: Withdrawal) -> Order:
    """The order of a stored withdrawal, if all columns still say what the order says (FAULTS row 44).

    Raises:
        OrderMismatch: a column was changed.
        InvalidValue: the stored order is not one.
    """
    order = withdrawal.signed_order.order
    for field, found, expected in (
        ("id", str(withdrawal.id), order.id),
        ("caller", withdrawal.caller, order.caller),
        ("customer", withdrawal.customer, order.customer),
        ("chain", withdrawal.chain, order.chain),
        ("asset", withdrawal.asset, order.asset),
        ("destination", withdrawal.destination, order.destination),
        ("amount", str(withdrawal.units), order.amount),
        ("hash", withdrawal.order_hash, order.digest_hex()),
        ("expires_at", str(int(withdrawal.expires_at.timestamp())), str(order.expires_at)),
    ):
        if found != expected:
            raise OrderMismatch(field, expected, found)
    return order
