"""Refills on Bitcoin, end to end: an excess goes down from the hot key-set to the vault, need comes up with approvals.

Database, node, monitor, guards and journals are real; the vault's members sign in this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from custody.approvals import refills as approvals
from custody.approvals.errors import ApprovalRefused
from custody.signing.sign import sign
from custody.storage import halts
from custody.treasury import fees, repository, service
from custody.treasury.building import carry_out
from custody.treasury.errors import RefillRefused
from custody.treasury.holdings import holdings, note_levels, together
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why
from custody.withdrawals import windows
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle
from policies.intent import Approval, SignedApproval
from policies.keys import sign_approval
from policies.rules import Holding, Limit, Need, Operation, Policy, Rule, When
from tests.fakes.signing import DAY, ROLE, World
from tests.fakes.teller import opened
from tests.fakes.vault_till import VAULT, TierWorld, VaultTill
from tests.support.ruling import asked_for

HOT = "btc-hot"
HOLDS = Holding(tiers=("hot",), asset="BTC", at_most="20000000", refill_below=30)
UPWARDS = Rule(
    id="refill-warm",
    when=When(operations=(Operation.REFILL,), sources=(VAULT,)),
    route="warm",
    approvals=Need(group=ROLE, count=2),
)
DOWNWARDS = Rule(id="refill-hot", when=When(operations=(Operation.REFILL,), sources=(HOT,)), route="hot")


class TreasuryWorld(TierWorld):
    """Refills out of hot are automatic, those out of the vault need two people."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        rules = changes.pop("rules", (UPWARDS, DOWNWARDS))
        paid = When(tiers=("warm",), assets=("BTC",), operations=(Operation.WITHDRAWAL,))
        asked = msgspec.structs.replace(asked_for(group=ROLE), when=paid)
        changes.setdefault("requirements", (asked, *rules))
        holdings = changes.pop("holdings", (HOLDS,))
        found = super().bundle(version, **changes)
        policy: Policy = msgspec.structs.replace(found.policy, holdings=holdings)
        return msgspec.structs.replace(found, policy=policy)


class TreasuryTill(VaultTill):
    """A till with a treasury."""

    def _make_world(self) -> World:
        super()._make_world()
        records = [cosigner.record for cosigner in self.cosigners]
        return TreasuryWorld(self.keys.record, now=int(time.time()), cosigners=records)

    def adopt(self, version: int, **changes: Any) -> None:
        super().adopt(version, **changes)
        for member in self.members.values():
            member._trust.refresh(lambda trouble: None)  # type: ignore[attr-defined]

    def treasury(self) -> int:
        """What a worker's step of that name does."""
        now = int(time.time())
        windows.rebuild(self.db, self.bundle, now=now)
        with self.db.transaction() as tx:
            fees.observe(tx, self.chain, 1_000)
            note_levels(tx)
        done = service.reconsider(self.db, self.bundle) + service.propose_due(self.db, self.bundle, now=now)
        done += approvals.count(self.db, self.bundle, now=now) + approvals.lapse(self.db, now=now)
        return done + sum(carry_out(self.db, each, now=now) for each in (self.site, self.vault_site))

    def refills(self) -> list[Refill]:
        with self.admin.snapshot() as tx:
            return list(repository.page(tx, limit=100))

    def refill(self) -> Refill:
        [found] = self.refills()
        return found

    def approval(self, refill: Refill, name: str, **changes: Any) -> SignedApproval:
        fields: dict[str, Any] = {
            "v": 1,
            "intent": refill.intent.digest_hex(),
            "decision": "approve",
            "approver": name,
            "group": ROLE,
            "policy_version": refill.policy_version,
            "expires_at": int(time.time()) + 3_600,
        }
        return sign_approval(Approval(**(fields | changes)), self.house.approvers[name])

    def answer(self, refill: Refill, *names: str, **changes: Any) -> None:
        for name in names:
            signed = self.approval(refill, name, **changes)
            with self.api.transaction() as tx:
                approvals.give(tx, refill.id, signed, self.bundle, now=int(time.time()))

    def send_refill(self, refill: Refill) -> UUID:
        """Signed by whoever signs for its source, and broadcast."""
        found = self.refills()
        [transaction_id] = [each.transaction_id for each in found if each.id == refill.id]
        assert transaction_id is not None
        if refill.source == HOT:
            assert sign(self.db, self.site, self.signer) == [transaction_id]
            self.broadcast()
        else:
            assert self.collect() == [transaction_id]
            self.broadcast_vault()
        return transaction_id


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        yield till


