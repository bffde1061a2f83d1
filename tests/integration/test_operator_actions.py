"""What operators do at the host, on PostgreSQL with the workers' role: roles, the policy, approvals, and the record."""

from __future__ import annotations

from pathlib import Path

import msgspec
import psycopg
import pytest

from policies.bundle import Operator
from policies.keys import SigningKey
from policies.rules import Need, Operation, Policy, Rule, When
from tests.fakes.operators import Office, client_file
from tests.fakes.signing import ROLE

BY_HAND = When(operations=(Operation.ADMINISTRATION,))


@pytest.fixture
def office(database: str, tmp_path: Path) -> Office:
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO customers (id) VALUES ('alice')")
    return Office(database, tmp_path)


def state_of(office: Office, customer: str = "alice") -> str:
    with psycopg.connect(office.database) as connection:
        row = connection.execute("SELECT state FROM customers WHERE id = %s", [customer]).fetchone()
    assert row is not None
    return str(row[0])


def outcomes(office: Office) -> list[tuple[str, str, str]]:
    return [(row["operator"], row["action"], row["outcome"]) for row in office.actions()]


def with_rules(office: Office, *rules: Rule) -> None:
    policy = office.bundle().policy
    kept = tuple(rule for rule in policy.rules if rule.id != "by-hand")
    new = Policy(rules=(*kept, *rules), groups=policy.groups)
    office.publish(office.bundle(2, policy=new))


def test_what_is_done_is_recorded_with_who_where_why_and_the_policy_s_decision(office: Office) -> None:
    assert office.run("operator", "freeze", "alice", "--reason", "court order", by="sue").exit_code == 0
    (row,) = office.actions()
    assert (row["operator"], row["action"], row["outcome"]) == ("sue", "freeze-customer", "done")
    assert row["parameters"] == {"customer": "alice", "reason": "court order"}
    assert (row["via"], "@" in row["origin"], row["bundle_version"]) == ("host", True, 1)
    assert row["decision"]["facts"]["initiator"] == "sue"
    assert row["decision"]["outcome"] == "route"
    assert office.verified()["findings"] == []


def test_a_role_that_may_not_is_refused_and_that_is_recorded(office: Office) -> None:
    for verb, by in (
        (("operator", "lift", "all", "--reason", "x"), "sue"),
        (("operator", "halt", "all", "--reason", "x"), "aud"),
        (("operator", "unfreeze", "alice", "--reason", "x"), "tess"),
        (("operator", "sweep", "bitcoin-regtest"), "carl"),
    ):
        result = office.run(*verb, by=by)
        assert (result.exit_code, by in result.stderr) == (1, True), result.output
    assert outcomes(office) == [
        ("sue", "lift", "refused"),
        ("aud", "halt", "refused"),
        ("tess", "unfreeze-customer", "refused"),
        ("carl", "sweep", "refused"),
    ]
    assert office.verified()["findings"] == []


def test_what_fails_is_recorded_with_its_reason_and_changes_nothing(office: Office) -> None:
    assert office.run("operator", "unfreeze", "nobody", "--reason", "x").exit_code == 1
    (row,) = office.actions()
    assert (row["outcome"], "nobody" in row["reason"]) == ("failed", True)
    assert office.verified()["findings"] == []


def test_a_stranger_s_key_is_refused_whatever_name_it_takes(office: Office) -> None:
    client_file(office.directory, "otto", office.world.stranger)
    result = office.run("operator", "lift", "all", "--reason", "x")
    assert (result.exit_code, "not the key" in result.stderr) == (1, True)
    assert outcomes(office) == [("otto", "lift", "refused")]


def test_a_denial_of_the_policy_stops_what_changes_and_never_what_stops(office: Office) -> None:
    with_rules(office, Rule(id="nobody", when=BY_HAND, deny="Not today."))
    assert office.run("operator", "halt", "all", "--reason", "strange").exit_code == 0
    assert office.run("operator", "freeze", "alice", "--reason", "strange").exit_code == 0
    result = office.run("operator", "lift", "all", "--reason", "x")
    assert (result.exit_code, "Not today" in result.stderr) == (1, True)
    assert [row[2] for row in outcomes(office)] == ["done", "done", "refused"]
    assert [row["decision"]["outcome"] for row in office.actions()] == ["deny"] * 3
    assert office.verified()["findings"] == []


