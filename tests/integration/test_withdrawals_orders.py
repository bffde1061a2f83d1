"""What becomes of orders before anything is signed: taken in once, decided, cancelled, expired, settled in
the ledger."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chains.errors import InvalidAddress, PermanentError
from custody.errors import (
    DuplicateOrder,
    ExpiredOrder,
    InsufficientFunds,
    NotFound,
    OrderMismatch,
    UnknownCustomer,
)
from custody.ids import new_id
from custody.lifecycle import ImpossibleTransition
from custody.screening.model import Subject, Word
from custody.screening.ports import Elsewhere, Screening, ScreeningUnavailable
from custody.storage import halts
from custody.withdrawals import routing, service
from custody.withdrawals.ending import expire, settle_internal
from custody.withdrawals.routing import route
from ops.devnet.bitcoind import Bitcoind
from policies.canonical import BadSignature
from policies.intent import SignedOrder
from tests.fakes.till import Till, open_till


def take_in(till: Till, signed: SignedOrder) -> Any:
    with till.api.transaction() as tx:
        return service.request(tx, signed, till.caller, till.bundle, now=int(time.time()))


def test_the_same_order_again_gives_the_same_withdrawal_and_holds_once(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    order = till.order(alice, 1_000_000)
    first = take_in(till, order)
    assert take_in(till, order) == first
    assert till.balance(alice, "frozen") == 1_050_000


def test_of_many_requests_with_one_order_at_once_one_holds_and_all_get_the_same(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    order = till.order(alice, 1_000_000)
    found: list[UUID] = []
    threads = [threading.Thread(target=lambda: found.append(take_in(till, order).id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [UUID(order.order.id)] * 6
    assert till.balance(alice, "frozen") == 1_050_000


def test_an_order_id_with_other_content_is_refused_and_changes_nothing(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    order = till.order(alice, 1_000_000)
    take_in(till, order)
    before = till.contents()
    with pytest.raises(DuplicateOrder):
        take_in(till, till.order(alice, 1_000_001, id=order.order.id))
    assert till.contents() == before


def test_an_order_beyond_the_balance_tells_the_numbers_and_changes_nothing(till: Till) -> None:
    alice = till.customer("alice", 1_000_000)
    before = till.contents()
    with pytest.raises(InsufficientFunds) as refused:
        till.request(alice, 950_001)
    assert (refused.value.available, refused.value.needed) == (1_000_000, 1_000_001)
    assert till.contents() == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"caller": "reader"}, OrderMismatch),
        ({"customer": "nobody"}, UnknownCustomer),
        ({"expires_at": 1}, ExpiredOrder),
        ({"amount": "293"}, OrderMismatch),
        ({"amount": "0"}, OrderMismatch),
        ({"destination": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}, InvalidAddress),
        ({"destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081"}, InvalidAddress),
        ({"destination": "BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080"}, OrderMismatch),
        ({"chain": "bitcoin"}, OrderMismatch),
        ({"asset": "DOGE"}, PermanentError),
    ],
)
def test_a_wrong_order_is_refused_and_changes_nothing(
    till: Till, change: dict[str, Any], error: type[Exception]
) -> None:
    alice = till.customer("alice", 3_000_000)
    before = till.contents()
    with pytest.raises(error):
        take_in(till, till.order(alice, 1_000_000, **change))
    assert till.contents() == before


def test_an_order_changed_after_it_was_signed_is_refused(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    signed = till.order(alice, 1_000_000)
    other = till.order(alice, 2_000_000)
    with pytest.raises(BadSignature):
        take_in(till, SignedOrder(order=other.order, signature=signed.signature))


def test_a_caller_without_the_scope_cannot_order(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    reader = till.bundle.caller("reader")
    order = till.order(alice, 1_000_000, caller="reader")
    with till.api.transaction() as tx, pytest.raises(OrderMismatch, match="withdrawals:sign"):
        service.request(tx, order, reader, till.bundle, now=int(time.time()))


def test_a_cancelled_withdrawal_gives_the_money_back_once(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    assert till.states() == ["queued"]
    with till.api.transaction() as tx:
        assert service.cancel(tx, withdrawal.id, till.caller).state == "cancelled"
    before = till.contents()
    with till.api.transaction() as tx:
        assert service.cancel(tx, withdrawal.id, till.caller).state == "cancelled"
    assert till.contents() == before
    assert (till.balance(alice), till.balance(alice, "frozen")) == (3_000_000, 0)
    assert till.build() is None


def test_once_its_transaction_is_recorded_a_withdrawal_can_neither_be_cancelled_nor_expire(
    till: Till,
) -> None:
    alice = till.customer("alice", 3_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    assert till.build() is not None
    with till.api.transaction() as tx, pytest.raises(ImpossibleTransition):
        service.cancel(tx, withdrawal.id, till.caller)
    assert expire(till.db, now=int(time.time()) + 10**6) == 0
    assert till.states() == ["signing"]


def test_only_the_caller_who_ordered_can_cancel(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    withdrawal = till.request(alice, 1_000_000)
    with till.api.transaction() as tx, pytest.raises(OrderMismatch):
        service.cancel(tx, withdrawal.id, till.bundle.caller("reader"))
    with till.api.transaction() as tx, pytest.raises(NotFound):
        service.cancel(tx, new_id(), till.caller)


def test_an_order_whose_time_is_over_ends_and_gives_the_money_back(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    till.request(alice, 1_000_000)
    till.route()
    later = int(time.time()) + 3_601
    assert expire(till.db, now=later) == 1
    assert expire(till.db, now=later) == 0
    assert till.states() == ["expired"]
    assert (till.balance(alice), till.balance(alice, "frozen")) == (3_000_000, 0)


@pytest.mark.parametrize(
    ("units", "code", "word"),
    [(10_000_000, "tier-not-available", "warm"), (1_000_000_000, "limit", "BTC-customer-window")],
)
def test_amounts_of_warm_and_cold_are_rejected_with_the_tier_and_the_money_back(
    till: Till, units: int, code: str, word: str
) -> None:
    alice = till.customer("alice", 1_100_000_000)
    withdrawal = till.request(alice, units)
    till.route()
    ended = till.withdrawal(withdrawal.id)
    assert ended.state == "rejected"
    assert code in ended.reason
    assert word in ended.reason
    assert (till.balance(alice), till.balance(alice, "frozen")) == (1_100_000_000, 0)
    [row] = till.query("SELECT decision FROM withdrawals")
    assert row["decision"]["outcome"] == "deny"
    assert row["decision"]["facts"]["units"] == str(units)
    assert row["decision"]["bundle_version"] == 1


def test_the_customers_window_counts_what_was_let_through_before(
    database: str, bitcoind: Bitcoind, tmp_path: Path
) -> None:
    with open_till(database, bitcoind, tmp_path) as till:
        alice = till.customer("alice", 250_000_000)
        for _ in range(20):
            till.request(alice, 9_999_999)
        till.request(alice, 9_999_999)
        till.route()
        states = till.states()
        assert states.count("queued") == 20
        assert states.count("rejected") == 1
        [row] = till.query("SELECT reason FROM withdrawals WHERE state = 'rejected'")
        assert "BTC-customer-window" in row["reason"]


def test_of_two_workers_that_decide_at_once_no_two_see_the_same_window(till: Till) -> None:
    alice = till.customer("alice", 400_000_000)
    for _ in range(30):
        till.request(alice, 9_999_999)
    threads = [threading.Thread(target=till.route) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    till.route()
    assert till.states().count("queued") == 20
    assert till.states().count("rejected") == 10


def test_a_frozen_customers_withdrawal_is_rejected_and_a_queued_one_waits_and_says_so(till: Till) -> None:
    alice, bob = till.customer("alice", 3_000_000), till.customer("bob")
    queued = [till.request(alice, 1_000_000), till.request(alice, 500_000, destination=till.address(bob))]
    till.route()
    till.execute("UPDATE customers SET state = 'frozen', reason = 'a court order' WHERE id = 'alice'")
    till.request(alice, 1_000_000)
    till.route()
    assert sorted(till.states()) == ["queued", "queued", "rejected"]
    for withdrawal in queued:
        assert till.withdrawal(withdrawal.id).reason == "customer-frozen: a court order"
    before = till.contents()
    assert till.route() == 0
    assert (till.build(), settle_internal(till.db, till.bundle)) == (None, 0)
    assert till.contents() == before
    till.execute("UPDATE customers SET state = 'active', reason = ''")
    assert till.build() is not None
    assert settle_internal(till.db, till.bundle) == 1
    assert not any("frozen" in till.withdrawal(withdrawal.id).reason for withdrawal in queued)


def test_under_a_halt_nothing_is_decided_built_signed_or_sent(till: Till) -> None:
    alice = till.customer("alice", 9_000_000, 9_000_000)
    till.request(alice, 1_000_000)
    till.route()
    transaction_id = till.build()
    till.request(alice, 1_000_000)
    till.route()
    till.request(alice, 1_000_000)
    with till.admin.transaction() as tx:
        halts.halt(tx, "all", "the ledger differs by one satoshi")
    assert (till.route(), till.build(), till.sign(), till.broadcast()) == (0, None, [], 0)
    assert till.states() == ["signing", "queued", "requested"]
    reasons = {row["reason"] for row in till.query("SELECT reason FROM withdrawals")}
    assert reasons == {"halted: the ledger differs by one satoshi"}
    before = till.contents()
    till.route()
    assert till.contents() == before
    with till.admin.transaction() as tx:
        halts.lift(tx, "all")
    assert till.sign() == [transaction_id]
    assert till.broadcast() == 1
    assert till.route() == 1
    assert till.build() is not None
    assert {row["reason"] for row in till.query("SELECT reason FROM withdrawals")} == {""}


def test_a_halt_of_one_chain_is_the_reason_of_that_chains_withdrawals_until_it_is_lifted(till: Till) -> None:
    withdrawal = till.request(till.customer("alice", 3_000_000), 1_000_000)
    with till.admin.transaction() as tx:
        halts.halt(tx, "another-chain", "not ours")
        halts.halt(tx, withdrawal.chain, "the node is odd")
    till.route()
    assert till.withdrawal(withdrawal.id).reason == "halted: the node is odd"
    with till.admin.transaction() as tx:
        halts.lift(tx, withdrawal.chain)
    till.route()
    assert till.withdrawal(withdrawal.id).reason == "queued: for the next transaction"


@pytest.mark.parametrize(
    "edit",
    [
        "units = 2000000",
        "destination = 'bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx'",
        "customer_id = 'bob'",
        "expires_at = now() + interval '10 years'",
    ],
)
@pytest.mark.parametrize("moment", ["requested", "queued"])
def test_fault_44_an_edited_withdrawal_is_not_paid(till: Till, edit: str, moment: str) -> None:
    alice = till.customer("alice", 5_000_000)
    till.customer("bob")
    withdrawal = till.request(alice, 1_000_000)
    if moment == "queued":
        till.route()
    till.execute(f"UPDATE withdrawals SET {edit}")
    till.route()
    assert till.build() is None
    ended = till.withdrawal(withdrawal.id)
    assert "order-not-genuine" in ended.reason
    if moment == "queued":
        assert ended.state == "queued"
    else:
        assert ended.state == "rejected"
    assert "withdrawal.tampered" in till.alerts()
    assert (till.balance(alice, "frozen") > 0) == (moment == "queued")
    # Reconciliation finds it too; what was edited is put back before the closing check.
    order = withdrawal.signed_order.order
    till.execute(
        "UPDATE withdrawals SET units = %s, destination = %s, customer_id = %s, expires_at = to_timestamp(%s)",
        order.units,
        order.destination,
        order.customer,
        order.expires_at,
    )


def test_a_withdrawal_to_another_customer_of_ours_is_settled_in_the_ledger_alone(till: Till) -> None:
    alice, bob = till.customer("alice", 60_000_000), till.customer("bob")
    withdrawal = till.request(alice, 50_000_000, destination=till.address(bob))
    till.route()
    assert till.build() is None
    assert settle_internal(till.db, till.bundle) == 1
    assert settle_internal(till.db, till.bundle) == 0
    settled = till.withdrawal(withdrawal.id)
    assert (settled.state, settled.settlement, settled.tier) == ("settled", "internal", "ledger")
    assert (till.balance(alice), till.balance(alice, "frozen"), till.balance(bob)) == (
        9_950_000,
        0,
        50_000_000,
    )
    assert till.balance(None, "fees_earned") == 50_000
    assert till.mempool() == set()


def test_a_withdrawal_to_ones_own_deposit_address_costs_the_fee_only(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000, destination=till.address(alice))
    till.route()
    settle_internal(till.db, till.bundle)
    assert till.balance(alice) == 4_950_000


def test_a_withdrawal_to_an_address_of_the_house_is_rejected(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.send()
    [row] = till.query("SELECT address FROM addresses WHERE purpose = 'change'")
    withdrawal = till.request(alice, 1_000_000, destination=row["address"])
    till.route()
    assert "destination-is-house" in till.withdrawal(withdrawal.id).reason


@pytest.mark.parametrize("trouble", ["halted", "not screened"])
def test_a_chain_that_is_stuck_takes_no_other_chains_turn(
    till: Till, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(routing, "BATCH", 3)
    alice = till.customer("alice", 3_000_000)
    ours = till.request(alice, 1_000_000)
    till.execute(
        "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units, order_json,"
        " order_signature, order_hash, state, expires_at, created_at)"
        " SELECT gen_random_uuid(), caller, customer_id, 'stuck', asset, destination, units, fee_units, order_json,"
        " order_signature, 'copy ' || n, 'requested', expires_at, created_at - interval '1 hour'"
        " FROM withdrawals, generate_series(1, 10) AS n WHERE id = %s",
        ours.id,
    )
    if trouble == "halted":
        with till.admin.transaction() as tx:
            halts.halt(tx, "stuck", "the node is odd")

    class Silent(Elsewhere):
        def ask(self, subject: Subject) -> Word:
            if subject.chain == "stuck" and trouble == "not screened":
                raise ScreeningUnavailable("no answer")
            return super().ask(subject)

    route(till.db, till.bundle, Screening([Silent("tests")]), now=int(time.time()))
    assert till.withdrawal(ours.id).state == "queued"
    others = till.query("SELECT DISTINCT state FROM withdrawals WHERE chain = 'stuck'")
    assert {row["state"] for row in others} <= {"requested", "screening"}
    with till.admin.transaction() as tx:
        tx.execute("SET LOCAL session_replication_role = replica")  # history is append-only
        tx.execute(
            "DELETE FROM withdrawal_events USING withdrawals w WHERE withdrawal_id = w.id AND chain = 'stuck'"
        )
        tx.execute("DELETE FROM withdrawals WHERE chain = 'stuck'")
