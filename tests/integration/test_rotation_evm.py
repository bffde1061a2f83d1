"""Rotation of an EVM key: native money and tokens go to the next key, forwarders' too while the old one is trusted.

The signer's guard and journal are real, and hold both key-sets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains.eth.contracts import artifact
from chains.eth.watch import WatchedSenders
from custody.monitor.watch import ResourceSet
from custody.signing.broadcast import broadcast
from custody.signing.bump import bump
from custody.signing.evm.site import EvmSite, evm_site
from custody.signing.sign import sign
from custody.storage import halts
from custody.sweeps import readmodel
from custody.sweeps.model import Sweep, SweepPace
from custody.sweeps.service import sweep
from ops.devnet.anvil import Anvil
from policies.bundle import KeyState
from signers.keys.keyset import EvmKeysetRecord
from signers.wallets import EvmWallet, Wallet
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, SoftEvmKeys
from tests.fakes.evm_till import EvmTill, TillOutside
from tests.fakes.signing import House
from tests.fakes.teller import opened
from tests.support.evm import deploy

NEW = "eth-hot-2"
USDX = 10**6


class RotatingTill(EvmTill):
    """A till whose signer holds a second key, which follows the first."""

    def _make_record(self, house: House) -> EvmKeysetRecord:
        self.new_keys = SoftEvmKeys.make(NEW, self.anvil.chain_id)
        admin = self.anvil.accounts()[9]
        self.new_factory = deploy(
            self.anvil, self.outside.payer, artifact("ForwarderFactory"), self.new_keys.record.address, admin
        )
        return super()._make_record(house)

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {**super()._wallets(), NEW: EvmWallet(self.new_keys)}

    def _resource_set(self) -> ResourceSet:
        return WatchedSenders([self.world.record.address, self.new_keys.record.address])

    def retire(self, version: int, state: KeyState) -> None:
        """The old key gets a state, and the new one is active."""
        payout = self.world.payout
        place = {"forwarder": self.world.forwarder, "payout": payout}
        old = self.world.keyset_entry(self.world.record, factory=self.world.factory, state=state, **place)
        forwarder = bytes(self.new_factory.call("initcodeHash")).hex()
        new = self.world.keyset_entry(
            self.new_keys.record, factory=self.new_factory.address, forwarder=forwarder, payout=payout
        )
        self.adopt(version, keysets=(old, new))
        self.catch_up()

    @property
    def old_site(self) -> EvmSite:
        keyset = self.bundle.keyset(self.world.record.id)
        return evm_site(self.bundle, EVM_CHAIN, self.node, pace=self.pace, wallet=keyset)

    def rotate(self) -> int:
        return sweep(self.db, self.old_site, SweepPace(gather_seconds=0), now=int(time.time()))

    def through(self) -> None:
        """From the record to the end."""
        sign(self.db, self.old_site, self.signer)
        broadcast(self.db, self.old_site)
        self.settle()

    def held(self, keyset: str, asset: str) -> int:
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s AND asset = %s",
            keyset,
            asset,
        )
        return -sum(int(row["balance"]) for row in rows)

    def rotations(self) -> list[Sweep]:
        with self.admin.snapshot() as tx:
            return [each for each in readmodel.shown(tx, limit=100) if each.kind == "rotation"]


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[RotatingTill]:
    with opened(RotatingTill(database, outside, tmp_path)) as till:
        yield till


def test_native_money_tokens_and_late_deposits_go_to_the_new_key_and_the_books_follow(
    till: RotatingTill,
) -> None:
    till.fund()
    till.customer("alice", ETH=ETHER, USDX=500 * USDX)
    till.retire(2, "deactivated")
    old = till.world.record.id
    # The forwarders' money is flushed to the old key first, whose gas pays for it, and goes on from there.
    for _ in range(6):
        till.rotate()
        till.check()
        till.through()
        till.check()
    assert till.held(old, "USDX") == 0
    assert till.held(NEW, "USDX") == 500 * USDX
    kept = till.held(old, "ETH")
    assert 0 < kept <= int(till.bundle.network(EVM_CHAIN).fee_cap), "what its own gas may need"
    assert till.held(NEW, "ETH") > 100 * ETHER
    assert till.balance("alice", asset="USDX") == 500 * USDX
    assert till.rotate() == 0, "again changes nothing"
    assert {each.state for each in till.rotations()} == {"confirmed"}
    # The new key pays out of what came.
    withdrawal = till.request("alice", 100 * USDX, asset="USDX")
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"


def test_of_a_compromised_key_only_what_it_has_is_moved_even_while_paying_is_halted(
    till: RotatingTill,
) -> None:
    till.fund()
    till.fund("USDX", 50 * USDX)
    till.customer("alice", USDX=500 * USDX)
    with till.db.transaction() as tx:
        halts.halt(tx, halts.ALL, "a stranger has signed with our key")
    till.retire(2, "deactivated")
    assert till.rotate() == 0
    till.retire(3, "compromised")
    assert till.rotate() == 2, "one for each asset"
    till.through()
    till.check()
    assert till.held(NEW, "USDX") == 50 * USDX
    assert till.held(till.world.record.id, "USDX") == 500 * USDX, (
        "the forwarders': whoever has the key would take it"
    )
    assert till.rotate() == 1, "what was left for the token's gas, and was not needed"
    till.through()
    till.check()
    assert till.rotate() == 0
    till.lift_halt()


def test_a_stuck_rotation_is_replaced_at_its_nonce_and_moves_the_same(till: RotatingTill) -> None:
    till.fund()
    till.retire(2, "deactivated")
    assert till.rotate() == 1
    sign(till.db, till.old_site, till.signer)
    broadcast(till.db, till.old_site)
    [rotation] = till.rotations()
    assert rotation.transaction_id is not None
    first = till.transaction(rotation.transaction_id).versions[0]
    assert bump(till.db, till.old_site, rotation.transaction_id, first.feerate * 2) == 2
    till.through()
    till.check()
    assert till.held(NEW, "ETH") == till.tx_of(rotation.transaction_id).value_wei
    assert till.tx_of(rotation.transaction_id, 2).value_wei == till.tx_of(rotation.transaction_id).value_wei


def test_a_retired_key_without_gas_for_its_tokens_is_told_of_until_there_is_some(till: RotatingTill) -> None:
    till.fund("USDX", 50 * USDX)
    till.retire(2, "deactivated")
    for _ in range(2):
        assert till.rotate() == 0
        assert "rotation.no_gas" in till.alerts()
    [alert] = till.query("SELECT * FROM alerts WHERE type = 'rotation.no_gas'")
    assert (alert["subject"], alert["severity"]) == (till.world.record.id, "warning")
    assert alert["data"]["available_units"] == "0"
    till.fund("ETH", int(alert["data"]["needed_units"]))
    assert till.rotate() == 1
    assert "rotation.no_gas" not in till.alerts()
    till.through()
    till.check()
    assert till.held(NEW, "USDX") == 50 * USDX
    assert till.rotate() == 0
    assert "rotation.no_gas" not in till.alerts(), (
        "what is left pays for nothing, and nothing is left to pay for"
    )
