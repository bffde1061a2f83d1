"""Who has stolen keys spends dust at them whenever he likes. Once they are known to be compromised that stops nobody's
payments: it raises an alert, and is booked as a loss. Keys of which it is not known stop everything, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.evm_signing import ETHER
from tests.fakes.evm_till import TillOutside
from tests.fakes.teller import opened
from tests.integration import test_rotation_btc as btc
from tests.integration import test_rotation_evm as evm

FOREIGN = "coin.foreign_spend"
DUST_SATS = 3_000


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[btc.RotatingTill]:
    with opened(btc.RotatingTill(database, bitcoind, tmp_path)) as till:
        yield till


@pytest.fixture
def evm_till(database: str, anvil: Anvil, tmp_path: Path) -> Iterator[evm.RotatingTill]:
    with opened(evm.RotatingTill(database, TillOutside(anvil), tmp_path)) as till:
        yield till


def open_alerts(till: btc.RotatingTill | evm.RotatingTill, type: str) -> list[str]:
    """Subjects."""
    rows = till.query("SELECT subject FROM alerts WHERE type = %s AND resolved_at IS NULL ORDER BY id", type)
    return [row["subject"] for row in rows]


def rescued(till: btc.RotatingTill) -> str:
    """All is with the new keys, which pay; an address of the old ones, whose thief may still pay there."""
    address = till.address(till.customer("alice", 5_000_000))
    till.retire(2, "compromised")
    assert till.rotate() == 1
    till.send_rotation()
    till.settle()
    assert till.held(till.keys.record.id) == 0
    return address


def dust(till: btc.RotatingTill, address: str) -> str:
    """A coin of a thief's at our address; its resource."""
    before = {row["resource"] for row in till.query("SELECT resource FROM receipts")}
    till.outside.send(address, DUST_SATS)
    till.mine(1)
    [resource] = {row["resource"] for row in till.query("SELECT resource FROM receipts")} - before
    return str(resource)


def test_dust_that_a_thief_spends_with_compromised_keys_stops_no_payment(till: btc.RotatingTill) -> None:
    address = rescued(till)
    old = till.keys.record.id
    for n in range(2):
        stolen = dust(till, address)
        till.mine_with(till.spend_with_the_key(stolen))
        assert till.halted() is None
        assert open_alerts(till, FOREIGN) == [old], "one alert for all of it: dust is cheap"
        for _ in range(5):
            assert till.enforce().differences() == ()
            till.mine(1)
        assert till.book_losses() == 1
        assert till.balance(None, "suspense") == -DUST_SATS * (n + 1)
        assert till.enforce().differences() == ()
        assert till.halted() is None
    withdrawal = till.request("alice", 1_000_000)
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.check()


def test_also_if_it_came_and_went_in_blocks_that_are_read_at_once(till: btc.RotatingTill) -> None:
    address = rescued(till)
    before = till.bitcoind.rpc("getblockcount")
    resource = dust(till, address)
    spend = till.spend_with_the_key(resource)
    till.reorg(till.bitcoind.rpc("getblockhash", before + 1))
    miner = till.outside.address()
    for transactions in ([resource.partition(":")[0]], [spend], []):
        till.bitcoind.rpc("generateblock", miner, transactions)
    till.catch_up()
    assert open_alerts(till, FOREIGN) == [till.keys.record.id]
    assert till.halted() is None
    assert till.enforce().differences() == ()
    till.mine(6)
    assert till.book_losses() == 1
    till.check()


def test_keys_that_are_in_use_stop_everything_although_others_are_known_to_be_stolen(
    till: btc.RotatingTill,
) -> None:
    address = rescued(till)
    till.mine_with(till.spend_with_the_key(dust(till, address)))
    assert till.halted() is None
    [coin] = till.query(
        "SELECT r.resource FROM receipts r JOIN addresses a ON a.id = r.address_id WHERE a.keyset = %s",
        btc.NEW,
    )
    till.keys, kept = till.new_keys, till.keys
    till.mine_with(till.spend_with_the_key(coin["resource"]))
    till.keys = kept
    assert "which is not ours" in (till.halted() or "")
    assert open_alerts(till, FOREIGN) == [kept.record.id, coin["resource"]]
    till.settle()
    till.book_losses()


def test_retired_keys_of_which_nobody_knows_that_they_are_stolen_stop_everything_once(
    till: btc.RotatingTill,
) -> None:
    address = till.address(till.customer("alice", 5_000_000))
    till.retire(2, "deactivated")
    till.mine_with(till.spend_with_the_key(dust(till, address)))
    assert till.halted() is not None
    # The quorum calls them compromised, an operator lifts the halt: from then on dust stops nothing.
    till.retire(3, "compromised")
    till.lift_halt()
    till.enforce()
    assert till.halted() is None
    till.mine_with(till.spend_with_the_key(dust(till, address)))
    till.enforce()
    assert till.halted() is None
    till.mine(6)
    assert till.book_losses() == 2
    till.check()


def test_gas_that_a_thief_burns_with_a_compromised_key_stops_no_payment(evm_till: evm.RotatingTill) -> None:
    till = evm_till
    till.fund()
    till.customer("alice", ETH=ETHER)
    till.retire(2, "compromised")
    assert till.rotate() == 1
    till.through()
    till.check()
    kept = till.held(till.world.record.id, "ETH")
    assert kept > 0
    foreign = till.sign_with_the_key(till.nobody(), 1, nonce=1)
    till.anvil.send_raw("0x" + foreign.hex())
    till.mine()
    assert open_alerts(till, FOREIGN) == [till.world.record.id]
    assert till.halted() is None
    assert till.enforce().differences() == ()
    till.settle()
    till.enforce()
    assert "variance.loss" in till.alerts()
    assert till.held(till.world.record.id, "ETH") < kept
    assert till.enforce().differences() == ()
    assert till.halted() is None
    withdrawal = till.request("alice", ETHER // 10)
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    till.check()


def test_what_is_missing_at_a_compromised_key_that_nobody_else_has_used_stops_everything(
    evm_till: evm.RotatingTill,
) -> None:
    till = evm_till
    till.fund()
    till.retire(2, "compromised")
    address = till.world.record.address
    till.anvil.rpc("anvil_setBalance", address, hex(till.anvil.balance_wei(address) - 1))
    till.mine()
    assert till.enforce().differences() != ()
    assert till.halted() is not None
    till.anvil.rpc("anvil_setBalance", address, hex(till.anvil.balance_wei(address) + 1))
    till.mine()
    till.enforce()
