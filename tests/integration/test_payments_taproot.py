"""A hot wallet of taproot keys: deposits to bc1p addresses, payments, replacements and consolidations from them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.btc.script import KEY_LOCKS
from chains.btc.tx import Transaction
from custody.signing.bump import bump
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.signing import SoftKeys, World
from tests.fakes.teller import opened
from tests.fakes.till import Till
from tests.integration.test_rotation_btc import NEW, RotatingTill

PACE = SweepPace(consolidate_above_coins=5, small_coin_sats=100_000, max_inputs=50)


class TaprootTill(Till):
    """A till whose key-set is P2TR."""

    def _make_world(self) -> World:
        self.keys = SoftKeys.make(os.urandom(32), script="p2tr")
        return World(self.keys.record, now=int(time.time()))


class IntoTaproot(RotatingTill):
    """A P2WPKH wallet that a P2TR one follows."""

    def _make_world(self) -> World:
        world = super()._make_world()
        self.new_keys = SoftKeys.make(os.urandom(32), NEW, "p2tr")
        return world


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TaprootTill]:
    with opened(TaprootTill(database, bitcoind, tmp_path)) as made:
        yield made


def largest_weight(tx: Transaction) -> int:
    """What signatures of the largest size make of it; taproot's have one size."""
    inputs = len(tx.inputs) * (KEY_LOCKS["p2tr"].input_wu - 4 * 41)
    return 4 * len(tx.serialize_without_witness()) + 2 + inputs


def test_a_deposit_to_a_taproot_address_is_credited_and_pays_a_withdrawal(till: TaprootTill) -> None:
    alice = till.customer("alice", 1_500_000, 1_600_000)
    assert till.address(alice).startswith("bcrt1p")
    destination = till.outside.address("bech32m")
    withdrawal = till.request(alice, 2_500_000, destination=destination)
    transaction_id = till.send()
    version = till.transaction(transaction_id).versions[0]
    assert version.txid in till.mempool()
    tx = till.bytes_of(transaction_id)
    assert [len(txin.witness) for txin in tx.inputs] == [1, 1]
    assert (tx.weight, tx.vsize) == (largest_weight(tx), version.size)
    assert till.keys.account.script(1, 0) in {out.script for out in tx.outputs}
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.paid_to(destination) == 2_500_000
    # And the change of it pays the next one.
    second = till.request(alice, 300_000)
    till.send()
    till.settle()
    assert till.withdrawal(second.id).state == "settled"


def test_a_taproot_payment_is_replaced_at_a_higher_fee(till: TaprootTill) -> None:
    alice = till.customer("alice", 3_000_000)
    withdrawal = till.request(alice, 1_000_000)
    transaction_id = till.send()
    first = till.bytes_of(transaction_id).txid.hex
    assert bump(till.db, till.site, transaction_id, 5_000) == 2
    till.sign()
    till.broadcast()
    assert first not in till.mempool()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"


def test_small_taproot_coins_become_one(till: TaprootTill) -> None:
    till.customer("alice", *(30_000 + 1_000 * n for n in range(8)), 5_000_000)
    assert sweep(till.db, till.site, PACE, now=int(time.time())) == 1
    [transaction_id] = till.sign()
    till.broadcast()
    tx = till.bytes_of(transaction_id)
    assert (len(tx.inputs), len(tx.outputs)) == (8, 1)
    assert tx.weight == largest_weight(tx)
    assert tx.vsize == till.transaction(transaction_id).versions[0].size
    till.settle()


def test_p2wpkh_coins_rotate_into_taproot_also_by_a_replacement(
    database: str, bitcoind: Bitcoind, tmp_path: Path
) -> None:
    with opened(IntoTaproot(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 3_000_000, 2_000_000)
        till.retire(2, "deactivated")
        assert till.rotate() == 1
        till.send_rotation()
        [rotation] = till.rotations()
        assert rotation.transaction_id is not None
        assert bump(till.db, till.old_site, rotation.transaction_id, 5_000) == 2
        till.send_rotation()
        [output] = till.bytes_of(rotation.transaction_id, 2).outputs
        assert output.script == till.new_keys.account.script(1, 0)
        assert output.script[:2] == b"\x51\x20"
        till.settle()
        withdrawal = till.request("alice", 4_000_000)
        till.send()
        till.settle()
        assert till.withdrawal(withdrawal.id).state == "settled"
