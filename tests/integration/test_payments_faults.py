"""FAULTS rows that concern paying, injected on a real node; after each the ledger equals the chain and what
is in flight."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.errors import NodeUnavailable
from custody.signing import reservations
from custody.signing.bump import bump
from custody.signing.lifecycle import TransactionState
from signers.ports import (
    AttestRequest,
    InputSignature,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from tests.fakes.rpc_proxy import Fault, RpcProxy, rpc_proxy
from tests.fakes.signing import CHAIN, DESTINATION
from tests.fakes.till import Till


@pytest.fixture
def proxy(till: Till) -> Iterator[RpcProxy]:
    """The till's payment steps reach the node through it; the monitor does not."""
    with rpc_proxy(till.bitcoind) as opened:
        node = BitcoinNode(CHAIN, NETWORKS["regtest"], opened.rpc_url, opened.rest_url, timeout_s=5)
        till.node.node = node
        yield opened
        till.node.node = till.adapter
        node.close()


class Interceptor:
    """The till's signer, with something in between."""

    def __init__(self, till: Till) -> None:
        self.inner = till.service
        self.requests: list[SignRequest] = []

    def status(self) -> SignerStatus:
        return self.inner.status()

    def attest(self, request: AttestRequest) -> SignedAttestation:
        return self.inner.attest(request)

    def sign(self, request: SignRequest) -> SignResponse:
        self.requests.append(request)
        return self.inner.sign(request)


# ------------------------------------------------------------------------------------------- signing and
# sending


def test_fault_3_when_the_reply_to_a_broadcast_is_lost_no_new_transaction_is_made(
    till: Till, proxy: RpcProxy
) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    till.sign()
    proxy.faults["sendrawtransaction"] = Fault.LOSE_REPLY
    with pytest.raises(NodeUnavailable):
        till.broadcast()
    signed = till.transaction(transaction_id).versions[0]
    assert signed.txid in till.mempool()
    assert till.states() == ["broadcast"]
    proxy.faults.clear()
    for _ in range(3):
        till.build()
        till.sign()
        till.broadcast()
    assert len(till.query("SELECT * FROM transactions")) == 1
    assert till.transaction(transaction_id).versions == (signed,)
    assert {params[0] for params in proxy.calls("sendrawtransaction")} == {signed.signed.hex()}  # type: ignore[union-attr]
    till.settle()
    assert till.states() == ["settled"]


def test_fault_4_a_node_that_says_yes_but_has_no_such_transaction_gets_it_again(
    till: Till, proxy: RpcProxy
) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    [txid] = [till.transaction(i).versions[0].txid or "" for i in till.sign()]
    proxy.faults["sendrawtransaction"] = Fault.FAKE
    proxy.fake_result["sendrawtransaction"] = txid
    till.broadcast()
    assert till.transaction(transaction_id).last_error
    assert "transaction.not_relayed" in till.alerts()
    assert till.mempool() == set()
    proxy.faults.clear()
    till.broadcast()
    assert txid in till.mempool()
    sent = [params[0] for params in proxy.calls("sendrawtransaction")]
    assert len(sent) == 2
    assert len(set(sent)) == 1
    assert "transaction.not_relayed" not in till.alerts()


