"""Listed tokens whose issuers turn, and payees whose code changes: what they break is their own affair only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.block import native_receipts
from chains.eth.network import NativeMode
from chains.eth.wire import Trace, TraceAction
from custody.deposits.model import AddressRow
from custody.monitor.lead import lock_name
from custody.monitor.rescan import rescan
from custody.storage import halts
from custody.withdrawals.repository import reverts_in_window
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import CHAIN, ETHER, EvmDesk, Outside, open_evm_desk
from tests.fakes.evm_till import EvmTill, TillOutside, open_evm_till
from tests.support.evm import Contract, deploy, outside_artifact

LARGEST = 2**256 - 1
BALANCES_SLOT = 3
"""Of `balanceOf` in tests/contracts/Token.sol."""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillOutside]:
    with Anvil(tmp_path_factory.mktemp("turning")) as node:
        yield TillOutside(node, NativeMode.TRACE)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[EvmDesk]:
    with open_evm_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def evm_till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[EvmTill]:
    with open_evm_till(database, outside, tmp_path) as opened:
        opened.fund()
        yield opened


def set_balance(token: Contract, who: str, units: int) -> None:
    """What an issuer can do whose token may do anything: no event, no transfer."""
    slot = keccak256(raw_address(who).rjust(32, b"\0") + BALANCES_SLOT.to_bytes(32, "big"))
    token.node.rpc("anvil_setStorageAt", token.address, "0x" + slot.hex(), f"0x{units:064x}")


def customer_with_address(desk: EvmDesk, name: str) -> tuple[str, AddressRow]:
    customer = desk.customer(name)
    return customer, desk.address(customer)


def test_an_issuer_who_mints_all_there_can_be_stops_no_credit_of_anything_else(
    desk: EvmDesk, outside: TillOutside
) -> None:
    """Nine times the largest uint256 is more than the ledger's columns hold."""
    token = deploy(outside.node, outside.payer, outside_artifact("Token"), "Turned", "TURN", 18)
    desk.list_token("TURN", token)
    for number in range(10):
        _, row = customer_with_address(desk, f"mallory-{number}")
        set_balance(token, outside.payer, LARGEST)
        token.do(outside.payer, "transfer", row.address, LARGEST)
    alice, row = customer_with_address(desk, "alice")
    outside.send("ETH", row.address, ETHER)
    desk.finalize()
    assert desk.balance(alice) == ETHER
    assert desk.query("SELECT * FROM deposits WHERE asset = 'TURN'") == []
    assert "deposit.absurd" in desk.alerts()
    desk.enforce()
    assert desk.reconcile().ok


def test_an_issuer_who_invents_balances_cannot_overflow_the_books_of_what_came_unseen(
    desk: EvmDesk, outside: TillOutside
) -> None:
    token = deploy(outside.node, outside.payer, outside_artifact("Token"), "Turned", "TURN", 18)
    desk.list_token("TURN", token)
    rows = [customer_with_address(desk, f"mallory-{number}")[1] for number in range(10)]
    for row in rows:
        set_balance(token, row.address, LARGEST)
    alice, row = customer_with_address(desk, "alice")
    # A validator's reward or an old prepayment: no block of ours explains it, and it is to be booked.
    outside.node.fund(row.address, ETHER)
    outside.send("ETH", row.address, ETHER)
    desk.mine()
    desk.finalize()
    desk.enforce()
    assert desk.balance(alice) == ETHER
    assert desk.balance(None, "suspense", "ETH") == ETHER, "the other asset's surplus is booked"


def test_an_issuer_who_takes_a_token_away_stops_the_paying_of_that_token_only(
    desk: EvmDesk, outside: TillOutside
) -> None:
    """As a rebase, a wiped blacklist or a plain lie: no transaction of ours, and no other use of our key."""
    _, row = customer_with_address(desk, "alice")
    outside.send("USDX", row.address, 5_000_000)
    desk.finalize()
    assert desk.enforce().ok
    set_balance(outside.usdx, row.address, 4_999_999)
    desk.finalize()
    assert not desk.enforce().ok
    with desk.admin.snapshot() as tx:
        scopes = {each["scope"] for each in halts.in_force(tx)}
    assert scopes == {"asset:USDX"}
    assert desk.halted() is None
    desk.execute("DELETE FROM halts")
    outside.send("ETH", row.address, ETHER)
    desk.finalize()
    desk.execute("UPDATE receipts SET units = units + 1 WHERE asset = 'ETH'")
    assert not desk.enforce().ok
    assert desk.halted() is not None, "one wei of the chain's own stops everything"


