"""Whoever owns the database writes what he likes, as carefully as the ledger itself does. The verifier finds it, and
gives no verdict for the money that is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from custody.deposits.service import deposit_id
from custody.ledger import bookings
from custody.ledger.service import post
from custody.storage.db import Database
from ops.devnet.bitcoind import Bitcoind
from policies.intent import SignedOrder
from tests.fakes.api import as_role
from tests.fakes.forger import Forger, Place
from tests.fakes.till import Till
from tests.fakes.verifying import Verifying, verifying

BTC = 10**8
OWN_SATS = BTC // 100
"""What mallory has really paid in."""
WANTED_SATS = BTC
MALLORY = Place("mallory", "available")


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    """Not checked in the end: its books are cooked by then."""
    opened = Till(database, bitcoind, tmp_path)
    opened.customer("alice", 2 * BTC)
    opened.customer("mallory", OWN_SATS)
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: Till) -> Iterator[Verifying]:
    with verifying(till) as opened:
        assert opened.kinds() == set()
        assert opened.refusal(till.order("mallory", WANTED_SATS)) == {"not-covered"}
        yield opened


@pytest.fixture
def forger(till: Till) -> Forger:
    return Forger(till.admin)


def wallet(till: Till) -> str:
    return till.bundle.keysets[0].id


def caught(verifier: Verifying, *kinds: str, customer: str = "mallory") -> None:
    """These findings and no others, with this customer's ledger; no verdict for money that is not there; again so."""
    found = verifier.audit().findings
    assert {each.kind for each in found if each.customer == customer} == set(kinds), found
    assert verifier.refusal(verifier.till.order(customer, WANTED_SATS)) & {*kinds, "not-covered"}
    assert verifier.audit().findings == found
    assert {each.kind for each in verifier.verifier.auditor.standing()} >= set(kinds)


# ---------------------------------------------------------------------------------------------- credits by SQL


def test_a_credit_that_no_deposit_stands_behind(till: Till, verifier: Verifying, forger: Forger) -> None:
    forger.credit("mallory", WANTED_SATS, wallet=wallet(till), reference=bookings.deposit_reference(uuid4()))
    caught(verifier, "deposit-unproven")


def test_a_credit_with_a_deposit_that_is_on_no_chain(till: Till, verifier: Verifying, forger: Forger) -> None:
    [own] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'mallory'")
    made = forger.deposit(own, resource=f"{'ab' * 32}:0", txid="ab" * 32, units=WANTED_SATS)
    forger.credit("mallory", WANTED_SATS, wallet=wallet(till), reference=bookings.deposit_reference(made))
    caught(verifier, "deposit-not-on-chain")


