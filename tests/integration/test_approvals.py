"""Approvals: a payment that the policy asks people about waits for them, and the signer sees what they signed.

Database, node, monitor, guard and journal are real.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import msgspec
import pytest
from psycopg.errors import InsufficientPrivilege

from custody.approvals import service
from custody.approvals.errors import ApprovalRefused
from custody.approvals.model import Question
from custody.errors import DatabaseUnavailable
from custody.signing.requests import read_request
from custody.withdrawals import service as withdrawals
from custody.withdrawals.model import Withdrawal
from ops.devnet.process import wait_until
from policies.approvals import MAX_APPROVAL_SECONDS
from policies.bundle import Approver
from policies.intent import Approval, SignedApproval
from policies.keys import SigningKey, sign_approval
from policies.rules import Rule
from tests.fakes.passkey import SoftPasskey, approve_by_passkey
from tests.fakes.signing import ROLE
from tests.fakes.till import Till
from tests.support.policies import asked_for

TWO = asked_for(tier="hot", group=ROLE, verdict=None)
"""Two treasurers approve every payment."""


class Desk:
    """A till whose payments are approved by people."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.keys = till.house.approvers

    def adopt(self, version: int, *rules: Rule, **changes: Any) -> None:
        self.till.adopt(version, requirements=rules or (TWO,), **changes)

    def request(self, units: int = 1_000_000, **changes: Any) -> Withdrawal:
        if not self.till.query("SELECT 1 FROM customers WHERE id = 'alice'"):
            self.till.customer("alice", 5_000_000)
        found = self.till.request("alice", units, **changes)
        self.till.route()
        return found

    def question(self, withdrawal: Withdrawal) -> Question:
        with self.till.admin.snapshot() as tx:
            return service.question(
                tx, self.till.withdrawal(withdrawal.id), self.till.bundle, now=int(time.time())
            )

    def approval(self, withdrawal: Withdrawal, name: str = "ada", **changes: Any) -> Approval:
        intent = self.question(withdrawal).intent
        fields: dict[str, Any] = {
            "v": 1,
            "intent": intent.digest_hex(),
            "decision": "approve",
            "approver": name,
            "group": ROLE,
            "policy_version": intent.policy_version,
            "expires_at": int(time.time()) + 3_600,
        }
        return Approval(**(fields | changes))

    def give(self, withdrawal: Withdrawal, signed: SignedApproval) -> None:
        with self.till.api.transaction() as tx:
            service.give(tx, withdrawal.id, signed, self.till.bundle, now=int(time.time()))

    def approve(
        self, withdrawal: Withdrawal, *names: str, key: SigningKey | None = None, **changes: Any
    ) -> list[SignedApproval]:
        given = []
        for name in names:
            signed = sign_approval(self.approval(withdrawal, name, **changes), key or self.keys[name])
            self.give(withdrawal, signed)
            given.append(signed)
        return given

    def refused(self, withdrawal: Withdrawal, signed: SignedApproval) -> list[str]:
        with pytest.raises(ApprovalRefused) as refusal:
            self.give(withdrawal, signed)
        return [reason.code for reason in refusal.value.reasons]

    def state(self, withdrawal: Withdrawal) -> str:
        return str(self.till.withdrawal(withdrawal.id).state)

    def pay(self) -> UUID:
        """Everything from the queue to the mempool, for one transaction."""
        return self.till.send()


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
        Approval(**{**msgspec.structs.asdict(given_of(desk, withdrawal)), "approver": "cem"}),
        desk.keys["cem"],
    )
    assert desk.refused(withdrawal, late) == ["approval-late"]


def given_of(desk: Desk, withdrawal: Withdrawal) -> Approval:
    """The first answer that is stored about a withdrawal."""
    [row, *_] = desk.till.query(
        "SELECT document FROM approvals WHERE withdrawal_id = %s ORDER BY id", withdrawal.id
    )
    return Approval.from_json(row["document"].encode())


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


