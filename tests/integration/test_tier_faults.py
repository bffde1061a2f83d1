"""FAULTS of the Bitcoin tiers: other witnesses of the same transaction, older versions that confirm, floods of dust.

Database, node, monitor, guards and journals are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chains.btc.codec import compact_size
from chains.btc.tx import Transaction
from custody.signing.sign import sign
from ops.devnet.bitcoind import Bitcoind
from signers.ports import SignResponse
from tests.fakes.approving import Desk
from tests.fakes.teller import opened
from tests.fakes.vault_till import LARGE_SATS, MEMBERS, VAULT
from tests.integration.test_refills_btc import HOT, TreasuryTill

DUST_OUTPUTS, DUST_SATS = 300, 600


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 19_000_000)
        till.fund_vault(80_000_000)
        yield till


def paid(till: TreasuryTill) -> tuple[Any, UUID]:
    """A large payment that two members have signed; it is not sent."""
    desk = Desk(till)
    withdrawal = desk.request(LARGE_SATS)
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    transaction = till.build_vault()
    assert transaction is not None
    assert till.collect(MEMBERS[:2]) == [transaction]
    return withdrawal, transaction


def flood(till: TreasuryTill) -> None:
    """Somebody sends the vault's address a great many tiny outputs."""
    script = till.vault_site.outputs.script(1, 0)
    # version, no inputs, outputs, locktime: the wallet adds what pays for it
    one = DUST_SATS.to_bytes(8, "little") + compact_size(len(script)) + script
    raw = (2).to_bytes(4, "little") + b"\0" + compact_size(DUST_OUTPUTS) + DUST_OUTPUTS * one + bytes(4)
    funded = till.outside.rpc("fundrawtransaction", raw.hex(), {"fee_rate": 10}, False)["hex"]
    signed = till.outside.rpc("signrawtransactionwithwallet", funded)["hex"]
    till.outside.rpc("sendrawtransaction", signed)
    till.mine(6)


def test_fault_14_with_signatures_of_other_members_it_is_the_same_transaction_and_one_payment(
    till: TreasuryTill,
) -> None:
    """What others can change of a segwit transaction is in no txid; members could give two witnesses."""
    withdrawal, transaction = paid(till)
    [version] = till.transaction(transaction).versions
    given = [till.members[name].sign(till.shown(transaction)) for name in MEMBERS[1:]]
    merged = SignResponse(signatures=tuple(each for response in given for each in response.signatures))
    other, txid = till.vault_site.finish(version, merged)
    assert other != version.signed
    assert txid == version.txid
    assert Transaction.parse(other).resources == Transaction.parse(version.signed or b"").resources
    till.mine_with(other.hex())
    till.mine(6)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.paid_to(withdrawal.destination) == LARGE_SATS
    before = till.contents()
    till.broadcast_vault()
    till.track()
    assert till.contents() == before, "again changes nothing"


def test_fault_28_an_older_version_out_of_the_vault_confirms_and_its_own_fee_is_booked(
    till: TreasuryTill,
) -> None:
    withdrawal, transaction = paid(till)
    till.broadcast_vault()
    till.bump_vault(transaction, 5_000)
    assert till.collect() == [transaction]
    till.broadcast_vault()
    first, second = till.transaction(transaction).versions
    assert second.txid in till.mempool()
    assert first.signed is not None
    till.mine_with(first.signed.hex())
    till.mine(6)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.transaction(transaction).confirmed_txid == first.txid
    assert till.balance(None, "network_fees") == -first.fee_units < second.fee_units
    assert till.balance_of(VAULT) == -(80_000_000 - LARGE_SATS - first.fee_units)


def test_fault_28_an_older_version_of_a_bumped_refill_confirms_and_moves_the_same(till: TreasuryTill) -> None:
    till.customer("bob", 11_000_000)
    till.treasury()
    refill = till.refill()
    assert (refill.source, refill.target) == (HOT, VAULT)
    transaction = till.send_refill(refill)
    assert till.bump(transaction, 5_000) == 2
    assert sign(till.db, till.site, till.signer) == [transaction]
    till.broadcast()
    first, second = till.transaction(transaction).versions
    assert second.txid in till.mempool()
    assert first.signed is not None
    till.mine_with(first.signed.hex())
    till.settle()
    assert till.refill().state == "confirmed"
    assert till.balance(None, "network_fees") == -first.fee_units
    assert till.balance_of(VAULT) == -(80_000_000 + refill.units)
    assert till.balance_of(HOT) == -(30_000_000 - refill.units - first.fee_units)


def test_fault_29_a_flood_of_dust_at_the_vault_costs_no_fee_and_keeps_nobody_from_being_paid(
    till: TreasuryTill,
) -> None:
    """Hot's flood is in the unit tests of consolidation, the scanner's in `make bench`."""
    flood(till)
    till.price(20_000)
    withdrawal, transaction = paid(till)
    [version] = till.transaction(transaction).versions
    spent = Transaction.parse(version.signed or b"").inputs
    assert len(spent) == 1, "each piece of dust costs more than it is worth"
    till.broadcast_vault()
    till.mine(6)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "settled"
    held = 80_000_000 - LARGE_SATS - version.fee_units
    assert till.balance_of(VAULT) == -held, "below the minimum it is in no balance"
    assert till.query("SELECT DISTINCT state FROM deposits WHERE units = %s", DUST_SATS) == [
        {"state": "below_minimum"}
    ]
    till.check()