def test_what_was_booked_as_a_surplus_and_is_found_by_a_rescan_counts_once(
    desk: EvmDesk, outside: TillOutside
) -> None:
    """A token is listed after it was paid, and blocks are read again: the customer's, no longer the house's."""
    start = outside.node.height()
    token = deploy(outside.node, outside.payer, outside_artifact("Token"), "Late", "LATE", 18)
    alice, row = customer_with_address(desk, "alice")
    token.do(outside.payer, "mint", row.address, 5_000_000)
    desk.finalize()
    desk.list_token("LATE", token)
    set_balance(token, row.address, 5_000_007)
    desk.finalize()
    desk.enforce()
    assert desk.balance(None, "suspense", "LATE") == 5_000_007
    with desk.db.session() as session:
        assert session.try_lock(lock_name(CHAIN))
        rescan(desk.node, session, desk.bundle, desk.screening, start, resource_set=desk._resource_set)
    desk.catch_up()
    assert desk.balance(alice, asset="LATE") == 5_000_000
    for _ in range(3):
        assert desk.enforce().ok
    desk.exact()
    assert desk.balance(None, "suspense", "LATE") == 7
    assert desk.balance(alice, asset="LATE") == 5_000_000


def test_what_is_halted_for_one_token_is_paid_in_all_others(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=3 * ETHER, USDX=5_000_000)
    till.fund("USDX", 10_000_000)
    with till.db.transaction() as tx:
        halts.halt(tx, halts.of_asset("USDX"), "a test")
    stopped, paid = till.request(alice, 1_000_000, asset="USDX"), till.request(alice, ETHER)
    till.send()
    till.settle()
    till.route()
    assert till.build() is None
    assert till.withdrawal(paid.id).state == "settled"
    assert till.withdrawal(stopped.id).state == "requested"
    with till.admin.transaction() as tx:
        assert halts.lift(tx, halts.of_asset("USDX"))
    till.route()
    with till.db.transaction() as tx:
        halts.halt(tx, halts.of_asset("USDX"), "a test")
    assert till.withdrawal(stopped.id).state == "queued"
    assert till.build() is None
    with till.admin.transaction() as tx:
        halts.lift(tx, halts.of_asset("USDX"))
    till.send()
    till.settle()
    assert till.withdrawal(stopped.id).state == "settled"


def test_somebody_who_has_the_factorys_admin_key_is_seen_48_hours_before_he_gets_anything(
    desk: EvmDesk, outside: TillOutside
) -> None:
    admin, thief = outside.node.accounts()[9], outside.node.accounts()[8]
    desk.enforce()
    assert not {"factory.change_proposed", "factory.pays_another"} & set(desk.alerts())
    desk.factory.do(admin, "proposeTreasury", thief)
    desk.factory.do(admin, "proposeAdmin", thief)
    desk.catch_up()
    desk.enforce()
    assert desk.alerts().count("factory.change_proposed") == 2
    assert "factory.pays_another" not in desk.alerts()
    outside.node.increase_time(48 * 3600 + 1)
    desk.factory.do(admin, "acceptTreasury")
    desk.catch_up()
    desk.enforce()
    assert "factory.pays_another" in desk.alerts()


def test_a_token_whose_balance_burns_gas_gets_little_of_it(desk: EvmDesk, outside: TillOutside) -> None:
    """`balanceOf` returns the gas it was given: what a token may burn of our node for each deposit."""
    token = deploy(outside.node, outside.payer, outside_artifact("Token"), "Burner", "BURN", 18)
    outside.node.rpc("anvil_setCode", token.address, "0x5a5f5260205ff3")
    at = desk.node.tip()
    assert 100_000 < desk.node.balance(raw_address(outside.payer), token.address, at) < 1_000_000


