"""Rescues on Bitcoin that meet payments of the same keys: stuck, unanswered, mined after all, or brought back by a
reorg.

Payment and rescue spend the same coins, so one of both confirms. Whichever it is, the books are exact, no order is paid
twice, and nothing stays behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from custody.signing.bump import bump, bump_stuck
from custody.signing.errors import BumpRefused
from custody.signing.requests import read_request
from custody.sweeps.model import Sweep, SweepPace
from custody.sweeps.service import sweep
from custody.withdrawals.model import Withdrawal
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.rescues import Rescues
from tests.fakes.teller import opened
from tests.integration.test_rotation_btc import NEW, RotatingTill


class RescuingTill(Rescues, RotatingTill):
    """With a payment on its way when the keys are taken."""

    def paying(self, units: int = 1_000_000, *deposits_sats: int) -> tuple[Withdrawal, UUID]:
        """A withdrawal of alice's whose payment is broadcast."""
        self.customer("alice", *(deposits_sats or (3_000_000,)))
        withdrawal = self.request("alice", units)
        return withdrawal, self.send()

    def txid(self, transaction_id: UUID, version: int = 1) -> str:
        return self.transaction(transaction_id).versions[version - 1].content

    def raw(self, transaction_id: UUID) -> str:
        return self.bytes_of(transaction_id).serialize().hex()

    def one(self, state: str) -> Sweep:
        [found] = [each for each in self.rotations() if each.state == state]
        return found

    def against(self, payment: UUID) -> UUID:
        """The newest rescue that spends what a payment does."""
        found = [
            each.transaction_id
            for each in sorted(self.rotations(), key=lambda each: each.created_at)
            if each.transaction_id is not None and self.spends(each.transaction_id) & self.spends(payment)
        ]
        return found[-1]

    def spends(self, transaction_id: UUID) -> set[str]:
        return set(self.bytes_of(transaction_id).resources)

    def frozen(self) -> int:
        return self.balance("alice", "frozen")

    def child_of(self, txid: str, address: str, fee_sats: int) -> str:
        """The payee spends what he is to get, before it confirms."""
        [output] = [
            each
            for each in self.bitcoind.rpc("getrawtransaction", txid, 1)["vout"]
            if each["scriptPubKey"].get("address") == address
        ]
        units = round(output["value"] * 10**8)
        raw = self.bitcoind.rpc(
            "createrawtransaction",
            [{"txid": txid, "vout": output["n"]}],
            [{self.outside.address(): f"{(units - fee_sats) // 10**8}.{(units - fee_sats) % 10**8:08d}"}],
        )
        signed = self.outside.rpc("signrawtransactionwithwallet", raw)["hex"]
        return str(self.bitcoind.rpc("sendrawtransaction", signed, 0))

    def end(self) -> None:
        """All is final, as many rescues as it takes; the old keys have nothing, and the books are exact."""
        for _ in range(3):
            self.later()
            self.rescue()
            self.settle()
            self.check()
        assert self.rotate() == 0, "again changes nothing"
        assert self.held(self.keys.record.id) == 0
        assert self.query("SELECT 1 FROM transactions WHERE state = 'contested'") == []


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[RescuingTill]:
    with opened(RescuingTill(database, bitcoind, tmp_path)) as till:
        yield till


