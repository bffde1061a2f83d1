"""EVM wallets on anvil: exact through payments, sweeps and reorgs; gifts stop nothing, one wei too little does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from chains.errors import NodeUnavailable
from chains.eth.forwarder import agreed_forwarder
from chains.eth.network import NativeMode
from chains.eth.node import EvmNode
from custody.reconcile.command import render
from custody.reconcile.service import enforce, reconcile
from ops.devnet.anvil import Anvil
from ops.stack.quorum import make_quorum, publish
from tests.fakes.desk import as_role
from tests.fakes.evm_desk import CHAIN, ETHER, KEYSET, EvmDesk, Outside, open_evm_desk
from tests.support.evm import deploy, outside_artifact

UNITS = ETHER // 2
PAID = ETHER // 10


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("reconcile-evm")) as node:
        yield Outside(node, NativeMode.TRACE)


@pytest.fixture
def desk(database: str, outside: Outside) -> Iterator[EvmDesk]:
    with open_evm_desk(database, outside) as desk:
        yield desk


@pytest.fixture
def alice(desk: EvmDesk, outside: Outside) -> str:
    """A customer with ETH, USDX and FEEX at one address, credited; the key has money for gas."""
    alice = desk.customer("alice")
    address = desk.address(alice).address
    for asset, units in {"ETH": UNITS, "USDX": 5_000_000, "FEEX": 1_000_000}.items():
        outside.send(asset, address, units)
    desk.fund_gas()
    desk.exact()
    return alice


def somewhere(outside: Outside) -> str:
    return outside.node.accounts()[7]


def test_every_stage_of_payments_and_sweeps_reconciles_to_the_wei(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    [row, *_] = [row for row in desk.addresses() if row.customer == alice]
    desk.flush([row])
    desk.exact()
    desk.mine()
    found = {each.key.asset: each for each in desk.reconcile().statements}
    assert found["ETH"].mined_not_settled_units > 0, "its gas"
    assert found["ETH"].difference_units == found["USDX"].difference_units == 0
    assert found["USDX"].pending_units == 0
    desk.pay(alice, "ETH", PAID, somewhere(outside))
    token = desk.pay(alice, "USDX", 1_000_000, somewhere(outside))
    desk.mine()
    found = {each.key.asset: each for each in desk.reconcile().statements}
    assert found["USDX"].mined_not_settled_units == 1_000_000
    assert all(each.difference_units == 0 for each in found.values())
    desk.track()
    desk.finalize()
    assert desk.reconcile().ok
    assert desk.track() == 3
    assert desk.transaction_state(token) == "final"
    found = {each.key.asset: each for each in desk.reconcile().statements}
    assert all(each.mined_not_settled_units == each.difference_units == 0 for each in found.values())
    assert desk.balance(alice, asset="USDX") == 4_000_000
    assert desk.balance(None, "network_fees") < 0, "the house paid the gas"
    desk.enforce()
    desk.exact()
    # A reorg of what was final: nothing moves but the terms of the identity, before and after workers follow.
    desk.reorg(2 * outside.node.slots_in_an_epoch + 2)
    found = {each.key.asset: each for each in desk.reconcile().statements}
    assert found["USDX"].settled_not_mined_units == 1_000_000
    assert all(each.difference_units == 0 for each in found.values())
    desk.track()
    assert desk.reconcile().ok
    assert desk.halted() is None


def test_a_reverted_payment_costs_its_gas_and_nothing_else(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    """The tokens are still at the forwarder, so the transfer fails."""
    transaction = desk.pay(alice, "USDX", 1_000_000, somewhere(outside))
    desk.mine()
    [used] = desk.query("SELECT succeeded, fee_units FROM consumptions")
    assert used["succeeded"] is False
    desk.exact()
    desk.track()
    desk.exact()
    desk.finalize()
    desk.exact()
    desk.track()
    assert desk.transaction_state(transaction) == "dead"
    assert desk.balance(alice, asset="USDX") == 5_000_000
    assert desk.balance(None, "network_fees") == -int(used["fee_units"])
    desk.exact()


def test_what_lies_at_an_address_before_it_is_given_out_goes_to_suspense_and_stops_nothing(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    [taken] = desk.query("SELECT next FROM address_indexes WHERE branch = 0")
    index = int(taken["next"])
    future = agreed_forwarder(desk.evm_keys.factory, desk.evm_keys.forwarder, index)
    outside.send("ETH", future, 77)
    outside.send("USDX", future, 88)
    desk.finalize()
    desk.exact()
    before = desk.balance(None, "suspense")
    assert desk.address(alice).address == future
    found = {each.key.asset: each.pending_units for each in desk.reconcile().statements}
    assert (found["ETH"], found["USDX"]) == (77, 88)
    assert desk.enforce().ok
    desk.exact()
    assert desk.balance(None, "suspense") == before + 77
    assert desk.balance(None, "suspense", "USDX") == 88
    assert desk.halted() is None
    booked = desk.contents()
    desk.enforce()
    desk.enforce()
    assert desk.contents() == booked
    assert desk.alerts().count("variance.surplus") == 2


def test_dust_left_by_dying_contracts_stops_nothing(desk: EvmDesk, outside: Outside, alice: str) -> None:
    row = desk.address(alice)
    for heir in (row.address, desk.evm_keys.address):
        deploy(outside.node, outside.payer, outside_artifact("Bequest"), heir, value_wei=1)
    outside.wallet.do(outside.payer, "payByCall", row.address, 1, b"")
    desk.catch_up()
    desk.exact()
    desk.finalize()
    assert desk.enforce().ok
    desk.exact()
    assert desk.halted() is None


def test_money_from_nowhere_waits_until_it_is_final_and_is_unbooked_when_a_reorg_takes_it(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    """As block rewards are: no transaction brings them."""
    before = desk.balance(None, "suspense")
    outside.node.fund(desk.evm_keys.address, ETHER)
    desk.mine()
    report = desk.enforce()
    assert report.ok
    assert {each.key.asset: each.pending_units for each in report.statements}["ETH"] == ETHER
    assert desk.query("SELECT * FROM variances") == [], "not final"
    desk.finalize()
    assert desk.enforce().ok
    assert desk.balance(None, "suspense") == before + ETHER
    desk.exact()
    depth = 2 * outside.node.slots_in_an_epoch + 2
    desk.reorg(depth)
    assert desk.reconcile().ok, "the booking and the money are both gone, whoever follows first"
    desk.enforce()
    desk.enforce()
    desk.finalize()
    desk.enforce()
    desk.exact()
    there = outside.node.balance_wei(desk.evm_keys.address) >= 11 * ETHER
    assert desk.balance(None, "suspense") == before + (ETHER if there else 0)
    assert desk.halted() is None


def test_fault_24_what_a_token_keeps_in_a_sweep_is_the_houses_fee_once_it_is_final(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    [row, *_] = [row for row in desk.addresses() if row.customer == alice]
    arrived = outside.feex.call("balanceOf", row.address)
    assert desk.balance(alice, asset="FEEX") == arrived == 990_000
    desk.flush([row])
    desk.mine()
    report = desk.enforce()
    assert report.ok
    assert {each.key.asset: each.pending_units for each in report.statements}["FEEX"] == -9_900
    assert desk.query("SELECT * FROM variances") == []
    desk.finalize()
    desk.enforce()
    desk.exact()
    assert desk.balance(None, "network_fees", "FEEX") == -9_900
    assert desk.balance(alice, asset="FEEX") == arrived, "the customer is owed what arrived"
    assert "variance.token_fee" in desk.alerts()
    assert desk.halted() is None
    before = desk.contents()
    desk.enforce()
    assert desk.contents() == before


def test_a_token_that_nobody_listed_never_matters(desk: EvmDesk, outside: Outside, alice: str) -> None:
    [row, *_] = [row for row in desk.addresses() if row.customer == alice]
    outside.unlisted.do(outside.payer, "transfer", row.address, 10**12)
    desk.finalize()
    desk.exact()
    assert {each.key.asset for each in desk.reconcile().statements} == {"ETH", "USDX", "NORX", "FEEX"}


def test_fault_49_one_wei_or_one_token_unit_less_raises_an_alarm_and_halts_paying(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    for asset in ("ETH", "USDX"):
        [resource] = [
            each.resource for each in desk.deposits() if (each.asset, each.customer) == (asset, alice)
        ]
        desk.execute("UPDATE receipts SET units = units + 1 WHERE resource = %s", resource)
        report = desk.enforce()
        assert {3, 4, 5} <= {check.number for check in report.checks if not check.ok}
        assert {"ETH": "-0.000000000000000001 ETH", "USDX": "-0.000001 USDX"}[asset] in render(report)
        assert desk.alerts().count("reconcile.difference") == 1
        assert "reconciliation" in str(desk.halted())
        desk.execute("UPDATE receipts SET units = units - 1 WHERE resource = %s", resource)
        assert desk.enforce().ok
        assert "reconcile.difference" not in desk.alerts()
    assert desk.halted() is not None, "an operator lifts it"


EDITS = {
    "UPDATE deposits SET asset = 'ETH' WHERE asset = 'USDX'": 5,
    "UPDATE consumptions SET fee_units = fee_units - 1": 3,
    "UPDATE consumptions SET succeeded = NOT succeeded": 3,
    "UPDATE transaction_versions SET content = repeat('ab', 32)": 7,
    "UPDATE addresses SET index = index + 500 WHERE branch = 0": 7,
    "INSERT INTO variances SELECT gen_random_uuid(), chain, 'eth-hot', 'ETH', 'surplus', 1, height, hash FROM blocks"
    " LIMIT 1": 7,
}


@pytest.mark.parametrize(("sql", "rule"), EDITS.items())
def test_an_edited_table_is_noticed_by_the_rule_that_it_breaks(
    desk: EvmDesk, outside: Outside, alice: str, sql: str, rule: int
) -> None:
    desk.pay(alice, "ETH", PAID, somewhere(outside))
    desk.mine()
    desk.exact()
    desk.execute("ALTER TABLE transaction_versions DISABLE TRIGGER ALL")
    desk.execute(sql)
    report = desk.reconcile()
    assert rule in {check.number for check in report.checks if not check.ok}, report.differences()


def test_a_chain_that_is_away_keeps_no_other_from_being_compared(
    desk: EvmDesk, outside: Outside, alice: str
) -> None:
    """The bundle names two networks; the node of the second one does not answer."""
    network, keyset = desk.bundle.network(CHAIN), desk.bundle.keyset(KEYSET)
    desk.bundle = msgspec.structs.replace(
        desk.bundle,
        networks=(*desk.bundle.networks, msgspec.structs.replace(network, chain="polygon-devnet")),
        keysets=(*desk.bundle.keysets, msgspec.structs.replace(keyset, id="other", chain="polygon-devnet")),
    )
    silent = EvmNode("polygon-devnet", desk.node.network, "http://127.0.0.1:9", tokens=tuple, timeout_s=1)
    desk.execute(
        "INSERT INTO blocks (chain, height, hash, previous) VALUES ('polygon-devnet', 1, %s, %s)",
        *["a" * 64] * 2,
    )
    desk.execute(
        "INSERT INTO cursors (chain, height, hash, anchor) VALUES ('polygon-devnet', 1, %s, 0)", "a" * 64
    )
    xeth = msgspec.structs.replace(desk.bundle.asset("ETH"), id="XETH", chain="polygon-devnet")
    desk.bundle = msgspec.structs.replace(desk.bundle, assets=(*desk.bundle.assets, xeth))
    nodes = {"polygon-devnet": silent, CHAIN: desk.node}
    desk.execute("UPDATE receipts SET units = units + 1 WHERE asset = 'USDX'")
    report = reconcile(desk.admin, desk.bundle, nodes)
    enforce(desk.workers, report)
    assert (report.ok, set(report.absent)) == (False, {"polygon-devnet"})
    assert desk.halted() is not None
    desk.execute("UPDATE receipts SET units = units - 1 WHERE asset = 'USDX'")
    report = reconcile(desk.admin, desk.bundle, nodes)
    enforce(desk.workers, report)
    assert report.ok
    assert "reconcile.difference" in desk.alerts(), "not resolved by a comparison that is not whole"
    with pytest.raises(NodeUnavailable):
        reconcile(desk.admin, desk.bundle, {"polygon-devnet": silent})
    silent.close()


def test_the_command_covers_every_chain_that_has_a_node(
    desk: EvmDesk, outside: Outside, alice: str, tmp_path: Path
) -> None:
    quorum = make_quorum(tmp_path / "officers")
    bundle, root = publish(tmp_path, quorum.sign(desk.bundle), quorum.trust_root(minimum_version=1))
    env = {
        **os.environ,
        "STRONGROOM_DATABASE_URL": as_role(desk.dsn, "strongroom_read"),
        "STRONGROOM_BUNDLE_PATH": str(bundle),
        "STRONGROOM_TRUST_ROOT_PATH": str(root),
        "STRONGROOM_NODES": json.dumps({CHAIN: {"rpc_url": outside.node.rpc_url}}),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "custody.reconcile", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    done = run("--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found = {each["asset"]: each for each in json.loads(done.stdout)["wallets"]}
    assert found["ETH"]["node"] == found["ETH"]["coins"] == str(UNITS + 10 * ETHER)
    assert found["USDX"]["node"] == found["USDX"]["coins"] == "5000000"
    assert "No difference." in run().stdout
