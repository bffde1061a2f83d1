"""`strongroom`'s verbs against a running API: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from custody.console.app import app
from tests.fakes.api import AUDIENCE, BTC, FOREIGN_ADDRESS, RunningApi, running_api

Run = Callable[..., Result]


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    # The API runs in this process: its log lines must not mix with what a command prints.
    with capture_logs(), running_api(database) as running:
        yield running


@pytest.fixture
def run(api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command as the caller `exchange`."""
    key = tmp_path / "exchange.pem"
    api.keys["exchange"].save(key)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("custody.web.client.BACK_OFF_SECONDS", (0.01,))

    def invoke(*arguments: str, **changes: str) -> Result:
        environment = {
            "STRONGROOM_API_URL": api.url,
            "STRONGROOM_CALLER": "exchange",
            "STRONGROOM_CALLER_KEY": str(key),
            "STRONGROOM_AUDIENCE": AUDIENCE,
            **changes,
        }
        return CliRunner().invoke(app, list(arguments), env=environment)

    return invoke


def as_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_main_job_can_be_done_by_hand(api: RunningApi, run: Run) -> None:
    assert as_json(run("customer", "create", "alice", "--json"))["id"] == "alice"
    address = as_json(run("address", "new", "--customer", "alice", "--json"))["address"]
    assert [a["address"] for a in as_json(run("address", "list", "--customer", "alice", "--json"))] == [
        address
    ]
    api.fund("alice", BTC)
    made = as_json(
        run(
            "withdrawal",
            "create",
            "--customer",
            "alice",
            "--amount",
            "0.01",
            "--to",
            FOREIGN_ADDRESS,
            "--json",
        )
    )
    assert (made["amount"], made["fee"], made["state"]) == ("0.01000000", "0.00050000", "requested")
    assert made["fee_ceiling"] == {"asset": "BTC", "amount": "0.00050000"}
    shown = run("withdrawal", "show", made["id"])
    assert shown.exit_code == 0
    assert made["id"] in shown.stdout
    assert "0.01000000" in shown.stdout
    assert as_json(run("account", "balances", "alice", "--json"))[0]["frozen"] == "0.01050000"
    assert as_json(run("withdrawal", "cancel", made["id"], "--json"))["state"] == "cancelled"
    replayed = as_json(run("ledger", "statement", "alice", "--json"))
    assert replayed["ok"] is True
    assert replayed["replayed"] == {"available": "1.00000000", "frozen": "0.00000000"}
    assert len(replayed["lines"]) == 5
    for command in (
        ("customer", "list"),
        ("customer", "show", "alice"),
        ("account", "statement", "alice"),
        ("deposit", "list"),
        ("withdrawal", "list", "--state", "cancelled"),
        ("tier",),
        ("tier", "--history"),
        ("refill", "list"),
        ("alerts",),
        ("ledger", "statement", "alice"),
    ):
        assert run(*command).exit_code == 0, command
        as_json(run(*command, "--json"))


def test_events_are_lines_of_json_and_go_on_from_a_cursor(api: RunningApi, run: Run) -> None:
    api.client().create_customer("alice")
    lines = [json.loads(line) for line in run("event", "follow", "--once", "--json").stdout.splitlines()]
    assert [line.get("type") for line in lines] == ["customer.created", None]
    api.client().create_customer("bob")
    later = run("event", "follow", "--once", "--after", lines[-1]["next"])
    assert "bob" in later.stdout
    assert "alice" not in later.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("withdrawal", "create", "--customer", "alice", "--amount", "5", "--to", FOREIGN_ADDRESS), 1),
        (("withdrawal", "create", "--customer", "bob", "--amount", "0.01", "--to", FOREIGN_ADDRESS), 1),
        (("customer", "create", "alice"), 1),
        (("customer", "show", "bob"), 1),
        (("withdrawal", "create", "--customer", "alice", "--amount", "-1", "--to", FOREIGN_ADDRESS), 2),
        (("withdrawal", "create", "--customer", "alice", "--amount", "0", "--to", FOREIGN_ADDRESS), 2),
        (("withdrawal", "create", "--customer", "alice", "--amount", "1e-3", "--to", FOREIGN_ADDRESS), 2),
        (
            (
                "withdrawal",
                "create",
                "--customer",
                "alice",
                "--amount",
                "0.000000001",
                "--to",
                FOREIGN_ADDRESS,
            ),
            2,
        ),
        (("withdrawal", "create", "--customer", "alice", "--amount", "0.01", "--to", "nowhere"), 2),
        (("withdrawal", "create", "--customer", "a b", "--amount", "0.01", "--to", FOREIGN_ADDRESS), 2),
        (("customer", "create", "a b"), 2),
        (("withdrawal", "show", "7"), 2),
        (("withdrawal", "list", "--state", "lost"), 2),
        (("withdrawal", "frobnicate"), 2),
        (("event", "follow", "--after", "x"), 2),
    ],
)
def test_exit_codes_tell_a_refusal_from_wrong_input(
    api: RunningApi, run: Run, arguments: tuple[str, ...], code: int
) -> None:
    api.client().create_customer("alice")
    api.fund("alice", BTC)
    before = api.query("SELECT count(*) FROM withdrawals")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr
    assert "Traceback" not in result.output
    assert api.query("SELECT count(*) FROM withdrawals") == before


def test_a_program_gets_the_problem_itself(api: RunningApi, run: Run) -> None:
    result = run("customer", "show", "bob", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["type"] == "urn:strongroom:problem:unknown-customer"


def test_what_may_pass_ends_with_3(api: RunningApi, run: Run) -> None:
    api.signer.down = True
    api.client().create_customer("alice")
    assert run("address", "new", "--customer", "alice").exit_code == 3
    assert run("customer", "list", STRONGROOM_API_URL="http://127.0.0.1:9").exit_code == 3
    status = run("status")
    assert status.exit_code == 3
    assert "NO" in status.stdout
    assert json.loads(run("status", "--json").stdout)["ready"] is False


def test_status_ends_with_0_when_everything_is_there(api: RunningApi, run: Run) -> None:
    api.others_run()
    found = as_json(run("status", "--json"))
    assert (found["ready"], found["attention"]) == (True, False)
    shown = run("status")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Everything runs.")
    assert "Nothing waits." in shown.stdout


def test_a_falsified_statement_ends_with_1(api: RunningApi, run: Run) -> None:
    api.client().create_customer("alice")
    api.fund("alice", BTC)
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute("SET session_replication_role = replica")  # past the triggers
        connection.execute("UPDATE ledger_accounts SET balance = balance + 1 WHERE customer_id = 'alice'")
    result = run("ledger", "statement", "alice")
    assert result.exit_code == 1
    assert "DIFFERS" in result.stdout


@pytest.mark.parametrize("missing", ["STRONGROOM_CALLER_KEY", "STRONGROOM_AUDIENCE"])
def test_a_missing_setting_is_named(run: Run, missing: str) -> None:
    result = run("customer", "list", **{missing: ""})
    assert result.exit_code == 2
    assert missing in result.stderr


def test_a_key_file_open_to_others_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "exchange.pem").chmod(0o644)
    result = run("customer", "list")
    assert result.exit_code == 2
    assert "chmod 600" in result.stderr
