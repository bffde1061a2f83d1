"""Coins of ours that a stranger spends, as if the key had leaked: paying halts, the loss is booked, and reversed by a
reorg; the identity of reconciliation is exact to the satoshi in between."""

from __future__ import annotations

import threading

from custody.errors import Conflict
from custody.signing.requests import read_request
from custody.storage import halts
from tests.fakes.till import Till


def test_a_coin_that_a_stranger_spends_halts_all_paying_at_once_and_is_booked_as_lost_when_that_is_final(
    till: Till,
) -> None:
    alice = till.customer("alice", 5_000_000, 3_000_000)
    [stolen] = till.query("SELECT resource FROM deposits WHERE units = 3000000")
    till.mine_with(till.spend_with_the_key(stolen["resource"]))
    assert till.book_losses() == 0
    assert "which is not ours" in (till.halted() or "")
    for _ in range(4):
        till.mine(1)
        assert till.book_losses() == 0, "nothing is booked before the foreign transaction is final"
        assert till.broken_rules() == {7}
    till.mine(1)
    assert till.book_losses() == 1
    assert (till.balance(None, "suspense"), till.balance(alice)) == (-3_000_000, 8_000_000)
    assert {"coin.lost", "coin.foreign_spend"} <= till.alerts()
    till.check()
    before = till.contents()
    assert till.book_losses() == 0
    assert till.contents() == before

    # An operator who has found out why lifts the halt, and it stays lifted. The alert stays open.
    with till.admin.transaction() as tx:
        halts.lift(tx, halts.ALL)
    assert till.book_losses() == 0
    assert till.halted() is None
    till.request(alice, 1_000_000)
    till.send()
    till.settle()
    assert till.states() == ["settled"]
    assert "coin.lost" in till.alerts()


def test_a_loss_is_reversed_when_a_reorg_undoes_it_and_booked_again_when_it_comes_back(till: Till) -> None:
    till.customer("alice", 5_000_000)
    [deposit] = till.query("SELECT resource FROM deposits")
    block = till.mine_with(till.spend_with_the_key(deposit["resource"]))
    till.mine(5)
    assert till.book_losses() == 1
    till.reorg(block)
    for _ in range(7):
        till.mine_with()
    assert till.broken_rules() == set()
    assert till.reconcile().statements[0].booked_not_lost_units == 5_000_000
    assert till.book_losses() == 1
    assert till.book_losses() == 0
    assert till.balance(None, "suspense") == 0
    assert "coin.lost" not in till.alerts()
    till.check()
    till.mine(6)
    assert till.broken_rules() == {7}
    assert till.book_losses() == 1
    assert till.balance(None, "suspense") == -5_000_000
    assert till.query("SELECT state, bookings FROM losses") == [{"state": "booked", "bookings": 2}]


def test_a_stolen_coin_that_was_in_no_balance_reconciles_too(till: Till) -> None:
    minimum = int(till.bundle.asset("BTC").minimum_deposit)
    till.outside.send(till.address(till.customer("alice")), minimum - 1)
    till.mine(6)
    [deposit] = till.query("SELECT resource, state FROM deposits")
    assert deposit["state"] == "below_minimum"
    till.mine_with(till.spend_with_the_key(deposit["resource"]))
    assert till.broken_rules() == {7}
    till.mine(5)
    assert till.book_losses() == 1


def test_our_own_payment_that_confirms_before_the_signers_answer_arrives_is_no_loss(till: Till) -> None:
    till.request(till.customer("alice", 1_000_000, 500_150), 500_000)  # without change
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    [version] = till.transaction(transaction_id).versions
    signed, _ = till.site.finish(version, till.signer.sign(read_request(version.request)))
    till.mine_with(signed.hex())
    till.mine(5)
    assert till.book_losses() == 0
    assert till.halted() is None
    assert till.sign() == [transaction_id]
    till.track()
    assert till.states() == ["settled"]


def test_of_workers_that_book_a_loss_at_once_one_does(till: Till) -> None:
    till.customer("alice", 5_000_000)
    [deposit] = till.query("SELECT resource FROM deposits")
    till.mine_with(till.spend_with_the_key(deposit["resource"]))
    till.mine(5)
    booked: list[int] = []

    def run() -> None:
        try:
            booked.append(till.book_losses())
        except Conflict:
            booked.append(0)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    till.book_losses()
    assert sum(booked) <= 1
    assert till.balance(None, "suspense") == -5_000_000
