"""Customers whose payments keep failing in the chain (EVM): they are not paid for a while, and somebody is told.

The policy denies their new withdrawals. Those that it has let through before wait in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx
from custody.withdrawals import repository
from custody.withdrawals.model import Withdrawal
from policies.decision import Reason
from policies.engine import reverts_too_often


def stopped(tx: Tx, queued: Sequence[Withdrawal], *, now: int) -> list[tuple[Withdrawal, Reason]]:
    """Which of these withdrawals must wait, and why.

    Args:
        tx: a snapshot.
        queued: withdrawals that wait for a transaction.
        now: UNIX seconds.
    """
    since = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
    counts = {
        chain: repository.reverts_in_window(tx, chain, since)
        for chain in {withdrawal.chain for withdrawal in queued}
    }
    found = []
    for withdrawal in queued:
        reason = reverts_too_often(counts[withdrawal.chain].get(withdrawal.customer, 0))
        if reason is not None:
            found.append((withdrawal, reason))
    return found


def hold_back(tx: Tx, held: Sequence[tuple[Withdrawal, Reason]], *, seconds: int) -> None:
    """Leave withdrawals in the queue for so long, and say why."""
    for withdrawal, reason in held:
        repository.wait(tx, withdrawal.id, str(reason), seconds=seconds)
        warn(tx, withdrawal, str(reason))


def warn(tx: Tx, withdrawal: Withdrawal, why: str) -> None:
    """Tell a person: this is either an attack on our fees, or a customer who needs help."""
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        "customer.payments_reverted",
        withdrawal.customer,
        f"withdrawals of {withdrawal.customer} on {withdrawal.chain} are stopped for a while: {why}"[:1000],
        {"customer": withdrawal.customer, "chain": withdrawal.chain},
    )