def test_an_excess_of_hot_goes_to_the_vault_by_itself_and_the_books_follow(till: TreasuryTill) -> None:
    till.customer("alice", 30_000_000)
    assert till.treasury() == 2, "proposed, and built"
    refill = till.refill()
    assert (refill.source, refill.target, refill.units, refill.why) == (HOT, VAULT, 12_000_000, "excess")
    assert refill.state == "signing"
    assert till.treasury() == 0, "again changes nothing"
    till.check()
    transaction_id = till.send_refill(refill)
    till.check()
    till.settle()
    till.check()
    assert till.refill().state == "confirmed"
    paid = till.transaction(transaction_id).versions[0].fee_units
    assert (till.balance_of(VAULT), till.balance_of(HOT)) == (-12_000_000, -(18_000_000 - paid))
    assert till.paid_to(refill.destination) == 12_000_000
    assert till.treasury() == 0
    assert till.balance("alice") == 30_000_000


def test_need_comes_up_from_the_vault_once_two_people_have_approved_what_two_members_sign(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    assert till.treasury() == 1
    refill = till.refill()
    assert (refill.source, refill.target, refill.units, refill.why) == (VAULT, HOT, 15_000_000, "low")
    assert refill.state == "proposed"
    till.answer(refill, "ada")
    assert till.treasury() == 0
    assert till.refill().reason == f"approval: 1 of 2 of {ROLE}"
    till.answer(refill, "ben")
    assert till.treasury() == 2, "approved, and built"
    till.send_refill(refill)
    till.settle()
    till.check()
    assert till.refill().state == "confirmed"
    assert till.balance_of(HOT) == -18_000_000
    assert till.treasury() == 0


def test_tiers_are_shown_with_what_they_hold_and_may_hold_what_comes_and_when_hot_runs_dry(
    till: TreasuryTill,
) -> None:
    both = Holding(tiers=("hot", "warm"), asset="BTC", at_most="100000000", share=9_000)
    till.adopt(2, holdings=(HOLDS, both))
    till.customer("alice", 30_000_000)
    till.treasury()
    with till.db.snapshot() as tx:
        hot, warm = holdings(tx, till.bundle)
        [group] = together(tx, till.bundle)
    assert (hot.wallet, hot.units, hot.cap_units, hot.excess_units) == (
        HOT,
        30_000_000,
        20_000_000,
        10_000_000,
    )
    assert (hot.share_basis_points, hot.free_units) == (10_000, 18_000_000)
    assert (warm.wallet, warm.units, warm.coming_units, warm.cap_units) == (VAULT, 0, 12_000_000, None)
    assert hot.forecast is not None
    assert hot.forecast.seconds_left is None
    assert [units for _, units in hot.history] == [30_000_000]
    assert (group.units, group.most_units) == (30_000_000, 27_000_000)
    till.send_refill(till.refill())
    till.settle()
    till.request("alice", 6_000_000)
    till.send()
    till.settle()
    with till.db.snapshot() as tx:
        hot, warm = holdings(tx, till.bundle)
    assert warm.units == 12_000_000
    assert hot.forecast is not None
    assert hot.forecast.per_hour_units == 1_000_000, "six of the last six hours"
    assert hot.forecast.seconds_left is not None
    assert 11 * 3600 < hot.forecast.seconds_left < 12 * 3600


def test_a_withdrawal_beyond_the_means_of_hot_waits_and_triggers_the_refill_that_its_reason_names(
    till: TreasuryTill,
) -> None:
    little = msgspec.structs.replace(HOLDS, at_most="10000000")
    till.adopt(2, holdings=(little,))
    till.customer("alice", 30_000_000)
    till.treasury()
    till.send_refill(till.refill())
    till.settle()
    assert till.balance_of(VAULT) == -21_000_000
    withdrawal = till.request("alice", 9_500_000)
    till.route()
    assert till.build() is None
    assert till.withdrawal(withdrawal.id).reason.startswith("insufficient-hot-funds: ")
    assert till.treasury() == 1
    refill = till.refills()[-1]
    assert (refill.source, refill.target, refill.why) == (VAULT, HOT, "need")
    assert till.build() is None
    assert f"; refill {refill.id} of " in till.withdrawal(withdrawal.id).reason
    till.answer(refill, "ada", "ben")
    assert till.treasury() == 2
    till.send_refill(refill)
    till.settle()
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"


def test_one_rejection_declines_it_and_it_is_not_proposed_again_at_once(till: TreasuryTill) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    till.treasury()
    refill = till.refill()
    till.answer(refill, "ada")
    till.answer(refill, "ben", decision="reject", reason="not today")
    till.treasury()
    declined, *_ = till.refills()
    assert (declined.state, declined.reason) == ("declined", "approval-rejected: by ben (not today)")
    with pytest.raises(ApprovalRefused, match="nobody is asked"):
        till.answer(declined, "cem")
    till.treasury()
    assert [each.state for each in till.refills()] == ["declined"]


def test_what_an_older_bundle_has_let_through_is_called_off_and_proposed_anew(till: TreasuryTill) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    till.treasury()
    old = till.refill()
    till.answer(old, "ada", "ben")
    till.adopt(2)
    till.treasury()
    first, second = till.refills()
    assert (first.state, second.state, second.policy_version) == ("declined", "proposed", 2)
    with pytest.raises(ApprovalRefused):
        till.answer(second, "ada", policy_version=1)


def test_windows_of_the_policy_bound_what_flows_up_in_a_day(till: TreasuryTill) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    a_day = Limit(window_seconds=DAY, per="tier", measure="units", at_most="20000000", beyond="wait")
    rule = Rule(
        id="refilled-a-day",
        when=When(operations=(Operation.REFILL,), sources=(VAULT,), assets=("BTC",)),
        limit=a_day,
    )
    till.adopt(2, rules=(UPWARDS, DOWNWARDS, rule))
    till.treasury()
    refill = till.refill()
    assert till.query("SELECT amount FROM policy_counts WHERE operation_id = %s", refill.id) == [
        {"amount": 15_000_000}
    ]
    more = Proposal(VAULT, HOT, "BTC", 6_000_000, Why.LOW, "more")
    with till.db.transaction() as tx:
        service.decline(tx, refill.id, "operator: smaller pieces")
    with till.db.transaction() as tx:
        again = service.ask(tx, till.bundle, more, by="otto", now=int(time.time()))
    assert again.proposed_by == "otto"
    with till.db.transaction() as tx:
        service.decline(tx, again.id, "operator: enough")
    large = Proposal(VAULT, HOT, "BTC", 20_000_001, Why.LOW, "all")
    with pytest.raises(RefillRefused, match="limit"), till.db.transaction() as tx:
        service.ask(tx, till.bundle, large, by="otto", now=int(time.time()))


def test_nothing_moves_while_paying_is_halted_and_a_refill_that_goes_nowhere_is_refused(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 30_000_000)
    with till.db.transaction() as tx:
        halts.halt(tx, halts.ALL, "a difference")
    assert till.treasury() == 0
    assert till.refills() == []
    till.lift_halt()
    now = int(time.time())
    for source, target, units in ((HOT, HOT, 5), ("nobody", VAULT, 5), (HOT, VAULT, 0)):
        with pytest.raises(RefillRefused), till.db.transaction() as tx:
            service.ask(
                tx, till.bundle, Proposal(source, target, "BTC", units, Why.LOW, ""), by="otto", now=now
            )


def test_a_reorg_takes_a_final_refill_back_and_it_confirms_again(till: TreasuryTill) -> None:
    till.customer("alice", 30_000_000)
    till.treasury()
    till.send_refill(till.refill())
    first = till.mine(6)[0]
    till.track()
    assert till.refill().state == "confirmed"
    till.reorg(first)
    for _ in range(8):
        till.mine_with()
    till.track()
    assert till.refill().state == "broadcast"
    assert till.balance_of(VAULT) == 0
    till.broadcast()
    till.settle()
    till.check()
    assert (till.refill().state, till.balance_of(VAULT)) == ("confirmed", -12_000_000)


def test_a_stuck_refill_is_replaced_with_a_higher_fee_out_of_its_change_and_moves_the_same(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 30_000_000)
    till.treasury()
    refill = till.refill()
    transaction_id = till.send_refill(refill)
    assert till.bump(transaction_id, 5_000) == 2
    assert till.sign() == [transaction_id]
    till.broadcast()
    first, second = till.transaction(transaction_id).versions
    assert second.fee_units > first.fee_units
    assert second.txid in till.mempool()
    till.settle()
    till.check()
    assert till.refill().state == "confirmed"
    assert till.paid_to(refill.destination) == 12_000_000
    assert till.balance_of(VAULT) == -12_000_000


def test_what_the_signer_refuses_is_built_anew_later_and_what_is_refused_moves_nothing(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 30_000_000)
    till.treasury()
    refill = till.refill()
    assert refill.transaction_id is not None
    till.refuse(refill.transaction_id)
    refused = till.refill()
    assert refused.state == "approved"
    assert "signer-refused" in refused.reason
    assert "refill.refused" in till.alerts()
    assert till.treasury() == 1
    till.send_refill(refill)
    till.settle()
    assert till.refill().state == "confirmed"
    assert "refill.refused" not in till.alerts()


def test_coins_that_payments_wait_for_are_not_moved(till: TreasuryTill) -> None:
    till.customer("alice", 9_000_000, 9_000_000, 9_000_000)
    till.request("alice", 9_900_000)
    till.route()
    till.treasury()
    # 27 are there and 9.9 are on their way out: no excess is left.
    assert till.refills() == []
    by_hand = Proposal(HOT, VAULT, "BTC", 18_000_000, Why.EXCESS, "all of it")
    with till.db.transaction() as tx:
        service.ask(tx, till.bundle, by_hand, by="otto", now=int(time.time()))
    assert till.treasury() == 0
    assert till.refill().reason.startswith("funds: ")
    till.send()
    till.settle()
    assert till.states() == ["settled"]
