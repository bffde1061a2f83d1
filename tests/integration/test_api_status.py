"""The status: what runs, how far each chain is, what waits and why; as JSON and in words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg import errors as pg
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from custody.console.app import app
from custody.storage import alerts, halts, heartbeats
from custody.storage.alerts import Severity
from custody.storage.db import Database
from custody.storage.heartbeats import Process
from signers.ports import Unresolved
from tests.fakes.api import AUDIENCE, BTC, RunningApi, running_api
from tests.support.ledger import login


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has 1 BTC, and everything at work."""
    with capture_logs(), running_api(database) as running:
        running.client().create_customer("alice")
        running.fund("alice", BTC)
        running.others_run()
        yield running


def run(api: RunningApi, directory: Path, *arguments: str, caller: str = "exchange") -> Result:
    key = directory / f"{caller}.pem"
    if not key.exists():
        api.keys[caller].save(key)
    environment = {
        "STRONGROOM_API_URL": api.url,
        "STRONGROOM_CALLER": caller,
        "STRONGROOM_CALLER_KEY": str(key),
        "STRONGROOM_AUDIENCE": AUDIENCE,
    }
    return CliRunner().invoke(app, ["status", *arguments], env=environment)


def in_queue(api: RunningApi, *reasons: str) -> None:
    """Withdrawals that wait in the queue, each for one of these reasons."""
    for reason in reasons:
        order = api.client().withdraw(api.order())
        with psycopg.connect(api.superuser_dsn) as connection:
            for state in ("screening", "queued"):
                connection.execute("UPDATE withdrawals SET state = %s WHERE id = %s", [state, order["id"]])
            connection.execute("UPDATE withdrawals SET reason = %s WHERE id = %s", [reason, order["id"]])


def test_an_idle_service_says_that_everything_runs_and_nothing_waits(api: RunningApi, tmp_path: Path) -> None:
    found = api.client().status()
    assert (found["ready"], found["attention"]) == (True, False)
    assert [part["name"] for part in found["parts"]] == [
        "api", "bundle", "database", "monitor bitcoin-regtest", "node bitcoin-regtest", "workers", "beat",
        "signer hot-btc", "verifier",
    ]  # fmt: skip
    (chain,) = found["chains"]
    assert (chain["height"], chain["node_tip"], chain["behind_blocks"], chain["final_height"]) == (7, 7, 0, 7)
    for what in ("deposits", "withdrawals", "sweeps", "transactions", "halts", "alerts"):
        assert found[what] == []
    (tier,) = found["tiers"]
    assert (tier["holds"], tier["excess"]) == ("1.00000000", "0.00000000")
    shown = run(api, tmp_path)
    assert shown.exit_code == 0
    assert "Nothing waits." in shown.stdout


def test_what_waits_is_counted_with_its_sum_and_the_commonest_reasons(
    api: RunningApi, tmp_path: Path
) -> None:
    in_queue(api, "fees-above-cap: now 12", "fees-above-cap: now 13", "insufficient-hot-funds: 5 are missing")
    api.client().withdraw(api.order())
    queued, requested = sorted(api.client().status()["withdrawals"], key=lambda each: str(each["state"]))
    assert (queued["state"], queued["count"], queued["amount"]) == ("queued", 3, "0.03000000")
    assert queued["reasons"] == [
        {"reason": "fees-above-cap: now 12", "count": 2},
        {"reason": "insufficient-hot-funds: 5 are missing", "count": 1},
    ]
    assert (requested["state"], requested["count"], requested["reasons"]) == ("requested", 1, [])
    shown = run(api, tmp_path)
    assert shown.exit_code == 0
    assert "3 withdrawals" in shown.stdout
    assert "0.03000000 BTC" in shown.stdout
    assert "2: fees-above-cap: now 12" in shown.stdout