@pytest.mark.parametrize(
    "code",
    [
        "0x5b5f56",  # for ever
        "0xfe",
        "0x5f5ffd",
        "0x60205f5f3e",  # copies what was never returned
        "0x5f7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff52",  # memory without end
        "0x5b5f5f5f5f5f5f600256",  # a stack without end
        "0x56",
        "0xef",
        "0x5f5f5f5f3d3d34f0",
        "0x620186a05ff3",  # 100,000 zeros
        "0x600160005360015ff3",  # one byte
    ],
)
def test_whatever_the_code_of_a_listed_token_does_its_balance_is_nothing_and_blocks_stay_readable(
    desk: EvmDesk, outside: TillOutside, code: str
) -> None:
    token = deploy(outside.node, outside.payer, outside_artifact("Token"), "Broken", "BROK", 18)
    outside.node.rpc("anvil_setCode", token.address, code)
    assert desk.node.balance(raw_address(outside.payer), token.address, desk.node.tip()) == 0


def test_undone_frames_do_not_make_arrivals_dear_to_read() -> None:
    """One transaction pays 1,500 times and reverts 50,000 calls: half a block's gas, read in a moment."""
    ours, stranger, txid = b"\x01" * 20, "0x" + "08" * 20, "0x" + "ab" * 32

    def frame(path: list[int], value: str, error: str | None = None) -> Trace:
        action = TraceAction(sender=stranger, to="0x" + ours.hex(), value=value, call_type="call")
        return Trace(kind="call", action=action, path=path, block="0x" + "cd" * 32, txid=txid, error=error)

    frames = [frame([0, number], "0x1") for number in range(1_500)]
    frames += [frame([1, number], "0x0", "Reverted") for number in range(50_000)]
    frames += [frame([1, 7, 7], "0x5"), frame([1, 50_001], "0x9")]
    began = time.process_time()
    found = native_receipts(frames, {ours})
    assert sum(receipt.units for receipt in found) == 1_500 + 9
    assert time.process_time() - began < 2


