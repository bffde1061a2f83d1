"""Rotations on Bitcoin under bad luck and attack: answers that are lost, workers that race, bundles that change in
mid-flight, deposits of thieves. What tests/integration/test_rotation_btc.py shows of ordinary days is not shown again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from custody.signing.broadcast import broadcast
from custody.signing.btc.site import btc_site
from custody.signing.bump import bump
from custody.signing.errors import BumpRefused
from custody.signing.requests import read_request
from custody.signing.sign import sign
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import KeyState
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signing import CHAIN, SoftKeys, World
from tests.fakes.teller import Refusing, opened
from tests.integration.test_rotation_btc import NEW, RotatingTill

NEWER = "btc-hot-3"


class TwiceRotatingTill(RotatingTill):
    """With a third key-set, for when the second is lost, too."""

    def _make_world(self) -> World:
        world = super()._make_world()
        self.newer_keys = SoftKeys.make(os.urandom(32), NEWER)
        return world

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {**super()._wallets(), NEWER: BitcoinWallet(self.newer_keys)}

    def lose_the_second(self, version: int, state: KeyState) -> None:
        """The first stays compromised, the second gets a state, the third is active."""
        old = self.world.keyset_entry(state="compromised")
        second = World(self.new_keys.record, now=self.world.now).keyset_entry(state=state)
        third = World(self.newer_keys.record, now=self.world.now).keyset_entry()
        self.adopt(version, keysets=(old, second, third))

    def site_of(self, keyset: str) -> Any:
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace, wallet=self.bundle.keyset(keyset))


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TwiceRotatingTill]:
    with opened(TwiceRotatingTill(database, bitcoind, tmp_path)) as till:
        yield till


def test_two_workers_that_rotate_at_once_record_one_rotation(till: TwiceRotatingTill) -> None:
    till.customer("alice", 3_000_000, 2_000_000)
    till.retire(2, "compromised")
    start, made = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        made.append(till.rotate())

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(made) == [0, 1]
    assert len(till.rotations()) == 1
    till.send_rotation()
    till.settle()
    till.check()


def test_a_rotation_whose_answer_was_lost_is_signed_again_the_same_after_the_keys_are_compromised(
    till: TwiceRotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "deactivated")
    assert till.rotate() == 1
    [rotation] = till.rotations()
    assert rotation.transaction_id is not None
    [version] = till.transaction(rotation.transaction_id).versions
    lost = till.signer.sign(read_request(version.request))
    till.retire(3, "compromised")
    assert till.signer.sign(read_request(version.request)) == lost
    till.send_rotation()
    till.settle()
    assert till.held(till.keys.record.id) == 0


def test_a_rotation_to_keys_that_were_lost_meanwhile_is_planned_anew_to_the_next_ones(
    till: TwiceRotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "compromised")
    assert till.rotate() == 1
    till.lose_the_second(3, "compromised")
    assert sign(till.db, till.old_site, till.signer) == [], "no signer pays to keys that a thief has"
    assert [each.state for each in till.rotations()] == ["abandoned"]
    till.execute("UPDATE sweeps SET updated_at = now() - interval '1 day'")
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.check()
    assert till.held(NEWER) > 2_990_000


def test_what_was_on_its_way_to_keys_that_were_lost_meanwhile_goes_on_to_the_next_ones(
    till: TwiceRotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "compromised")
    till.rotate()
    till.send_rotation()
    till.lose_the_second(3, "compromised")
    till.settle()
    assert till.held(NEW) > 2_990_000
    second = till.site_of(NEW)
    assert sweep(till.db, second, SweepPace(), now=till.clock.now()) == 1
    assert sign(till.db, second, till.signer)
    assert broadcast(till.db, second)
    till.settle()
    till.check()
    assert (till.held(NEW), till.held(till.keys.record.id)) == (0, 0)


def test_a_reorg_swaps_a_final_rotation_for_its_replacement_and_the_books_follow(
    till: TwiceRotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "compromised")
    till.rotate()
    till.send_rotation()
    [rotation] = till.rotations()
    assert rotation.transaction_id is not None
    assert bump(till.db, till.old_site, rotation.transaction_id, 5_000) == 2
    till.send_rotation()
    first, second = till.transaction(rotation.transaction_id).versions
    assert first.signed is not None
    assert second.signed is not None
    block = till.mine_with(second.signed.hex())
    till.settle()
    assert till.held(NEW) == 3_000_000 - second.fee_units
    till.reorg(block)
    till.mine_with(first.signed.hex())
    for _ in range(8):
        till.mine_with()
    till.track()
    till.check()
    assert till.held(NEW) == 3_000_000 - first.fee_units
    assert till.held(till.keys.record.id) == 0


def test_change_of_a_payment_that_was_in_flight_when_the_keys_were_retired_follows(
    till: TwiceRotatingTill,
) -> None:
    till.customer("alice", 3_000_000)
    withdrawal = till.request("alice", 1_000_000)
    till.send()
    till.retire(2, "deactivated")
    assert till.rotate() == 0, "its only coin is being spent"
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.check()
    assert till.held(till.keys.record.id) == 0


def test_a_thief_who_takes_his_own_deposit_back_from_compromised_keys_is_not_credited(
    till: TwiceRotatingTill,
) -> None:
    mallory = till.customer("mallory")
    address = till.address(mallory)
    till.customer("alice", 3_000_000)
    till.retire(2, "compromised")
    till.outside.send(address, 2_000_000)
    till.mine(1)
    [coin] = till.query("SELECT resource FROM deposits WHERE units = 2000000")
    till.mine_with(till.spend_with_the_key(coin["resource"]))
    till.mine(6)
    till.book_losses()
    assert till.balance(mallory) == 0
    assert "deposit.held" in till.alerts()


def test_a_late_deposit_to_compromised_keys_is_credited_once_the_rescue_of_its_coin_is_final(
    till: TwiceRotatingTill,
) -> None:
    alice = till.customer("alice", 3_000_000)
    address = till.address(alice)
    till.retire(2, "compromised")
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    till.outside.send(address, 2_000_000)
    till.mine(6)
    assert till.balance(alice) == 3_000_000, "a thief could have paid it, and could still take it back"
    till.check()
    assert till.rotate() == 1
    till.send_rotation()
    till.mine(5)
    till.track()
    till.check()
    assert till.balance(alice) == 3_000_000
    till.settle()
    till.check()
    assert till.balance(alice) == 5_000_000
    assert "deposit.held" not in till.alerts()
    assert till.held(till.keys.record.id) == 0
    assert till.rotate() == 0


def test_what_is_in_no_balance_is_rescued_too(till: TwiceRotatingTill) -> None:
    minimum = int(till.bundle.asset("BTC").minimum_deposit)
    till.customer("alice")
    addresses = [till.address("alice"), till.address("alice")]
    till.retire(2, "compromised")
    for address, units in zip(addresses, (2_000_000, minimum - 1), strict=True):
        till.outside.send(address, units)
    till.mine(6)
    [held] = till.query("SELECT id FROM deposits WHERE state = 'held'")
    till.execute("UPDATE deposits SET state = 'quarantined' WHERE id = %s", held["id"])
    assert till.rotate() == 1
    till.send_rotation()
    till.check()
    till.settle()
    till.check()
    [rotation] = till.rotations()
    assert rotation.units == {"BTC": 2_000_000 + minimum - 1}
    assert till.balance("alice") == 0
    assert till.rotate() == 0


def test_a_stuck_payment_of_retired_keys_is_not_replaced_again_and_again_by_what_no_signer_signs(
    till: TwiceRotatingTill,
) -> None:
    """Each try would add a version, and take coins that the rotation is to move."""
    till.customer("alice", 1_000_000, 3_000_000)
    withdrawal = till.request("alice", 950_000)
    paid = till.send()
    coins = till.query("SELECT resource FROM reservations")
    till.retire(2, "deactivated")
    till.price(90_000)
    for _ in range(3):
        with pytest.raises(BumpRefused, match="deactivated"):
            bump(till.db, till.old_site, paid, 90_000)
        sign(till.db, till.old_site, till.signer)
    assert len(till.transaction(paid).versions) == 1
    assert till.query("SELECT resource FROM reservations") == coins
    till.price(1_000)
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.check()


def test_a_rescue_that_failed_again_and_again_is_tried_again_in_a_minute(till: TwiceRotatingTill) -> None:
    till.customer("alice", 3_000_000)
    till.retire(2, "compromised")
    for _ in range(5):
        assert till.rotate() == 1
        [rotation] = [each for each in till.rotations() if each.state == "signing"]
        assert rotation.transaction_id is not None
        request = read_request(till.transaction(rotation.transaction_id).versions[0].request)
        assert sign(till.db, till.old_site, Refusing(till.service, request)) == []
        assert till.rotate() == 0
        till.execute("UPDATE sweeps SET updated_at = updated_at - interval '61 seconds'")
    assert till.rotate() == 1
