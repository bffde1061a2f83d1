"""Withdrawals that are decided again, refused, or overtaken by an officer's word: nothing is lost or let through."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest
from psycopg.errors import InsufficientPrivilege

from custody.approvals import repository as approvals
from custody.errors import DatabaseUnavailable
from custody.whitelist import service as whitelist
from custody.withdrawals.ending import settle_internal
from custody.withdrawals.model import Withdrawal
from policies.keys import sign_approval
from policies.overlays import lowered
from policies.statements import Lowering
from tests.fakes.approving import Desk
from tests.fakes.signing import ROLE
from tests.fakes.till import Till
from tests.support.ruling import asked_for


@pytest.fixture
def desk(till: Till) -> Desk:
    found = Desk(till)
    found.adopt(2)
    return found


def delist(desk: Desk, withdrawal: Withdrawal) -> None:
    """List the payment's destination and remove it: what pays there is decided again."""
    till, entry = desk.till, uuid4()
    with till.api.transaction() as tx:
        whitelist.request(
            tx,
            entry,
            owner=withdrawal.customer,
            chain=withdrawal.chain,
            address=withdrawal.destination,
            label=None,
            provenance="a thief's",
            caller=till.caller,
            bundle=till.bundle,
            keys=None,
        )
    till.execute(
        "UPDATE whitelist SET state = 'confirmed', document = '', signature = '' WHERE id = %s", entry
    )
    till.execute("UPDATE whitelist SET state = 'listed', listed_at = now() WHERE id = %s", entry)
    with till.api.transaction() as tx:
        whitelist.remove(tx, entry, by="thief")


def lower(till: Till, target: str, value: int) -> None:
    lowering = Lowering(
        v=1,
        bundle_version=till.bundle.version,
        target=target,
        value=str(value),
        officer="any",
        reason="stolen",
        issued_at=1,
    )
    till.bundle = lowered(till.bundle, [lowering])


def test_what_was_approved_and_is_decided_again_under_the_same_bundle_does_not_wait_for_ever(
    desk: Desk,
) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    delist(desk, withdrawal)
    till.route()
    assert desk.state(withdrawal) == "queued", "their approvals are of this very intent"
    [row] = till.query("SELECT approved_until FROM withdrawals WHERE id = %s", withdrawal.id)
    assert row["approved_until"] is not None
    desk.pay()


def test_a_rejection_that_nobody_has_counted_survives_a_removed_entry_and_a_new_bundle(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", decision="reject")
    delist(desk, withdrawal)
    desk.adopt(3)
    till.route()
    assert desk.state(withdrawal) == "rejected"
    assert till.balance("alice") == 5_000_000


def test_after_a_signers_refusal_nothing_is_built_before_its_pause_is_over(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    till.pace = replace(till.pace, refused_seconds=30)
    desk.approve(withdrawal, "ada")
    till.route()
    for state in ("cooling", "queued"):
        till.execute("UPDATE withdrawals SET state = %s WHERE id = %s", state, withdrawal.id)
    till.execute(
        "UPDATE withdrawals SET created_at = created_at - interval '1 hour' WHERE id = %s", withdrawal.id
    )
    assert till.build() is not None
    assert till.sign() == []
    assert desk.state(withdrawal) == "queued"
    [row] = till.query(
        "SELECT not_before > now() + make_interval(secs => 20) AS pause FROM withdrawals WHERE id = %s",
        withdrawal.id,
    )
    assert row["pause"]


def to_bob(desk: Desk) -> Withdrawal:
    desk.till.enrol("bob")
    return desk.request(destination=desk.till.address("bob"))


def test_the_ledger_settles_nothing_of_a_caller_whom_an_officer_has_ended_meanwhile(desk: Desk) -> None:
    till = desk.till
    desk.adopt(3, asked_for(tier="ledger", group=ROLE, verdict=None))
    withdrawal = to_bob(desk)
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert (desk.state(withdrawal), till.withdrawal(withdrawal.id).settlement) == ("queued", "internal")
    lower(till, f"caller:{till.caller.id}:not_after", int(time.time()) - 1)
    settle_internal(till.db, till.bundle)
    assert desk.state(withdrawal) != "settled"


def test_the_ledger_settles_nothing_that_an_approver_has_approved_whom_an_officer_has_ended(
    desk: Desk,
) -> None:
    till = desk.till
    desk.adopt(3, asked_for(tier="ledger", group=ROLE, verdict=None))
    withdrawal = to_bob(desk)
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    lower(till, "approver:ada:not_after", int(time.time()) - 1)
    till.route()
    settle_internal(till.db, till.bundle)
    assert desk.state(withdrawal) != "settled"


def test_a_stolen_api_role_cannot_take_a_rejections_place(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    signed = sign_approval(desk.approval(withdrawal, "ada", decision="reject"), desk.keys["ada"])
    with till.api.transaction() as tx:
        approvals.insert(tx, withdrawal, msgspec.structs.replace(signed, signature="00" * 64))
    desk.give(withdrawal, signed)
    till.route()
    assert desk.state(withdrawal) == "rejected"


def flood(desk: Desk, withdrawal: Withdrawal) -> None:
    """Whoever has the API's role writes more answers than anybody reads."""
    with desk.till.api.transaction() as tx:
        tx.execute(
            "INSERT INTO approvals (digest, withdrawal_id, intent_hash, document, signature)"
            " SELECT %s, %s, %s, '{}' || n, '{}' FROM generate_series(1, 500) n",
            ["00" * 32, withdrawal.id, desk.question(withdrawal).intent.digest_hex()],
        )


def test_a_rejection_cannot_be_drowned(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    flood(desk, withdrawal)
    desk.approve(withdrawal, "cem", decision="reject")
    till.route()
    assert (desk.state(withdrawal), "approval.tampered" in till.alerts()) == ("awaiting_approval", True)


def test_what_was_approved_before_a_flood_waits_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    flood(desk, withdrawal)
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"


def test_a_stolen_monitor_role_lets_no_frozen_customer_go(desk: Desk) -> None:
    till = desk.till
    till.customer("alice")
    till.execute("UPDATE customers SET state = 'frozen', reason = 'police' WHERE id = 'alice'")
    with pytest.raises((DatabaseUnavailable, InsufficientPrivilege)), till._monitor_db.transaction() as tx:
        tx.execute("UPDATE customers SET state = 'active', reason = ''")
