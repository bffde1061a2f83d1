"""A till whose payments are approved by people: what waits, what they sign, and what becomes of it."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from custody.approvals import service
from custody.approvals.errors import ApprovalRefused
from custody.approvals.model import Question
from custody.withdrawals.model import Withdrawal
from policies.intent import Approval, SignedApproval
from policies.keys import sign_approval
from policies.rules import Rule
from tests.fakes.signing import ROLE
from tests.fakes.till import Till
from tests.support.ruling import asked_for

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

    def question(self, withdrawal: Withdrawal) -> Question[Withdrawal]:
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

    def give(self, withdrawal: Withdrawal, signed: SignedApproval, *, now: int | None = None) -> None:
        with self.till.api.transaction() as tx:
            service.give(tx, withdrawal.id, signed, self.till.bundle, now=now or int(time.time()))

    def approve(
        self, withdrawal: Withdrawal, *names: str, now: int | None = None, **changes: Any
    ) -> list[SignedApproval]:
        given = []
        for name in names:
            signed = sign_approval(self.approval(withdrawal, name, **changes), self.keys[name])
            self.give(withdrawal, signed, now=now)
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

    def first_answer(self, withdrawal: Withdrawal) -> Approval:
        """The first one that is stored about a withdrawal."""
        [row, *_] = self.till.query(
            "SELECT document FROM approvals WHERE withdrawal_id = %s ORDER BY id", withdrawal.id
        )
        return Approval.from_json(row["document"].encode())
