"""Whoever takes the API, or writes into the database, moves no money between tiers that people have not approved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from custody.approvals import refills as approvals
from custody.approvals.errors import ApprovalRefused
from custody.treasury import service
from custody.treasury.building import carry_out
from ops.devnet.bitcoind import Bitcoind
from policies.keys import SigningKey, sign_approval
from tests.fakes.teller import opened
from tests.integration.test_refills_btc import TreasuryTill


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 3_000_000)
        till.fund_vault(80_000_000)
        till.treasury()
        yield till


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE refills SET state = 'approved'",
        "UPDATE refills SET units = 1",
        "DELETE FROM refills",
        "INSERT INTO refill_events (refill_id, event, from_state, to_state) SELECT id, 'a', 'b', 'c' FROM refills",
        "INSERT INTO refills SELECT * FROM refills",
        "INSERT INTO tier_levels VALUES ('btc-hot', 'BTC', current_date, 1)",
    ],
)
def test_a_stolen_api_neither_approves_nor_changes_nor_makes_a_refill(till: TreasuryTill, sql: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), till.api.transaction() as tx:
        tx.execute(sql.encode())


@pytest.mark.parametrize("column", ["units", "destination", "target", "place", "policy_version", "source"])
def test_what_people_are_asked_about_does_not_change_for_workers_either(
    till: TreasuryTill, column: str
) -> None:
    value = {"destination": "'x'", "target": "'other'", "source": "'other'"}.get(column, "7")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), till.db.transaction() as tx:
        tx.execute(f"UPDATE refills SET {column} = {value}".encode())
    with pytest.raises(psycopg.errors.CheckViolation), till.admin.transaction() as tx:
        tx.execute(f"UPDATE refills SET {column} = {value}".encode())


def test_fault_44_approvals_that_nobody_has_signed_approve_no_refill(till: TreasuryTill) -> None:
    refill = till.refill()
    forged = sign_approval(till.approval(refill, "ada").approval, SigningKey.generate())
    with pytest.raises(ApprovalRefused, match="does not verify"), till.api.transaction() as tx:
        approvals.give(tx, refill.id, forged, till.bundle, now=int(time.time()))
    till.answer(refill, "ada")
    # Written past every check, under another name.
    till.execute(
        "INSERT INTO approvals (digest, refill_id, intent_hash, document, signature)"
        " SELECT digest, refill_id, intent_hash, replace(document, '\"ada\"', '\"ben\"'), signature FROM approvals"
    )
    till.treasury()
    assert till.refill().state == "proposed"
    assert "approval.tampered" in till.alerts()


def test_one_that_is_made_approved_by_hand_is_not_built_and_no_member_signs_what_lacks_approvals(
    till: TreasuryTill,
) -> None:
    refill = till.refill()
    till.execute("UPDATE refills SET state = 'approved'")
    assert carry_out(till.db, till.vault_site, now=int(time.time())) == 0
    assert till.refill().transaction_id is None
    till.answer(refill, "ada", "ben")
    till.treasury()
    assert till.refill().state == "signing"
    # The answers are gone when members are asked: each judges by itself.
    with till.admin.transaction() as tx:
        tx.execute("SET LOCAL session_replication_role = replica")
        tx.execute("DELETE FROM approvals")
    assert till.collect() == []
    assert till.refill().state in ("signing", "approved")


def test_fault_47_an_approval_of_one_refill_approves_no_other(till: TreasuryTill) -> None:
    first = till.refill()
    given = till.approval(first, "ada")
    with till.db.transaction() as tx:
        service.decline(tx, first.id, "dead: a test")
    till.treasury()
    second = till.refills()[-1]
    assert second.id != first.id
    with pytest.raises(ApprovalRefused, match="another intent"), till.api.transaction() as tx:
        approvals.give(tx, second.id, given, till.bundle, now=int(time.time()))
