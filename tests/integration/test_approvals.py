"""Approvals: a payment that the policy asks people about waits for them, and the signer sees what they signed.

Database, node, monitor, guard and journal are real.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import pytest

from custody.approvals.counting import count, lapse
from custody.approvals.errors import ApprovalRefused
from custody.signing.requests import read_request
from custody.signing.sign import sign
from custody.withdrawals import service as withdrawals
from custody.withdrawals.model import Withdrawal
from ops.devnet.process import wait_until
from policies.intent import Approval, SignedApproval
from policies.keys import sign_approval
from policies.rules import Rule
from tests.fakes.approving import TWO, Desk
from tests.fakes.passkey import SoftPasskey, approve_by_passkey
from tests.fakes.signing import ROLE
from tests.fakes.till import Till
from tests.support.ruling import asked_for

HOUR = 3_600


@pytest.fixture
def desk(till: Till) -> Desk:
    found = Desk(till)
    found.adopt(2)
    return found


def test_two_approvals_take_a_payment_from_waiting_to_the_chain_and_travel_to_the_signer(desk: Desk) -> None:
    till, destination = desk.till, desk.till.outside.address()
    withdrawal = desk.request(destination=destination)
    assert desk.state(withdrawal) == "awaiting_approval"
    assert till.build() is None
    desk.approve(withdrawal, "ada")
    till.route()
    waiting = till.withdrawal(withdrawal.id)
    assert (waiting.state, waiting.reason) == ("awaiting_approval", f"approval: 1 of 2 of {ROLE}")
    desk.approve(withdrawal, "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    transaction_id = desk.pay()
    assert till.transaction(transaction_id).versions[0].txid in till.mempool()
    till.settle()
    assert desk.state(withdrawal) == "settled"
    assert till.paid_to(destination) == 1_000_000
    before = till.contents()
    till.route()
    assert till.contents() == before


def test_what_was_approved_is_the_very_intent_that_is_signed(desk: Desk) -> None:
    withdrawal = desk.request()
    approved = {signed.approval.intent for signed in desk.approve(withdrawal, "ada", "ben")}
    desk.till.route()
    recorded = read_request(desk.till.transaction(desk.pay()).versions[0].request)
    assert {intent.digest_hex() for intent in recorded.intents} == approved


def test_a_passkey_approves_like_a_key(desk: Desk) -> None:
    soft = SoftPasskey()
    desk.adopt(
        3,
        approvers=(
            desk.till.house.approver_entry("ada", key=soft.entry()),
            desk.till.house.approver_entry("ben"),
        ),
    )
    withdrawal = desk.request()
    approval = desk.approval(withdrawal)
    assert desk.refused(withdrawal, approve_by_passkey(approval, SoftPasskey())) == ["approval-signature"]
    desk.give(withdrawal, approve_by_passkey(approval, soft))
    desk.approve(withdrawal, "ben")
    desk.till.route()
    desk.pay()
    desk.till.settle()
    assert desk.state(withdrawal) == "settled"


def test_the_same_approval_again_changes_nothing_even_when_all_is_over(desk: Desk) -> None:
    withdrawal = desk.request()
    given = desk.approve(withdrawal, "ada", "ben")
    for signed in given:
        desk.give(withdrawal, signed)
    desk.till.route()
    desk.pay()
    desk.till.settle()
    before = desk.till.contents()
    for signed in given:
        desk.give(withdrawal, signed)
    desk.till.route()
    assert desk.till.contents() == before
    assert len(desk.till.query("SELECT 1 FROM approvals")) == 2


def test_one_rejection_ends_it_and_gives_the_money_back(desk: Desk) -> None:
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada")
    desk.approve(withdrawal, "ben", decision="reject", reason="whose address is that?")
    desk.till.route()
    ended = desk.till.withdrawal(withdrawal.id)
    assert (ended.state, ended.reason) == ("rejected", "approval-rejected: by ben (whose address is that?)")
    assert (desk.till.balance("alice"), desk.till.balance("alice", "frozen")) == (5_000_000, 0)
    late = sign_approval(
        Approval(**{**msgspec.structs.asdict(desk.first_answer(withdrawal)), "approver": "cem"}),
        desk.keys["cem"],
    )
    assert desk.refused(withdrawal, late) == ["approval-late"]


def test_a_rejection_ends_it_until_a_transaction_pays_it(desk: Desk) -> None:
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada", "ben")
    desk.till.route()
    assert desk.state(withdrawal) == "queued"
    desk.approve(withdrawal, "ada", decision="reject")
    desk.till.route()
    assert desk.state(withdrawal) == "rejected"
    assert desk.till.balance("alice") == 5_000_000


def test_the_customer_cancels_while_people_are_asked(desk: Desk) -> None:
    withdrawal = desk.request()
    signed = sign_approval(desk.approval(withdrawal), desk.keys["ada"])
    with desk.till.api.transaction() as tx:
        withdrawals.cancel(tx, withdrawal.id, desk.till.caller)
    assert desk.refused(withdrawal, signed) == ["approval-late"]
    assert desk.till.balance("alice") == 5_000_000


def test_one_organisation_counts_once_where_the_rule_says_so(desk: Desk) -> None:
    desk.adopt(3, asked_for(tier="hot", group=ROLE, verdict=None, count="organisations"))
    withdrawal = desk.request()
    desk.approve(withdrawal, "ben", "cem")
    desk.till.route()
    assert desk.till.withdrawal(withdrawal.id).reason == (
        f"approval: 1 of 2 of {ROLE} from different organisations"
    )
    desk.approve(withdrawal, "ada")
    desk.till.route()
    desk.pay()
    assert desk.state(withdrawal) == "broadcast"


def test_approvals_that_expire_before_the_payment_is_signed_are_asked_again(desk: Desk) -> None:
    till, withdrawal, later = desk.till, desk.request(), int(time.time()) + 2 * HOUR
    desk.approve(withdrawal, "ada", expires_at=later - HOUR)
    desk.approve(withdrawal, "ben", expires_at=later + HOUR)
    till.route()
    assert desk.state(withdrawal) == "queued"
    assert lapse(till.db, now=later - HOUR - 1) == 0
    assert lapse(till.db, now=later) == 1
    assert lapse(till.db, now=later) == 0
    count(till.db, till.bundle, now=later)
    waiting = till.withdrawal(withdrawal.id)
    assert (waiting.state, waiting.reason) == ("awaiting_approval", f"approval: 1 of 2 of {ROLE}")
    assert "approval.expired" in till.alerts()
    assert till.build() is None
    desk.approve(withdrawal, "ada", now=later, expires_at=later + HOUR)
    till.route()
    assert desk.state(withdrawal) == "queued"
    assert "approval.expired" not in till.alerts()
    desk.pay()


def test_an_approval_holds_no_longer_than_its_approvers_own_time(desk: Desk) -> None:
    till, house, later = desk.till, desk.till.house, int(time.time()) + 2 * HOUR
    ada = house.approver_entry("ada", not_after=later - HOUR)
    desk.adopt(3, approvers=(ada, house.approver_entry("ben")))
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada", "ben", expires_at=later + HOUR)
    till.route()
    assert desk.state(withdrawal) == "queued"
    assert lapse(till.db, now=later) == 1


def test_approvals_that_expire_after_it_was_built_are_shown_to_no_signer_and_asked_again(desk: Desk) -> None:
    till, withdrawal, later = desk.till, desk.request(), int(time.time()) + 2 * HOUR
    desk.approve(withdrawal, "ada", "ben", expires_at=later - HOUR)
    till.route()
    assert till.build() is not None
    assert sign(till.db, till.site, till.signer, clock=lambda: later) == []
    assert "approvals-missing" in till.withdrawal(withdrawal.id).reason
    assert lapse(till.db, now=later) == 1
    assert desk.state(withdrawal) == "awaiting_approval"
    desk.approve(withdrawal, "ada", "ben", now=later, expires_at=later + HOUR)
    till.route()
    desk.pay()


def test_a_new_bundle_with_the_same_rules_lets_what_nobody_was_asked_about_go_on(till: Till) -> None:
    till.customer("alice", 5_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    till.adopt(2)
    assert till.build() is None
    till.route()
    assert till.withdrawal(withdrawal.id).policy_version == 2
    till.send()


def first_sight(till: Till, withdrawal: Withdrawal) -> int | None:
    """Since when the signer knows the order."""
    order = withdrawal.signed_order.order.digest_hex()
    return till.journal.write(lambda book: book.order_since(order))


def test_the_signer_is_shown_an_order_while_its_delay_runs_and_people_are_asked(desk: Desk) -> None:
    till, delay = desk.till, Rule(id="large", delay_seconds=1)
    desk.adopt(3, TWO, delay)
    withdrawal = desk.request()
    assert first_sight(till, withdrawal) is None
    assert till.announce() == 1
    since = first_sight(till, withdrawal)
    assert since is not None
    assert till.announce() == 0
    desk.approve(withdrawal, "ada", "ben")

    def queued() -> bool:
        till.route()
        return desk.state(withdrawal) == "queued"

    wait_until(queued, timeout=30, what="the delay")
    till.signed_when_old_enough()
    assert first_sight(till, withdrawal) == since


def test_orders_that_wait_without_a_delay_are_not_shown_before_they_are_to_be_signed(desk: Desk) -> None:
    desk.request()
    assert desk.till.announce() == 0


def test_one_order_that_the_signer_refuses_keeps_none_of_the_others_from_it(desk: Desk) -> None:
    till = desk.till
    desk.adopt(3, TWO, Rule(id="large", delay_seconds=1))
    good = desk.request()
    broken = desk.request()
    till.execute("UPDATE withdrawals SET order_signature = repeat('A', 86) || '==' WHERE id = %s", broken.id)
    assert till.announce() == 2
    assert first_sight(till, good) is not None
    assert first_sight(till, broken) is None
    assert till.announce() == 0


def test_of_many_workers_that_count_at_once_one_lets_it_through(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    with ThreadPoolExecutor(4) as workers:
        done = list(workers.map(lambda _: count(till.db, till.bundle, now=int(time.time())), range(8)))
    assert sum(done) == 1
    events = till.query("SELECT 1 FROM withdrawal_events WHERE event = 'approve'")
    assert len(events) == 1


def test_an_answer_that_comes_while_others_are_counted_is_counted_later(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    signed = [
        sign_approval(desk.approval(withdrawal, name), desk.keys[name]) for name in ("ada", "ben", "cem")
    ]

    def hand_in(each: SignedApproval) -> None:
        with suppress(ApprovalRefused):  # too late, if two were counted before
            desk.give(withdrawal, each)

    with ThreadPoolExecutor(4) as people:
        given = [people.submit(hand_in, each) for each in signed]
        while not all(each.done() for each in given):
            count(till.db, till.bundle, now=int(time.time()))
    for each in given:
        each.result()
    count(till.db, till.bundle, now=int(time.time()))
    assert desk.state(withdrawal) == "cooling"
    till.route()
    desk.pay()
