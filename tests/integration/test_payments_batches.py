"""Batches, change, fees: many withdrawals in one transaction, every type of output, limits of funds and fees,
bumps."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from uuid import UUID

import pytest

from chains.btc.script import classify
from chains.btc.tx import RBF_SEQUENCE
from custody.ids import new_id
from custody.signing.bump import bump, bump_requested, bump_stuck
from custody.signing.errors import BumpRefused, Raced
from policies.intent import Kind
from tests.fakes.till import EAGER, Till


def test_many_withdrawals_of_all_standard_types_go_in_one_transaction_with_change(till: Till) -> None:
    alice, bob = till.customer("alice", 4_000_000, 3_000_000), till.customer("bob", 5_000_000)
    types = {"p2pkh": "legacy", "p2sh": "p2sh-segwit", "p2wpkh": "bech32", "p2tr": "bech32m"}
    paid = {till.outside.address(kind): 100_000 + n for n, kind in enumerate(types.values())}
    wsh = till.bitcoind.rpc("decodescript", "5121" + "02" + "11" * 32 + "51ae")["segwit"]["address"]
    paid[wsh] = 200_000
    for n, (destination, units) in enumerate(paid.items()):
        till.request(alice if n % 2 else bob, units, destination=destination)
    till.request(bob, 100_000, destination=wsh)
    transaction_id = till.send()
    tx = till.bytes_of(transaction_id)
    assert {classify(output.script) for output in tx.outputs} == {*types, "p2wsh"}
    assert len(tx.outputs) == len(paid) + 2
    assert tx.version == 2
    assert tx.locktime == 0
    assert all(txin.sequence == RBF_SEQUENCE for txin in tx.inputs)
    version = till.transaction(transaction_id).versions[0]
    assert tx.vsize <= version.size
    assert version.fee_units >= tx.vsize
    till.settle()
    assert set(till.states()) == {"settled"}
    for destination, units in paid.items():
        if destination != wsh:
            assert till.paid_to(destination) == units
    assert till.balance(None, "fees_earned") == 6 * 50_000
    assert till.balance(None, "network_fees") == -version.fee_units
    [change] = till.query("SELECT purpose, index FROM addresses WHERE purpose = 'change'")
    assert change["index"] == 0


def test_withdrawals_gather_until_the_oldest_has_waited_long_enough_and_share_a_transaction(
    till: Till,
) -> None:
    till.pace = replace(EAGER, gather_seconds=60)
    alice, bob = till.customer("alice", 4_000_000), till.customer("bob", 5_000_000)
    first = till.request(alice, 1_000_000)
    till.route()
    assert till.build() is None
    till.execute("UPDATE withdrawals SET updated_at = now() - interval '30 seconds'")
    till.request(bob, 1_000_000)
    till.route()
    before = till.contents()
    assert till.build() is None
    assert till.contents() == before
    till.execute(
        "UPDATE withdrawals SET updated_at = updated_at - interval '31 seconds' WHERE id = %s", first.id
    )
    transaction_id = till.build()
    assert till.states() == ["signing", "signing"]
    assert {row["transaction_id"] for row in till.query("SELECT transaction_id FROM withdrawals")} == {
        transaction_id
    }


def test_a_full_batch_waits_for_nobody(till: Till) -> None:
    till.pace = replace(EAGER, gather_seconds=60, batch_payments=2)
    alice = till.customer("alice", 4_000_000, 4_000_000)
    for _ in range(3):
        till.request(alice, 1_000_000)
    till.route()
    assert till.build() is not None
    assert till.build() is None
    assert sorted(till.states()) == ["queued", "signing", "signing"]


def test_a_coin_that_fits_is_paid_without_change(till: Till) -> None:
    alice = till.customer("alice", 1_000_000, 500_150)
    till.request(alice, 500_000, fee_ceiling="1000")
    transaction_id = till.send()
    tx = till.bytes_of(transaction_id)
    assert (len(tx.inputs), len(tx.outputs)) == (1, 1)
    assert till.transaction(transaction_id).change_index is None
    assert till.transaction(transaction_id).versions[0].fee_units == 150
    till.settle()
    assert till.states() == ["settled"]


def test_change_is_spent_again_and_gets_an_address_of_its_own_each_time(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    for _ in range(3):
        till.request(alice, 1_000_000)
        till.send()
        till.mine(1)
        till.track()
    till.settle()
    assert till.states() == ["settled"] * 3
    indexes = till.query("SELECT change_index FROM transactions ORDER BY created_at")
    assert [row["change_index"] for row in indexes] == [0, 1, 2]


def test_what_the_hot_wallet_cannot_cover_waits_with_the_reason_and_an_alert_and_does_not_stop_others(
    till: Till,
) -> None:
    alice, bob = till.customer("alice", 5_000_000), till.customer("bob", 5_000_000)
    # Half of the money is gone from the hot wallet, as if it lay in a colder tier.
    till.execute("UPDATE deposits SET state = 'swept' WHERE customer_id = 'alice'")
    large, small = till.request(alice, 4_900_000), till.request(bob, 4_000_000)
    transaction_id = till.send()
    waiting = till.withdrawal(large.id)
    assert (waiting.state, till.withdrawal(small.id).state) == ("queued", "broadcast")
    assert "insufficient-hot-funds" in waiting.reason
    assert "tier.insufficient_funds" in till.alerts()
    assert till.withdrawal(small.id).transaction_id == transaction_id
    till.execute("UPDATE deposits SET state = 'credited' WHERE customer_id = 'alice'")
    assert till.build() is not None
    assert "tier.insufficient_funds" not in till.alerts()
    till.sign()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled", "settled"]


def test_a_fee_ceiling_below_what_the_network_asks_waits_and_does_not_stop_others(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.price(50_000)
    poor = till.request(alice, 1_000_000, fee_ceiling="1000")
    rich = till.request(alice, 1_000_000, fee_ceiling="20000")
    till.send()
    assert till.withdrawal(poor.id).state == "queued"
    assert "fee-ceiling" in till.withdrawal(poor.id).reason
    assert till.withdrawal(rich.id).state == "broadcast"
    since = till.withdrawal(poor.id).updated_at
    assert till.build() is None
    assert till.withdrawal(poor.id).updated_at == since  # so that one that waits too long is found
    till.settle()
    till.price(2_000)
    till.send()
    till.settle()
    assert till.states() == ["settled", "settled"]


def test_while_the_mempool_takes_only_more_than_the_cap_everything_waits(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    till.price(50_000, mempool_sat_per_kvb=100_001)
    assert till.build() is None
    assert "fees-above-cap" in till.withdrawal(withdrawal.id).reason
    till.price(500_000)
    transaction_id = till.build()
    assert transaction_id is not None
    assert till.transaction(transaction_id).versions[0].feerate <= 100_000


def test_the_request_names_one_intent_for_each_order_and_carries_the_orders_verbatim(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    withdrawals = [till.request(alice, 1_000_000 + n) for n in range(3)]
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    request = json.loads(till.transaction(transaction_id).versions[0].request)
    assert {intent["id"] for intent in request["intents"]} == {str(w.id) for w in withdrawals}
    assert {intent["kind"] for intent in request["intents"]} == {Kind.PAYMENT}
    orders = {signed["order"]["id"]: signed for signed in request["evidence"]["orders"]}
    for withdrawal in withdrawals:
        assert orders[str(withdrawal.id)]["signature"] == withdrawal.order_signature


# -------------------------------------------------------------------------------------------------------
# bumps


def test_a_bump_keeps_the_inputs_pays_the_same_and_takes_the_fee_from_the_change(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    withdrawal = till.request(alice, 1_000_000)
    transaction_id = till.send()
    assert bump(till.db, till.site, transaction_id, 20_000) == 2
    assert till.sign() == [transaction_id]
    till.broadcast()
    first, second = till.transaction(transaction_id).versions
    assert first.txid not in till.mempool()
    assert second.txid in till.mempool()
    old, new = till.bytes_of(transaction_id, 1), till.bytes_of(transaction_id, 2)
    assert set(old.resources) == set(new.resources)
    payment = [output for output in old.outputs if output.units == 1_000_000]
    assert [output for output in new.outputs if output.units == 1_000_000] == payment
    assert {output.script for output in old.outputs} == {output.script for output in new.outputs}
    assert second.fee_units >= 20 * new.vsize
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.balance(None, "network_fees") == -second.fee_units


def test_a_bump_without_change_takes_further_coins_and_keeps_the_old_ones(till: Till) -> None:
    alice = till.customer("alice", 1_000_000, 500_150)
    till.request(alice, 500_000)
    transaction_id = till.send()
    assert till.transaction(transaction_id).change_index is None
    bump(till.db, till.site, transaction_id, 10_000)
    till.sign()
    till.broadcast()
    old, new = till.bytes_of(transaction_id, 1), till.bytes_of(transaction_id, 2)
    assert set(old.resources) < set(new.resources)
    assert new.txid.hex in till.mempool()
    assert till.query("SELECT count(*) AS n FROM reservations")[0]["n"] == 2
    till.settle()
    assert till.states() == ["settled"]


def test_a_bump_above_what_the_orders_allow_is_refused_and_changes_nothing(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000, fee_ceiling="2000")
    transaction_id = till.send()
    before = till.contents()
    with pytest.raises(BumpRefused, match=r"the orders allow 0\.00002000 BTC"):
        bump(till.db, till.site, transaction_id, 50_000)
    with pytest.raises(BumpRefused, match="the cap is"):
        bump(till.db, till.site, transaction_id, 100_001)
    assert till.contents() == before


def test_a_bump_to_no_more_than_it_pays_is_refused_and_changes_nothing(till: Till) -> None:
    # An operator who writes sat/vB where sat/kvB is meant must not get a dearer version for it.
    till.price(5_000)
    alice = till.customer("alice", 3_000_000)
    till.request(alice, 1_000_000)
    transaction = till.send()
    before = till.contents()
    for feerate in (20, till.transaction(transaction).versions[0].feerate):
        with pytest.raises(BumpRefused, match=r"pays .* already"):
            bump(till.db, till.site, transaction, feerate)
    assert till.contents() == before


def test_only_a_broadcast_unconfirmed_transaction_whose_change_is_unspent_is_bumped(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    with pytest.raises(BumpRefused, match="built"):
        bump(till.db, till.site, transaction_id, 20_000)
    with pytest.raises(BumpRefused, match="there is no transaction"):
        bump(till.db, till.site, new_id(), 20_000)
    till.sign()
    bump(till.db, till.site, transaction_id, 20_000)
    with pytest.raises(BumpRefused, match="waits for the signer"):
        bump(till.db, till.site, transaction_id, 30_000)
    till.sign()
    till.broadcast()
    till.mine(1)
    till.track()
    with pytest.raises(BumpRefused, match="confirming"):
        bump(till.db, till.site, transaction_id, 30_000)


def test_of_two_workers_that_bump_at_once_one_makes_the_next_version(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(bump(till.db, till.site, transaction_id, 20_000))
        except (Raced, BumpRefused) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(2) == 1
    assert len(till.transaction(transaction_id).versions) == 2


def test_an_operators_request_is_carried_out_once_and_gets_an_outcome(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()

    def ask(feerate: int | None) -> UUID:
        request_id = new_id()
        with till.api.transaction() as tx:
            tx.execute(
                "INSERT INTO bump_requests (id, transaction_id, feerate, requested_by) VALUES (%s, %s, %s, 'ops')",
                [request_id, transaction_id, feerate],
            )
        return request_id

    def outcome(request_id: UUID) -> str:
        [row] = till.query(
            "SELECT outcome FROM bump_requests WHERE id = %s AND done_at IS NOT NULL", request_id
        )
        return str(row["outcome"])

    first = ask(15_000)
    assert bump_requested(till.db, till.site) == 1
    assert bump_requested(till.db, till.site) == 0
    assert outcome(first) == "version 2 was built"
    till.sign()
    second = ask(1_000_000)
    assert bump_requested(till.db, till.site) == 0
    assert "the cap is" in outcome(second)
    third = ask(None)
    assert bump_requested(till.db, till.site) == 1
    assert outcome(third) == "version 3 was built"


def test_fault_27_what_waits_for_blocks_below_the_estimate_is_bumped_up_to_the_cap_then_waits_with_an_alert(
    till: Till,
) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000, fee_ceiling="4000")
    till.price(2_000)
    transaction_id = till.send()
    till.pace = replace(EAGER, bump_after_blocks=2)
    till.price(10_000)
    assert bump_stuck(till.db, till.site) == 0
    # Blocks without the transaction: miners prefer others.
    till.mine_with()
    till.mine_with()
    assert bump_stuck(till.db, till.site) == 1
    till.sign()
    till.broadcast()
    assert till.transaction(transaction_id).versions[-1].feerate >= 10_000
    till.price(90_000)
    till.mine_with()
    till.mine_with()
    assert bump_stuck(till.db, till.site) == 0
    assert "transaction.bump_capped" in till.alerts()
    till.settle()
    assert till.states() == ["settled"]
    assert "transaction.bump_capped" not in till.alerts()