def unanswered(till: RescuingTill) -> tuple[Withdrawal, UUID, str]:
    """A payment that the signer has signed, and its answer was lost; its bytes are somewhere."""
    till.customer("alice", 3_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    [version] = till.transaction(transaction_id).versions
    signed, _ = till.site.finish(version, till.signer.sign(read_request(version.request)))
    till.retire(2, "compromised")
    till.out()
    return withdrawal, transaction_id, signed.hex()


def test_a_payment_whose_answer_was_lost_does_not_keep_its_coins_from_the_rescue(till: RescuingTill) -> None:
    withdrawal, payment, raw = unanswered(till)
    assert till.withdrawal(withdrawal.id).state == "signing", "nobody may conclude that it was not signed"
    assert len(till.rescue()) == 1
    assert till.transaction(payment).state == "contested"
    till.check()
    till.mine(5)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "signing", "not before the rescue is final"
    assert till.frozen() > 0
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert (till.balance("alice"), till.frozen()) == (3_000_000, 0)
    with pytest.raises(Exception, match=r"missingorspent|already in"):
        till.bitcoind.rpc("sendrawtransaction", raw)
    again = till.request("alice", 1_000_000)
    till.send()
    till.settle()
    assert till.withdrawal(again.id).state == "settled"
    till.end()
    assert till.paid_to(withdrawal.destination) == 0
    assert till.paid_to(again.destination) == 1_000_000


def test_a_payment_whose_answer_was_lost_is_settled_if_whoever_has_its_bytes_sends_them(
    till: RescuingTill,
) -> None:
    withdrawal, payment, raw = unanswered(till)
    assert len(till.rescue()) == 1
    till.mine_with(raw)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.settle()
    till.check()
    assert till.transaction(payment).state == "final"
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.one("abandoned").units == {"BTC": 3_000_000}
    till.end()
    assert till.paid_to(withdrawal.destination) == 1_000_000
    assert till.held(NEW) > 1_900_000


def test_a_payment_that_is_mined_before_anybody_contests_it_is_settled_without_its_answer(
    till: RescuingTill,
) -> None:
    withdrawal, _, raw = unanswered(till)
    till.mine_with(raw)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "signing"
    till.rotate()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.end()


def test_a_payment_that_was_never_signed_is_paid_by_the_new_keys_although_a_rescue_was_quicker(
    till: RescuingTill,
) -> None:
    """A refusal is the signer's own word that it has never signed."""
    till.customer("alice", 3_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    payment = till.build()
    assert payment is not None
    till.retire(2, "compromised")
    assert till.rotate() == 1
    assert till.transaction(payment).state == "contested"
    till.out()
    assert till.transaction(payment).state == "refused"
    assert till.withdrawal(withdrawal.id).state == "queued"
    till.settle()
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.end()


def test_a_stuck_payment_is_replaced_by_the_rescue_and_asked_for_again(till: RescuingTill) -> None:
    withdrawal, payment = till.paying(1_000_000, 3_000_000, 2_000_000)
    till.retire(2, "compromised")
    till.price(5_000)
    assert len(till.rescue()) == 2, "the other coin does not depend on which of both wins"
    rescue = till.against(payment)
    assert till.txid(rescue) in till.mempool()
    assert till.txid(payment) not in till.mempool()
    assert till.spends(payment) <= till.spends(rescue)
    with pytest.raises(BumpRefused, match="contested"):
        bump(till.db, till.old_site, payment, 50_000)
    till.out()
    assert till.txid(rescue) in till.mempool(), "the payment is not sent any more"
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.withdrawal(withdrawal.id).reason.startswith("overtaken by another of ours")
    assert (till.balance("alice"), till.frozen()) == (5_000_000, 0)
    till.end()
    assert till.paid_to(withdrawal.destination) == 0
    fees = sum(
        int(row["balance"])
        for row in till.query("SELECT balance FROM ledger_accounts WHERE kind = 'network_fees'")
    )
    assert till.held(NEW) == 5_000_000 - abs(fees)


def test_a_rescue_pays_for_all_that_a_payee_has_hung_on_his_payment(till: RescuingTill) -> None:
    """Rule 3 of BIP125: the fees of descendants, too, however low the present estimate."""
    withdrawal, payment = till.paying()
    child = till.child_of(till.txid(payment), withdrawal.destination, 5_000)
    till.retire(2, "compromised")
    [rescue] = till.rescue()
    [version] = till.transaction(rescue).versions
    assert version.fee_units > 5_000 + till.transaction(payment).versions[0].fee_units
    assert till.txid(rescue) in till.mempool()
    assert not {child, till.txid(payment)} & till.mempool()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    till.end()


def test_a_rescue_that_would_pay_too_high_a_rate_takes_other_coins_for_their_weight(
    till: RescuingTill,
) -> None:
    """What a batch of many outputs has paid would be above the feerate cap for one input and one output."""
    till.price(90_000)
    withdrawal, payment = till.paying(1_000_000, 3_000_000, 200_000, 100_000)
    till.price(1_000)
    till.retire(2, "compromised")
    assert till.rescue()
    rescue = till.against(payment)
    assert till.spends(rescue) > till.spends(payment)
    assert till.txid(rescue) in till.mempool()
    assert "rotation.capped" not in till.alerts()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    till.end()


def test_a_payee_who_outbids_the_caps_keeps_no_other_coin_from_the_rescue_and_people_are_told(
    till: RescuingTill,
) -> None:
    withdrawal, payment = till.paying(2_900_000, 3_000_000, 2_000_000, 1_000_000)
    cap = int(till.bundle.network(till.chain).fee_cap)
    coins = till.spends(payment)
    till.child_of(till.txid(payment), withdrawal.destination, cap)
    till.retire(2, "compromised")
    rescued = till.rescue()
    assert rescued
    for rescue in rescued:
        assert not till.spends(rescue) & coins
        assert till.txid(rescue) in till.mempool()
    assert till.transaction(payment).state == "broadcast"
    assert "rotation.capped" in till.alerts()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert "rotation.capped" not in till.alerts()
    till.end()


def test_a_payee_who_outbids_a_rescue_after_it_was_recorded_is_outbid_in_turn(till: RescuingTill) -> None:
    withdrawal, payment = till.paying()
    till.retire(2, "compromised")
    assert till.rotate() == 1
    till.child_of(till.txid(payment), withdrawal.destination, 5_000)
    till.out()
    rescue = till.one("broadcast").transaction_id
    assert rescue is not None
    assert till.txid(rescue) not in till.mempool()
    assert "transaction.not_relayed" in till.alerts()
    for _ in range(till.pace.bump_after_blocks):
        till.mine_with()
    till.track()
    assert bump_stuck(till.db, till.old_site) == 1
    till.out()
    assert till.txid(rescue, 2) in till.mempool()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    till.end()


def test_a_payment_that_confirms_although_a_rescue_was_sent_is_settled_and_its_change_follows(
    till: RescuingTill,
) -> None:
    withdrawal, payment = till.paying(1_000_000, 3_000_000, 2_000_000)
    raw = till.raw(payment)
    till.retire(2, "compromised")
    [other] = set(till.rescue()) - {till.against(payment)}
    rescue = till.against(payment)
    till.mine_with(raw)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    assert till.rescue() == [], "the change could still vanish"
    assert till.transaction(rescue).state == "contested"
    assert till.txid(other) in till.mempool()
    till.check()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(rescue).state == "dead"
    till.end()
    assert till.paid_to(withdrawal.destination) == 1_000_000
    assert till.balance("alice") == 5_000_000 - 1_000_000 - withdrawal.fee_units


def test_an_old_version_of_a_payment_that_confirms_leaves_what_only_its_replacement_had_to_the_next_rescue(
    till: RescuingTill,
) -> None:
    """Every version is overtaken, and any may win. A rescue that lost one coin gives the others on at once."""
    withdrawal, payment = till.paying(2_996_000, 3_000_000, 2_000_000)
    raw = till.raw(payment)
    assert till.bump(payment, 50_000) == 2
    till.sign()
    till.broadcast()
    first, second = till.transaction(payment).versions
    assert first.resources < second.resources
    till.retire(2, "compromised")
    [rescue] = till.rescue()
    assert till.spends(rescue) == second.resources
    assert till.txid(rescue) in till.mempool()
    till.mine_with(raw)
    till.track()
    till.check()
    [again] = till.rescue()
    assert till.spends(again) == second.resources - first.resources
    assert till.txid(again) in till.mempool()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(rescue).state == "dead"
    assert till.one("confirmed").transaction_id == again
    till.end()
    assert till.paid_to(withdrawal.destination) == 2_996_000


def test_a_reorg_puts_the_payment_in_the_place_of_the_rescue(till: RescuingTill) -> None:
    withdrawal, payment = till.paying()
    raw = till.raw(payment)
    till.retire(2, "compromised")
    [rescue] = till.rescue()
    block = till.mine_with(till.txid(rescue))
    for _ in range(3):
        till.mine_with()
    till.track()
    till.check()
    assert till.transaction(rescue).state == "confirming"
    till.reorg(block)
    till.mine_with(raw)
    for _ in range(4):
        till.mine_with()
    till.track()
    till.check()
    assert till.transaction(rescue).state == "broadcast"
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.end()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(rescue).state == "dead"


def test_a_reorg_puts_the_rescue_in_the_place_of_the_payment_and_of_what_was_built_on_it(
    till: RescuingTill,
) -> None:
    """The payment's change could vanish with it: no rescue touches that before it is as deep as what is final."""
    withdrawal, payment = till.paying(1_000_000, 3_000_000, 2_000_000)
    raw = till.raw(payment)
    till.retire(2, "compromised")
    assert len(till.rescue()) == 2
    rescue = till.against(payment)
    block = till.mine_with(raw)
    till.track()
    assert till.rescue() == []
    till.reorg(block)
    till.mine_with(till.raw(rescue))
    till.mine_with()
    till.track()
    till.check()
    assert till.transaction(rescue).state == "confirming"
    assert till.transaction(payment).state == "contested"
    assert till.withdrawal(withdrawal.id).state == "broadcast"
    till.end()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert {each.state for each in till.rotations()} == {"confirmed"}


def test_a_reorg_below_what_was_final_that_brings_a_failed_payment_back_stops_all_paying(
    database: str, bitcoind: Bitcoind, tmp_path: Path
) -> None:
    """Its customer has had his money back. Nobody can undo that, but nobody overlooks it either; and the old keys'
    coins are still counted exactly."""
    till = RescuingTill(database, bitcoind, tmp_path)
    try:
        withdrawal, _ = till.paying()
        raw = till.raw(till.transaction(till.query("SELECT id FROM transactions")[0]["id"]).id)
        till.retire(2, "compromised")
        [rescue] = till.rescue()
        block = till.mine(6)[0]
        till.track()
        assert till.withdrawal(withdrawal.id).state == "failed"
        till.reorg(block)
        till.mine_with(raw)
        for _ in range(7):
            till.mine_with()
        till.track()
        assert till.transaction(rescue).state == "dead"
        assert till.broken_rules() == {6}
        till.enforce()
        assert till.halted() is not None
    finally:
        till.close()


def test_a_consolidation_that_waits_for_low_fees_keeps_no_coin_from_the_rescue(till: RescuingTill) -> None:
    till.customer("alice", 900_000, 300_000, 200_000, 100_000)
    few = SweepPace(consolidate_above_coins=1)
    assert sweep(till.db, till.site, few, now=int(time.time())) == 1
    [consolidation] = till.sign()
    till.broadcast()
    till.retire(2, "compromised")
    assert len(till.rescue()) == 2
    rescue = till.against(consolidation)
    assert till.spends(rescue) == till.spends(consolidation)
    assert till.txid(rescue) in till.mempool()
    till.settle()
    till.check()
    assert till.query("SELECT state FROM sweeps WHERE kind = 'consolidation'") == [{"state": "abandoned"}]
    till.end()


def test_a_crash_between_taking_the_coins_and_signing_changes_nothing(till: RescuingTill) -> None:
    withdrawal, payment = till.paying()
    till.retire(2, "compromised")
    assert till.rotate() == 1
    before = till.contents(), till.query("SELECT * FROM sweeps ORDER BY id")
    assert till.rotate() == 0
    assert (till.contents(), till.query("SELECT * FROM sweeps ORDER BY id")) == before
    assert [row["transaction_id"] for row in till.query("SELECT transaction_id FROM reservations")] == [
        till.one("signing").transaction_id
    ]
    till.out()
    till.out()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.transaction(payment).state == "dead"
    till.end()


def test_two_workers_that_take_the_coins_of_one_payment_at_once_record_one_rescue_of_each(
    till: RescuingTill,
) -> None:
    till.paying(1_000_000, 3_000_000, 2_000_000)
    till.retire(2, "compromised")
    start, made = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        made.append(till.rotate())

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(made) == len(till.rotations()) == 2
    till.out()
    till.settle()
    till.end()


def test_a_thief_who_spends_one_coin_first_keeps_none_of_the_others(till: RescuingTill) -> None:
    """He spoils the rescue that has it. The others' coins are moved by another at once, not once that is final."""
    till.customer("alice", 3_000_000, 2_000_000, 1_000_000)
    [coin] = till.query("SELECT resource FROM deposits WHERE units = 1000000")
    till.retire(2, "compromised")
    [first] = till.rescue()
    till.mine_with(till.spend_with_the_key(coin["resource"]))
    till.track()
    [second] = till.rescue()
    assert till.spends(second) == till.spends(first) - {coin["resource"]}
    assert till.txid(second) in till.mempool()
    till.settle()
    till.book_losses()
    till.settle()
    till.check()
    assert till.transaction(first).state == "dead"
    assert till.one("confirmed").transaction_id == second
    assert till.held(NEW) > 4_900_000
    till.end()


def test_a_thief_who_spends_the_coin_of_a_contested_payment_ends_it_like_any_other(
    till: RescuingTill,
) -> None:
    withdrawal, payment = till.paying(1_000_000, 3_000_000, 2_000_000)
    [coin] = till.spends(payment)
    till.retire(2, "compromised")
    till.rescue()
    till.mine_with(till.spend_with_the_key(coin))
    till.track()
    till.rescue()
    till.settle()
    till.book_losses()
    till.settle()
    till.check()
    assert till.transaction(payment).state == "dead"
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.frozen() == 0
    till.end()
    assert till.paid_to(withdrawal.destination) == 0


def test_many_coins_are_rescued_side_by_side_also_those_of_one_address(till: RescuingTill) -> None:
    till.customer("alice")
    address = till.address("alice")
    for units in (900_000, 800_000, 700_000, 600_000, 500_000):
        till.outside.send(address, units)
    till.mine(6)
    till.retire(2, "compromised")
    made = sweep(till.db, till.old_site, SweepPace(rescue_inputs=2), now=int(time.time()))
    assert made == 3
    assert sweep(till.db, till.old_site, SweepPace(rescue_inputs=2), now=int(time.time())) == 0
    till.out()
    rescued = [each.transaction_id for each in till.rotations() if each.transaction_id is not None]
    assert {till.txid(each) for each in rescued} <= till.mempool()
    assert sorted(len(till.spends(each)) for each in rescued) == [1, 2, 2]
    till.settle()
    till.check()
    assert [each.state for each in till.rotations()] == ["confirmed"] * 3
    till.end()