def test_fault_48_a_self_approved_payment_is_refused_and_so_is_the_initiators_key_under_another_name(
    desk: Desk,
) -> None:
    house = desk.till.house
    twin: Approver = house.approver_entry("ada", id="twin", key=house.caller.public_hex)
    same_name: Approver = house.approver_entry("ben", id="exchange")
    desk.adopt(3, approvers=(twin, same_name, house.approver_entry("cem")))
    withdrawal = desk.request()
    for name, key in (("twin", house.caller), ("exchange", desk.keys["ben"])):
        signed = sign_approval(desk.approval(withdrawal, name), key)
        assert desk.refused(withdrawal, signed) == ["approval-own"]


def test_fault_48_an_approval_replayed_for_another_payment_is_refused(desk: Desk) -> None:
    one, other = desk.request(), desk.request()
    [signed] = desk.approve(one, "ada")
    assert desk.refused(other, signed) == ["approval-stray"]
    forged = msgspec.structs.replace(signed, approval=desk.approval(other))
    assert desk.refused(other, forged) == ["approval-signature"]


def test_fault_48_an_expired_approval_is_refused_and_so_is_one_for_too_long(desk: Desk) -> None:
    withdrawal, now = desk.request(), int(time.time())
    for expires_at, code in (
        (now - 1, "approval-expired"),
        (now + MAX_APPROVAL_SECONDS + 60, "approval-too-long"),
    ):
        signed = sign_approval(desk.approval(withdrawal, expires_at=expires_at), desk.keys["ada"])
        assert desk.refused(withdrawal, signed) == [code]