def test_deposits_sweeps_and_transactions_on_their_way_are_counted(api: RunningApi) -> None:
    client = api.client()
    client.new_address("alice", "BTC")
    with psycopg.connect(api.superuser_dsn) as connection:
        for number, state in enumerate(("confirming", "confirming", "held", "credited")):
            connection.execute(
                "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state, height,"
                " block_hash, confirmations) SELECT gen_random_uuid(), chain, %s, %s, id, customer_id, asset, 150000,"
                " %s, 7, %s, 6 FROM addresses",
                [f"{'c' * 64}:{number}", "c" * 64, state, "b" * 64],
            )
        connection.execute(
            "INSERT INTO transactions (id, chain, keyset, kind, state)"
            " VALUES (%s, 'bitcoin-regtest', 'hot-btc', 'payment', 'broadcast'),"
            " (%s, 'bitcoin-regtest', 'hot-btc', 'payment', 'final')",
            [uuid4(), uuid4()],
        )
        connection.execute(
            "INSERT INTO sweeps (id, chain, keyset, kind, state)"
            " VALUES (%s, 'bitcoin-regtest', 'hot-btc', 'consolidation', 'planned')",
            [uuid4()],
        )
    found = client.status()
    assert [(each["state"], each["count"], each["amount"]) for each in found["deposits"]] == [
        ("confirming", 2, "0.00300000"),
        ("held", 1, "0.00150000"),
    ]
    assert [(each["kind"], each["state"], each["count"]) for each in found["transactions"]] == [
        ("payment", "broadcast", 1)
    ]
    assert [(each["kind"], each["state"], each["count"]) for each in found["sweeps"]] == [
        ("consolidation", "planned", 1)
    ]


def test_a_halt_or_a_critical_alert_ends_with_1_and_is_said_first(api: RunningApi, tmp_path: Path) -> None:
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        alerts.raise_alert(tx, Severity.WARNING, "tier.excess", "hot:BTC", "Too much.", {})
    assert run(api, tmp_path).exit_code == 0
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        halts.halt(tx, "bitcoin-regtest", "the books differ by 1 satoshi")
        alerts.raise_alert(tx, Severity.CRITICAL, "reconcile.difference", "x", "Look at once.", {})
    shown = run(api, tmp_path)
    assert shown.exit_code == 1
    told = shown.stdout
    assert "Paying is HALTED on bitcoin-regtest: the books differ by 1 satoshi" in told
    assert "1 critical alert is open." in told
    assert "Look at once." in told
    found = json.loads(run(api, tmp_path, "--json").stdout)
    assert (found["ready"], found["attention"]) == (True, True)
    assert found["chains"][0]["halted"] == "the books differ by 1 satoshi"


def test_how_far_a_chain_is_behind_and_that_its_node_is_away_are_told(
    api: RunningApi, tmp_path: Path
) -> None:
    api.others_run(tip=19)
    assert api.client().status()["chains"][0]["behind_blocks"] == 12
    shown = run(api, tmp_path)
    assert shown.exit_code == 0
    assert "bitcoin-regtest is 12 blocks behind its node." in shown.stdout
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        heartbeats.beat(tx, Process.MONITOR, "bitcoin-regtest", {"trouble": "connection refused"})
    (chain,) = api.client().status()["chains"]
    assert (chain["node_tip"], chain["behind_blocks"], chain["trouble"]) == (None, None, "connection refused")
    shown = run(api, tmp_path)
    assert shown.exit_code == 3
    assert "1 of 9 parts is missing: node bitcoin-regtest" in shown.stdout
    assert "connection refused" in shown.stdout
    # Who has no token learns that it is away, and no more.
    assert "connection refused" not in api.raw().get("/readyz").text


def test_silent_workers_and_a_silent_beat_are_missed(api: RunningApi, tmp_path: Path) -> None:
    api.others_run(ago="1 minute")
    shown = run(api, tmp_path)
    assert shown.exit_code == 3
    for part in ("workers", "beat", "node bitcoin-regtest"):
        assert part in shown.stdout.splitlines()[0]
    assert re.search(r"last heard of [6-9][0-9] s ago", shown.stdout)


def verifier(api: RunningApi) -> dict[str, Any]:
    """What the status says of it, and the same in `/readyz`."""
    [part] = [part for part in api.client().status()["parts"] if part["name"] == "verifier"]
    ready = api.raw().get("/readyz")
    assert ready.json()["parts"]["verifier"] == {"ok": part["ok"], "detail": part["detail"]}
    assert ready.status_code == (200 if part["ok"] else 503)
    return dict(part)


