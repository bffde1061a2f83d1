"""Signers are watched: a verifier that is missing or silent is told of before windows are full, and full ones too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest

from custody.ports import Step
from custody.signing.watch import AWAY, AWAY_SECONDS, FILLING, PASSED_SECONDS, REFUSED, SILENT, watch_signers
from custody.workers.steps import run
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.process import ManagedProcess, wait_until
from ops.devnet.redis import RedisServer
from ops.stack.config import to_toml
from signers.client import SignerClient, UnixAddress
from signers.ports import (
    AttestRequest,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.verifier.client import VerifierClient
from tests.fakes.api import as_role
from tests.fakes.plant import Plant, plant_parts, running
from tests.fakes.signing import CHAIN, VERIFIER
from tests.fakes.till import Till
from tests.fakes.verifying import verifying

HOUR = 3600


class Later:
    """The till's signer, whose clock is some hours ahead, or which does not answer."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.ahead_seconds = self.unasked_seconds = 0
        self.down = False

    def status(self) -> SignerStatus:
        if self.down:
            raise SignerUnavailable("no answer")
        status = self.till.signer.status()
        return msgspec.structs.replace(
            status, at=status.at + self.ahead_seconds, unasked_seconds=self.unasked_seconds
        )

    def attest(self, request: AttestRequest) -> SignedAttestation:
        return self.till.signer.attest(request)

    def sign(self, request: SignRequest) -> SignResponse:
        return self.till.signer.sign(request)


@pytest.fixture
def later(till: Till) -> Later:
    return Later(till)


def watch(till: Till, signer: Later, patience: int | None = None) -> set[str]:
    """One look; the alerts that are open after it."""
    watch_signers(till.db, till.bundle, {till.site.wallet.id: signer}, patience)
    return till.alerts()


def alerts(till: Till, type: str) -> list[dict[str, Any]]:
    return till.query("SELECT * FROM alerts WHERE type = %s ORDER BY id", type)


def test_a_silent_verifier_is_told_once_with_numbers_and_is_over_when_it_speaks(
    till: Till, later: Later
) -> None:
    till.request(till.customer("alice", 3_000_000), 1_000_000)
    till.send()
    assert watch(till, later) == set()
    later.ahead_seconds = 12 * HOUR
    assert watch(till, later) == {SILENT}
    assert watch(till, later) == {SILENT}
    [alert] = alerts(till, SILENT)
    assert (alert["severity"], alert["subject"]) == ("critical", till.site.wallet.id)
    assert alert["data"]["count"] == 1
    assert 12 * HOUR <= alert["data"]["oldest_seconds"] < 13 * HOUR
    assert alert["data"]["heard_seconds"] is None
    assert "strongroom verifier" in alert["message"]
    till.settle()
    assert watch(till, later) == {SILENT}, "that our own monitor has seen it final empties no window"
    with verifying(till) as verifier:
        assert verifier.look() == 1
    assert watch(till, later) == set()
    assert len(alerts(till, SILENT)) == 1


def test_what_waits_longer_than_the_operator_wants_is_silence(till: Till, later: Later) -> None:
    till.request(till.customer("alice", 3_000_000), 1_000_000)
    till.send()
    later.ahead_seconds = 600
    assert watch(till, later) == set()
    assert watch(till, later, patience=60) == {SILENT}
    till.settle()


def test_a_worker_looks_with_the_patience_of_its_settings(till: Till, later: Later) -> None:
    till.request(till.customer("alice", 3_000_000), 1_000_000)
    till.send()
    later.ahead_seconds = 600
    for patience, found in ((None, set()), (60, {SILENT})):
        services: Any = SimpleNamespace(
            database=till.db,
            bundle=lambda: till.bundle,
            signers={till.site.wallet.id: later},
            settings=SimpleNamespace(verifier_silent_seconds=patience),
        )
        run(Step.WATCH_SIGNERS, services)
        assert till.alerts() == found
    till.settle()


def test_a_verifier_that_does_not_come_is_missed_although_nothing_waits(till: Till, later: Later) -> None:
    later.unasked_seconds = AWAY_SECONDS
    assert watch(till, later) == set()
    later.unasked_seconds += 1
    assert watch(till, later) == {AWAY}
    later.unasked_seconds += 600
    assert watch(till, later) == {AWAY}
    [alert] = alerts(till, AWAY)
    assert (alert["severity"], alert["data"]["unasked_seconds"]) == ("warning", AWAY_SECONDS + 1)
    later.unasked_seconds = 2
    assert watch(till, later) == set()


def test_of_a_signer_that_does_not_answer_nothing_is_known_and_nothing_changes(
    till: Till, later: Later
) -> None:
    later.unasked_seconds = AWAY_SECONDS + 1
    assert watch(till, later) == {AWAY}
    later.down = True
    later.unasked_seconds = 0
    assert watch(till, later) == {AWAY}
    later.down = False
    assert watch(till, later) == set()


def test_an_alert_of_a_keyset_that_is_gone_from_the_bundle_is_closed(till: Till, later: Later) -> None:
    with till.db.transaction() as tx:
        tx.execute(
            "INSERT INTO alerts (severity, type, subject, message, data) VALUES ('critical', %s, 'old', 'x', '{}')",
            [SILENT],
        )
    assert watch(till, later) == set()


