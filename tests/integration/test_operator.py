"""The operator's verbs on PostgreSQL, with the workers' role: the brake, freezes, alerts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import Result

from custody.storage import halts
from custody.storage.db import Database
from tests.fakes.operators import Office
from tests.fakes.signing import CHAIN

Run = Callable[..., Result]


@pytest.fixture
def run(database: str, tmp_path: Path) -> Run:
    """Runs `strongroom operator ...` as an operator with all roles, with a worker's settings."""
    office = Office(database, tmp_path)
    return lambda *arguments, **more: office.run("operator", *arguments, **more)


def test_a_halt_is_placed_shown_and_lifted_and_the_feed_says_by_whom(run: Run, database: str) -> None:
    assert run("halt", "all", "--reason", "strange fees").exit_code == 0
    shown = json.loads(run("halts", "--json").stdout)
    assert [(row["scope"], row["reason"].startswith("strange fees (by ")) for row in shown] == [("all", True)]
    assert run("lift", "all", "--reason", "explained").exit_code == 0
    assert json.loads(run("halts", "--json").stdout) == []
    assert run("lift", "all", "--reason", "again changes nothing").exit_code == 0
    with psycopg.connect(database) as connection:
        types = [row[0] for row in connection.execute("SELECT type FROM events ORDER BY id")]
    assert types.count("paying.halted") == types.count("paying.resumed") == 1


def test_a_brake_is_put_on_only_where_workers_look(run: Run, database: str) -> None:
    assert run("halt", CHAIN, "--reason", "x").exit_code == 0
    result = run("halt", "btcc", "--reason", "x")
    assert (result.exit_code, "btcc" in result.stderr, f"all, {CHAIN}" in result.stderr) == (2, True, True)
    assert [row["scope"] for row in json.loads(run("halts", "--json").stdout)] == [CHAIN]


def test_one_asset_is_halted_and_lifted_by_itself_if_workers_pay_it(
    run: Run, database: str, tmp_path: Path
) -> None:
    nodes = json.dumps({"btc": {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}})
    result = run("halt", "asset:BTCC", "--reason", "x")
    assert (result.exit_code, "asset:BTC," in result.stderr) == (2, True)
    assert run("halt", "asset:BTC", "--reason", "x", STRONGROOM_NODES=nodes).exit_code == 2, (
        "these workers have no node for its chain"
    )
    assert json.loads(run("halts", "--json").stdout) == []
    assert run("halt", "asset:BTC", "--reason", "odd transfers").exit_code == 0
    with Database(database, application="test", pool_size=1) as db, db.snapshot() as tx:
        assert str(halts.halted(tx, CHAIN, "BTC")).startswith("odd transfers (by ")
        assert halts.halted(tx, CHAIN) is None
    assert json.loads(run("lift", "asset:BTC", "--reason", "explained", "--json").stdout)["lifted"]
    assert json.loads(run("halts", "--json").stdout) == []


def test_what_was_not_there_is_not_said_to_be_lifted_or_closed(run: Run, database: str) -> None:
    assert "there was no halt of all" in run("lift", "all", "--reason", "x").stdout
    assert "there was no open alert" in run("resolve", "chain.deep_reorg", "x", "--reason", "x").stdout
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_an_operator_names_the_workers_settings_beside_another_process_s(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("")
    (tmp_path / "worker.toml").write_text("nonsense = 1")
    for file in ("other.toml", "worker.toml"):
        (tmp_path / file).chmod(0o600)
    result = run(
        "halts",
        STRONGROOM_CONFIG=str(tmp_path / "other.toml"),
        STRONGROOM_OPERATOR_CONFIG=str(tmp_path / "worker.toml"),
    )
    assert (result.exit_code, "nonsense" in result.stderr) == (2, True)
    assert "STRONGROOM_OPERATOR_CONFIG" in result.stderr


def test_a_frozen_customer_is_active_again_once_an_operator_says_so(run: Run, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO customers (id) VALUES ('alice')")
        assert run("freeze", "alice", "--reason", "court order").exit_code == 0
        assert connection.execute("SELECT state, reason FROM customers").fetchone() == (
            "frozen",
            "court order",
        )
        said = json.loads(run("unfreeze", "alice", "--reason", "lifted", "--json").stdout)
        assert said == {"customer": "alice", "state": "active"}
        assert connection.execute("SELECT state, reason FROM customers").fetchone() == ("active", "")


def test_an_unknown_customer_is_a_refusal_with_a_sentence(run: Run) -> None:
    result = run("unfreeze", "nobody", "--reason", "x")
    assert (result.exit_code, "nobody" in result.stderr) == (1, True)


def test_an_alert_that_somebody_has_looked_at_is_closed(run: Run, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO alerts (severity, type, subject, message) VALUES ('critical', 'chain.deep_reorg', 'x', 'm')"
        )
        assert run("resolve", "chain.deep_reorg", "x", "--reason", "seen").exit_code == 0
        assert connection.execute("SELECT count(*) FROM alerts WHERE resolved_at IS NULL").fetchone() == (0,)
