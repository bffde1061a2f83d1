"""The monitor on a real database and a chain in memory: every turn that a chain can take, quickly."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from chains.btc.script import p2wpkh_script
from chains.btc.tx import Transaction, TxOut
from chains.errors import InvalidValue, NodeUnavailable
from chains.ports import Presence
from chains.types import TxId
from custody.deposits import repository
from custody.errors import Conflict, DatabaseUnavailable
from custody.monitor.lead import Chain, lead, lock_name
from custody.monitor.monitor import Monitor, Options
from custody.monitor.rescan import Added, rescan
from custody.screening.model import Subject, Word
from custody.screening.ports import Screening, ScreeningUnavailable
from custody.signing.btc.coins import spendable
from custody.storage import halts
from ops.devnet.process import wait_until
from tests.fakes.chain import FakeChain
from tests.fakes.desk import CHAIN, KEYSET, MINIMUM_SATS, Desk, open_desk, record_payment, signed_spend

START = Options(start_height=0, held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0)
UNITS = 1_234_567
ELSEWHERE = p2wpkh_script(b"\x02" + bytes(31) + b"\x01")


@pytest.fixture
def chain() -> FakeChain:
    chain = FakeChain()
    chain.mine(3)
    return chain


@pytest.fixture
def desk(database: str, chain: FakeChain) -> Iterator[Desk]:
    with open_desk(database, chain, options=START) as desk:
        yield desk


@pytest.fixture
def alice(desk: Desk) -> str:
    return desk.customer("alice")


def deposit(desk: Desk, chain: FakeChain, customer: str, units: int = UNITS, *, blocks: int = 6) -> TxId:
    """Somebody pays to a new address of the customer, and it is mined `blocks` deep."""
    txid = chain.pay([TxOut(units, desk.address(customer).script)])
    if blocks:
        chain.mine(blocks)
    desk.catch_up()
    return txid


def test_a_deposit_is_seen_then_confirming_then_credited_after_six_blocks(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    address = desk.address(alice)
    desk.catch_up()
    chain.pay([TxOut(5_000, ELSEWHERE), TxOut(UNITS, address.script)])
    desk.catch_up()
    assert desk.states() == ["seen"]
    chain.mine()
    desk.catch_up()
    assert desk.states() == ["confirming"]
    chain.mine(4)
    desk.catch_up()
    assert (desk.states(), desk.balance(alice)) == (["confirming"], 0)
    chain.mine()
    desk.catch_up()
    assert (desk.states(), desk.balance(alice)) == (["credited"], UNITS)
    before = desk.contents()
    chain.mine(3)
    desk.catch_up()
    assert desk.contents() == before
    desk.check()


def test_with_one_confirmation_a_deposit_is_credited_in_the_commit_of_its_own_block(
    database: str, chain: FakeChain
) -> None:
    with open_desk(database, chain, options=START, confirmations=1) as desk:
        desk.customer("alice")
        desk.catch_up()
        chain.pay([TxOut(UNITS, desk.address("alice").script)])
        chain.mine()
        assert desk.monitor.step()
        assert (desk.states(), desk.balance("alice")) == (["credited"], UNITS)
        desk.check()


def test_two_outputs_of_one_transaction_to_one_address_are_two_deposits(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    script = desk.address(alice).script
    chain.pay([TxOut(10_000, script), TxOut(20_000, script)])
    chain.mine(6)
    desk.catch_up()
    assert desk.states() == ["credited", "credited"]
    assert desk.balance(alice) == 30_000
    desk.check()


def test_a_deposit_below_the_minimum_is_never_credited_and_no_coin(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    deposit(desk, chain, alice, MINIMUM_SATS - 1)
    chain.pay([TxOut(0, desk.address(alice).script)])
    chain.mine(6)
    desk.catch_up()
    assert desk.states() == ["below_minimum"], "an output of no value is no deposit at all"
    assert desk.balance(alice) == 0
    with desk.admin.snapshot() as tx:
        assert spendable(tx, CHAIN, KEYSET, "BTC", 6) == []
    desk.check()


def test_a_stranger_who_pays_to_a_change_address_is_booked_to_suspense_with_an_alert(
    desk: Desk, chain: FakeChain
) -> None:
    chain.pay([TxOut(UNITS, desk.change_address().script)])
    chain.mine(6)
    desk.catch_up()
    assert desk.states() == ["credited"]
    assert desk.balance(None, "suspense") == UNITS
    assert desk.alerts() == ["deposit.of_nobody"]
    chain.reorg(6)
    desk.catch_up()
    assert desk.states() == ["clawed_back"]
    assert desk.balance(None, "suspense") == 0
    desk.check()


def test_new_coins_mined_to_a_deposit_address_are_credited_when_they_can_be_spent(
    desk: Desk, chain: FakeChain, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.chain.FAUCET_SCRIPT", desk.address(alice).script)
    chain.mine()
    monkeypatch.undo()
    chain.mine(98)
    desk.catch_up()
    assert desk.states() == ["confirming"]
    chain.mine()
    desk.catch_up()
    assert desk.states() == ["credited"]
    with desk.admin.snapshot() as tx:
        assert len(spendable(tx, CHAIN, KEYSET, "BTC", 6)) == 1


# ------------------------------------------------------------------------------------------------- screening


class Unsteady:
    """A provider that does not answer while it is `down`."""

    name = "unsteady"

    def __init__(self) -> None:
        self.down = True

    def ask(self, subject: Subject) -> Word:
        if self.down:
            raise ScreeningUnavailable("no answer")
        return Word(self.name, "1")

    def close(self) -> None:
        pass


def test_a_provider_that_does_not_answer_holds_deposits_until_it_does(
    database: str, chain: FakeChain
) -> None:
    screening = Unsteady()
    with open_desk(database, chain, options=START, screening=Screening([screening])) as desk:
        deposit(desk, chain, desk.customer("alice"))
        assert (desk.states(), desk.alerts()) == (["held"], ["deposit.held"])
        screening.down = False
        desk.catch_up()
        assert (desk.states(), desk.balance("alice"), desk.alerts()) == (["credited"], UNITS, [])


# --------------------------------------------------------------------------------- row 44: rows that were edited


def test_fault_44_an_address_swapped_in_the_database_is_never_credited_and_alerts(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    row = desk.address(alice)
    desk.catch_up()
    theirs = chain.parse_address("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
    desk.execute("UPDATE addresses SET address = %s, script = %s", theirs.text, theirs.script)
    desk.restart()
    desk.catch_up()
    assert desk.alerts() == ["address.not_ours"], "noticed before anybody pays to it"
    chain.pay([TxOut(UNITS, theirs.script)])
    chain.mine(10)
    desk.catch_up()
    assert (desk.states(), desk.balance(alice), desk.query("SELECT * FROM receipts")) == ([], 0, [])
    # The real address was paid meanwhile, unseen; repaired and rescanned, it is found.
    chain.pay([TxOut(UNITS, row.script)])
    chain.mine(6)
    desk.catch_up()
    assert desk.balance(alice) == 0
    desk.execute("UPDATE addresses SET address = %s, script = %s", row.address, row.script)
    desk.restart()
    desk.catch_up()
    added = run_rescan(desk, 0)
    assert (added.receipts, added.deposits) == (1, 1)
    assert desk.balance(alice) == UNITS
    desk.check()


def test_fault_44_an_address_given_to_another_customer_in_the_database_is_held(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    row = desk.address(alice)
    desk.customer("mallory")
    desk.execute("UPDATE addresses SET customer_id = 'mallory'")
    chain.pay([TxOut(UNITS, row.script)])
    chain.mine(6)
    desk.catch_up()
    assert (desk.states(), desk.balance("mallory"), desk.balance(alice)) == (["held"], 0, 0)
    assert "address.unproven" in desk.alerts()
    desk.check()


def test_fault_44_a_deposit_given_to_another_customer_in_the_database_is_held(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    deposit(desk, chain, alice, blocks=2)
    desk.customer("mallory")
    desk.execute("UPDATE deposits SET customer_id = 'mallory'")
    chain.mine(4)
    desk.catch_up()
    assert (desk.states(), desk.balance("mallory"), desk.balance(alice)) == (["held"], 0, 0)
    desk.execute("UPDATE deposits SET customer_id = 'alice'")
    desk.catch_up()
    assert (desk.states(), desk.balance(alice)) == (["credited"], UNITS)


# -------------------------------------------------------------------------------------------- our transactions


def paying(desk: Desk, chain: FakeChain, customer: str) -> tuple[Transaction, TxOut]:
    """A recorded payment that spends a credited deposit, with change; sent, not mined."""
    row = desk.address(customer)
    change = TxOut(400_000, desk.change_address().script)
    chain.pay([TxOut(1_000_000, row.script)])
    chain.mine(6)
    desk.catch_up()
    [coin] = [each for each in desk.deposits() if each.address_id == row.id]
    raw = signed_spend(desk, [(coin.resource, 1_000_000, row)], [TxOut(500_000, ELSEWHERE), change])
    record_payment(desk, customer, [(raw, 100_000)], paid_sats=500_000)
    chain.broadcast(raw)
    return Transaction.parse(raw), change


def test_our_own_change_is_a_coin_and_no_deposit(desk: Desk, chain: FakeChain, alice: str) -> None:
    tx, change = paying(desk, chain, alice)
    desk.catch_up()
    with desk.admin.snapshot() as snapshot:
        assert spendable(snapshot, CHAIN, KEYSET, "BTC", 6) == [], "reserved, and the change is in no block"
    chain.mine()
    desk.catch_up()
    assert desk.states() == ["credited"]
    assert [row["txid"] for row in desk.query("SELECT txid FROM consumptions")] == [tx.txid.hex]
    with desk.admin.snapshot() as snapshot:
        [coin] = spendable(snapshot, CHAIN, KEYSET, "BTC", 6)
    assert (coin.resource, coin.units) == (f"{tx.txid.hex}:1", change.units)
    assert desk.alerts() == []


def test_a_reorg_that_mines_our_payment_again_sees_it_again(desk: Desk, chain: FakeChain, alice: str) -> None:
    tx, _ = paying(desk, chain, alice)
    chain.mine()
    desk.catch_up()
    desk.execute("DELETE FROM reservations")  # so that only the receipt tells that this resource is ours
    chain.reorg(1, length=0)
    assert chain.presence(tx.txid) is Presence.MEMPOOL
    chain.mine(2)
    desk.catch_up()
    assert [row["txid"] for row in desk.query("SELECT txid FROM consumptions")] == [tx.txid.hex]
    chain.reorg(2)
    desk.catch_up()
    assert desk.query("SELECT * FROM consumptions") == []


def test_a_deposit_and_the_payment_that_spends_it_in_one_block_after_a_reorg_are_both_seen(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    tx, _ = paying(desk, chain, alice)
    chain.mine()
    desk.catch_up()
    chain.reorg(7, length=0)
    chain.mine(8)
    desk.catch_up()
    assert desk.states() == ["credited"]
    assert [row["txid"] for row in desk.query("SELECT txid FROM consumptions")] == [tx.txid.hex]


def test_a_coin_spent_by_somebody_else_raises_a_critical_alert(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    row = desk.address(alice)
    chain.pay([TxOut(1_000_000, row.script)])
    chain.mine(6)
    desk.catch_up()
    [coin] = desk.deposits()
    chain.broadcast(signed_spend(desk, [(coin.resource, 1_000_000, row)], [TxOut(900_000, ELSEWHERE)]))
    chain.mine()
    desk.catch_up()
    assert desk.alerts() == ["coin.foreign_spend"]
    with desk.admin.snapshot() as tx:
        assert "which is not ours" in str(halts.halted(tx, CHAIN)), (
            "paying halts in the commit that records it"
        )
    # An operator has looked and lifts it; a rescan tells nothing new.
    with desk.admin.transaction() as tx:
        halts.lift(tx, halts.ALL)
    assert run_rescan(desk, 0) == Added()
    desk.catch_up()
    with desk.admin.snapshot() as tx:
        assert halts.halted(tx, CHAIN) is None


def test_change_of_a_version_whose_signature_we_never_saw_is_ours_and_no_strangers_deposit(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    """The signer has signed and sent, and its answer was lost with the worker: we know the transaction by content."""
    row = desk.address(alice)
    chain.pay([TxOut(1_000_000, row.script)])
    chain.mine(6)
    desk.catch_up()
    [coin] = desk.deposits()
    change = TxOut(400_000, desk.change_address().script)
    raw = signed_spend(desk, [(coin.resource, 1_000_000, row)], [TxOut(500_000, ELSEWHERE), change])
    record_payment(desk, alice, [(raw, 100_000)], paid_sats=500_000)
    desk.execute("ALTER TABLE transaction_versions DISABLE TRIGGER ALL")
    desk.execute("UPDATE transaction_versions SET signed = NULL, txid = NULL, state = 'built'")
    chain.broadcast(raw)
    chain.mine(6)
    desk.catch_up()
    assert desk.states() == ["credited"], "the change is no deposit"
    assert desk.balance(None, "suspense") == 0
    assert desk.alerts() == []


# ------------------------------------------------------------------------------------------ nodes and addresses


def test_a_node_that_is_rebuilt_from_scratch_undoes_nothing_and_alerts(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    deposit(desk, chain, alice)
    before = desk.contents()
    blocks = chain._blocks[:]
    del chain._blocks[-6:]
    desk.catch_up()
    assert desk.contents() == before
    assert desk.alerts() == ["node.behind"]
    chain._blocks[:] = blocks
    chain.mine()
    desk.catch_up()
    assert desk.alerts() == []
    desk.check()


def test_a_node_that_gives_no_answer_changes_nothing(desk: Desk, chain: FakeChain, alice: str) -> None:
    deposit(desk, chain, alice, blocks=3)
    before = desk.contents()
    chain.down = True
    with pytest.raises(NodeUnavailable):
        desk.monitor.step()
    assert desk.contents() == before
    chain.down = False
    chain.mine(3)
    desk.catch_up()
    assert desk.balance(alice) == UNITS


def test_an_address_whose_transaction_commits_after_a_later_one_is_watched(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    """Ids are given before commits: the monitor has loaded a higher id when the lower one appears."""
    desk.catch_up()
    with desk.admin.transaction() as slow:
        [taken] = slow.all("SELECT nextval(pg_get_serial_sequence('addresses', 'id')) AS id")
        quick = desk.address(alice)
        desk.catch_up()
        assert quick.id > taken["id"]
    late = desk.address(alice)
    desk.execute("ALTER TABLE addresses ALTER id SET GENERATED BY DEFAULT")
    with desk.admin.transaction() as tx:
        row = tx.one("DELETE FROM addresses WHERE id = %s RETURNING *", [late.id])
        row["id"] = taken["id"]
        columns = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        tx.execute(f"INSERT INTO addresses ({columns}) VALUES ({values})".encode(), row)
    chain.pay([TxOut(UNITS, late.script)])
    desk.catch_up()
    assert desk.states() == ["seen"]


# ------------------------------------------------------------------------------------------------ lead, rescan


def run_rescan(desk: Desk, height: int) -> Added:
    with desk.db.session() as session:
        assert session.try_lock(lock_name(CHAIN))
        return rescan(desk.adapter, session, desk.bundle, desk.screening, height)


def test_a_rescan_finds_what_was_missing_and_a_second_one_adds_nothing(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    deposit(desk, chain, alice)
    known = desk.address(alice)
    paid = TxOut(777_777, known.script)
    # An address that the monitor was not told of in time, as after a restored backup.
    rows = desk.query("SELECT * FROM addresses WHERE id = %s", known.id)
    desk.execute("DELETE FROM addresses WHERE id = %s", known.id)
    desk.restart()
    chain.pay([paid])
    chain.mine(70)
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    assert run_rescan(desk, 0) == Added()
    with desk.admin.transaction() as tx:
        row = {name: value for name, value in rows[0].items() if name != "id"}
        names = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        tx.execute(f"INSERT INTO addresses ({names}) VALUES ({values})".encode(), row)
    assert run_rescan(desk, 2) == Added(receipts=1, deposits=1)
    assert desk.balance(alice) == UNITS + paid.units
    before = desk.contents()
    assert run_rescan(desk, 0) == Added()
    assert desk.contents() == before
    desk.catch_up()
    desk.check()


def test_a_rescan_reaches_below_the_block_where_the_first_start_began(
    database: str, chain: FakeChain
) -> None:
    with open_desk(database, chain, options=Options(start_height=None)) as desk:
        desk.customer("alice")
        chain.pay([TxOut(UNITS, desk.address("alice").script)])
        chain.mine(60)
        desk.catch_up()
        assert desk.states() == [], "the first start begins at the tip"
        assert run_rescan(desk, 1) == Added(blocks=62, receipts=1, deposits=1)
        assert desk.balance("alice") == UNITS
        chain.reorg(60)
        desk.catch_up()
        assert desk.states() == ["clawed_back"]
        desk.check()


def test_a_rescan_from_above_the_cursor_is_refused(desk: Desk) -> None:
    desk.catch_up()
    with pytest.raises(InvalidValue, match="rescan from 4"):
        run_rescan(desk, 4)


def test_of_two_monitors_one_leads_until_its_session_ends(desk: Desk) -> None:
    with desk.db.session() as first:
        assert first.try_lock(lock_name(CHAIN))
        with desk.db.session() as second:
            assert not second.try_lock(lock_name(CHAIN))
    with desk.db.session() as third:
        assert third.try_lock(lock_name(CHAIN))


def test_a_monitor_whose_session_was_ended_cannot_commit(desk: Desk, chain: FakeChain, alice: str) -> None:
    deposit(desk, chain, alice, blocks=5)
    before = desk.contents()
    desk.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'monitor'"
        " AND datname = current_database()"
    )
    chain.mine()
    with pytest.raises(DatabaseUnavailable):
        desk.monitor.step()
    assert desk.contents() == before
    desk.restart()
    desk.catch_up()
    assert desk.balance(alice) == UNITS


def test_a_second_writer_is_stopped_by_the_cursor_even_without_the_lock(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    deposit(desk, chain, alice, blocks=5)
    with desk.db.session() as session:
        other = Monitor(chain, session, lambda: desk.bundle, desk.screening, options=START)
        observe = chain.observe_block
        calls: list[int] = []

        def overtaken(*arguments: object) -> object:
            seen = observe(*arguments)  # type: ignore[arg-type]
            if not calls:
                calls.append(1)
                assert other.step()
            return seen

        chain.observe_block = overtaken  # type: ignore[assignment,method-assign]
        chain.mine()
        with pytest.raises(Conflict):
            desk.monitor.step()
        del chain.observe_block
    desk.catch_up()
    assert desk.balance(alice) == UNITS
    desk.check()


def test_a_page_of_deposits_goes_on_where_the_last_one_ended(
    desk: Desk, chain: FakeChain, alice: str
) -> None:
    for _ in range(5):
        chain.pay([TxOut(UNITS, desk.address(alice).script)])
    desk.catch_up()
    with desk.admin.snapshot() as tx:
        first = repository.deposits(tx, customer=alice, limit=3)
        rest = repository.deposits(tx, customer=alice, limit=3, after=first[-1].id)
    assert len({row.id for row in (*first, *rest)}) == 5


def test_row_17_a_node_that_stays_silent_raises_an_alert_that_ends_when_it_answers(
    desk: Desk, chain: FakeChain
) -> None:
    stop = threading.Event()
    followed = Chain(
        adapter=chain,
        bundle=lambda: desk.bundle,
        screening=desk.screening,
        wait=stop.wait,
        options=START,
        alert_after_seconds=0,
    )
    leader = threading.Thread(target=lead, args=(desk.db, followed, stop))
    leader.start()
    try:
        wait_until(lambda: desk.query("SELECT 1 FROM cursors") != [], timeout=20, what="the first pass")
        chain.down = True
        wait_until(lambda: desk.alerts() == ["monitor.stalled"], timeout=20, what="the alert")
        chain.down = False
        wait_until(lambda: desk.alerts() == [], timeout=20, what="the end of the alert")
    finally:
        stop.set()
        leader.join()