def test_a_window_that_fills_is_told_before_it_is_full_and_until_it_has_eased(
    till: Till, later: Later
) -> None:
    till.request(till.customer("alice", 3_000_000), 1_000_000)
    till.send()
    [use] = [use for use in later.status().windows if use.kind == "payments"]
    version = 1

    def capped(percent: int) -> None:
        """So that what is in the window is this part of its cap, or a little more."""
        nonlocal version
        version += 1
        cap = str(int(use.units) * 100 // percent)
        till.adopt(
            version, caps=tuple(msgspec.structs.replace(each, window_cap=cap) for each in till.bundle.caps)
        )

    capped(79)
    assert watch(till, later) == set()
    capped(80)
    assert watch(till, later) == {FILLING}
    [alert] = alerts(till, FILLING)
    assert alert["subject"] == f"{till.site.wallet.id}:payments:{use.scope}"
    assert (alert["data"]["units"], alert["severity"]) == (use.units, "warning")
    assert "80 %" in alert["message"]
    assert till.bundle.told("BTC", int(use.units)) in alert["message"]
    capped(70)
    assert watch(till, later) == {FILLING}
    capped(69)
    assert watch(till, later) == set()
    capped(79)
    assert watch(till, later) == set()
    till.settle()


def refused_for_a_full_window(till: Till) -> None:
    till.request(till.customer("alice", 3_000_000), 2_000_000)
    till.adopt(2, caps=tuple(msgspec.structs.replace(cap, window_cap="1000000") for cap in till.bundle.caps))
    till.route()
    assert till.build() is not None
    assert till.sign() == []
    assert REFUSED in till.alerts()


def pass_time(till: Till, table: Literal["alerts", "transaction_versions"]) -> None:
    """Let what is in a table be older than a refusal that has passed."""
    column = "at" if table == "alerts" else "created_at"
    till.execute(f"UPDATE {table} SET {column} = {column} - interval '{PASSED_SECONDS + 1} seconds'")


def test_a_refusal_for_a_full_window_is_over_when_nothing_was_refused_for_a_while(
    till: Till, later: Later
) -> None:
    refused_for_a_full_window(till)
    assert REFUSED in watch(till, later)
    pass_time(till, "alerts")
    assert REFUSED in watch(till, later), "it was refused just now"
    pass_time(till, "transaction_versions")
    assert REFUSED not in watch(till, later)
    till.execute("UPDATE withdrawals SET not_before = now()")
    assert till.build() is not None
    assert till.sign() == []
    assert REFUSED in watch(till, later), "once more, so it is told once more"
    assert len(alerts(till, REFUSED)) == 2


def test_a_refusal_for_which_nothing_of_ours_should_ask_stays_until_a_person_closes_it(
    till: Till, later: Later
) -> None:
    refused_for_a_full_window(till)
    till.execute("UPDATE alerts SET subject = subject || ',foreign-output' WHERE type = %s", REFUSED)
    pass_time(till, "alerts")
    pass_time(till, "transaction_versions")
    assert REFUSED in watch(till, later)


@pytest.fixture
def plant(
    database: str, bitcoind: Bitcoind, tmp_path: Path, parts_directory: Path, redis_server: RedisServer
) -> Iterator[Plant]:
    with plant_parts(bitcoind, tmp_path, redis_server) as parts:
        plant = Plant(database, bitcoind, tmp_path, parts)
        with running(plant) as opened:
            yield opened


def verifier_process(plant: Plant) -> ManagedProcess:
    """A verifier beside the plant, not started."""
    directory = plant.socket.parent
    plant.house.verifier.save(directory / "verifier.pem")
    config = directory / "verifier.toml"
    config.write_text(
        to_toml(
            {
                "name": VERIFIER,
                "directory": str(directory / "verifier"),
                "bundle_path": str(plant.bundle_path),
                "trust_root_path": str(plant.root_path),
                "key_file": str(directory / "verifier.pem"),
                "mark_path": str(directory / "marks" / "verdicts.mark"),
                "database_url": as_role(plant.dsn, "strongroom_read"),
                "poll_seconds": 1,
                "nodes": {CHAIN: {"rpc_url": plant.bitcoind.rpc_url, "rest_url": plant.bitcoind.rest_url}},
                "signers": {"hot": {"socket": str(plant.socket)}},
                "listen": {"unix": str(directory / "verifier.sock")},
            }
        )
    )
    config.chmod(0o600)
    return ManagedProcess(
        "verifier",
        [sys.executable, "-m", "signers.verifier.process", "--config", config],
        log_path=directory / "verifier.log",
    )


def test_a_stopped_verifier_is_missed_at_a_real_signer_and_not_when_it_runs_again(plant: Plant) -> None:
    """All of it real: the daemon on its token, the verifier's process on its node, and what was signed."""

    def look(patience: int) -> set[str]:
        watch_signers(plant.db, plant.bundle, {plant.site.wallet.id: plant.signer}, patience)
        return plant.alerts() & {SILENT, AWAY, FILLING}

    def waiting() -> list[int]:
        return [each.count for each in plant.signer.status().unresolved]

    verifier = verifier_process(plant)
    verifier.start()
    try:
        plant.request(plant.customer("alice", 5_000_000), 1_000_000)
        plant.send()
        plant.settle()
        wait_until(lambda: waiting() == [0], timeout=60, what="the verifier's word")
        assert plant.signer.status().unasked_seconds <= 30
        assert look(1) == set()

        with closing(
            VerifierClient(SignerClient(UnixAddress(plant.socket.parent / "verifier.sock")))
        ) as client:
            assert client.status().signers == {"hot": ""}
        verifier.stop()
        plant.request("alice", 1_000_000)
        plant.send()
        plant.settle()
        assert look(HOUR) == set()
        wait_until(lambda: look(1) == {SILENT}, timeout=60, what="the alert")
        assert waiting() == [1]
        assert plant.signer.status().unasked_seconds > 0

        verifier.start()
        wait_until(lambda: look(1) == set(), timeout=60, what="the verifier to be heard again")
        assert waiting() == [0]
    finally:
        verifier.stop()
