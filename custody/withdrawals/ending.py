"""Two ways a withdrawal ends without a transaction: its order's time is over, or the ledger settles it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from chains.errors import InvalidValue, PermanentError
from custody.approvals.counting import is_approved
from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.ports import Clock, system_clock
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.withdrawals import repository, service
from custody.withdrawals.lifecycle import WITHDRAWAL, WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import SIGNING_SCOPE, check_row
from custody.withdrawals.ownership import owner_of
from policies.bundle import Bundle

BATCH = 200
_LOOK_AGAIN_SECONDS: Final = 60
_EXPIRING = tuple(sorted(WITHDRAWAL.sources(WithdrawalEvent.EXPIRE)))


def expire(db: Database, *, now: int) -> int:
    """End withdrawals whose order is over and which no transaction pays; returns how many.

    One whose transaction is recorded does not end here: it may have been signed.

    Args:
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.overdue(tx, _EXPIRING, now, limit=BATCH)
    done = 0
    for withdrawal_id in ids:
        with db.transaction() as tx:
            withdrawal = repository.claim(tx, withdrawal_id, _EXPIRING)
            # Under a halt nobody knows what is true; a restored database may have forgotten what was paid.
            if withdrawal is None or repository.stopped(tx, withdrawal) is not None:
                continue
            waited_for = f" (last: {withdrawal.reason})" if withdrawal.reason else ""
            moved = repository.apply(
                tx,
                withdrawal,
                WithdrawalEvent.EXPIRE,
                reason=f"expired: the order's time is over{waited_for}"[:1000],
            )
            service.release(tx, moved)
            done += 1
    return done


def settle_internal(db: Database, bundle: Bundle, *, clock: Clock = system_clock) -> int:
    """Settle queued withdrawals to addresses of ours in the ledger; returns how many.

    No signer looks at them. What one would look at last is looked at here: that the caller may still give orders, and
    that those who approved may still approve.
    """
    with db.snapshot() as tx:
        ids = repository.settleable(tx, limit=BATCH)
    return sum(_settle_one(db, bundle, withdrawal_id, now=clock()) for withdrawal_id in ids)


def _settle_one(db: Database, bundle: Bundle, withdrawal_id: UUID, *, now: int) -> int:
    with db.transaction() as tx:
        withdrawal = repository.claim(tx, withdrawal_id, [WithdrawalState.QUEUED])
        if withdrawal is None or repository.stopped(tx, withdrawal) is not None:
            return 0
        if withdrawal.policy_version != bundle.version:
            return 0  # it is decided again first
        if withdrawal.expires_at.timestamp() <= now:
            return 0  # it expires next
        if not _may_sign(withdrawal.caller, bundle, now=now):
            why = f"caller-ended: {withdrawal.caller} may no longer sign orders"
            repository.wait(tx, withdrawal.id, why, seconds=_LOOK_AGAIN_SECONDS)
            return 0
        try:
            owner = _genuine_owner(tx, withdrawal, bundle)
            if not is_approved(tx, withdrawal, bundle, now=now):
                return 0
        except PermanentError as error:
            _report(tx, withdrawal, str(error) or type(error).__name__)
            return 0
        n = repository.count_settlement(tx, withdrawal.id)
        repository.apply(
            tx, withdrawal, WithdrawalEvent.SETTLE_INTERNALLY, detail={"to": owner, "settlement": n}
        )
        ledger.post_all(
            tx,
            [
                bookings.settle_internally(
                    withdrawal.id,
                    n,
                    customer=withdrawal.customer,
                    to_customer=owner,
                    asset=withdrawal.asset,
                    units=withdrawal.units,
                    fee_units=withdrawal.fee_units,
                )
            ],
        )
        return 1


def _may_sign(caller: str, bundle: Bundle, *, now: int) -> bool:
    return any(
        entry.id == caller and SIGNING_SCOPE in entry.scopes and now < entry.not_after
        for entry in bundle.callers
    )


def _genuine_owner(tx: Tx, withdrawal: Withdrawal, bundle: Bundle) -> str:
    """Who gets the money of a withdrawal that the policy has let through. No signer will look at it.

    Raises:
        PermanentError: the row is not what its caller signed, or nothing proves whose the destination is.
    """
    order = check_row(withdrawal)
    withdrawal.signed_order.verify(bundle.caller(order.caller).key)
    _, owner = owner_of(tx, bundle, withdrawal.chain, withdrawal.destination)
    if owner is None:
        raise InvalidValue("the destination belongs to no customer of ours")
    return owner


def _report(tx: Tx, withdrawal: Withdrawal, problem: str) -> None:
    repository.wait(tx, withdrawal.id, f"order-not-genuine: {problem}", seconds=_LOOK_AGAIN_SECONDS)
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        "withdrawal.tampered",
        str(withdrawal.id),
        f"the stored withdrawal is not what its caller signed: {problem}",
        {},
    )