def test_a_payee_who_gets_code_after_the_estimate_spoils_one_batch_and_no_further_one(
    evm_till: EvmTill, outside: TillOutside
) -> None:
    """What has no code today can have some tomorrow: by CREATE2, by CREATE, by EIP-7702."""
    till = evm_till
    mallory = till.customer("mallory", ETH=3 * ETHER)
    victims = [till.customer(name, ETH=3 * ETHER) for name in ("alice", "bob")]

    def spoil() -> list[str]:
        """One round in which Mallory's payee comes into being between signing and mining; states of the victims'."""
        trap = next_trap(outside)
        mine = till.request(mallory, ETHER // 10, destination=trap)
        theirs = [till.request(victim, ETHER // 10) for victim in victims]
        till.route()
        while till.build() is not None:
            pass
        till.sign()
        spring(outside, trap)
        till.broadcast()
        till.settle()
        assert till.withdrawal(mine.id).state == "failed"
        return [till.withdrawal(each.id).state for each in theirs]

    assert spoil() == ["failed", "failed"], "the batch has one fate"
    assert [till.balance(victim, "frozen") for victim in victims] == [0, 0]
    assert spoil() == ["settled", "settled"]
    with till.admin.snapshot() as tx:
        found = reverts_in_window(tx, till.chain, datetime.now(UTC) - timedelta(hours=1))
    assert found == {"mallory": 1}, "what a batch did is nobody's"


def test_payments_that_fail_only_in_the_chain_stop_their_customer_after_three_and_nobody_else(
    evm_till: EvmTill, outside: TillOutside
) -> None:
    """Each costs its customer nothing, and everybody a share of what the signer may spend on fees."""
    till = evm_till
    mallory, alice = till.customer("mallory", ETH=3 * ETHER), till.customer("alice", ETH=3 * ETHER)

    def fail() -> None:
        trap = next_trap(outside)
        mine = till.request(mallory, 1_000, destination=trap)
        till.route()
        assert till.build() is not None
        till.sign()
        spring(outside, trap)
        till.broadcast()
        till.settle()
        assert till.withdrawal(mine.id).state == "failed"

    fail()
    fail()
    queued = till.request(mallory, 1_000, destination=till.nobody())
    till.route()
    till.execute("UPDATE withdrawals SET not_before = now() + interval '1 h' WHERE id = %s", queued.id)
    fail()
    held = till.balance(mallory, "frozen")
    fourth = till.request(mallory, 1_000, destination=till.nobody())
    till.route()
    denied = till.withdrawal(fourth.id)
    assert (denied.state, denied.reason.split(":")[0]) == ("rejected", "payments-reverted")
    assert till.balance(mallory, "frozen") == held
    assert "customer.payments_reverted" in till.alerts()
    # What was let through before the third one failed waits, and nobody waits with it.
    till.execute("UPDATE withdrawals SET not_before = now() WHERE id = %s", queued.id)
    theirs = till.request(alice, ETHER)
    till.send()
    till.settle()
    assert till.withdrawal(theirs.id).state == "settled"
    waits = till.withdrawal(queued.id)
    assert (waits.state, waits.reason.split(":")[0]) == ("queued", "payments-reverted")
    assert till.build() is None
    till.execute("UPDATE blocks SET observed_at = observed_at - interval '2 days'")
    fifth = till.request(mallory, 1_000, destination=till.nobody())
    till.send()
    till.settle()
    assert [till.withdrawal(each.id).state for each in (queued, fifth)] == ["settled", "settled"]


def test_a_token_that_says_no_only_once_it_is_mined_has_paid_nobody(
    evm_till: EvmTill, outside: TillOutside
) -> None:
    """It would have moved when it was signed. Mined, it returns false: a success, by its receipt."""
    till = evm_till
    outside.falx.do(outside.payer, "setRefuses", False)
    alice = till.customer("alice", FALX=4 * ETHER)
    till.fund("FALX", 10 * ETHER)
    first, second = till.nobody(), till.nobody()
    refused = till.request(alice, ETHER, asset="FALX", destination=first)
    till.route()
    assert till.build() is not None
    till.sign()
    outside.falx.do(outside.payer, "setRefuses", True)
    till.broadcast()
    till.mine()
    outside.falx.do(outside.payer, "setRefuses", False)
    till.settle()
    assert till.has(first, "FALX") == 0
    assert till.withdrawal(refused.id).state == "failed"
    assert till.balance(alice, asset="FALX") == 4 * ETHER
    assert till.balance(None, "suspense", asset="FALX") == 10 * ETHER, "only what the operators brought"
    paid = till.request(alice, ETHER, asset="FALX", destination=second)
    till.send()
    till.settle()
    assert (till.withdrawal(paid.id).state, till.has(second, "FALX")) == ("settled", ETHER)


@pytest.fixture
def broken(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[EvmTill]:
    """A till whose books a test breaks: it is not checked in the end."""
    opened = EvmTill(database, outside, tmp_path)
    opened.fund()
    opened.fund("USDX", 10_000_000)
    yield opened
    opened.close()


@pytest.mark.parametrize(("asset", "units", "scope"), [("ETH", ETHER, "all"), ("USDX", 10**6, "asset:USDX")])
def test_whoever_has_the_monitors_role_and_calls_a_payment_reverted_is_noticed_by_the_nodes_balances(
    broken: EvmTill, asset: str, units: int, scope: str
) -> None:
    """The hold is given back, and it was paid: reconciliation stops that asset before the next one."""
    till = broken
    alice = till.customer("alice", **{asset: 4 * units})
    withdrawal = till.request(alice, units, asset=asset)
    till.send()
    till.mine()
    with till._monitor_db.transaction() as tx:
        tx.execute("UPDATE consumptions SET succeeded = false")
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "failed"
    till.request(alice, units, asset=asset)
    assert not till.enforce().ok
    assert [row["scope"] for row in till.query("SELECT scope FROM halts")] == [scope]
    till.route()
    assert till.build() is None


def next_trap(outside: TillOutside) -> str:
    """Where the payer's next contract will be."""
    return created_at(
        outside.payer, int(outside.node.rpc("eth_getTransactionCount", outside.payer, "latest"), 16)
    )


def spring(outside: TillOutside, trap: str) -> None:
    """An address without code gets some: it takes no money any more."""
    assert deploy(outside.node, outside.payer, outside_artifact("RevertingReceiver")).address == trap


def created_at(sender: str, nonce: int) -> str:
    """Address of a contract that a sender creates with a nonce (Yellow Paper, section 7)."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    tail = number if nonce and nonce < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + raw_address(sender) + tail
    return checksummed(keccak256(bytes([0xC0 + len(body)]) + body)[12:])
