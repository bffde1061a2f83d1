"""Paying: request, route, build, sign, broadcast, confirm, settle, on a real node, database, monitor and
guard."""

from __future__ import annotations

from ops.devnet.process import wait_until
from tests.fakes.till import Till
from tests.support.ruling import aged


def test_a_withdrawal_is_paid_and_settled(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    destination = till.outside.address()
    withdrawal = till.request(alice, 1_000_000, destination=destination)
    assert (till.balance(alice), till.balance(alice, "frozen")) == (1_950_000, 1_050_000)
    transaction_id = till.send()
    version = till.transaction(transaction_id).versions[0]
    assert version.txid in till.mempool()
    till.mine(1)
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.mine(5)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.paid_to(destination) == 1_000_000
    assert (till.balance(alice), till.balance(alice, "frozen")) == (1_950_000, 0)
    assert till.balance(None, "fees_earned") == 50_000
    assert till.balance(None, "network_fees") == -version.fee_units
    assert till.balance(None, "chain_assets") == -(3_000_000 - 1_000_000 - version.fee_units)
    assert [row["state"] for row in till.query("SELECT state FROM deposits")] == ["swept"]
    before = till.contents()
    for step in (till.route, till.build, till.sign, till.broadcast, till.track):
        step()
    assert till.contents() == before


def test_where_the_bundle_asks_for_ages_a_payment_waits_from_its_signers_first_sight_of_it(
    till: Till,
) -> None:
    till.customer("alice", 5_000_000)
    till.adopt(2, requirements=aged(delay=1))
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    assert till.withdrawal(withdrawal.id).state == "cooling"
    wait_until(
        lambda: till.route() == 0 and till.withdrawal(withdrawal.id).state == "queued",
        timeout=30,
        what="a delay",
    )
    first = till.build()
    assert first is not None
    assert till.sign() == []
    assert "too-young" in till.withdrawal(withdrawal.id).reason
    again = till.signed_when_old_enough()
    assert till.transaction(again).state == "broadcast"
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