def test_the_verifier_is_seen_by_what_the_signers_say_of_it(api: RunningApi, tmp_path: Path) -> None:
    now = int(time.time())
    waits = Unresolved(
        keyset="hot-btc", chain="bitcoin-regtest", count=3, oldest_at=now - 600, resolved_at=None
    )
    api.signer.says = {"at": now, "unresolved": (waits,)}
    assert verifier(api) == {
        "name": "verifier",
        "ok": True,
        "detail": "transactions that wait for final blocks: 3",
    }
    api.signer.says["at"] = now + 7 * 3600
    assert verifier(api)["detail"] == (
        "says nothing of what hot-btc signed: the oldest of 3 transactions was signed 7 h 10 min ago"
    )
    shown = run(api, tmp_path)
    assert shown.exit_code == 3
    assert "1 of 9 parts is missing: verifier" in shown.stdout
    api.signer.says["unresolved"] = (msgspec.structs.replace(waits, resolved_at=now + 7 * 3600 - 60),)
    assert verifier(api)["ok"]


def test_a_verifier_that_does_not_come_and_a_bundle_without_one_are_told(api: RunningApi) -> None:
    api.signer.says = {"unasked_seconds": 601}
    assert verifier(api)["detail"] == "last asked the signer of hot-btc 10 min ago, or before that started"
    api.signer.says = {}
    assert verifier(api)["ok"]
    api.bundle = msgspec.structs.replace(api.bundle, verifiers=())
    assert verifier(api)["detail"] == "the bundle names none: what is signed counts for ever"
    api.signer.down = True
    assert not verifier(api)["ok"]


def test_a_caller_without_the_scope_still_sees_what_runs(api: RunningApi, tmp_path: Path) -> None:
    shown = run(api, tmp_path, caller="reader")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Everything runs. Of the rest: this caller may see no more")
    assert "signer hot-btc" in shown.stdout
    assert "Money that waits" not in shown.stdout


def test_a_heartbeat_again_replaces_the_last_and_what_has_left_is_not_missed(database: str) -> None:
    with Database(login(database, "strongroom_worker"), application="test") as db, db.transaction() as tx:
        for detail in ({"n": 1}, {"n": 2}):
            heartbeats.beat(tx, Process.WORKER, "host:1", detail)
        heartbeats.beat(tx, Process.WORKER, "host:2", {})
        assert [(each.instance, dict(each.detail), each.fresh) for each in heartbeats.heard(tx)] == [
            ("host:1", {"n": 2}, True),
            ("host:2", {}, True),
        ]
        heartbeats.leave(tx, Process.WORKER, "host:2")
        assert [each.instance for each in heartbeats.heard(tx)] == ["host:1"]
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE heartbeats SET at = now() - interval '2 hours'")
    with Database(login(database, "strongroom_worker"), application="test") as db, db.transaction() as tx:
        assert not heartbeats.heard(tx)[0].fresh
        heartbeats.beat(tx, Process.WORKER, "host:3", {})
        assert [each.instance for each in heartbeats.heard(tx)] == ["host:3"]


@pytest.mark.parametrize(
    ("role", "process", "allowed"),
    [
        ("strongroom_monitor", Process.MONITOR, True),
        ("strongroom_monitor", Process.WORKER, False),
        ("strongroom_worker", Process.WORKER, True),
        ("strongroom_worker", Process.BEAT, True),
        ("strongroom_worker", Process.MONITOR, False),
        ("strongroom_api", Process.WORKER, False),
        ("strongroom_read", Process.WORKER, False),
    ],
)
def test_nobody_says_that_another_is_at_work(
    database: str, role: str, process: Process, allowed: bool
) -> None:
    def beat(detail: dict[str, Any]) -> None:
        with Database(login(database, role), application="test") as db, db.transaction() as tx:
            heartbeats.beat(tx, process, "x", detail)

    if allowed:
        beat({})
        beat({"again": True})
    else:
        with pytest.raises(pg.InsufficientPrivilege):
            beat({})
