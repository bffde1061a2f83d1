"""Consolidation on a real node: small coins become one, the books see a network fee and nothing else."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import msgspec
import pytest

from chains.errors import TransientError
from custody.ids import new_id
from custody.signing.bump import bump_stuck
from custody.signing.reservations import reserve
from custody.sweeps import readmodel
from custody.sweeps.lifecycle import SweepState
from custody.sweeps.model import Sweep, SweepPace
from custody.sweeps.service import sweep
from custody.treasury.holdings import holdings, watch_excess
from custody.withdrawals import service
from policies.rules import Holding, Operation, Policy, Rule, When
from signers.ports import Reason, Refused, SignRequest, SignResponse
from tests.fakes.signing import AMOUNTS
from tests.fakes.till import Till

PACE = SweepPace(consolidate_above_coins=5, small_coin_sats=100_000, max_inputs=50)
SMALL = [30_000 + 1_000 * n for n in range(8)]


def run(till: Till, pace: SweepPace = PACE, *, later_seconds: int = 0) -> int:
    return sweep(till.db, till.site, pace, now=int(time.time()) + later_seconds)


def sweeps(till: Till) -> list[Sweep]:
    with till.admin.snapshot() as tx:
        return list(readmodel.shown(tx, limit=100))


def only(till: Till) -> Sweep:
    [found] = sweeps(till)
    return found


def swept(till: Till) -> list[int]:
    rows = till.query("SELECT units FROM deposits WHERE state = 'swept' ORDER BY units")
    return [int(row["units"]) for row in rows]


def test_many_small_coins_become_one_and_the_ledger_sees_only_the_network_fee(till: Till) -> None:
    alice = till.customer("alice", *SMALL, 5_000_000)
    assert run(till) == 1
    assert run(till) == 0, "one at a time"
    planned = only(till)
    assert (planned.kind, planned.state, planned.reason) == ("consolidation", SweepState.SIGNING, "many")
    assert planned.units == {"BTC": sum(SMALL)}
    assert planned.addresses == 8
    [transaction_id] = till.sign()
    till.broadcast()
    assert only(till).state is SweepState.BROADCAST
    assert only(till).txid in till.mempool()
    till.check()
    till.settle()
    assert only(till).state is SweepState.CONFIRMED
    assert swept(till) == SMALL
    tx = till.bytes_of(transaction_id)
    fee_sats = sum(SMALL) - tx.outputs[0].units
    assert (len(tx.inputs), len(tx.outputs)) == (8, 1)
    assert till.balance(None, "network_fees") == -fee_sats
    assert till.balance(alice) == sum(SMALL) + 5_000_000
    before = till.contents()
    till.track()
    assert run(till) == 0
    assert till.contents() == before, "again changes nothing"
    till.request(alice, 4_900_000)
    till.send()
    till.settle()
    assert till.states() == ["settled"], "what was gathered can be spent, together with the rest"


def test_fees_that_are_not_low_and_coins_that_are_not_many_leave_all_where_it_is(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    till.price(till.pace.long_term_sat_per_kvb)
    assert run(till) == 0
    till.price(till.pace.long_term_sat_per_kvb, mempool_sat_per_kvb=200_000)
    assert run(till) == 0
    till.price(1_000)
    assert run(till, replace(PACE, consolidate_above_coins=8)) == 0
    assert run(till, replace(PACE, consolidate_above_coins=7)) == 1


def test_payments_come_first_and_coins_they_may_need_are_left_to_them(till: Till) -> None:
    alice = till.customer("alice", *SMALL, 300_000)
    first = till.request(alice, 400_000)
    till.request(alice, 50_000)
    assert run(till) == 0, "both payments need more than what would be left"
    till.route()
    with till.api.transaction() as tx:
        service.cancel(tx, first.id, till.caller)
    assert run(till) == 1
    till.build()
    assert len(till.sign()) == 2, "what was left pays the other at once"
    till.broadcast()
    till.settle()
    assert till.states() == ["cancelled", "settled"]
    assert only(till).state is SweepState.CONFIRMED


def test_coins_of_a_held_deposit_are_not_gathered(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    [row] = till.query("SELECT id, resource FROM deposits WHERE units = %s", SMALL[0])
    till.execute("ALTER TABLE deposits DISABLE TRIGGER deposits_lifecycle")
    till.execute("UPDATE deposits SET state = 'quarantined' WHERE id = %s", row["id"])
    assert run(till) == 1
    till.sign()
    [transaction] = till.query("SELECT resources FROM transaction_versions")
    till.execute("UPDATE deposits SET state = 'credited' WHERE id = %s", row["id"])
    till.execute("ALTER TABLE deposits ENABLE TRIGGER deposits_lifecycle")
    assert row["resource"] not in transaction["resources"]


def test_fault_1_and_9_the_same_bytes_are_sent_after_a_crash_and_after_a_reorg(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    run(till)
    [transaction_id] = till.sign()
    # Here the worker dies. The next one finds the signed bytes, and sends these.
    assert till.sign() == []
    till.broadcast()
    signed = till.transaction(transaction_id).versions[0]
    [block] = till.mine(1)
    till.track()
    assert till.transaction(transaction_id).state == "confirming"
    till.reorg(block)
    till.mine_with()
    till.mine_with()
    till.track()
    assert till.transaction(transaction_id).state == "broadcast"
    assert only(till).state is SweepState.BROADCAST
    till.broadcast()
    till.settle()
    assert only(till).txid == signed.txid
    assert only(till).state is SweepState.CONFIRMED


def test_a_reorg_deeper_than_final_takes_the_sweep_back_and_it_confirms_again(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    run(till)
    till.sign()
    till.broadcast()
    [first, *_] = till.mine(6)
    till.track()
    assert only(till).state is SweepState.CONFIRMED
    till.reorg(first)
    for _ in range(7):
        till.mine_with()
    till.track()
    assert only(till).state is SweepState.BROADCAST
    assert swept(till) == []
    assert till.balance(None, "network_fees") == 0
    assert [row["open"] for row in till.query("SELECT DISTINCT open FROM sweep_items")] == [True]
    till.broadcast()
    till.settle()
    assert only(till).state is SweepState.CONFIRMED
    assert swept(till) == SMALL


class _Refusing:
    """A signer that refuses everything."""

    def __init__(self, signer: object) -> None:
        self._signer = signer

    def sign(self, request: SignRequest) -> SignResponse:
        raise Refused((Reason("fee-window", "the fees of today are spent"),))

    def __getattr__(self, name: str) -> object:
        return getattr(self._signer, name)


def test_what_the_signer_refuses_is_abandoned_and_planned_again_ever_later(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    signer = till.signer
    till.signer = _Refusing(signer)  # type: ignore[assignment]
    run(till)
    assert till.sign() == []
    assert only(till).state is SweepState.ABANDONED
    assert "fee-window" in only(till).reason
    assert "signer.refused" in till.alerts()
    assert till.query("SELECT * FROM reservations") == []
    assert till.query("SELECT * FROM sweep_items WHERE open") == []
    assert run(till) == 0
    assert run(till, later_seconds=61) == 1
    assert till.sign() == []
    assert run(till, later_seconds=61) == 0, "twice as long"
    till.signer = signer
    assert run(till, later_seconds=121) == 1
    till.sign()
    till.broadcast()
    till.settle()
    assert [each.state for each in sweeps(till)] == ["abandoned", "abandoned", "confirmed"]
    [change] = till.query("SELECT index FROM addresses WHERE purpose = 'change'")
    assert change["index"] == 0, "the change address of a refused one is used again"


def test_fault_18_of_two_workers_that_plan_the_same_one_wins(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    outcomes: list[object] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        try:
            outcomes.append(run(till))
        except TransientError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(1 for outcome in outcomes if outcome == 1) == 1
    assert len(sweeps(till)) == 1
    assert len(till.query("SELECT * FROM transactions")) == 1


def test_fault_20_a_coin_of_a_payment_is_in_no_consolidation(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    [coin] = till.query("SELECT resource FROM receipts WHERE units = %s", SMALL[0])
    run(till)
    [transaction] = till.query("SELECT id, chain FROM transactions")
    with till.admin.transaction() as tx:
        assert not reserve(tx, transaction["chain"], [coin["resource"]], new_id())


def test_a_consolidation_is_bumped_only_while_fees_are_low_and_out_of_its_own_coin(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    till.pace = replace(till.pace, bump_after_blocks=1)
    run(till)
    [transaction_id] = till.sign()
    till.broadcast()
    till.mine_with()
    till.price(20_000)
    assert bump_stuck(till.db, till.site) == 0, "it was made because fees were low"
    till.price(5_000)
    assert bump_stuck(till.db, till.site) == 1
    assert till.sign() == [transaction_id]
    till.broadcast()
    first, second = (till.bytes_of(transaction_id, number) for number in (1, 2))
    assert first.resources == second.resources
    assert first.outputs[0].script == second.outputs[0].script
    assert first.outputs[0].units > second.outputs[0].units
    till.settle()
    assert only(till).txid == second.txid.hex
    assert only(till).fee_units == sum(SMALL) - second.outputs[0].units


def test_halted_paying_halts_sweeping(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    till.execute("INSERT INTO halts (scope, reason) VALUES ('all', 'a test')")
    assert run(till) == 0


def holding(at_most: int, share: int | None = None) -> Policy:
    most = (Holding(tiers=("hot",), asset="BTC", at_most=str(at_most), share=share),)
    return msgspec.structs.replace(AMOUNTS, holdings=most)


def test_excess_over_what_the_policy_lets_a_tier_hold_raises_one_alert_and_is_kept(till: Till) -> None:
    till.customer("alice", 5_000_000)

    def excess() -> list[int]:
        with till.db.transaction() as tx:
            watch_excess(tx, till.bundle)
            return [holding.excess_units for holding in holdings(tx, till.bundle)]

    assert excess() == [0]
    assert "tier.excess" not in till.alerts()
    till.adopt(2, policy=holding(4_000_000))
    assert excess() == excess() == [1_000_000]
    [alert] = till.query("SELECT data FROM alerts WHERE type = 'tier.excess'")
    assert (alert["data"]["units"], alert["data"]["most_units"]) == ("5000000", "4000000")
    till.adopt(3, policy=holding(5_000_000))
    assert excess() == [0]
    assert "tier.excess" not in till.alerts()
    till.adopt(4, policy=holding(5_000_000, share=6_000))
    assert excess() == [2_000_000], "at most six tenths of all that is held"


@pytest.mark.parametrize(
    "sql", ["UPDATE sweeps SET kind = 'sweep'", "DELETE FROM sweeps", "DELETE FROM sweep_items"]
)
def test_a_worker_rewrites_no_history_of_sweeps(till: Till, sql: str) -> None:
    import psycopg

    till.customer("alice", *SMALL, 5_000_000)
    run(till)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), till.db.transaction() as tx:
        tx.execute(sql.encode())


def test_what_the_policy_denies_is_not_gathered_and_somebody_is_told_until_it_may(till: Till) -> None:
    till.customer("alice", *SMALL, 5_000_000)
    denied = Rule(id="quiet", when=When(operations=(Operation.CONSOLIDATION,)), deny="nothing moves today")
    till.adopt(2, requirements=(denied,))
    assert run(till) == 0
    assert sweeps(till) == []
    assert till.alerts() == {"sweep.denied"}
    before = till.contents()
    assert run(till) == 0
    assert till.contents() == before, "again changes nothing"
    till.adopt(3)
    assert run(till) == 1
    assert till.alerts() == set()
    [row] = till.query("SELECT decision FROM sweeps")
    [decided] = row["decision"]["decisions"]
    assert decided["facts"]["units"] == str(sum(SMALL))
    assert (decided["outcome"], decided["tier"], row["decision"]["bundle_version"]) == ("route", "hot", 3)
