"""Paying on an EVM chain: native, tokens, batches; nonces, gas, and what has to wait. A real node, database, monitor
and guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.anvil import Anvil
from tests.fakes.evm_desk import ETHER, Outside
from tests.fakes.evm_till import EvmTill, open_evm_till


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> Outside:
    return Outside(anvil)


@pytest.fixture
def evm_till(database: str, outside: Outside, tmp_path: Path) -> Iterator[EvmTill]:
    with open_evm_till(database, outside, tmp_path) as opened:
        yield opened


def test_the_native_asset_is_paid_and_settled_once_it_is_final_and_its_gas_is_a_ledger_line(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=3 * ETHER)
    till.fund()
    destination = till.nobody()
    withdrawal = till.request(alice, ETHER, destination=destination)
    assert till.balance(alice, "frozen") == ETHER + ETHER // 1000
    transaction_id = till.send()
    tx = till.tx_of(transaction_id)
    assert (tx.nonce, tx.gas_limit, tx.value_wei, tx.data) == (0, 21_000, ETHER, b"")
    version = till.transaction(transaction_id).versions[0]
    assert version.txid in till.pool()
    till.mine()
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.has(destination) == ETHER
    [used] = till.query("SELECT fee_units FROM consumptions")
    assert 0 < used["fee_units"] < version.fee_units
    assert till.balance(None, "network_fees") == -used["fee_units"]
    assert till.balance(None, "fees_earned") == ETHER // 1000
    before = till.contents()
    for step in (till.route, till.build, till.sign, till.broadcast, till.track):
        step()
    assert till.contents() == before
