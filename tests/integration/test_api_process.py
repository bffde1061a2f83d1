"""`python -m custody.api` as a process: it serves from its settings, refuses bad ones, and survives kill -9."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import psycopg
import pytest

from custody.console.client import ApiClient
from custody.web.client import ApiUnavailable
from ops.devnet.process import ManagedProcess, free_port, release_port, wait_until
from ops.devnet.redis import RedisServer
from policies.bundle import TrustRoot
from policies.keys import SigningKey, sign_bundle
from tests.fakes.api import as_role, make_bundle
from tests.fakes.attesting_signer import AttestingSigner


@dataclass
class Installation:
    """What one API process needs."""

    directory: Path
    environment: dict[str, str]
    key: SigningKey
    port: int

    def process(self) -> ManagedProcess:
        return ManagedProcess(
            "api",
            [sys.executable, "-m", "custody.api"],
            env={**os.environ, **self.environment},
            log_path=self.directory / "api.log",
        )

    def client(self) -> ApiClient:
        return ApiClient(f"http://127.0.0.1:{self.port}", "strongroom-test", "exchange", self.key, retries=0)

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def installation(database: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[Installation]:
    key, officer = SigningKey.generate(), SigningKey.generate()
    scopes = ("customers:write", "customers:read")
    bundle = sign_bundle(make_bundle({"exchange": (key, scopes)}, AttestingSigner()), {"olga": officer})
    root = TrustRoot(
        threshold=1, keys={"olga": officer.public_hex}, organisations={"olga": "ops"}, minimum_version=1
    )
    (tmp_path / "bundle.json").write_bytes(bundle.encode())
    (tmp_path / "root.json").write_bytes(msgspec.json.encode(root))
    port = free_port()
    environment = {
        "STRONGROOM_DATABASE_URL": as_role(database, "strongroom_api"),
        "STRONGROOM_REDIS_URL": redis_server.url,
        "STRONGROOM_BUNDLE_PATH": str(tmp_path / "bundle.json"),
        "STRONGROOM_TRUST_ROOT_PATH": str(tmp_path / "root.json"),
        "STRONGROOM_SIGNERS": '{"hot-btc": {"socket": "/nonexistent/signer.sock"}}',
        "STRONGROOM_AUDIENCE": "strongroom-test",
        "STRONGROOM_API_PORT": str(port),
    }
    yield Installation(tmp_path, environment, key, port)
    release_port(port)


def test_a_killed_api_loses_nothing_and_the_repeated_request_has_one_effect(
    installation: Installation,
) -> None:
    with installation.client() as client:
        process = installation.process()
        with process:
            process.wait_ready(installation.answers, timeout=30)
            assert client.create_customer("alice", idempotency_key="k")["id"] == "alice"
            process.kill()
            with pytest.raises(ApiUnavailable):
                client.create_customer("alice", idempotency_key="k")
        again = installation.process()
        with again:
            again.wait_ready(installation.answers, timeout=30)
            assert client.create_customer("alice", idempotency_key="k")["id"] == "alice"
            assert [c["id"] for c in client.items("/v1/customers")] == ["alice"]
            ready = client.ready()
            assert ready["ready"] is False
            assert [name for name, part in ready["parts"].items() if part["ok"]] == [
                "bundle",
                "database",
                "redis",
            ]
        log = (installation.directory / "api.log").read_text()
        assert '"route": "/v1/customers"' in log
        assert "alice" not in log


def test_row_41_killed_at_full_work_it_does_each_repeated_request_once(
    installation: Installation, database: str
) -> None:
    """Eight callers' threads ask without a pause, kill -9 in the midst, and each repeats what it got no answer to."""
    per_thread = 60
    done = threading.Semaphore(0)
    restarted = threading.Event()

    def ask(thread: int) -> int:
        repeats = 0
        with installation.client() as client:
            for number in range(per_thread):
                name = f"c-{thread}-{number}"
                while True:
                    try:
                        assert client.create_customer(name, idempotency_key=name)["id"] == name
                        break
                    except ApiUnavailable:
                        repeats += 1
                        restarted.wait(timeout=60)
                done.release()
        return repeats

    with ThreadPoolExecutor(8) as pool:
        process = installation.process()
        with process:
            process.wait_ready(installation.answers, timeout=30)
            threads = [pool.submit(ask, thread) for thread in range(8)]
            for _ in range(100):
                assert done.acquire(timeout=60)
            process.kill()
        again = installation.process()
        with again:
            again.wait_ready(installation.answers, timeout=30)
            restarted.set()
            assert sum(thread.result(timeout=120) for thread in threads) >= 1
    with psycopg.connect(database) as connection:
        for query in (
            "SELECT count(*), count(DISTINCT id) FROM customers",
            "SELECT count(*), count(DISTINCT subject) FROM events WHERE type = 'customer.created'",
            "SELECT count(*), count(DISTINCT key) FROM idempotency_keys WHERE status = 201",
        ):
            assert connection.execute(query.encode()).fetchone() == (8 * per_thread, 8 * per_thread), query


def test_sigterm_ends_it_with_0(installation: Installation) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "custody.api"],
        env={**os.environ, **installation.environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(installation.answers, timeout=30, what="the API")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def run(installation: Installation, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "custody.api", *arguments],
        env={**os.environ, **installation.environment, **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_unusable_settings_stop_the_start_with_a_sentence(installation: Installation) -> None:
    ended = run(installation, STRONGROOM_API_PORT="eighty")
    assert ended.returncode == 2
    assert "port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bundle_without_its_quorum_stops_the_start(installation: Installation) -> None:
    path = installation.directory / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    ended = run(installation)
    assert ended.returncode == 2
    assert "does not verify" in ended.stderr


def test_a_taken_port_ends_it_with_3(installation: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", installation.port))
        taken.listen()
        assert run(installation).returncode == 3


def test_arguments_are_refused(installation: Installation) -> None:
    assert run(installation, "--port", "1").returncode == 2
