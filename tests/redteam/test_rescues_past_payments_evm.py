"""Rescues on EVM chains that meet payments of the same key: stuck, unanswered, mined after all, or brought back by a
reorg.

Payment and rescue have the same nonce, so one of both is mined. Whichever it is, the books are exact, no order is paid
twice, and nothing waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from chains.eth.tx import UnsignedTx
from custody.signing.bump import bump_stuck
from custody.signing.requests import read_request
from custody.signing.sign import sign
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.withdrawals.model import Withdrawal
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import GWEI
from tests.fakes.evm_signing import ETHER
from tests.fakes.evm_till import TillOutside
from tests.fakes.rescues import Rescues
from tests.fakes.teller import opened
from tests.integration.test_rotation_evm import NEW, USDX, RotatingTill

KEPT = ETHER * 3 // 5
"""More than the gas of everything that a rescue does here."""


class RescuingTill(Rescues, RotatingTill):
    """With payments on their way when the key is taken."""

    def paying(self, *units: int) -> list[tuple[Withdrawal, UUID]]:
        """Withdrawals of alice's, each with a payment of its own that is broadcast at a price that soon is too low."""
        self.fund()
        self.fund("USDX", 50 * USDX)
        self.customer("alice", ETH=20 * ETHER, USDX=500 * USDX)
        self.price(1, 1)
        return [(self.request("alice", each), self.send()) for each in units]

    def expensive(self, gwei: int = 50) -> None:
        """Blocks whose base fee what was sent so far does not pay."""
        self.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(gwei * GWEI))
        self.mine()
        self.node.price = None

    def nonce_of(self, transaction_id: UUID) -> int:
        return self.tx_of(transaction_id).nonce

    def at(self, nonce: int) -> list[UUID]:
        """What was recorded with a nonce, oldest first."""
        rows = self.query(
            "SELECT transaction_id FROM transaction_versions WHERE version = 1"
            " AND split_part(resources[1], ':', 2) = %s ORDER BY created_at",
            str(nonce),
        )
        return [row["transaction_id"] for row in rows]

    def next_nonce(self) -> int:
        return int(self.anvil.rpc("eth_getTransactionCount", self.world.record.address, "latest"), 16)

    def end(self) -> None:
        """As many rescues as it takes; the old key has next to nothing, and the books are exact."""
        for _ in range(4):
            self.later()
            self.rescue()
            self.settle()
            self.check()
        assert self.rotate() == 0, "again changes nothing"
        assert self.held(self.world.record.id, "ETH") < KEPT + self.at_forwarders("ETH")
        assert self.has(self.world.record.address) < KEPT
        assert (
            self.query("SELECT 1 FROM transactions WHERE state IN ('built', 'broadcast', 'contested')") == []
        )

    def at_forwarders(self, asset: str) -> int:
        rows = self.query(
            "SELECT sum(units) AS n FROM deposits WHERE asset = %s AND state = 'credited'", asset
        )
        return int(rows[0]["n"] or 0)


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[RescuingTill]:
    with opened(RescuingTill(database, outside, tmp_path)) as till:
        yield till


def test_a_stuck_payment_does_not_keep_the_money_from_the_rescue(till: RescuingTill) -> None:
    [(withdrawal, payment)] = till.paying(ETHER)
    till.expensive()
    till.retire(2, "compromised")
    assert len(till.rescue()) == 2, "one for each asset"
    assert till.transaction(payment).state == "contested"
    till.expensive()
    till.track()
    till.check()
    assert till.has(till.new_keys.record.address) > 98 * ETHER, "whoever has the key finds next to nothing"
    assert till.has(till.new_keys.record.address, "USDX") == 50 * USDX
    assert till.withdrawal(withdrawal.id).state == "broadcast", "not before the rescue is final"
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.withdrawal(withdrawal.id).reason.startswith("overtaken by another of ours")
    assert (till.balance("alice"), till.balance("alice", "frozen")) == (20 * ETHER, 0)
    till.node.price = None
    again = till.request("alice", ETHER)
    till.send()
    till.settle()
    assert till.withdrawal(again.id).state == "settled"
    till.end()
    assert till.has(withdrawal.destination) == 0
    assert till.has(again.destination) == ETHER


