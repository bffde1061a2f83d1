"""Reconciliation is exact at any moment: with payments in every stage, through reorgs; and one satoshi is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.script import p2wpkh_script
from chains.btc.tx import Transaction, TxOut
from chains.ports import BroadcastState
from custody.deposits.repository import addresses_of
from custody.ledger.bookings import (
    book_network_fee,
    settle_withdrawal,
    unbook_network_fee,
    unsettle_withdrawal,
)
from custody.ledger.model import Command
from custody.ledger.service import post_all
from custody.monitor.monitor import Options
from custody.reconcile.command import render
from custody.reconcile.model import Report
from custody.reconcile.service import enforce, reconcile
from custody.reconcile.wallets import NotComparable
from custody.storage import halts
from ops.devnet.bitcoind import Bitcoind, OutsideWallet
from ops.stack.quorum import make_quorum, publish
from tests.fakes.desk import (
    ASSET,
    CHAIN,
    FEE_SATS,
    KEYSET,
    Desk,
    as_role,
    open_desk,
    record_payment,
    signed_spend,
)

DEPOSITED = 3_000_000
PAID = 1_000_000
FEE_V1, FEE_V2 = 20_000, 50_000
ELSEWHERE = p2wpkh_script(b"\x02" + bytes(31) + b"\x01")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    with Bitcoind(tmp_path_factory.mktemp("reconcile")) as node:
        yield node


@pytest.fixture(scope="module")
def payer(node: Bitcoind) -> OutsideWallet:
    wallet = node.wallet("payer")
    wallet.mine(140)
    return wallet


@pytest.fixture
def desk(database: str, node: Bitcoind, payer: OutsideWallet) -> Iterator[Desk]:
    adapter = BitcoinNode(CHAIN, NETWORKS["regtest"], node.rpc_url, node.rest_url)
    options = Options(start_height=int(node.rpc("getblockcount")), heartbeat_seconds=0, mempool_seconds=0)
    with open_desk(database, adapter, options=options) as desk:
        desk.catch_up()
        yield desk
    adapter.close()


def reconciled(desk: Desk) -> Report:
    assert isinstance(desk.adapter, BitcoinNode)
    return reconcile(desk.admin, desk.bundle, {CHAIN: desk.adapter})


def exact(desk: Desk) -> Report:
    report = reconciled(desk)
    assert report.ok, report.differences()
    [statement] = report.statements
    assert statement.difference_units == 0
    assert statement.coins_units == statement.node_units
    return report


@dataclass
class Payment:
    """A withdrawal in two versions, driven by hand through what workers do."""

    desk: Desk
    withdrawal: str
    transaction: str
    first: bytes
    second: bytes

    def settle(self, raw: bytes, fee: int, n: int = 1) -> None:
        block = self.desk.query(
            "SELECT height, block_hash FROM consumptions WHERE txid = %s LIMIT 1",
            Transaction.parse(raw).txid.hex,
        )[0]
        with self.desk.admin.transaction() as tx:
            commands: list[Command] = [
                settle_withdrawal(
                    UUID(self.withdrawal),
                    n,
                    customer="alice",
                    asset=ASSET,
                    wallet=KEYSET,
                    units=PAID,
                    fee_units=FEE_SATS,
                ),
                book_network_fee(UUID(self.transaction), n, asset=ASSET, wallet=KEYSET, fee_units=fee),
            ]
            post_all(tx, commands)
            for state in ("confirming", "settled"):
                tx.execute("UPDATE withdrawals SET state = %s WHERE id = %s", [state, self.withdrawal])
            for state in ("confirming", "final"):
                tx.execute(
                    "UPDATE transactions SET state = %s, confirmed_txid = %s, height = %s, block_hash = %s"
                    " WHERE id = %s",
                    [
                        state,
                        Transaction.parse(raw).txid.hex,
                        block["height"],
                        block["block_hash"],
                        self.transaction,
                    ],
                )

    def unsettle(self, n: int = 1) -> None:
        with self.desk.admin.transaction() as tx:
            post_all(
                tx,
                [
                    unsettle_withdrawal(UUID(self.withdrawal), n),
                    unbook_network_fee(UUID(self.transaction), n),
                ],
            )
            tx.execute("UPDATE withdrawals SET state = 'broadcast' WHERE id = %s", [self.withdrawal])
            tx.execute(
                "UPDATE transactions SET state = 'broadcast', confirmed_txid = NULL, height = NULL, block_hash = NULL"
                " WHERE id = %s",
                [self.transaction],
            )


@pytest.fixture
def payment(desk: Desk, payer: OutsideWallet) -> Payment:
    """Alice has a credited deposit and a payment from it, recorded in two conflicting versions; none is sent."""
    row = desk.address(desk.customer("alice"))
    txid = payer.send(row.address, DEPOSITED)
    payer.mine(6)
    desk.catch_up()
    coin = (desk.deposit(txid).resource, DEPOSITED, row)
    change = desk.change_address().script
    versions = [
        signed_spend(desk, [coin], [TxOut(PAID, ELSEWHERE), TxOut(DEPOSITED - PAID - fee, change)])
        for fee in (FEE_V1, FEE_V2)
    ]
    ids = record_payment(desk, "alice", list(zip(versions, (FEE_V1, FEE_V2), strict=True)), paid_sats=PAID)
    return Payment(desk, *ids, *versions)


def send(desk: Desk, raw: bytes) -> None:
    assert desk.adapter.broadcast(raw).state is BroadcastState.ACCEPTED


def undo(node: Bitcoind, depth: int) -> None:
    height = int(node.rpc("getblockcount"))
    node.rpc("invalidateblock", node.rpc("getblockhash", height - depth + 1))


def test_every_stage_of_a_payment_reconciles_to_the_satoshi(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, payment: Payment
) -> None:
    exact(desk)
    send(desk, payment.first)
    exact(desk)
    payer.mine(1)
    desk.catch_up()
    [statement] = exact(desk).statements
    assert statement.mined_not_settled_units == PAID + FEE_V1
    assert statement.ledger_units == DEPOSITED
    assert statement.coins_units == DEPOSITED - PAID - FEE_V1
    payer.mine(5)
    desk.catch_up()
    exact(desk)
    payment.settle(payment.first, FEE_V1)
    [statement] = exact(desk).statements
    assert statement.mined_not_settled_units == 0
    assert statement.ledger_units == DEPOSITED - PAID - FEE_V1


def test_a_settled_payment_that_a_reorg_undid_reconciles_before_and_after_it_is_reversed(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, payment: Payment
) -> None:
    send(desk, payment.first)
    payer.mine(6)
    desk.catch_up()
    payment.settle(payment.first, FEE_V1)
    undo(node, 6)
    for _ in range(7):
        node.rpc("generateblock", payer.address(), [])
    desk.catch_up()
    [statement] = exact(desk).statements
    assert statement.settled_not_mined_units == PAID + FEE_V1
    # The other version is mined instead, while the ledger still has the fee of the first.
    node.rpc("generateblock", payer.address(), [payment.second.hex()])
    desk.catch_up()
    [statement] = exact(desk).statements
    assert statement.mined_not_settled_units == PAID + FEE_V2
    assert statement.settled_not_mined_units == PAID + FEE_V1
    payment.unsettle()
    [statement] = exact(desk).statements
    assert statement.settled_not_mined_units == 0
    payer.mine(5)
    desk.catch_up()
    payment.settle(payment.second, FEE_V2, n=2)
    [statement] = exact(desk).statements
    assert statement.ledger_units == DEPOSITED - PAID - FEE_V2


def test_deposits_in_every_state_reconcile(desk: Desk, node: Bitcoind, payer: OutsideWallet) -> None:
    alice = desk.customer("alice")
    payer.send(desk.address(alice).address, DEPOSITED)
    payer.mine(3)
    payer.send(desk.address(alice).address, 600)
    payer.send(desk.change_address().address, 70_000)
    payer.mine(3)
    payer.send(desk.address(alice).address, 80_000)
    desk.catch_up()
    [statement] = exact(desk).statements
    assert statement.uncredited == {"confirming": 70_600}
    payer.mine(4)
    desk.catch_up()
    [statement] = exact(desk).statements
    assert statement.uncredited == {"below_minimum": 600, "confirming": 80_000}
    assert statement.ledger_units == DEPOSITED + 70_000


def test_row_49_one_satoshi_of_difference_raises_an_alarm_and_halts_paying(
    desk: Desk, payer: OutsideWallet, payment: Payment
) -> None:
    exact(desk)
    desk.execute("UPDATE receipts SET units = units + 1")
    report = reconciled(desk)
    assert not report.ok
    [statement] = report.statements
    assert statement.difference_units == 1
    broken = {check.number for check in report.checks if not check.ok}
    assert broken >= {3, 4, 5}
    assert "+0.00000001 BTC" in render(report)
    enforce(desk.admin, report)
    enforce(desk.admin, report)
    assert desk.alerts() == ["reconcile.difference"]
    with desk.admin.snapshot() as tx:
        assert "reconciliation" in str(halts.halted(tx, CHAIN))
    desk.execute("UPDATE receipts SET units = units - 1")
    enforce(desk.admin, exact(desk))
    assert desk.alerts() == []
    with desk.admin.snapshot() as tx:
        assert halts.halted(tx, CHAIN) is not None, "an operator lifts it"


EDITS = {
    "ALTER TABLE ledger_accounts DISABLE TRIGGER ALL; UPDATE ledger_accounts SET balance = balance + 1": 1,
    "UPDATE withdrawals SET units = units - 1": 2,
    "DELETE FROM receipts": 3,
    "ALTER TABLE deposits DISABLE TRIGGER ALL; UPDATE deposits SET state = 'confirming'": 5,
    "UPDATE transaction_versions SET fee_units = fee_units + 1": 6,
    "ALTER TABLE transactions DISABLE TRIGGER ALL; UPDATE transactions SET state = 'dead'": 6,
    "DELETE FROM transaction_versions": 7,
}


@pytest.mark.parametrize(("sql", "rule"), EDITS.items())
def test_an_edited_table_is_noticed_by_the_rule_that_it_breaks(
    desk: Desk, payer: OutsideWallet, payment: Payment, sql: str, rule: int
) -> None:
    send(desk, payment.first)
    payer.mine(2)
    desk.catch_up()
    exact(desk)
    for statement in sql.split("; "):
        desk.execute(statement)
    report = reconciled(desk)
    assert rule in {check.number for check in report.checks if not check.ok}, report.differences()


def test_a_coin_that_somebody_else_spent_is_a_difference(
    desk: Desk, payer: OutsideWallet, payment: Payment
) -> None:
    with desk.admin.snapshot() as tx:
        [row] = addresses_of(tx, "alice")
    [deposit] = desk.deposits()
    stranger = signed_spend(desk, [(deposit.resource, DEPOSITED, row)], [TxOut(DEPOSITED - 1_000, ELSEWHERE)])
    send(desk, stranger)
    payer.mine(1)
    desk.catch_up()
    report = reconciled(desk)
    assert {check.number for check in report.checks if not check.ok} == {7}
    assert report.statements[0].lost_not_booked_units == DEPOSITED
    assert report.statements[0].difference_units == 0
    assert "coin.foreign_spend" in desk.alerts()


def test_a_monitor_that_does_not_reach_the_node_is_no_difference(
    desk: Desk, payer: OutsideWallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custody.reconcile.wallets.WAIT_SECONDS", 0)
    payer.mine(1)
    with pytest.raises(NotComparable):
        reconciled(desk)


def test_what_waits_without_an_alert_gets_one(desk: Desk, payment: Payment) -> None:
    assert exact(desk).waiting == ()
    desk.execute("UPDATE withdrawals SET updated_at = now() - interval '13 hours', not_before = 'yesterday'")
    report = exact(desk)
    assert [each.subject for each in report.waiting] == [payment.withdrawal]
    enforce(desk.admin, report)
    assert desk.alerts() == ["withdrawal.waiting"]
    assert exact(desk).waiting == ()


def test_the_command_prints_json_or_a_table_and_its_exit_code_says_the_outcome(
    desk: Desk, node: Bitcoind, payer: OutsideWallet, tmp_path: Path
) -> None:
    payer.send(desk.address(desk.customer("alice")).address, DEPOSITED)
    payer.mine(6)
    desk.catch_up()
    quorum = make_quorum(tmp_path / "officers")
    bundle, root = publish(tmp_path, quorum.sign(desk.bundle), quorum.trust_root(minimum_version=1))
    env = {
        **os.environ,
        "STRONGROOM_DATABASE_URL": as_role(desk.dsn, "strongroom_read"),
        "STRONGROOM_BUNDLE_PATH": str(bundle),
        "STRONGROOM_TRUST_ROOT_PATH": str(root),
        "STRONGROOM_NODES": json.dumps(
            {CHAIN: {"rpc_url": node.rpc_url, "rest_url": node.rest_url, "zmq_url": ""}}
        ),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "custody.reconcile", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    done = run("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["wallets"][0]["coins"] == str(DEPOSITED)
    assert "No difference." in run().stdout
    desk.execute("UPDATE receipts SET units = units + 1")
    assert run("--json").returncode == 1
