"""Customers whose payments keep failing in the chain (EVM): they are not paid for a while, and somebody is told.

The policy denies their new withdrawals. Those that it has let through before wait in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from chains.errors import InvalidValue
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx
from custody.withdrawals import repository
from custody.withdrawals.model import Withdrawal
from policies.bundle import Bundle
from policies.decision import Reason
from policies.rules import reverts_too_often, rules_of


def stopped(
    tx: Tx, bundle: Bundle, queued: Sequence[Withdrawal], *, now: int
) -> list[tuple[Withdrawal, Reason]]:
    """Which of these withdrawals must wait, and why.

    Args:
        tx: a snapshot.
        bundle: the rules.
        queued: withdrawals that wait for a transaction.
        now: UNIX seconds.
    """
    found = []
    counts: dict[tuple[str, int], dict[str, int]] = {}
    for withdrawal in queued:
        try:
            rules = rules_of(bundle, withdrawal.asset)
        except InvalidValue:
            continue  # the policy let it through by rules that the bundle no longer has: not for this to judge
        key = withdrawal.chain, rules.window_seconds
        if key not in counts:
            since = datetime.fromtimestamp(now, UTC) - timedelta(seconds=rules.window_seconds)
            counts[key] = repository.reverts_in_window(tx, withdrawal.chain, since)
        reason = reverts_too_often(counts[key].get(withdrawal.customer, 0), rules)
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