def test_approvals_that_expire_before_the_payment_is_signed_are_asked_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    soon = int(time.time()) + 2
    desk.approve(withdrawal, "ada", expires_at=soon)
    desk.approve(withdrawal, "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"

    def asked_again() -> bool:
        till.route()
        return desk.state(withdrawal) == "awaiting_approval"

    wait_until(asked_again, timeout=30, what="the expiry")
    assert "approval.expired" in till.alerts()
    assert till.build() is None
    desk.approve(withdrawal, "ada")
    till.route()
    assert desk.state(withdrawal) == "queued"
    assert "approval.expired" not in till.alerts()
    desk.pay()


def test_approvals_that_expire_after_it_was_built_are_refused_by_the_signer_and_asked_again(
    desk: Desk,
) -> None:
    till, withdrawal = desk.till, desk.request()
    soon = int(time.time()) + 3
    desk.approve(withdrawal, "ada", "ben", expires_at=soon)
    till.route()
    assert till.build() is not None
    wait_until(lambda: time.time() > soon, timeout=30, what="the expiry")
    assert till.sign() == []
    assert "approvals-missing" in till.withdrawal(withdrawal.id).reason
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    desk.pay()


def test_fault_48_the_signatures_of_a_removed_approver_die_with_him(desk: Desk) -> None:
    withdrawal, house = desk.request(), desk.till.house
    [old] = desk.approve(withdrawal, "ada")
    desk.adopt(3, approvers=(house.approver_entry("ben"), house.approver_entry("cem")))
    desk.till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    assert desk.question(withdrawal).heard.approved == ()
    approval = desk.approval(withdrawal)
    assert desk.refused(withdrawal, sign_approval(approval, desk.keys["ada"])) == ["approval-unknown"]
    stays = msgspec.structs.replace(old, approval=msgspec.structs.replace(old.approval, policy_version=3))
    assert desk.refused(withdrawal, stays) == ["approval-stray"]


def test_fault_47_a_policy_that_changes_while_approvals_are_collected_asks_for_them_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    desk.adopt(3)
    # An approver who has not heard of it signs under the old version, before and after it is decided again.
    stale = sign_approval(
        msgspec.structs.replace(given_of(desk, withdrawal), approver="ben"), desk.keys["ben"]
    )
    assert desk.refused(withdrawal, stale) == ["approval-version"]
    till.route()
    assert desk.refused(withdrawal, stale) == ["approval-stray"]
    assert till.withdrawal(withdrawal.id).reason == f"approval: 2 of {ROLE}"
    desk.approve(withdrawal, "ben")
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    desk.approve(withdrawal, "ada")
    till.route()
    desk.pay()
    till.settle()
    assert desk.state(withdrawal) == "settled"


def test_fault_47_what_was_approved_and_waits_in_the_queue_is_decided_and_approved_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    desk.adopt(3, asked_for(tier="hot", group=ROLE, verdict=None, approvals=3))
    assert till.build() is None, "nothing that another policy has let through is built"
    till.route()
    assert (desk.state(withdrawal), till.withdrawal(withdrawal.id).reason) == (
        "awaiting_approval",
        f"approval: 3 of {ROLE}",
    )
    desk.approve(withdrawal, "ada", "ben", "cem")
    till.route()
    desk.pay()


def test_fault_47_what_a_new_policy_denies_is_rejected_though_it_was_approved(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    desk.adopt(3, TWO, Rule(id="no-more", deny="nothing is paid any more"))
    till.route()
    assert desk.state(withdrawal) == "rejected"
    assert till.balance("alice") == 5_000_000


def test_a_new_bundle_with_the_same_rules_lets_what_nobody_was_asked_about_go_on(till: Till) -> None:
    till.customer("alice", 5_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    till.adopt(2)
    assert till.build() is None
    till.route()
    assert till.withdrawal(withdrawal.id).policy_version == 2
    till.send()


@pytest.mark.parametrize(
    "sql",
    [
        'UPDATE approvals SET document = replace(document, \'"decision":"reject"\', \'"decision":"approve"\')',
        'UPDATE approvals SET document = replace(document, \'"approver":"ben"\', \'"approver":"cem"\')',
        "UPDATE approvals SET signature = (SELECT signature FROM approvals ORDER BY id LIMIT 1)",
    ],
)
def test_fault_44_an_approval_that_is_edited_in_the_database_counts_for_nothing(desk: Desk, sql: str) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    desk.approve(withdrawal, "ben", decision="reject" if "decision" in sql else "approve")
    till.execute("ALTER TABLE approvals DISABLE TRIGGER approvals_append_only")
    till.execute(sql)
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    assert "approval.tampered" in till.alerts()
    assert len(desk.question(withdrawal).heard.approved) == 1


def test_fault_44_a_payment_that_sql_has_made_approved_is_refused_by_the_signer(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    for state in ("cooling", "queued"):
        till.execute("UPDATE withdrawals SET state = %s WHERE id = %s", state, withdrawal.id)
    assert till.build() is not None
    assert till.sign() == []
    assert "approvals-missing" in till.withdrawal(withdrawal.id).reason
    # The same with the answer of another person copied, and signed by nobody.
    till.execute(
        "INSERT INTO approvals (digest, withdrawal_id, intent_hash, document, signature)"
        " SELECT repeat('ab', 32), withdrawal_id, intent_hash, replace(document, 'ada', 'ben'), signature"
        " FROM approvals"
    )
    assert till.build() is not None
    assert till.sign() == []


def test_the_api_can_only_add_answers_and_the_worker_none(desk: Desk) -> None:
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada")
    attempts = [
        (desk.till.api, "UPDATE approvals SET document = ''"),
        (desk.till.api, "DELETE FROM approvals"),
        (desk.till.api, "UPDATE withdrawals SET approvals_heard = 2"),
        (desk.till.api, "UPDATE withdrawals SET policy_version = 9"),
        (desk.till.db, "INSERT INTO approvals (digest, withdrawal_id) VALUES ('', NULL)"),
        (desk.till.db, "DELETE FROM approvals"),
    ]
    for database, sql in attempts:
        with pytest.raises((InsufficientPrivilege, DatabaseUnavailable)), database.transaction() as tx:
            tx.execute(sql.encode())