def test_a_deposit_that_grew_in_its_row_and_in_the_ledger_alike(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    forger.run("UPDATE deposits SET units = %s WHERE customer_id = 'mallory'", WANTED_SATS)
    [transfer] = forger.rows(
        "SELECT t.id FROM ledger_transfers t JOIN deposits d ON t.reference = 'deposit:' || d.id"
        " WHERE d.customer_id = 'mallory'"
    )
    with forger.session() as tx:
        tx.execute(
            b"UPDATE ledger_lines SET amount = sign(amount) * %s, balance_after = balance_before + sign(amount) * %s"
            b" WHERE transfer_id = %s",
            [WANTED_SATS, WANTED_SATS, transfer["id"]],
        )
        for row in tx.all(b"SELECT account_id FROM ledger_lines WHERE transfer_id = %s", [transfer["id"]]):
            forger.recompute(tx, row["account_id"])
    caught(verifier, "deposit-not-on-chain")


def test_an_amount_that_was_edited_in_the_ledger_alone(verifier: Verifying, forger: Forger) -> None:
    forger.run(
        "UPDATE ledger_accounts SET balance = balance + %s WHERE customer_id = 'mallory' AND kind = 'available'",
        WANTED_SATS,
    )
    caught(verifier, "account-not-replayed")


def test_one_deposit_credited_to_two_customers(till: Till, verifier: Verifying, forger: Forger) -> None:
    [theirs] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'alice'")
    forger.credit("mallory", 2 * BTC, wallet=wallet(till), reference=bookings.deposit_reference(theirs["id"]))
    caught(verifier, "deposit-repeated")
    assert "deposit-repeated" in verifier.refusal(till.order("alice", BTC // 100))


def test_one_deposit_credited_again_under_an_id_of_its_own(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    [theirs] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'alice'")
    forger.run("ALTER TABLE deposits DROP CONSTRAINT deposits_chain_resource_key")
    made = forger.deposit(theirs, id=uuid4(), customer_id="mallory")
    forger.credit("mallory", 2 * BTC, wallet=wallet(till), reference=bookings.deposit_reference(made))
    caught(verifier, "deposit-edited")


def test_the_houses_change_credited_as_a_deposit(till: Till, verifier: Verifying, forger: Forger) -> None:
    till.request("alice", BTC // 100)
    till.send()
    till.settle()
    verifier.look()
    [change] = forger.rows(
        "SELECT r.*, a.id AS place FROM receipts r JOIN addresses a ON a.id = r.address_id WHERE a.purpose = 'change'"
    )
    [own] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'mallory'")
    forger.run("UPDATE addresses SET purpose = 'deposit', customer_id = 'mallory', attestation = '{}'"
               " WHERE id = %s", change["place"])  # fmt: skip
    made = forger.deposit(
        own,
        resource=change["resource"],
        txid=change["txid"],
        units=change["units"],
        address_id=change["place"],
        height=change["height"],
        block_hash=change["block_hash"],
    )
    forger.credit(
        "mallory", int(change["units"]), wallet=wallet(till), reference=bookings.deposit_reference(made)
    )
    caught(verifier, "address-unattested")


# ---------------------------------------------------------------------------------------- addresses and owners


def test_an_address_row_that_points_at_another_customer(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    forger.run("UPDATE addresses SET customer_id = 'mallory' WHERE customer_id = 'alice'")
    caught(verifier, "address-of-another")
    # And everything that hangs on it.
    forger.run("UPDATE deposits SET customer_id = 'mallory' WHERE customer_id = 'alice'")
    forger.run("DELETE FROM ledger_accounts WHERE customer_id = 'mallory'")
    forger.run("UPDATE ledger_accounts SET customer_id = 'mallory' WHERE customer_id = 'alice'")
    assert "address-of-another" in verifier.refusal(till.order("mallory", WANTED_SATS))


def test_an_address_that_was_swapped_for_another_one(till: Till, verifier: Verifying, forger: Forger) -> None:
    mine = till.outside.address()
    script = bytes.fromhex(till.bitcoind.rpc("validateaddress", mine)["scriptPubKey"])
    forger.run("UPDATE addresses SET address = %s, script = %s WHERE customer_id = 'alice'", mine, script)
    found = verifier.audit().findings
    assert {each.kind for each in found} == {"address-swapped"}
    assert {each.customer for each in found} == {"alice"}


def test_the_attestation_of_anothers_address_moved_to_ones_own_row(
    verifier: Verifying, forger: Forger
) -> None:
    forger.run(
        "UPDATE addresses SET attestation = (SELECT attestation FROM addresses WHERE customer_id = 'alice')"
        " WHERE customer_id = 'mallory'"
    )
    caught(verifier, "address-of-another")


def test_a_ledger_account_whose_owner_was_changed(till: Till, verifier: Verifying, forger: Forger) -> None:
    forger.run(
        "ALTER TABLE ledger_accounts DROP CONSTRAINT ledger_accounts_customer_id_kind_asset_wallet_key"
    )
    forger.run(
        "UPDATE ledger_accounts SET customer_id = CASE customer_id WHEN 'alice' THEN 'mallory' ELSE 'alice' END"
        " WHERE customer_id IS NOT NULL AND kind = 'available'"
    )
    caught(verifier, "deposit-edited")


# --------------------------------------------------------------------------------------- debits, holds, orders


def paid(till: Till, customer: str, units: int) -> UUID:
    """A payment on the chain, not yet settled in the ledger."""
    withdrawal = till.request(customer, units)
    till.send()
    return withdrawal.id


def test_debits_that_were_deleted_without_a_trace(till: Till, verifier: Verifying, forger: Forger) -> None:
    withdrawal = paid(till, "alice", BTC // 20)
    till.settle()
    rows = forger.rows("SELECT id FROM ledger_transfers WHERE reference = %s", f"withdrawal:{withdrawal}")
    forger.forget([row["id"] for row in rows])
    forger.run("DELETE FROM withdrawals WHERE id = %s", withdrawal)
    caught(verifier, "payment-not-debited", customer="alice")


def test_a_hold_that_is_given_back_though_its_payment_was_signed(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    withdrawal = paid(till, "alice", BTC // 20)
    with till.admin.transaction() as tx:
        post(tx, [bookings.release_withdrawal(withdrawal)])
    order = till.order("alice", 2 * BTC - BTC // 1000)
    verifier.follow()
    assert verifier.refusal(order) == {"not-known"}
    till.mine(6)
    assert verifier.look() == 1
    assert verifier.refusal(order) == {"payment-not-debited"}
    assert "payment-not-debited" in verifier.kinds()


def test_a_settlement_of_what_no_signer_has_paid(till: Till, verifier: Verifying) -> None:
    withdrawal = till.request("alice", BTC // 20)
    with till.admin.transaction() as tx:
        post(
            tx,
            [
                bookings.settle_withdrawal(
                    withdrawal.id,
                    1,
                    customer="alice",
                    asset="BTC",
                    wallet=wallet(till),
                    units=withdrawal.units,
                    fee_units=withdrawal.fee_units,
                )
            ],
        )
    caught(verifier, "payment-not-signed", customer="alice")


def test_an_order_that_nobody_has_signed(till: Till, verifier: Verifying, forger: Forger) -> None:
    signed = till.order("alice", BTC // 20)
    forged = SignedOrder(signed.order, till.house.stranger.sign(signed.order))
    row = till.request("alice", BTC // 20)
    forger.run("UPDATE withdrawals SET order_signature = %s WHERE id = %s", forged.signature, row.id)
    caught(verifier, "order-not-genuine", customer="alice")


def test_a_withdrawal_that_was_stored_with_a_fee_that_nobody_ever_charged(
    till: Till, verifier: Verifying
) -> None:
    signed = till.order("alice", BTC // 20)
    order = signed.order
    with till.api.transaction() as tx:
        tx.execute(
            b"INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
            b" order_json, order_signature, order_hash, state, expires_at)"
            b" VALUES (%s, %s, %s, %s, %s, %s, %s, 0, %s, %s, %s, 'requested', to_timestamp(%s))",
            [
                order.id,
                order.caller,
                order.customer,
                order.chain,
                order.asset,
                order.destination,
                order.units,
                order.canonical().decode(),
                signed.signature,
                order.digest_hex(),
                order.expires_at,
            ],
        )
        held = bookings.hold_withdrawal(
            UUID(order.id), customer="alice", asset="BTC", units=order.units, fee_units=0
        )
        post(tx, [held])
    assert {(each.kind, each.customer) for each in verifier.audit().findings} == {
        ("fee-not-charged", "alice")
    }
    assert verifier.refusal(signed) == {"fee-not-charged"}


def test_a_withdrawal_whose_row_was_edited(till: Till, verifier: Verifying, forger: Forger) -> None:
    row = till.request("alice", BTC // 20)
    for column, value in (("destination", till.outside.address()), ("units", 1), ("order_json", "{}")):
        forger.run(f"UPDATE withdrawals SET {column} = %s WHERE id = %s", value, row.id)
        assert {each.kind for each in verifier.audit().findings} == {"order-not-genuine"}
        forger.run(
            "UPDATE withdrawals SET destination = %s, units = %s, order_json = %s WHERE id = %s",
            row.destination,
            row.units,
            row.order_json,
            row.id,
        )
    assert verifier.kinds() == set()


def test_money_of_another_customer_taken_by_an_internal_payment(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    """Without an order of hers, and with one that pays somebody else."""
    outside = till.request("alice", WANTED_SATS // 10)
    for withdrawal, units, kinds in (
        (uuid4(), WANTED_SATS // 2, {"order-not-genuine"}),
        (outside.id, outside.units, {"internal-payment-misdirected", "order-not-genuine"}),
    ):
        if withdrawal != outside.id:
            with till.admin.transaction() as tx:
                post(
                    tx,
                    [
                        bookings.hold_withdrawal(
                            withdrawal, customer="alice", asset="BTC", units=units, fee_units=50_000
                        )
                    ],
                )
        with till.admin.transaction() as tx:
            post(
                tx,
                [
                    bookings.settle_internally(
                        withdrawal,
                        1,
                        customer="alice",
                        to_customer="mallory",
                        asset="BTC",
                        units=units,
                        fee_units=50_000,
                    )
                ],
            )
        caught(verifier, *kinds)


# ---------------------------------------------------------------------------------------------------- trading


def test_a_trading_balance_that_was_invented(verifier: Verifying, forger: Forger) -> None:
    trading = Place("mallory", "trading")
    forger.book(
        "batch:1",
        [(Place(None, "suspense"), -WANTED_SATS, "trade_sell"), (trading, WANTED_SATS, "trade_buy")],
    )
    forger.book("trading", [(trading, -WANTED_SATS, "transfer"), (MALLORY, WANTED_SATS, "transfer")])
    caught(verifier, "unexplained-transfer")


def test_invented_money_washed_through_another_customers_trades(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    till.enrol("straw")
    straw, mine = Place("straw", "trading"), Place("mallory", "trading")
    forger.book(
        "bonus", [(Place(None, "suspense"), -WANTED_SATS, "transfer"), (straw, WANTED_SATS, "transfer")]
    )
    trade = f"trade:{uuid4()}:1:0"
    forger.book(trade, [(straw, -WANTED_SATS, "trade_sell"), (mine, WANTED_SATS, "trade_buy")])
    forger.book("trading", [(mine, -WANTED_SATS, "transfer"), (MALLORY, WANTED_SATS, "transfer")])
    assert verifier.refusal(till.order("mallory", WANTED_SATS)) == {"unexplained-transfer", "trade-not-asked"}
    assert {each.customer for each in verifier.audit().findings} == {"", "mallory", "straw"}


def test_a_trade_that_no_trading_core_has_signed(till: Till, verifier: Verifying, forger: Forger) -> None:
    """Alice's money takes the form that trades have. The database can do that; the verifier asks who signed it."""
    hers, mine = Place("alice", "trading"), Place("mallory", "trading")
    forger.book("move", [(Place("alice", "available"), -BTC, "transfer"), (hers, BTC, "transfer")])
    forger.book(f"trade:{uuid4()}:1:0", [(hers, -BTC, "trade_sell"), (mine, BTC, "trade_buy")])
    forger.book("move", [(mine, -BTC, "transfer"), (MALLORY, BTC, "transfer")])
    assert verifier.refusal(till.order("mallory", BTC // 2)) == {"trade-not-asked"}
    found = {(each.kind, each.customer) for each in verifier.audit().findings}
    assert found == {
        ("trade-not-asked", "alice"),
        ("trade-not-asked", "mallory"),
        ("settlement-broken", ""),
    }


# ----------------------------------------------------------------------------------------- the online roles


@pytest.mark.parametrize("role", ["strongroom_monitor", "strongroom_worker"])
def test_what_an_online_role_credits_without_a_deposit(till: Till, verifier: Verifying, role: str) -> None:
    """Both may write transfers and lines, as they book deposits and settlements; the database believes them."""
    db = Database(as_role(till.dsn, role), application="stolen", pool_size=1)
    with db.transaction() as tx:
        post(
            tx,
            [
                bookings.credit_deposit(
                    deposit_id(till.chain, f"{'cd' * 32}:0"),
                    1,
                    customer="mallory",
                    asset="BTC",
                    wallet=wallet(till),
                    units=WANTED_SATS,
                )
            ],
        )
    db.close()
    caught(verifier, "deposit-unproven")


def test_the_monitors_role_makes_a_deposit_with_everything_that_belongs_to_it(
    till: Till, verifier: Verifying
) -> None:
    db = Database(as_role(till.dsn, "strongroom_monitor"), application="stolen", pool_size=1)
    resource = f"{'cd' * 32}:0"
    made = deposit_id(till.chain, resource)
    with db.transaction() as tx:
        tx.execute(
            b"INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state, height,"
            b" block_hash, confirmations, credits) SELECT %s, chain, %s, %s, address_id, customer_id, asset, %s, state,"
            b" height, block_hash, confirmations, 1 FROM deposits WHERE customer_id = 'mallory'",
            [made, resource, "cd" * 32, WANTED_SATS],
        )
        post(
            tx,
            [
                bookings.credit_deposit(
                    made, 1, customer="mallory", asset="BTC", wallet=wallet(till), units=WANTED_SATS
                )
            ],
        )
    db.close()
    caught(verifier, "deposit-not-on-chain")


def test_the_apis_role_gives_out_an_address_that_no_signer_has_attested(
    till: Till, verifier: Verifying
) -> None:
    mine = till.outside.address()
    script = bytes.fromhex(till.bitcoind.rpc("validateaddress", mine)["scriptPubKey"])
    with till.api.transaction() as tx:
        tx.execute(
            b"INSERT INTO addresses (chain, keyset, asset, customer_id, purpose, branch, index, address, script,"
            b" attestation) SELECT chain, keyset, asset, customer_id, purpose, branch, 4711, %s, %s, attestation"
            b" FROM addresses WHERE customer_id = 'alice'",
            [mine, script],
        )
    assert {(each.kind, each.customer) for each in verifier.audit().findings} == {
        ("address-swapped", "alice")
    }


# ------------------------------------------------------------------------------------------------ two at a time


def test_a_history_rewritten_between_two_verdicts_covers_one_of_them(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    """The hold of the first order is forgotten, and its money held for a second one, before either is signed."""
    first = till.request("alice", BTC + BTC // 2)
    verifier.verdict(first.signed_order)
    rows = forger.rows("SELECT id FROM ledger_transfers WHERE reference = %s", f"withdrawal:{first.id}")
    forger.forget([row["id"] for row in rows])
    forger.run("DELETE FROM withdrawals WHERE id = %s", first.id)
    second = till.request("alice", BTC + BTC // 2)
    assert verifier.refusal(second.signed_order) == {"not-covered"}
    later = int(time.time()) + 3 * 3600
    verifier.clock = lambda: later
    fresh = till.order("alice", BTC // 100, expires_at=later + 600)
    assert verifier.refusal(fresh) == set()


def test_rows_that_no_ledger_has_do_not_end_the_verifier(
    till: Till, verifier: Verifying, forger: Forger
) -> None:
    """Whoever owns the tables can put anything into them: it is found, and the others' ledgers are examined all the
    same."""
    forger.run("ALTER TABLE ledger_lines ALTER COLUMN amount DROP NOT NULL")
    forger.run(
        "UPDATE ledger_lines SET amount = NULL WHERE account_id IN"
        " (SELECT id FROM ledger_accounts WHERE customer_id = 'mallory')"
    )
    found = verifier.audit().findings
    assert ("unreadable", "mallory") in {(each.kind, each.customer) for each in found}
    assert not {each for each in found if each.customer == "alice"}
    assert verifier.refusal(till.order("mallory", 1000)) == {"unreadable"}
    assert verifier.refusal(till.order("alice", BTC // 100)) == set()
