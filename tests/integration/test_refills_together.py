"""Refills beside each other, beside payments, and beside workers that want the same: one question, one coin, one move.

Database, node, monitor, guards and journals are real.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from chains.btc.node.transport import MISC_ERROR
from chains.errors import NodeRefused, TransientError
from custody.signing.errors import Raced
from custody.signing.sign import sign
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.treasury import fees, service
from custody.treasury.building import carry_out
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why
from custody.withdrawals import windows
from ops.devnet.bitcoind import Bitcoind
from signers.ports import OpenRequest
from signers.service import SignerService
from tests.fakes.teller import opened
from tests.fakes.vault_till import VAULT
from tests.fakes.verifying import verifying
from tests.integration.test_refills_btc import HOLDS, HOT, TreasuryTill

LITTLE = msgspec.structs.replace(HOLDS, at_most="10000000")
SMALL = [40_000 + 1_000 * n for n in range(12)]
PACE = SweepPace(consolidate_above_coins=5, small_coin_sats=100_000, max_inputs=50)


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        yield till


def drained(till: TreasuryTill) -> None:
    """Hot may hold 0.1 BTC and has 0.09; the vault has 0.21."""
    till.adopt(2, holdings=(LITTLE,))
    till.customer("alice", 30_000_000)
    till.treasury()
    till.send_refill(till.refill())
    till.settle()
    assert (till.balance_of(HOT), till.balance_of(VAULT)) > (-9_000_001, -21_000_001)


def wants(till: TreasuryTill, units: int) -> Refill:
    """A withdrawal that hot cannot pay; returns the newest refill after that."""
    till.request("alice", units)
    till.route()
    till.treasury()
    return till.refills()[-1]


def finished(till: TreasuryTill, refill: Refill) -> None:
    till.send_refill(refill)
    till.settle()


def test_a_small_refill_that_nobody_has_answered_yet_grows_into_the_one_that_is_needed_by_now(
    till: TreasuryTill,
) -> None:
    drained(till)
    small = wants(till, 9_500_000)
    assert (small.state, small.why) == ("proposed", "need")
    till.answer(small, "ada")
    large = wants(till, 9_400_000)
    assert large.id != small.id
    assert large.units > 5 * small.units, (
        "what the small one would have brought, and what is lacking beyond it"
    )
    before = till.refills()[-2]
    assert before.state == "declined"
    assert before.reason.startswith("superseded: ")
    till.treasury()
    assert [each.state for each in till.refills()][-2:] == ["declined", "proposed"], "again changes nothing"
    till.answer(large, "ada", "ben")
    assert till.treasury() == 2
    finished(till, large)
    while set(till.states()) != {"settled"}:
        till.send()
        till.settle()
    assert till.refills()[-1].state == "confirmed"
    till.check()


def test_what_payments_need_beyond_a_refill_that_is_on_its_way_comes_beside_it(till: TreasuryTill) -> None:
    drained(till)
    small = wants(till, 9_500_000)
    till.answer(small, "ada", "ben")
    assert till.treasury() == 2
    till.send_refill(small)
    large = wants(till, 9_400_000)
    assert large.id != small.id
    assert [each.state for each in till.refills()][-2:] == ["broadcast", "proposed"]
    till.settle()
    till.answer(large, "ada", "ben")
    assert till.treasury() == 2
    finished(till, large)
    assert [each.state for each in till.refills()] == ["confirmed"] * 3
    till.check()


def together(*works: Callable[[], object]) -> None:
    """All at once; who loses a race tries again later."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait(60)
        with suppress(TransientError, Raced):
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(run, works))


def test_fault_18_of_many_workers_that_want_the_same_refill_one_proposes_it(till: TreasuryTill) -> None:
    till.customer("alice", 30_000_000)
    now = int(time.time())
    windows.rebuild(till.db, till.bundle, now=now)
    with till.db.transaction() as tx:
        fees.observe(tx, till.chain, 1_000)
    for _ in range(3):
        together(*[lambda: service.propose_due(till.db, till.bundle, now=now)] * 6)
    refill = till.refill()
    assert (refill.source, refill.units) == (HOT, 12_000_000)
    together(*[lambda: carry_out(till.db, till.site, now=now)] * 6)
    assert len(till.query("SELECT * FROM transactions")) == 1
    finished(till, till.refill())
    till.check()


def test_fault_20_payments_refills_and_consolidations_that_race_share_no_coin_and_every_payment_is_made(
    till: TreasuryTill,
) -> None:
    till.customer("alice", *SMALL, 3_000_000, 4_000_000, 9_000_000)
    for units in (1_000_000, 2_000_000, 3_000_000, 5_000_000):
        till.request("alice", units)
    till.route()
    now = int(time.time())
    windows.rebuild(till.db, till.bundle, now=now)
    with till.db.transaction() as tx:
        fees.observe(tx, till.chain, 1_000)
        service.ask(
            tx, till.bundle, Proposal(HOT, VAULT, "BTC", 4_000_000, Why.EXCESS, "room"), by="otto", now=now
        )
    while set(till.states()) != {"settled"} or till.refill().state != "confirmed":
        till.execute("UPDATE refills SET not_before = now() WHERE state = 'approved'")
        together(
            till.build,
            till.build,
            lambda: carry_out(till.db, till.site, now=int(time.time())),
            lambda: carry_out(till.db, till.site, now=int(time.time())),
            lambda: sweep(till.db, till.site, PACE, now=int(time.time())),
        )
        used = till.query(
            "SELECT count(*) AS n FROM transaction_versions v CROSS JOIN unnest(v.resources) AS coin"
            " GROUP BY coin HAVING count(DISTINCT v.transaction_id) > 1"
        )
        assert used == [], "a coin in two transactions"
        sign(till.db, till.site, till.signer)
        till.broadcast()
        till.settle()
        till.check()
    assert till.paid_to(till.refill().destination) == 4_000_000


def test_a_refill_out_of_the_vault_is_no_finding_of_a_verifier_and_no_members_window_stays_burdened(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as verifier:

        def burdened() -> int:
            return sum(len(verifier.signers[name].open(OpenRequest()).transactions) for name in members)

        verifier.follow()
        till.treasury()
        refill = till.refill()
        till.answer(refill, "ada", "ben")
        assert till.treasury() == 2
        till.send_refill(refill)
        assert burdened() == 2, "two of three have signed it"
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
        till.settle()
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
        assert burdened() == 0
        till.request("alice", 2_900_000)
        till.send()
        till.settle()
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ()), "hot has paid with what came up"
        assert till.states() == ["settled"]


def test_a_verifier_whose_node_has_pruned_the_refills_block_does_not_know_and_finds_nothing_wrong(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.fund_vault(80_000_000)
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    till.treasury()
    refill = till.refill()
    till.answer(refill, "ada", "ben")
    till.treasury()
    finished(till, refill)
    with verifying(till, members=members) as verifier:
        verifier.look()
        transport = verifier.chain._node._transport  # type: ignore[attr-defined]
        call = transport.call

        def pruned(method: str, *params: object) -> object:
            if method == "getrawtransaction":
                raise NodeRefused(MISC_ERROR, "Block not available")
            return call(method, *params)

        transport.call = pruned
        found = verifier.audit()
        assert found.findings == ()
        [unknown] = found.unknowns
        assert unknown.subject == f"refill:{refill.id}"
        assert unknown.detail.endswith(": is it pruned?")
        transport.call = call
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
