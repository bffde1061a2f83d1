"""The verifier and refills on Bitcoin that were really carried out, down to the vault and up from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.ledger import bookings
from custody.ledger.service import post
from ops.devnet.bitcoind import Bitcoind
from signers.service import SignerService
from tests.fakes.forger import Forger
from tests.fakes.teller import opened
from tests.fakes.vault_till import VAULT
from tests.fakes.verifying import verifying
from tests.integration.test_refills_btc import HOT, TreasuryTill


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        yield till


def test_a_refill_is_no_finding_its_undoing_is_none_and_the_same_money_is_not_booked_twice(
    till: TreasuryTill,
) -> None:
    till.customer("alice", 30_000_000)
    till.treasury()
    refill = till.refill()
    till.send_refill(refill)
    till.settle()
    assert till.refill().state == "confirmed"
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as verifier:
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
        again = bookings.book_refill(refill.id, 2, asset="BTC", source=HOT, target=VAULT, units=refill.units)
        with till.admin.transaction() as tx:
            post(tx, [again])
        assert verifier.kinds() == {"move-unproven"}
        with till.admin.transaction() as tx:
            post(tx, [bookings.unbook_refill(refill.id, 2)])
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
        forger = Forger(till.admin)
        for column, value in (("units", 1), ("destination", till.outside.address())):
            forger.run(f"UPDATE refills SET {column} = %s", value)
            assert verifier.kinds() == {"move-unproven"}
            forger.run("UPDATE refills SET units = %s, destination = %s", refill.units, refill.destination)
        assert verifier.kinds() == set()
