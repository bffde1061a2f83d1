"""Corrections by hand: asked for by one operator, approved by two others, booked once; and no other way there."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors as pg

from custody.console import ledger as ledger_verbs
from custody.ledger import bookings
from custody.ledger.adjustments import Adjustment
from custody.ledger.audit import audit
from custody.ledger.model import LineType
from custody.ledger.service import post_all
from custody.ledger.statements import balance, statement
from custody.storage.db import Database
from policies.bundle import Bundle, Operator
from policies.keys import SigningKey
from signers.verifier.adjusted import unapproved
from signers.verifier.replay import replay
from signers.verifier.source import Ledger
from tests.fakes.api import as_role
from tests.fakes.operators import Office, client_file
from tests.fakes.signing import APPROVERS, DAY, ROLE
from tests.support.ledger import booked, credit, login

WHY = "ticket 7: credited twice by hand"
VERB = ("ledger", "adjust", "alice", "--amount=-0.00000040", "--reason", WHY)


class Desk(Office):
    """An office in which two operators are approvers, and neither asks."""

    def bundle(self, version: int = 1, **changes: object) -> Bundle:
        if "ben" not in self.keys:
            self.keys["ben"] = SigningKey.generate()
            client_file(self.directory, "ben", self.keys["ben"])
        ben = Operator(
            id="ben",
            key=self.keys["ben"].public_hex,
            organisation=APPROVERS["ben"],
            roles=("treasury",),
            not_after=self.world.now + DAY,
        )
        return super().bundle(version, **{"operators": (*self.operators(), ben), **changes})

    def approve(self, number: int, *who: str) -> None:
        for name in who:
            result = self.run("operator", "approve", str(number), "--group", ROLE, by=name)
            assert result.exit_code == 0, result.output


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Desk:
    assert callable(ledger_verbs.adjust_balance)
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO customers (id) VALUES ('alice')")
    with Database(database, application="test") as db:
        booked(db, credit("alice", 100))
    return Desk(database, tmp_path)


def has(desk: Desk) -> int:
    with Database(desk.database, application="test") as db, db.snapshot() as tx:
        assert audit(tx) == []
        return balance(tx, "alice", "BTC").total


def test_it_is_booked_once_when_two_others_have_approved_it(desk: Desk) -> None:
    first = desk.run(*VERB, by="tess")
    assert (first.exit_code, "2 of 2 others" in first.stderr, has(desk)) == (1, True, 100), first.output
    desk.approve(1, "ada")
    second = desk.run(*VERB, by="tess")
    assert (second.exit_code, "1 of 2 others" in second.stderr, has(desk)) == (1, True, 100)
    desk.approve(1, "ben")
    other = desk.run(*VERB[:3], "--amount=-0.00000041", *VERB[4:], by="tess")
    assert (other.exit_code, has(desk)) == (1, 100), "what was approved is another amount"
    done = desk.run(*VERB, by="tess")
    assert (done.exit_code, has(desk)) == (0, 60), done.output
    again = desk.run(*VERB, by="tess")
    assert (again.exit_code, has(desk)) == (1, 60), "approvals are used once"
    with Database(desk.database, application="test") as db, db.snapshot() as tx:
        line = statement(tx, "alice", "BTC").lines[-1]
    assert (line.type, line.amount, line.balance_before, line.balance_after) == (
        LineType.ADJUSTMENT,
        -40,
        100,
        60,
    )
    (row,) = json.loads(desk.run("ledger", "adjustments", "--json").stdout)
    assert (row["customer"], row["units"], row["reason"], row["operator"]) == ("alice", "-40", WHY, "tess")
    assert desk.verified()["findings"] == []


def test_the_verifier_believes_the_operators_signatures_and_nothing_else(desk: Desk) -> None:
    desk.run(*VERB, by="tess")
    desk.approve(1, "ada", "ben")
    assert desk.run(*VERB, by="tess").exit_code == 0

    def why(*damage: str) -> str:
        with psycopg.connect(desk.database) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in damage:
                assert connection.execute(statement.encode()).rowcount > 0
        with Ledger(as_role(desk.database, "strongroom_read")).snapshot() as snapshot:
            history = snapshot.history("alice")
            replayed = replay(history)
        assert {each.kind for each in replayed.findings} <= {"deposit-unproven", "unexplained-transfer"}
        (adjustment,) = replayed.adjustments
        return unapproved(adjustment, history.actions, lambda name: frozenset({desk.keys[name].public_hex}))

    assert why() == ""
    change = "UPDATE operator_actions SET parameters = replace(parameters, '-40', '-90')"
    assert "says something else" in why(change + " WHERE action = 'adjust'")
    why("UPDATE operator_actions SET parameters = replace(parameters, '-90', '-40') WHERE action = 'adjust'")
    assert why() == ""
    assert "1 others have approved row 1" in why("DELETE FROM operator_actions WHERE operator = 'ben'")
    why("UPDATE operator_actions SET reason = 'another' WHERE number = 1")
    assert "0 others have approved" in why(), "what was approved is another row"
    assert why("DELETE FROM operator_actions WHERE number < 9") == "no operator has asked for it"


def test_nobody_approves_his_own_and_more_than_there_is_is_not_taken(desk: Desk) -> None:
    much = (*VERB[:3], "--amount=-0.00000101", *VERB[4:])
    assert desk.run(*much, by="ada").exit_code == 1
    assert desk.run("operator", "approve", "1", "--group", ROLE, by="ada").exit_code == 1
    desk.approve(1, "ben")
    assert desk.run(*much, by="ada").exit_code == 1
    assert has(desk) == 100
    assert desk.run(*VERB, by="sue").exit_code == 1, "support adjusts nothing"


def test_with_the_workers_role_alone_nothing_is_adjusted(desk: Desk) -> None:
    wanted = Adjustment(customer="alice", asset="BTC", units=50, reason="because")
    booking = bookings.book_adjustment(wanted.id, customer="alice", asset="BTC", units=50)
    row = [wanted.id, "alice", "BTC", 50, "because", "nobody"]
    insert = "INSERT INTO adjustments (id, customer_id, asset, units, reason, operator) VALUES (%s, %s, %s, %s, %s, %s)"
    with Database(login(desk.database, "strongroom_worker"), application="worker") as worker:

        def book(*, recorded: bool, units: int = 50) -> None:
            with worker.transaction() as tx:
                if recorded:
                    tx.execute(insert, [*row[:3], units, *row[4:]])
                post_all(tx, [booking])

        with pytest.raises(pg.InsufficientPrivilege, match="is not what operators have recorded"):
            book(recorded=False)
        with pytest.raises(pg.InsufficientPrivilege, match="is not what operators have recorded"):
            book(recorded=True, units=49)
        with pytest.raises(pg.InsufficientPrivilege, match="has not been approved by two others"):
            book(recorded=True)
    for role in ("strongroom_api", "strongroom_monitor"):
        with (
            Database(login(desk.database, role), application=role) as other,
            pytest.raises(pg.InsufficientPrivilege),
        ):
            booked(other, booking)
    assert has(desk) == 100


def test_the_same_reason_and_amount_is_the_same_adjustment() -> None:
    one = Adjustment(customer="alice", asset="BTC", units=5, reason="a")
    assert one.id == Adjustment(customer="alice", asset="BTC", units=5, reason="a").id
    assert one.id != Adjustment(customer="alice", asset="BTC", units=5, reason="b").id
    assert one.id != uuid4()
