"""Rotation on a real node: what the old key-set holds goes to the new one, the books follow, nothing else is signed.

The signer's guard and journal are real, and hold both key-sets. A rescue is the same with keys that are compromised.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains.btc.hd import AccountKey
from custody.signing.broadcast import broadcast
from custody.signing.btc.site import BtcSite, btc_site
from custody.signing.bump import bump
from custody.signing.requests import read_request
from custody.signing.sign import sign
from custody.storage import halts
from custody.sweeps import readmodel
from custody.sweeps.model import Sweep, SweepPace
from custody.sweeps.rotation_btc import LAST_INDEX
from custody.sweeps.service import sweep
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import KeyState
from signers.guard.btc_shape import MAX_ROTATION_INDEX
from signers.ports import Refused
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signing import CHAIN, REGTEST, SoftKeys, World
from tests.fakes.teller import opened
from tests.fakes.till import Till

NEW = "btc-hot-2"


class RotatingTill(Till):
    """A till whose signer holds a second key-set, which follows the first."""

    def _make_world(self) -> World:
        world = super()._make_world()
        self.new_keys = SoftKeys.make(os.urandom(32), NEW)
        return world

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {**super()._wallets(), NEW: BitcoinWallet(self.new_keys)}

    def retire(self, version: int, state: KeyState) -> None:
        """The old key-set gets a state, and the new one is active."""
        new = World(self.new_keys.record, now=self.world.now).keyset_entry()
        self.adopt(version, keysets=(self.world.keyset_entry(state=state), new))

    @property
    def old_site(self) -> BtcSite:
        keyset = self.bundle.keyset(self.keys.record.id)
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace, wallet=keyset)

    def rotate(self) -> int:
        return sweep(self.db, self.old_site, SweepPace(), now=int(time.time()))

    def send_rotation(self) -> None:
        """From the record to the mempool."""
        assert sign(self.db, self.old_site, self.signer)
        assert broadcast(self.db, self.old_site)

    def held(self, keyset: str) -> int:
        """What the ledger says that a wallet has, in satoshis."""
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s", keyset
        )
        return -sum(int(row["balance"]) for row in rows)

    def rotations(self) -> list[Sweep]:
        with self.admin.snapshot() as tx:
            return [each for each in readmodel.shown(tx, limit=100) if each.kind == "rotation"]


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[RotatingTill]:
    with opened(RotatingTill(database, bitcoind, tmp_path)) as till:
        yield till


def test_what_a_retired_key_set_holds_goes_to_the_new_one_and_late_deposits_follow(
    till: RotatingTill,
) -> None:
    alice = till.customer("alice", 3_000_000, 2_000_000)
    old_address = till.query("SELECT address FROM addresses WHERE customer_id = 'alice' LIMIT 1")[0][
        "address"
    ]
    till.retire(2, "deactivated")
    assert till.rotate() == 1
    assert till.rotate() == 0, "one at a time"
    till.check()
    till.send_rotation()
    till.check()
    till.mine(1)
    till.track()
    till.check()
    till.settle()
    till.check()
    [done] = till.rotations()
    assert (done.state, done.reason, done.units) == ("confirmed", "retired", {"BTC": 5_000_000})
    assert done.fee_units is not None
    assert till.held(NEW) == 5_000_000 - done.fee_units
    assert till.held(till.keys.record.id) == 0
    assert till.balance(alice) == 5_000_000
    # A customer pays to the old address once more: credited as ever, and moved.
    till.outside.send(old_address, 1_000_000)
    till.mine(6)
    assert till.balance(alice) == 6_000_000
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.check()
    assert till.held(till.keys.record.id) == 0
    assert till.rotate() == 0, "again changes nothing"
    # The new key-set pays what customers order, out of what came from the old one.
    withdrawal = till.request(alice, 4_000_000)
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.held(NEW) < 2_000_000


def test_what_comes_late_is_moved_also_when_the_new_key_set_has_had_thousands_of_change_addresses(
    till: RotatingTill,
) -> None:
    """The old keys' signer knows nothing of the new ones' history, and goes no further than recovery always scans."""
    assert LAST_INDEX == MAX_ROTATION_INDEX
    till.customer("alice", 3_000_000)
    till.retire(2, "deactivated")
    account = AccountKey.parse(till.new_keys.record.account, REGTEST, till.new_keys.record.script)
    known = [
        (CHAIN, NEW, "BTC", "change", 1, index, account.address(1, index), account.script(1, index))
        for index in range(LAST_INDEX, LAST_INDEX + 2)
    ]
    with till.admin.transaction() as tx:
        tx.execute(
            "INSERT INTO address_indexes (keyset, branch, next) VALUES (%s, 1, %s)", [NEW, LAST_INDEX + 2]
        )
        for row in known:
            tx.execute(
                "INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                row,
            )
    till.outside.send(known[0][6], 10_000)
    till.mine(6)
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.check()
    assert till.held(till.keys.record.id) == 0


def test_a_rotation_goes_nowhere_but_to_the_new_key_set_and_old_keys_pay_nobody(till: RotatingTill) -> None:
    till.customer("alice", 3_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.route()
    assert till.build() is not None
    till.retire(2, "compromised")
    # What was recorded before, and never signed, is refused now, and is paid by the new key-set later.
    assert sign(till.db, till.old_site, till.signer) == []
    assert till.withdrawal(withdrawal.id).state == "queued"
    assert "key-state" in till.withdrawal(withdrawal.id).reason
    assert till.rotate() == 1
    till.send_rotation()
    [rotation] = till.rotations()
    assert rotation.transaction_id is not None
    [output] = till.bytes_of(rotation.transaction_id).outputs
    account = AccountKey.parse(till.new_keys.record.account, REGTEST)
    assert output.script == account.script(1, 0)
    till.settle()
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"


def test_a_rescue_goes_on_while_paying_is_halted_and_a_planned_rotation_waits(till: RotatingTill) -> None:
    till.customer("alice", 3_000_000)
    with till.db.transaction() as tx:
        halts.halt(tx, halts.ALL, "a stranger has signed with our key")
    till.retire(2, "deactivated")
    assert till.rotate() == 0
    till.retire(3, "compromised")
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.check()
    assert till.held(NEW) > 2_990_000
    assert till.halted() is not None, "paying stays halted"


def test_a_stuck_rotation_is_replaced_by_one_that_moves_less_and_the_books_follow_the_one_that_confirmed(
    till: RotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "deactivated")
    till.rotate()
    till.send_rotation()
    [rotation] = till.rotations()
    assert rotation.transaction_id is not None
    assert bump(till.db, till.old_site, rotation.transaction_id, 5_000) == 2
    till.send_rotation()
    first = till.transaction(rotation.transaction_id).versions[0]
    assert first.signed is not None
    # The older one is mined.
    till.mine_with(first.signed.hex())
    till.settle()
    till.check()
    assert till.held(NEW) == 3_000_000 - first.fee_units
    assert till.rotations()[0].state == "confirmed"


def test_a_reorg_takes_a_final_rotation_back_and_it_confirms_again(till: RotatingTill) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "deactivated")
    till.rotate()
    till.send_rotation()
    first = till.mine(6)[0]
    till.track()
    assert till.held(NEW) > 0
    till.reorg(first)
    till.outside.mine_empty(8) if hasattr(till.outside, "mine_empty") else [
        till.mine_with() for _ in range(8)
    ]
    till.track()
    assert till.held(NEW) == 0
    assert till.rotations()[0].state == "broadcast"
    broadcast(till.db, till.old_site)
    till.settle()
    till.check()
    assert till.held(NEW) > 0


def test_a_suspended_key_set_signs_nothing_and_nothing_of_it_is_moved(till: RotatingTill) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "deactivated")
    till.rotate()
    till.retire(3, "suspended")
    assert till.rotate() == 0
    [version] = till.transaction(till.rotations()[0].transaction_id).versions  # type: ignore[arg-type]
    with pytest.raises(Refused, match="suspended"):
        till.signer.sign(read_request(version.request))
