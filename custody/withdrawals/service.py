"""What callers do with withdrawals: request, cancel, read. Workers' steps are beside it, one module each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from custody.errors import (
    DuplicateOrder,
    InsufficientFunds,
    LedgerRejected,
    NotFound,
    OrderMismatch,
    UnknownCustomer,
)
from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.ledger.model import Code, Command, Rejected
from custody.storage.db import Tx
from custody.withdrawals import repository
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import check_order
from policies.bundle import Bundle, Caller
from policies.intent import SignedOrder


def request(tx: Tx, signed: SignedOrder, caller: Caller, bundle: Bundle, *, now: int) -> Withdrawal:
    """Accept an order and hold the money for it. The same order again gives the same withdrawal.

    All of it is in the caller's transaction: the withdrawal, the hold, and the event.

    Args:
        signed: the order as it arrived.
        caller: who was authenticated.
        now: UNIX seconds.

    Raises:
        DuplicateOrder: the id is taken by another order.
        UnknownCustomer: there is no such customer.
        InsufficientFunds: the customer's available balance does not cover amount and fee.
        OrderMismatch, ExpiredOrder, BadSignature, InvalidAddress, InvalidValue: see `check_order`.
    """
    known = repository.find(tx, UUID(signed.order.id))
    if known is not None:
        return _same(known, signed, caller)
    check_order(signed, caller, bundle, now=now)
    order = signed.order
    if repository.customer_state(tx, order.customer) is None:
        raise UnknownCustomer(order.customer)
    asset = bundle.asset(order.asset)
    instant = datetime.fromtimestamp(now, UTC)
    withdrawal = Withdrawal(
        id=UUID(order.id),
        caller=order.caller,
        customer=order.customer,
        chain=order.chain,
        asset=order.asset,
        destination=order.destination,
        units=order.units,
        fee_units=int(asset.withdrawal_fee),
        order_json=order.canonical().decode(),
        order_signature=signed.signature,
        order_hash=order.digest_hex(),
        state=WithdrawalState.REQUESTED,
        reason="",
        tier=None,
        policy_version=None,
        settlement=None,
        transaction_id=None,
        settlements=0,
        not_before=instant,
        expires_at=datetime.fromtimestamp(order.expires_at, UTC),
        created_at=instant,
        updated_at=instant,
    )
    if not repository.insert(tx, withdrawal):
        # Another request with this order won the race, and has committed: answer as if we came later.
        return _same(_found(tx, withdrawal.id), signed, caller)
    hold = bookings.hold_withdrawal(
        withdrawal.id,
        customer=withdrawal.customer,
        asset=withdrawal.asset,
        units=withdrawal.units,
        fee_units=withdrawal.fee_units,
    )
    result = ledger.post(tx, [hold])[0]
    if isinstance(result, Rejected):
        if result.code is not Code.INSUFFICIENT_FUNDS or result.available is None or result.needed is None:
            raise LedgerRejected([result])
        raise InsufficientFunds(withdrawal.asset, result.available, result.needed)
    stored = _found(tx, withdrawal.id)
    repository.tell(tx, stored)
    return stored


def cancel(tx: Tx, withdrawal_id: UUID, caller: Caller) -> Withdrawal:
    """Cancel a withdrawal that no transaction pays yet, and release its hold. Again changes nothing.

    Raises:
        NotFound: there is none.
        OrderMismatch: another caller's.
        ImpossibleTransition: a transaction that pays it is recorded, or it has ended.
        Conflict: a worker was quicker; look again.
    """
    withdrawal = get(tx, withdrawal_id)
    if withdrawal.caller != caller.id:
        raise OrderMismatch("caller", withdrawal.caller, caller.id)
    if withdrawal.state is WithdrawalState.CANCELLED:
        return withdrawal
    moved = repository.apply(
        tx,
        withdrawal,
        WithdrawalEvent.CANCEL,
        reason="cancelled: by the caller",
        detail={"caller": caller.id},
    )
    release(tx, moved)
    return moved


def release_command(withdrawal: Withdrawal) -> Command:
    """The ledger command that gives the held money back, for a withdrawal that has ended unpaid."""
    return bookings.release_withdrawal(withdrawal.id)


def release(tx: Tx, withdrawal: Withdrawal) -> None:
    """Give the held money back. Only for withdrawals that have ended unpaid, in the transaction that ends
    them."""
    ledger.post_all(tx, [release_command(withdrawal)])


def get(tx: Tx, withdrawal_id: UUID) -> Withdrawal:
    """The withdrawal. Raises NotFound."""
    return _found(tx, withdrawal_id)


def page(
    tx: Tx,
    *,
    customer: str | None = None,
    state: WithdrawalState | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> Sequence[Withdrawal]:
    """At most `limit` withdrawals in the order of their ids, beginning after `after`."""
    return repository.page(tx, customer=customer, state=state, after=after, limit=limit)


def _found(tx: Tx, withdrawal_id: UUID) -> Withdrawal:
    withdrawal = repository.find(tx, withdrawal_id)
    if withdrawal is None:
        raise NotFound("withdrawal", str(withdrawal_id))
    return withdrawal


def _same(known: Withdrawal, signed: SignedOrder, caller: Caller) -> Withdrawal:
    if known.order_hash != signed.order.digest_hex() or known.caller != caller.id:
        raise DuplicateOrder(signed.order.id)
    signed.verify(caller.key)
    return known