def test_hours_and_names_of_actions_are_the_policy_s_to_ask_for(office: Office) -> None:
    only = When(operations=(Operation.ADMINISTRATION,), actions=("unfreeze-customer",), initiators=("carl",))
    with_rules(office, Rule(id="carl", when=only, route="ledger"))
    assert office.run("operator", "freeze", "alice", "--reason", "x", by="carl").exit_code == 0
    assert office.run("operator", "unfreeze", "alice", "--reason", "x", by="otto").exit_code == 1
    assert state_of(office) == "frozen"
    assert office.run("operator", "unfreeze", "alice", "--reason", "x", by="carl").exit_code == 0
    assert state_of(office) == "active"


def test_what_needs_another_operator_waits_for_him_and_is_then_done_once(office: Office) -> None:
    with_rules(office, Rule(id="two", when=BY_HAND, route="ledger", approvals=Need(group=ROLE, count=1)))
    office.run("operator", "freeze", "alice", "--reason", "x")
    lift = ("operator", "unfreeze", "alice", "--reason", "explained")
    first = office.run(*lift)
    assert (first.exit_code, "operator approve 2" in first.stderr, state_of(office)) == (1, True, "frozen")
    assert office.run(*lift).exit_code == 1, "again changes nothing"
    own = office.run("operator", "approve", "2", "--group", ROLE)
    assert (own.exit_code, "his own" in own.stderr) == (1, True)
    assert office.run("operator", "approve", "2", by="max").exit_code == 2, "he is no approver of the bundle"
    assert office.run("operator", "approve", "2", by="ada").exit_code == 0
    other = office.run("operator", "unfreeze", "alice", "--reason", "another reason")
    assert (other.exit_code, state_of(office)) == (1, "frozen"), "what was approved has another reason"
    assert office.run(*lift).exit_code == 0
    assert state_of(office) == "active"
    office.run("operator", "freeze", "alice", "--reason", "x")
    assert office.run(*lift).exit_code == 1, "an approval is used once"
    assert office.verified()["findings"] == []


def test_approvals_of_what_was_asked_for_under_an_older_bundle_are_void(office: Office) -> None:
    two = Rule(id="two", when=BY_HAND, route="ledger", approvals=Need(group=ROLE, count=1))
    with_rules(office, two)
    office.run("operator", "freeze", "alice", "--reason", "x")
    lift = ("operator", "unfreeze", "alice", "--reason", "explained")
    assert office.run(*lift).exit_code == 1
    assert office.run("operator", "approve", "2", by="ada").exit_code == 0
    office.publish(office.bundle(3, policy=Policy(rules=(two,), groups=office.bundle().policy.groups)))
    assert (office.run(*lift).exit_code, state_of(office)) == (1, "frozen")


def test_without_a_bundle_that_can_be_believed_paying_is_stopped_and_nothing_else(office: Office) -> None:
    (office.directory / "bundle.json").write_text("{}")
    assert office.run("operator", "halt", "all", "--reason", "strange").exit_code == 0
    result = office.run("operator", "lift", "all", "--reason", "x")
    assert (result.exit_code, "no bundle" in result.stderr) == (1, True)
    assert [row["outcome"] for row in office.actions()] == ["done", "refused"]
    assert office.actions()[0]["bundle_version"] is None


def test_a_new_operator_s_record_is_what_a_bundle_takes(office: Office) -> None:
    made = office.directory / "new.pem"
    SigningKey.generate().save(made)
    enrol = ("operator", "enrol", "nina", "--organisation", "house", "--not-after", "2030-01-01")
    result = office.run(*enrol, "--role", "support", "--key", str(made))
    assert result.exit_code == 0, result.output
    record = msgspec.json.decode(result.stdout, type=Operator)
    assert (record.id, record.roles, record.key) == ("nina", ("support",), SigningKey.load(made).public_hex)
    wrong = office.run(*enrol, "--role", "root", "--key", str(made))
    assert (wrong.exit_code, "roles" in wrong.stderr) == (2, True)