def test_fault_5_what_was_evicted_from_the_mempool_is_sent_again_the_same(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    # To nobody's wallet: bitcoind's own wallets send what concerns them again by themselves.
    till.request(alice, 1_000_000, destination=DESTINATION)
    transaction_id = till.send()
    txid = till.transaction(transaction_id).versions[0].txid
    # The mempool is forgotten, as after a restart without saving it.
    till.bitcoind.stop()
    (till.bitcoind.data_directory / "regtest" / "mempool.dat").unlink()
    till.bitcoind.start()
    assert txid not in till.mempool()
    till.broadcast()
    assert txid in till.mempool()
    till.settle()
    assert till.states() == ["settled"]


def test_when_the_signers_answer_is_lost_the_same_request_brings_the_same_bytes(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.route()
    till.build()

    class Deaf(Interceptor):
        def sign(self, request: SignRequest) -> SignResponse:
            super().sign(request)
            raise SignerUnavailable("the answer was lost")

    till.signer = deaf = Deaf(till)
    with pytest.raises(SignerUnavailable):
        till.sign()
    assert till.states() == ["signing"]
    assert "signer.unavailable" in till.alerts()
    assert till.service.status().signed == 1
    till.signer = again = Interceptor(till)
    assert len(till.sign()) == 1
    assert again.requests == deaf.requests
    assert till.service.status().signed == 1
    assert "signer.unavailable" not in till.alerts()


def test_fault_31_a_wrong_signature_is_never_recorded_or_sent(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.route()
    till.build()

    class Broken(Interceptor):
        def sign(self, request: SignRequest) -> SignResponse:
            [item] = super().sign(request).signatures
            flipped = bytearray.fromhex(item.signature)
            flipped[20] ^= 1
            return SignResponse(
                signatures=(InputSignature(index=0, pubkey=item.pubkey, signature=flipped.hex()),)
            )

    till.signer = Broken(till)
    assert till.sign() == []
    assert "signer.wrong_signature" in till.alerts()
    assert till.broadcast() == 0
    till.signer = till.service
    assert len(till.sign()) == 1


def test_a_refusal_frees_the_withdrawals_the_coins_and_the_change_address_and_each_is_tried_alone(
    till: Till,
) -> None:
    alice = till.customer("alice", 9_000_000)
    good = till.request(alice, 1_000_000)
    bad = till.request(alice, 2_000_000)
    till.route()
    first = till.build()
    assert first is not None
    till.refuse(first)
    assert till.transaction(first).state == "refused"
    assert [till.withdrawal(w.id).state for w in (good, bad)] == ["queued", "queued"]
    assert till.query("SELECT * FROM reservations") == []
    assert till.balance(alice, "frozen") == 3_100_000
    assert till.service.status().signed == 0
    built = []
    while (transaction_id := till.build()) is not None:
        built.append(transaction_id)
        till.sign()
        till.broadcast()
        till.mine(1)
        till.track()
    assert len(built) == 2
    assert till.transaction(built[0]).change_index == till.transaction(first).change_index
    till.settle()
    assert till.states() == ["settled", "settled"]


def test_what_a_signer_refuses_because_of_another_bundle_is_decided_again_and_paid(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    paid = [till.request(alice, units) for units in (1_000_000, 2_000_000)]
    till.route()
    assert till.build() is not None
    till.adopt(2)
    assert till.sign() == []
    assert [till.withdrawal(each.id).state for each in paid] == ["queued", "queued"]
    assert till.build() is None, "what another policy has let through is not built"
    till.send()
    till.settle()
    assert till.states() == ["settled", "settled"]


def test_a_refused_bump_leaves_the_earlier_version_alive(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    bump(till.db, till.site, transaction_id, 30_000)
    till.adopt(2, network_fee_cap="1500")
    till.sign()
    assert till.transaction(transaction_id).state == "broadcast"
    assert [v.state for v in till.transaction(transaction_id).versions] == ["signed", "refused"]
    assert "signer.refused" in till.alerts()
    till.settle()
    assert till.states() == ["settled"]


# ------------------------------------------------------------------------------------------------ versions,
# races


@pytest.mark.parametrize("row", ["6", "28"])
def test_fault_6_and_28_when_the_older_version_is_mined_there_is_one_payment_and_its_own_fee_is_booked(
    till: Till, row: str
) -> None:
    alice = till.customer("alice", 9_000_000)
    destination = till.outside.address()
    till.request(alice, 1_000_000, destination=destination)
    transaction_id = till.send()
    bump(till.db, till.site, transaction_id, 20_000)
    till.sign()
    if row == "6":
        till.broadcast()
    first, second = till.transaction(transaction_id).versions
    assert first.signed is not None
    till.mine_with(first.signed.hex())
    till.track()
    found = till.transaction(transaction_id)
    assert (found.state, found.confirmed_txid) == ("confirming", first.txid)
    assert second.txid not in till.mempool()
    till.settle()
    assert till.states() == ["settled"]
    assert till.balance(None, "network_fees") == -first.fee_units
    assert till.paid_to(destination) == 1_000_000
    before = till.contents()
    till.broadcast()
    till.track()
    assert till.contents() == before


def test_after_a_reorg_the_other_version_may_confirm_and_its_fee_replaces_the_first_ones(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    bump(till.db, till.site, transaction_id, 20_000)
    till.sign()
    first, second = till.transaction(transaction_id).versions
    assert first.signed is not None
    assert second.signed is not None
    block = till.mine_with(first.signed.hex())
    till.mine(5)
    till.track()
    assert till.states() == ["settled"]
    assert till.balance(None, "network_fees") == -first.fee_units
    till.reorg(block)
    till.mine_with(second.signed.hex())
    till.mine(6)
    till.track()
    assert till.states() == ["settled"]
    assert till.transaction(transaction_id).confirmed_txid == second.txid
    assert till.balance(None, "network_fees") == -second.fee_units
    assert till.query("SELECT settlements FROM withdrawals") == [{"settlements": 2}]


def test_fault_18_of_many_workers_that_take_one_withdrawal_one_wins(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    till.route()
    barrier = threading.Barrier(4)
    built: list[UUID | None] = []

    def run() -> None:
        barrier.wait()
        built.append(till.build())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found is not None for found in built) == 1
    assert len(till.query("SELECT * FROM transactions")) == 1
    signed: list[UUID] = []
    threads = [threading.Thread(target=lambda: signed.extend(till.sign())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == 1
    assert till.service.status().signed == 1


def test_fault_20_the_database_refuses_one_coin_in_two_transactions(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    [reserved] = till.query("SELECT chain, resource FROM reservations")
    with pytest.raises(psycopg.errors.UniqueViolation), till.db.transaction() as tx:
        tx.execute(
            "INSERT INTO reservations VALUES (%s, %s, %s)",
            [reserved["chain"], reserved["resource"], transaction_id],
        )
    with till.db.transaction() as tx:
        assert reservations.reserve(tx, CHAIN, [reserved["resource"]], transaction_id) is False


def test_fault_20_workers_that_race_for_one_coin_make_one_transaction(till: Till) -> None:
    alice, bob = till.customer("alice", 5_000_000), till.customer("bob")
    # One coin, two withdrawals that become payable at different moments, many workers.
    till.request(alice, 1_000_000)
    till.route()
    barrier = threading.Barrier(3)

    def run() -> None:
        barrier.wait()
        till.build()

    till.request(alice, 1_500_000)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    till.route()
    for thread in threads:
        thread.join()
    assert bob == "bob"
    rows = till.query("SELECT resource, count(*) AS n FROM reservations GROUP BY resource")
    assert [row["n"] for row in rows] == [1]


# -------------------------------------------------------------------------------------------------------
# reorgs


def test_a_payment_undone_by_a_reorg_goes_back_to_broadcast_and_is_mined_again(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    [block] = till.mine(1)
    till.track()
    assert till.states() == ["confirming"]
    till.reorg(block)
    till.mine_with()
    till.mine_with()
    till.track()
    assert till.states() == ["broadcast"]
    till.check()
    till.broadcast()
    assert till.transaction(transaction_id).versions[0].txid in till.mempool()
    till.settle()
    assert till.states() == ["settled"]


def test_a_settled_payment_undone_by_a_deep_reorg_is_held_again_and_settles_again(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    fee = till.transaction(transaction_id).versions[0].fee_units
    blocks = till.mine(6)
    till.track()
    assert till.states() == ["settled"]
    till.reorg(blocks[0])
    for _ in range(7):
        till.mine_with()
    till.track()
    assert till.states() == ["broadcast"]
    assert (till.balance(alice, "frozen"), till.balance(None, "network_fees")) == (1_050_000, 0)
    assert till.balance(None, "fees_earned") == 0
    assert "transaction.final_undone" in till.alerts()
    assert [row["state"] for row in till.query("SELECT state FROM deposits")] == ["credited"]
    till.check()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"]
    assert (till.balance(alice, "frozen"), till.balance(None, "network_fees")) == (0, -fee)
    assert till.query("SELECT settlements FROM withdrawals") == [{"settlements": 2}]


def test_a_settled_payment_that_a_reorg_only_moves_to_another_block_stays_settled(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    version = till.transaction(transaction_id).versions[0]
    blocks = till.mine(6)
    till.track()
    before = till.query("SELECT * FROM ledger_lines ORDER BY id")
    till.reorg(blocks[0])
    assert version.signed is not None
    # The monitor is asleep; when it wakes, the other branch is longer and has the payment as deep.
    till.bitcoind.rpc("generateblock", till.outside.address(), [version.signed.hex()])
    till.outside.mine(7)
    till.catch_up()
    till.track()
    assert till.query("SELECT * FROM ledger_lines ORDER BY id") == before
    found = till.transaction(transaction_id)
    assert found.state == "final"
    [row] = till.query("SELECT hash FROM blocks WHERE height = %s", found.height)
    assert row["hash"] == found.block_hash


def test_a_payment_double_spent_for_good_fails_and_the_hold_is_released(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    transaction_id = till.send()
    till.mine_with(till.spend_with_the_key(till.bytes_of(transaction_id).resources[0]))
    for _ in range(4):
        till.mine(1)
        till.track()
        assert till.states() == ["broadcast"], "nothing is given up before the conflict is final"
    till.mine(1)
    till.track()
    ended = till.withdrawal(withdrawal.id)
    assert ended.state == "failed"
    assert "double-spent" in ended.reason
    assert till.transaction(transaction_id).state is TransactionState.DEAD
    assert (till.balance(alice), till.balance(alice, "frozen")) == (5_000_000, 0)
    assert "transaction.dead" in till.alerts()
    before = till.contents()
    till.broadcast()
    till.track()
    assert till.contents() == before
    assert till.broken_rules() == {7}
    assert till.book_losses() == 1
    assert till.balance(None, "suspense") == -5_000_000
    till.check()


def test_when_only_the_bumps_further_coin_is_double_spent_the_first_version_still_pays(till: Till) -> None:
    alice = till.customer("alice", 1_000_000, 500_150)
    till.request(alice, 500_000)
    transaction_id = till.send()
    bump(till.db, till.site, transaction_id, 10_000)
    till.sign()
    first, _ = till.transaction(transaction_id).versions
    added = set(till.bytes_of(transaction_id, 2).resources) - set(till.bytes_of(transaction_id, 1).resources)

    till.mine_with(till.spend_with_the_key(added.pop()))
    till.mine(6)
    till.track()
    # The first version was in the mempool all the time, so it was mined with the rest.
    assert till.transaction(transaction_id).confirmed_txid == first.txid
    assert till.states() == ["settled"]
    assert till.broken_rules() == {7}
    assert till.book_losses() == 1
    assert "coin.lost" in till.alerts()


def test_a_payment_whose_coin_a_reorg_removed_raises_an_alert_until_it_is_back(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    [deposit] = till.query("SELECT block_hash, txid FROM deposits")
    raw = till.bitcoind.rpc("getrawtransaction", deposit["txid"], 0, deposit["block_hash"])
    till.request(alice, 1_000_000)
    till.send()
    till.reorg(deposit["block_hash"])
    for _ in range(8):
        till.mine_with()
    till.track()
    assert "transaction.input_vanished" in till.alerts()
    assert till.book_losses() == 0, "a coin that exists no longer is none that was stolen"
    assert till.halted() is None
    assert till.states() == ["broadcast"]
    till.mine_with(raw)
    till.mine(6)
    till.track()
    assert "transaction.input_vanished" not in till.alerts()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"]


def test_change_of_a_transaction_with_several_versions_is_not_spent_before_it_is_final(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    bump(till.db, till.site, transaction_id, 20_000)
    till.sign()
    till.broadcast()
    till.mine(1)
    till.track()
    later = till.request(alice, 1_000_000)
    till.route()
    assert till.build() is None
    assert "insufficient-hot-funds" in till.withdrawal(later.id).reason
    till.mine(5)
    till.track()
    assert till.build() is not None
