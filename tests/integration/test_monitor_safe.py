"""A Safe and a gas payer under the monitor: arrivals, executions of ours and of strangers, reorgs; exact to the wei."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.network import NativeMode
from chains.eth.safe import SafeTx, safe_resource
from custody.monitor.lead import lock_name
from custody.monitor.rescan import Added, rescan
from custody.reconcile.model import VarianceKind
from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import CHAIN, ETHER, Outside
from tests.fakes.safe_desk import GAS_PAYER, VAULT, SafeDesk, open_safe_desk
from tests.support.evm import deploy, outside_artifact

FUNDED = 50 * ETHER
PAID = 7 * ETHER + 3


@pytest.fixture(scope="module", params=[NativeMode.TRACE, NativeMode.BALANCE], ids=["trace", "balance"])
def outside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("monitor-safe")) as node:
        yield Outside(node, request.param)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[SafeDesk]:
    with open_safe_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def alice(desk: SafeDesk, outside: Outside) -> str:
    """A customer with 20 ETH and some USDX; the Safe has more than that."""
    alice = desk.customer("alice")
    address = desk.address(alice).address
    outside.send("ETH", address, 20 * ETHER)
    outside.send("USDX", address, 9_000_000)
    outside.send("ETH", desk.safe, FUNDED)
    outside.send("USDX", desk.safe, 8_000_000)
    desk.finalize()
    settled(desk)
    return alice


def settled(desk: SafeDesk) -> None:
    """What blocks do not explain, as arrivals where balances are compared, is booked; then all agrees."""
    desk.enforce()
    desk.enforce()
    desk.exact()


def wallet(desk: SafeDesk, name: str, asset: str = "ETH") -> int:
    """What the ledger says is in a wallet."""
    rows = desk.query(
        "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s AND asset = %s",
        name,
        asset,
    )
    return -sum(int(row["balance"]) for row in rows)


def consumptions(desk: SafeDesk) -> list[tuple[str, bool]]:
    rows = desk.query("SELECT resource, succeeded FROM consumptions WHERE resource LIKE 'safe:%%' ORDER BY 1")
    return [(row["resource"], row["succeeded"]) for row in rows]


def test_what_comes_to_a_safe_or_gas_payer_is_nobodys_and_in_suspense(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    assert wallet(desk, VAULT) == FUNDED
    assert wallet(desk, VAULT, "USDX") == 8_000_000
    outside.send("ETH", desk.bundle.gas_payers[0].address, ETHER)
    desk.finalize()
    settled(desk)
    assert wallet(desk, GAS_PAYER) == ETHER
    assert desk.balance(None, "suspense") == FUNDED + ETHER
    assert desk.balance(alice) == 20 * ETHER


def test_a_payment_by_the_safe_is_followed_to_its_end_and_reconciles_to_the_wei(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    somewhere = raw_address(outside.node.accounts()[7])
    native = SafeTx(somewhere, PAID, b"", 0)
    token = SafeTx(raw_address(outside.usdx.address), 0, transfer_calldata(somewhere, 1_000_000), 1)
    first = desk.record_safe(native, (alice, "ETH", PAID))
    second = desk.record_safe(token, (alice, "USDX", 1_000_000))
    before = wallet(desk, VAULT)
    desk.carry_out(native)
    desk.carry_out(token)
    desk.mine()
    desk.exact()
    assert consumptions(desk) == [(safe_resource(raw_address(desk.safe), n), True) for n in (0, 1)]
    desk.track()
    assert {desk.transaction_state(each) for each in (first, second)} == {"confirming"}
    desk.exact()
    desk.finalize()
    desk.track()
    assert {desk.transaction_state(each) for each in (first, second)} == {"final"}
    desk.exact()
    assert wallet(desk, VAULT) == before - PAID
    assert wallet(desk, VAULT, "USDX") == 7_000_000
    assert desk.balance(None, "network_fees") == 0, "the gas was a stranger's"
    assert desk.halted() is None
    assert desk.track() == 0


def test_fault_22_a_strangers_execution_halts_all_paying_and_its_loss_is_booked_once_it_is_final(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    suspense = desk.balance(None, "suspense")
    desk.carry_out(SafeTx(raw_address(outside.node.accounts()[7]), 2 * ETHER, b"", 0))
    desk.mine()
    [alert] = desk.query("SELECT subject FROM alerts WHERE type = 'coin.foreign_spend'")
    assert alert["subject"] == safe_resource(raw_address(desk.safe), 0)
    assert "which is not ours" in (desk.halted() or "")
    report = desk.reconcile()
    assert not report.ok
    assert any("safe:" in each for each in report.differences())
    desk.finalize()
    [booking] = desk.reconcile().bookings
    assert (booking.kind, booking.units, booking.key.wallet) == (VarianceKind.LOSS, -2 * ETHER, VAULT)
    settled(desk)
    assert desk.balance(None, "suspense") == suspense - 2 * ETHER


def test_fault_7_an_execution_that_a_reorg_removes_is_waited_for_and_followed_again(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    tx = SafeTx(raw_address(outside.node.accounts()[7]), PAID, b"", 0)
    paid = desk.record_safe(tx, (alice, "ETH", PAID))
    desk.carry_out(tx)
    desk.mine()
    desk.track()
    assert desk.transaction_state(paid) == "confirming"
    removed = desk.reorg(1)
    desk.track()
    assert desk.transaction_state(paid) == "broadcast"
    assert consumptions(desk) == []
    desk.exact()
    desk.send_again(removed)
    desk.mine()
    desk.track()
    desk.finalize()
    desk.track()
    assert desk.transaction_state(paid) == "final"
    desk.exact()
    assert consumptions(desk) == [(safe_resource(raw_address(desk.safe), 0), True)]


def test_fault_11_blocks_with_executions_replayed_change_nothing(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    tx = SafeTx(raw_address(outside.node.accounts()[7]), PAID, b"", 0)
    desk.record_safe(tx, (alice, "ETH", PAID))
    desk.carry_out(tx)
    desk.finalize()
    desk.track()
    before = (
        desk.query("SELECT * FROM consumptions ORDER BY 1, 2"),
        desk.query("SELECT * FROM ledger_lines ORDER BY 1"),
    )
    with desk.db.session() as session:
        assert session.try_lock(lock_name(CHAIN))
        added = rescan(
            desk.adapter,
            session,
            desk.bundle,
            desk.screening,
            desk.anvil.height() - 8,
            resource_set=desk._resource_set,
        )
    assert added == Added()
    desk.track()
    after = (
        desk.query("SELECT * FROM consumptions ORDER BY 1, 2"),
        desk.query("SELECT * FROM ledger_lines ORDER BY 1"),
    )
    assert before == after
    desk.exact()


def test_fault_24_a_token_that_says_no_without_failing_has_not_paid_though_the_safe_says_success(
    desk: SafeDesk, outside: Outside, alice: str
) -> None:
    """The Safe looks at whether a call fails, not at what it returns."""
    falx = deploy(outside.node, outside.payer, outside_artifact("FalseToken"))
    falx.do(outside.payer, "mint", outside.payer, 10**20)
    falx.do(outside.payer, "setRefuses", False)
    desk.list_token("FALX", falx)
    for to in (desk.address(alice).address, desk.safe):
        falx.do(outside.payer, "transfer", to, 5_000)
    desk.finalize()
    settled(desk)
    falx.do(outside.payer, "setRefuses", True)
    data = transfer_calldata(raw_address(outside.node.accounts()[7]), 2_500)
    said = [SafeTx(raw_address(falx.address), 0, data, nonce) for nonce in (0, 1)]
    first, second = (desk.record_safe(tx, (alice, "FALX", 2_500)) for tx in said)
    desk.carry_out(said[0])
    desk.mine()
    falx.do(outside.payer, "setRefuses", False)
    desk.carry_out(said[1])
    desk.mine()
    safe = raw_address(desk.safe)
    assert consumptions(desk) == [(safe_resource(safe, 0), False), (safe_resource(safe, 1), True)]
    desk.track()
    desk.finalize()
    desk.track()
    assert (desk.transaction_state(first), desk.transaction_state(second)) == ("dead", "final")
    desk.exact()
