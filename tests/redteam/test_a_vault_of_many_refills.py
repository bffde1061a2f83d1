"""Excess of hot flows to a vault for years, and the vault pays nobody: its members have signed nothing, and take change
only so far beyond what they have signed. What came in must not push its change out of their reach for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.signing.btc import change
from custody.treasury import service
from custody.treasury.planner import Proposal, Why
from custody.withdrawals import windows
from ops.devnet.bitcoind import Bitcoind
from signers.guard.btc_shape import MAX_CHANGE_AHEAD
from tests.fakes.teller import opened
from tests.fakes.vault_till import VAULT
from tests.integration.test_refills_btc import HOT, TreasuryTill

REFILLS = 3


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 30_000_000)
        till.fund_vault(80_000_000)
        windows.rebuild(till.db, till.bundle, now=int(time.time()))
        yield till


def test_however_many_refills_came_a_vaults_change_stays_within_reach_of_members_who_never_signed(
    till: TreasuryTill,
) -> None:
    outputs, last = till.vault_site.outputs, service.LAST_PLACE
    till.execute("UPDATE address_indexes SET next = %s WHERE keyset = %s AND branch = 1", last + 1, VAULT)
    with till.admin.transaction() as tx:
        tx.execute(
            "INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
            " VALUES (%s, %s, 'BTC', 'change', 1, %s, %s, %s)",
            [till.chain, VAULT, last, outputs.agreed_address(1, last), outputs.script(1, last)],
        )
    till.outside.send(outputs.agreed_address(1, last), 100_000)
    till.mine(6)
    for _ in range(REFILLS):
        proposal = Proposal(HOT, VAULT, "BTC", 1_000_000, Why.EXCESS, "the test wants it")
        with till.db.transaction() as tx:
            made = service.ask(tx, till.bundle, proposal, by="opal", now=int(time.time()))
            assert made.place == last
            service.decline(tx, made.id, "operator: the test wants another")
    with till.db.transaction() as tx:
        index = change.allocate(tx, till.bundle.wallet(VAULT), "BTC", outputs)
    assert index == last + 1, "what no refill has used is used first"
    assert index <= MAX_CHANGE_AHEAD // 2
