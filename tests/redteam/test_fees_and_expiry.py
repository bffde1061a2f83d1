"""A stolen API that spares a friend the fee; a restored database whose orders expire while paying is halted."""

from __future__ import annotations

import time

from custody.storage import halts
from custody.withdrawals.ending import expire
from tests.fakes.till import Till


def test_a_withdrawal_stored_with_a_smaller_fee_than_the_bundles_is_refused_and_noticed(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.execute("UPDATE withdrawals SET fee_units = 1")
    till.route()
    ended = till.withdrawal(withdrawal.id)
    assert (ended.state, "fee" in ended.reason) == ("rejected", True)
    assert "withdrawal.tampered" in till.alerts()
    assert till.balance(alice) == 5_000_000
    # Reconciliation finds it too; what was edited is put back before the closing check.
    till.execute("UPDATE withdrawals SET fee_units = %s", withdrawal.fee_units)


def test_while_paying_is_halted_no_order_expires_and_no_hold_is_released(till: Till) -> None:
    # After a restore the database may have forgotten that a payment is out; the halt is there until that is known.
    alice = till.customer("alice", 3_000_000)
    till.request(alice, 1_000_000)
    till.route()
    later = int(time.time()) + 3_601
    with till.db.transaction() as tx:
        halts.halt(tx, halts.ALL, "restored from a backup")
    assert expire(till.db, now=later) == 0
    assert till.balance(alice, "frozen") == 1_050_000
    with till.admin.transaction() as tx:
        halts.lift(tx, halts.ALL)
    assert expire(till.db, now=later) == 1