def test_a_queue_of_stuck_payments_is_emptied_nonce_by_nonce(till: RescuingTill) -> None:
    """Two rotations move what there is. The other nonces are used up, or their orders would wait for ever."""
    queue = till.paying(ETHER, 2 * ETHER, 3 * ETHER, ETHER)
    first = till.nonce_of(queue[0][1])
    till.expensive()
    till.retire(2, "compromised")
    assert len(till.rescue()) == 4
    assert {till.transaction(payment).state for _, payment in queue} == {"contested"}
    assert [len(till.at(first + n)) for n in range(5)] == [2, 2, 2, 2, 0]
    assert till.rotate() == 0
    till.expensive()
    till.settle()
    till.check()
    assert till.states() == ["failed"] * 4
    assert till.balance("alice") == 20 * ETHER
    assert till.has(till.new_keys.record.address) > 98 * ETHER
    till.end()
    assert [till.has(withdrawal.destination) for withdrawal, _ in queue] == [0] * 4


def test_the_same_rescue_is_replaced_when_gas_becomes_dearer_still(till: RescuingTill) -> None:
    """Of two transactions with one nonce, the payment can be replaced no more."""
    [(withdrawal, _)] = till.paying(ETHER)
    till.expensive(20)
    till.retire(2, "compromised")
    [native, _] = till.rescue()
    for _ in range(till.pace.bump_after_blocks):
        till.expensive(60)
    assert bump_stuck(till.db, till.old_site) == 1
    assert len(till.transaction(native).versions) == 2
    till.out()
    till.expensive(60)
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    till.end()


