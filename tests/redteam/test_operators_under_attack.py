"""Who takes a role of the database, a caller's key or an operator's, and what he can do and hide with it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from custody.ids import new_id
from ops.devnet.postgres import EmbeddedPostgres
from policies.rules import Need, Operation, Policy, Rule, When
from policies.token import Request
from tests.fakes.api import RunningApi, as_role, authorization, kind, running_api
from tests.fakes.operators import Office
from tests.fakes.signing import ROLE

ROLES = ("strongroom_api", "strongroom_monitor", "strongroom_worker", "strongroom_read")
COLUMNS = (
    "operator, key, via, origin, action, parameters, outcome, reason, decision, bundle_version, asked_in, document,"
    " signature"
)


@pytest.fixture
def office(database: str, tmp_path: Path) -> Office:
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO customers (id) VALUES ('alice')")
    made = Office(database, tmp_path)
    for verb in ("halt", "lift"):
        assert made.run("operator", verb, "all", "--reason", "drill", by="tess").exit_code == 0
    assert made.run("operator", "freeze", "alice", "--reason", "court order", by="sue").exit_code == 0
    assert made.verified() == {"rows": 3, "head": made.verified()["head"], "findings": []}
    return made


def owner(office: Office, *statements: str) -> None:
    """What whoever owns the tables can do: triggers do not stop him."""
    with psycopg.connect(office.database) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operator_actions SET operator = 'aud'",
        "DELETE FROM operator_actions",
        "TRUNCATE operator_actions CASCADE",
        "INSERT INTO operator_actions (number, at, writer, previous, hash) VALUES (9, now(), 'x', 'x', 'x')",
    ],
)
def test_no_role_of_ours_changes_deletes_or_numbers_rows(office: Office, role: str, statement: str) -> None:
    with psycopg.connect(as_role(office.database, role)) as connection, pytest.raises(psycopg.Error):
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement", ["UPDATE operator_actions SET operator = 'aud'", "DELETE FROM operator_actions"]
)
def test_nor_does_the_owner_of_the_tables_by_accident(office: Office, statement: str) -> None:
    with psycopg.connect(office.database) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "reason = 'another'",
        "parameters = '{}'",
        "operator = 'aud'",
        "outcome = 'refused'",
        "at = at - interval '1 day'",
        "origin = 'elsewhere'",
        "decision = NULL",
        "bundle_version = 2",
    ],
)
def test_a_row_that_its_owner_edits_is_found(office: Office, change: str) -> None:
    owner(office, f"UPDATE operator_actions SET {change} WHERE number = 2")
    assert 2 in {each["number"] for each in office.verified()["findings"]}


def test_an_edit_with_new_hashes_is_found_by_what_operators_signed_later(office: Office) -> None:
    chained = []
    for number in (1, 2, 3):
        before = f"(SELECT hash FROM operator_actions WHERE number = {number - 1})"
        if number > 1:
            chained.append(f"UPDATE operator_actions SET previous = {before} WHERE number = {number}")
        chained.append(
            f"UPDATE operator_actions a SET hash = operator_action_hash(a) WHERE number = {number}"
        )
    owner(office, "UPDATE operator_actions SET origin = 'elsewhere' WHERE number = 1", *chained)
    findings = office.verified()["findings"]
    assert [each["number"] for each in findings] == [2, 3]
    assert all("saw last" in each["finding"] for each in findings)


@pytest.mark.parametrize("role", ["strongroom_worker", "strongroom_monitor", "strongroom_api"])
def test_no_role_of_ours_lifts_a_brake_or_unfreezes_a_customer_without_a_record(
    office: Office, role: str
) -> None:
    assert office.run("operator", "halt", "all", "--reason", "strange").exit_code == 0
    for statement in ("DELETE FROM halts", "UPDATE customers SET state = 'active', reason = ''"):
        with psycopg.connect(as_role(office.database, role)) as connection:
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with psycopg.connect(office.database) as connection:
        assert connection.execute("SELECT count(*) FROM halts").fetchone() == (1,)
        assert connection.execute("SELECT state FROM customers").fetchone() == ("frozen",)


def test_a_row_that_is_gone_is_found(office: Office) -> None:
    owner(office, "DELETE FROM operator_actions WHERE number = 2")
    assert any("rows 2 to 2 are gone" in each["finding"] for each in office.verified()["findings"])


def test_an_end_that_was_cut_off_is_found_by_whoever_kept_the_head(office: Office) -> None:
    head = office.verified()["head"]
    owner(office, "DELETE FROM operator_actions WHERE number = 3")
    assert office.verified()["findings"] == [], "nothing in the database can tell"
    assert [each["number"] for each in office.verified("--head", head)["findings"]] == [3]


def forged(office: Office, role: str, **changes: Any) -> None:
    """A row like the last one, written with a role of ours."""
    with psycopg.connect(as_role(office.database, role)) as connection:
        row = connection.execute(
            f"SELECT {COLUMNS} FROM operator_actions ORDER BY number DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        values = dict(zip(COLUMNS.split(", "), row, strict=True)) | changes
        connection.execute(
            f"INSERT INTO operator_actions ({COLUMNS}) VALUES ({', '.join(['%s'] * len(values))})",
            list(values.values()),
        )


def test_who_takes_the_api_writes_nothing_that_seems_done_at_the_host(office: Office) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="does not speak"):
        forged(office, "strongroom_api", signature="")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="does not speak"):
        forged(office, "strongroom_worker", via="api", signature="")
    with pytest.raises(psycopg.Error):
        forged(office, "strongroom_monitor")


@pytest.mark.parametrize("role", ["strongroom_api", "strongroom_worker"])
def test_a_row_in_somebody_else_s_name_is_found(office: Office, role: str) -> None:
    via = "api" if role == "strongroom_api" else "host"
    forged(office, role, via=via, operator="otto", signature="")
    assert [each["number"] for each in office.verified()["findings"]] == [4]


def test_what_an_operator_signed_is_not_recorded_twice(office: Office) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        forged(office, "strongroom_worker")


def test_approvals_that_somebody_wrote_into_the_table_count_nothing(office: Office) -> None:
    two = Rule(
        id="two",
        when=When(operations=(Operation.ADMINISTRATION,)),
        route="ledger",
        approvals=Need(group=ROLE, count=1),
    )
    policy = Policy(rules=(two,), groups=office.bundle().policy.groups)
    office.publish(office.bundle(2, policy=policy))
    unfreeze = ("operator", "unfreeze", "alice", "--reason", "x")
    assert office.run(*unfreeze, by="carl").exit_code == 1
    asked = office.actions()[-1]
    forged(
        office,
        "strongroom_worker",
        operator="ada",
        key=office.keys["ada"].public_hex,
        action="approve",
        parameters=json.dumps({"group": ROLE, "hash": asked["hash"], "number": str(asked["number"])}),
        outcome="done",
        asked_in=asked["number"],
        signature="A" * 86 + "==",
    )
    assert office.run(*unfreeze, by="carl").exit_code == 1
    with psycopg.connect(office.database) as connection:
        assert connection.execute("SELECT state FROM customers").fetchone() == ("frozen",)


def test_who_takes_the_api_cannot_use_up_or_overlay_what_an_operator_asked_for_at_the_host(
    office: Office,
) -> None:
    two = Rule(
        id="two",
        when=When(operations=(Operation.ADMINISTRATION,)),
        route="ledger",
        approvals=Need(group=ROLE, count=1),
    )
    office.publish(office.bundle(2, policy=Policy(rules=(two,), groups=office.bundle().policy.groups)))
    unfreeze = ("operator", "unfreeze", "alice", "--reason", "x")
    assert office.run(*unfreeze, by="carl").exit_code == 1
    asked = office.actions()[-1]
    # Like the row before it in all but this.
    forged(office, "strongroom_api", via="api", outcome="done", asked_in=asked["number"], signature="")
    forged(office, "strongroom_api", via="api", outcome="asked", asked_in=None, signature="")
    assert office.run("operator", "approve", str(asked["number"]), by="ada").exit_code == 0
    assert office.run(*unfreeze, by="carl").exit_code == 0
    with psycopg.connect(office.database) as connection:
        assert connection.execute("SELECT state FROM customers").fetchone() == ("active",)


@pytest.fixture
def api(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[RunningApi]:
    name = f"api_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    with running_api(postgres.superuser_dsn(name), trusted_proxies=(), operator_networks=()) as running:
        yield running
    postgres.drop_database(name)


def bump(api: RunningApi, who: str, **headers: str) -> tuple[int, str]:
    request = Request("POST", f"/v1/withdrawals/{new_id()}/bump", "", b"{}")
    answer = api.raw().post(
        request.path,
        content=request.body,
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": str(new_id()),
            "Authorization": authorization(api, request, caller=who, key=api.keys[who]),
            **headers,
        },
    )
    return answer.status_code, kind(answer)


def test_an_operator_from_elsewhere_is_refused_and_recorded_whatever_headers_say(api: RunningApi) -> None:
    assert bump(api, "otto") == (403, "address-not-allowed")
    assert bump(api, "otto", **{"X-Forwarded-For": "10.0.0.1"}) == (403, "address-not-allowed")
    assert api.client("exchange").get("/v1/assets")["items"], "callers come from wherever they are"
    assert (
        api.query("SELECT operator, outcome, origin, via FROM operator_actions")
        == [("otto", "refused", "127.0.0.1", "api")] * 2
    )


def test_a_token_that_was_refused_for_its_address_is_spent(api: RunningApi) -> None:
    request = Request("GET", "/v1/cases", "", b"")
    token = authorization(api, request, caller="otto", key=api.keys["otto"])
    for _ in range(2):
        assert api.raw().get(request.path, headers={"Authorization": token}).status_code == 403
    assert api.query("SELECT count(*) FROM operator_actions") == [(1,)]
    assert api.query("SELECT count(*) FROM token_nonces WHERE caller = 'otto'") == [(1,)]


def test_an_operator_without_the_role_is_refused_by_the_api_and_recorded(database: str) -> None:
    with running_api(database) as api:
        assert bump(api, "aud") == (403, "action-refused")
        assert bump(api, "exchange") == (403, "operators-only")
        assert bump(api, "otto") == (404, "not-found")
        assert api.query("SELECT operator, action, outcome FROM operator_actions ORDER BY number") == [
            ("aud", "bump", "refused"),
            ("otto", "bump", "failed"),
        ]
        seen = api.client("aud").get("/v1/operator-actions")["items"]
        assert [row["outcome"] for row in seen] == ["refused", "failed"]


def test_what_was_done_past_its_approvals_is_found(office: Office) -> None:
    """Who has the workers' role and one operator's key writes a row as if nobody else had been asked."""
    two = Rule(
        id="two",
        when=When(operations=(Operation.ADMINISTRATION,)),
        route="ledger",
        approvals=Need(group=ROLE, count=1),
    )
    office.publish(office.bundle(2, policy=Policy(rules=(two,), groups=office.bundle().policy.groups)))
    assert office.run("operator", "unfreeze", "alice", "--reason", "x", by="carl").exit_code == 1
    assert office.verified()["findings"] == []
    owner(
        office,
        "UPDATE operator_actions SET outcome = 'done', reason = '' WHERE number = 4",
        "UPDATE operator_actions a SET hash = operator_action_hash(a) WHERE number = 4",
    )
    [finding] = office.verified()["findings"]
    assert (finding["number"], "without" in finding["finding"]) == (4, True)
