"""Somebody with the API's SQL rights, and a customer to share with: no order is paid from money that is not held."""

from __future__ import annotations

import secrets
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg

from custody.ids import new_id
from custody.ledger import service as ledger
from custody.ledger.bookings import withdrawal_hold_id, withdrawal_reference
from custody.ledger.model import Hold, LineType, VoidHold
from custody.storage.db import Tx
from custody.withdrawals import repository, service
from tests.fakes.till import Till
from tests.support.ledger import write_lines


@pytest.mark.parametrize("moment", ["requested", "queued", "broadcast"])
def test_it_cannot_release_the_hold_of_a_withdrawal_that_may_be_paid(till: Till, moment: str) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    if moment == "queued":
        till.route()
    if moment == "broadcast":
        till.send()
    with pytest.raises(pg.InsufficientPrivilege), till.api.transaction() as tx:
        service.release(tx, withdrawal)
    assert till.balance(alice, "frozen") == 1_050_000


def test_it_cannot_move_frozen_money_back_beside_the_hold(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    with pytest.raises(pg.InsufficientPrivilege), till.api.transaction() as tx:
        _unfreeze_by_hand(tx, 1_050_000, parent=None)
    assert till.balance(alice, "frozen") == 1_050_000


def test_it_cannot_void_an_invented_hold_of_a_cancelled_withdrawal_with_money_that_another_holds(
    till: Till,
) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    cancelled = till.request(alice, 1_000_000)
    with till.api.transaction() as tx:
        service.cancel(tx, cancelled.id, till.caller)

    def invent_and_void() -> None:
        with till.api.transaction() as tx:
            hold = _hold_in_words(tx, 1_050_000, withdrawal_reference(cancelled.id))
            ledger.post_all(tx, [VoidHold(uuid4(), hold, "")])

    with pytest.raises(pg.InsufficientPrivilege):
        invent_and_void()
    assert till.balance(alice, "frozen") == 1_050_000


def _hold_in_words(tx: Tx, units: int, reference: str) -> UUID:
    """A hold for which nothing is frozen."""
    hold = uuid4()
    tx.execute(
        "INSERT INTO ledger_transfers (id, kind, content_hash, reference, legs) VALUES (%s, 'hold', %s, %s, 2)",
        [hold, secrets.token_bytes(32), reference],
    )
    tx.execute(
        "INSERT INTO ledger_holds (id, customer_id, asset, units) VALUES (%s, 'alice', 'BTC', %s)",
        [hold, units],
    )
    return hold


def test_what_a_cancelled_withdrawal_held_comes_back_once(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    cancelled = till.request(alice, 1_000_000)
    with till.api.transaction() as tx:
        service.cancel(tx, cancelled.id, till.caller)
    assert till.balance(alice) == 5_000_000 - 1_050_000
    with pytest.raises(psycopg.Error), till.api.transaction() as tx:
        _unfreeze_by_hand(tx, 1_050_000, parent=withdrawal_hold_id(cancelled.id))
    assert till.balance(alice) == 5_000_000 - 1_050_000


def _unfreeze_by_hand(tx: Tx, units: int, *, parent: UUID | None) -> None:
    """Alice's frozen money goes back, with or without a hold as the excuse for it, pending or not."""
    transfer = uuid4()
    tx.execute(
        "INSERT INTO ledger_transfers (id, kind, content_hash, parent_id, legs) VALUES (%s, %s, %s, %s, 2)",
        [transfer, "immediate" if parent is None else "void", secrets.token_bytes(32), parent],
    )
    rows = {
        row["kind"]: row
        for row in tx.all(
            "SELECT id, kind, balance, last_seq FROM ledger_accounts WHERE customer_id = 'alice'"
        )
    }
    legs = (("frozen", -units), ("available", units))
    lines = [
        (transfer, row["id"], row["last_seq"] + 1, LineType.UNFREEZE, amount, int(row["balance"]))
        for row, amount in ((rows[kind], amount) for kind, amount in legs)
    ]
    write_lines(tx._connection, lines)


@pytest.mark.parametrize("held", ["nothing", "too little", "another's money", "only in words"])
def test_it_cannot_ask_for_a_payment_without_the_money_for_it(till: Till, held: str) -> None:
    alice, bob = till.customer("alice", 1_000_000), till.customer("bob", 2_000_000)
    donor = till.request(bob, 900_000)
    signed = till.order(alice, 900_000)  # its caller has signed it, and the API would say no
    wanted = replace(
        donor,
        id=UUID(signed.order.id),
        customer=alice,
        destination=signed.order.destination,
        order_json=signed.order.canonical().decode(),
        order_signature=signed.signature,
        order_hash=signed.order.digest_hex(),
    )

    def ask() -> None:
        with till.api.transaction() as tx:
            repository.insert(tx, wanted)
            reference = withdrawal_reference(wanted.id)
            match held:
                case "too little":
                    ledger.post_all(tx, [Hold(new_id(), alice, "BTC", 500_000, reference)])
                case "another's money":
                    ledger.post_all(tx, [Hold(new_id(), bob, "BTC", 950_000, reference)])
                case "only in words":
                    _hold_in_words(tx, 950_000, reference)

    with pytest.raises(pg.InsufficientPrivilege):
        ask()
    assert [row["customer_id"] for row in till.query("SELECT customer_id FROM withdrawals")] == ["bob"]