def test_a_payment_that_offers_all_that_the_cap_allows_is_waited_for_and_people_are_told(
    till: RescuingTill,
) -> None:
    """No node takes anything in its place: the rescue follows it, and counts what it pays."""
    till.paying()
    cap = till.old_site.network.feerate_cap
    till.price(cap // GWEI // 2, 1)
    withdrawal = till.request("alice", ETHER, fee_ceiling=str(ETHER))
    payment = till.send()
    assert UnsignedTx.decode(till.transaction(payment).versions[0].unsigned).max_fee_per_gas_wei == cap
    till.node.price = None
    till.retire(2, "compromised")
    rescued = till.rescue()
    assert [till.nonce_of(each) - till.nonce_of(payment) for each in sorted(rescued, key=till.nonce_of)] == [
        1,
        2,
    ]
    assert till.transaction(payment).state == "broadcast"
    assert "rotation.capped" in till.alerts()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert "rotation.capped" not in till.alerts()
    till.end()


def test_a_payment_that_is_mined_although_a_rescue_was_sent_is_settled_and_the_rest_follows_at_once(
    till: RescuingTill,
) -> None:
    [(withdrawal, payment)] = till.paying(ETHER)
    raw = till.raw_of(payment)
    till.expensive()
    till.retire(2, "compromised")
    assert till.rotate() == 2
    [native] = [each for each in till.at(till.nonce_of(payment)) if each != payment]
    mine_alone(till, raw)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.rescue()
    assert till.transaction(native).state == "contested"
    till.mine()
    till.track()
    till.check()
    assert till.has(till.new_keys.record.address) > 97 * ETHER, "not only once the payment is final"
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(native).state == "dead"
    till.end()
    assert till.has(withdrawal.destination) == ETHER


def test_a_token_payment_that_is_mined_first_lets_the_rescue_of_that_token_fail_once_and_not_for_good(
    till: RescuingTill,
) -> None:
    till.paying()
    till.price(1, 1)
    withdrawal = till.request("alice", 10 * USDX, asset="USDX")
    payment = till.send()
    raw = till.raw_of(payment)
    till.expensive()
    till.retire(2, "compromised")
    assert till.rotate() == 2
    mine_alone(till, raw)
    till.track()
    till.rescue()
    till.mine()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.end()
    assert till.has(till.new_keys.record.address, "USDX") == 40 * USDX
    assert till.has(till.world.record.address, "USDX") == 0


def test_a_flush_to_the_compromised_key_is_overtaken_too(till: RescuingTill) -> None:
    """Forwarders pay nobody but their factory's treasury: what they hold stays out of the thief's reach that long."""
    till.paying()
    till.price(1, 1)
    till.node.price = None
    assert sweep(till.db, till.site, SweepPace(gather_seconds=0), now=int(time.time())) >= 1
    till.sign()
    till.broadcast()
    till.retire(2, "compromised")
    till.rescue()
    till.settle()
    till.check()
    assert {row["state"] for row in till.query("SELECT state FROM sweeps WHERE kind = 'sweep'")} == {
        "abandoned"
    }
    till.end()


def test_a_reorg_puts_the_payment_in_the_place_of_the_rescue(till: RescuingTill) -> None:
    [(withdrawal, payment)] = till.paying(ETHER)
    raw = till.raw_of(payment)
    till.expensive()
    till.retire(2, "compromised")
    till.rescue()
    [native] = [each for each in till.at(till.nonce_of(payment)) if each != payment]
    till.mine()
    till.track()
    assert till.transaction(native).state == "confirming"
    till.reorg(1)
    drop_pool(till)
    mine_alone(till, raw)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    assert till.transaction(native).state == "broadcast"
    till.end()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(native).state == "dead"
    assert till.has(withdrawal.destination) == ETHER


def test_a_rescue_that_counts_on_what_a_reorg_gave_to_another_does_not_stop_all_after_it(
    till: RescuingTill,
) -> None:
    """The payment was mined, so a second rescue moved what it left. Then the first was mined in its place."""
    [(withdrawal, payment)] = till.paying(ETHER)
    raw = till.raw_of(payment)
    till.expensive()
    till.retire(2, "compromised")
    assert till.rotate() == 2
    [first] = [each for each in till.at(till.nonce_of(payment)) if each != payment]
    sign(till.db, till.old_site, till.signer)
    mine_alone(till, raw)
    till.track()
    [second] = till.rescue()
    assert till.transaction(first).state == "contested"
    till.reorg(1)
    drop_pool(till)
    mine_alone(till, till.raw_of(first))
    till.track()
    till.check()
    assert till.transaction(first).state == "confirming"
    till.out()
    till.expensive()
    till.track()
    assert till.next_nonce() == till.nonce_of(second), "it is next, and moves more than is left"
    till.fund(units=2 * ETHER)
    till.end()
    assert till.transaction(second).state == "dead"
    assert till.withdrawal(withdrawal.id).state == "failed"


def test_a_payment_whose_answer_was_lost_does_not_hold_up_the_rescue(till: RescuingTill) -> None:
    till.fund()
    till.customer("alice", ETH=3 * ETHER)
    withdrawal = till.request("alice", ETHER)
    till.route()
    payment = till.build()
    assert payment is not None
    till.signer.sign(read_request(till.transaction(payment).versions[0].request))
    till.retire(2, "compromised")
    till.out()
    assert till.withdrawal(withdrawal.id).state == "signing"
    till.rescue()
    till.settle()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.balance("alice") == 3 * ETHER
    till.end()


def test_a_crash_between_taking_a_nonce_and_signing_changes_nothing(till: RescuingTill) -> None:
    till.paying(ETHER, ETHER, ETHER)
    till.expensive()
    till.retire(2, "compromised")
    assert till.rotate() == 3
    before = till.contents(), till.query("SELECT * FROM sweeps ORDER BY id")
    assert till.rotate() == 0
    assert (till.contents(), till.query("SELECT * FROM sweeps ORDER BY id")) == before
    till.out()
    till.expensive()
    till.settle()
    assert till.states() == ["failed"] * 3
    till.end()


def test_two_workers_that_rescue_at_once_record_one_rotation_for_each_nonce(till: RescuingTill) -> None:
    queue = till.paying(ETHER, ETHER, ETHER)
    till.expensive()
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
    till.rotate()
    first = till.nonce_of(queue[0][1])
    assert [len(till.at(first + n)) for n in range(4)] == [2, 2, 2, 0]
    till.out()
    till.expensive()
    till.settle()
    assert till.states() == ["failed"] * 3
    till.end()


def test_a_thief_who_uses_the_nonce_first_does_not_keep_the_rest_until_that_is_final(
    till: RescuingTill,
) -> None:
    [(withdrawal, payment)] = till.paying(ETHER)
    nonce = till.nonce_of(payment)
    till.expensive()
    till.retire(2, "compromised")
    assert till.rotate() == 2
    drop_pool(till)
    thief = till.nobody()
    till.anvil.rpc(
        "eth_sendRawTransaction", "0x" + till.sign_with_the_key(thief, 10 * ETHER, nonce=nonce).hex()
    )
    till.mine()
    assert till.has(thief) == 10 * ETHER
    till.track()
    till.rescue()
    till.mine()
    assert till.has(till.new_keys.record.address) > 88 * ETHER
    till.settle()
    till.book_losses()
    till.enforce()
    till.settle()
    till.enforce()
    assert till.withdrawal(withdrawal.id).state == "failed"
    assert till.transaction(payment).state == "dead"
    till.end()
    assert till.held(NEW, "ETH") == till.has(till.new_keys.record.address)


def mine_alone(till: RescuingTill, raw: bytes) -> None:
    """A block with this transaction and nothing else of ours."""
    till.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    till.anvil.rpc("eth_sendRawTransaction", "0x" + raw.hex())
    till.mine()


def drop_pool(till: RescuingTill) -> None:
    """Nothing of ours waits at the node."""
    for txid in till.pool():
        till.anvil.rpc("anvil_dropTransaction", "0x" + txid)
