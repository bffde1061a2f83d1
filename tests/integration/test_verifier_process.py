"""The verifier as the process that it is: killed and started again, asked over its socket, run once for an audit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.devnet.files import part_directory
from ops.devnet.process import ManagedProcess, wait_until
from ops.stack.config import to_toml
from signers.client import SignerClient, UnixAddress
from signers.config import ListenSection
from signers.ports import OpenRequest, SignerUnavailable, VerdictRequest
from signers.trust.witness import JournalWitness
from signers.verifier.client import VerifierClient
from tests.fakes.api import as_role
from tests.fakes.forger import Forger
from tests.fakes.signer_server import served
from tests.fakes.signing import CHAIN, VERIFIER, payment_intent
from tests.fakes.till import Till

BTC = 10**8


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    directory = part_directory("strongroom-verifier-")
    yield directory
    shutil.rmtree(directory)


@contextmanager
def signer(till: Till, place: Path) -> Iterator[JournalWitness]:
    """The till's signer behind a socket."""
    witness = JournalWitness(till._wallets(), till.trust, till.journal, till.clock)
    with served(till.service, ListenSection(unix=str(place / "signer.sock")), witness=witness):
        yield witness


def configured(till: Till, place: Path, **changes: Any) -> Path:
    key = place / "verifier.pem"
    if not key.exists():
        till.house.verifier.save(key)
        (place / "root.json").write_bytes(msgspec.json.encode(till.house.root))
    node = till.bitcoind
    content: dict[str, Any] = {
        "name": VERIFIER,
        "directory": str(place / "state"),
        "bundle_path": str(till.bundle_path),
        "trust_root_path": str(place / "root.json"),
        "key_file": str(key),
        "mark_path": str(place / "marks" / "verdicts.mark"),
        "database_url": as_role(till.dsn, "strongroom_read"),
        "poll_seconds": 1,
        "round_seconds": 1,
        "nodes": {CHAIN: {"rpc_url": node.rpc_url, "rest_url": node.rest_url}},
        "signers": {"hot": {"socket": str(place / "signer.sock")}},
        "listen": {"unix": str(place / "verifier.sock")},
    }
    path = place / "verifier.toml"
    path.write_text(to_toml(content | changes))
    path.chmod(0o600)
    return path


def process(config: Path) -> ManagedProcess:
    return ManagedProcess(
        "verifier",
        [sys.executable, "-m", "ops.cli", "verifier", "--config", config],
        log_path=config.with_suffix(".log"),
    )


def once(config: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "signers.verifier.process", "--config", str(config), "--once"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def answers(client: VerifierClient) -> bool:
    try:
        return client.status().round_at > 0
    except SignerUnavailable:
        return False


def stands(client: VerifierClient) -> bool:
    return answers(client) and client.status().standing > 0


def ended(running: ManagedProcess) -> str | None:
    return None if running.running else running.log_tail()


def test_a_killed_verifier_goes_on_resolving_and_answering_where_it_was(till: Till, place: Path) -> None:
    till.request(till.customer("alice", BTC // 10), BTC // 100)
    config = configured(till, place)
    running = process(config)
    with (
        signer(till, place) as witness,
        closing(VerifierClient(SignerClient(UnixAddress(place / "verifier.sock")))) as client,
    ):
        running.start()
        wait_until(
            lambda: answers(client),
            timeout=20,
            what="the verifier to be ready",
            stop_waiting=lambda: ended(running),
        )
        till.send()
        running.kill()
        till.mine(3)
        running.start()
        wait_until(lambda: answers(client), timeout=60, what="the verifier to be back")
        running.kill()
        till.mine(3)
        assert len(witness.open(OpenRequest()).transactions) == 1
        running.start()
        wait_until(
            lambda: not witness.open(OpenRequest()).transactions,
            timeout=60,
            what="the payment to be resolved",
        )
        till.track()
        signed = till.order("alice", BTC // 100)
        intent = payment_intent(till.bundle.keysets[0].id, signed.order)
        wait_until(lambda: answers(client), timeout=60, what="the verifier to answer")
        verdict = client.verdict(VerdictRequest(intent=intent, order=signed))
        assert verdict.verdict.intent == intent.digest_hex()
        assert client.audit("alice").findings == ()
        assert "strongroom_verifier_findings 0" in client.metrics().text
        [kept] = Forger(till.admin).rows("SELECT attestation FROM addresses WHERE purpose = 'deposit'")
        Forger(till.admin).run("UPDATE addresses SET attestation = '{}' WHERE purpose = 'deposit'")
        wait_until(lambda: stands(client), timeout=60, what="a round to find it")
        assert {each.kind for each in client.audit().findings} == {"address-unattested"}
        running.stop()
    assert running.exit_code == 0
    Forger(till.admin).run(
        "UPDATE addresses SET attestation = %s WHERE purpose = 'deposit'", kept["attestation"]
    )


def test_an_audit_prints_what_it_finds_and_ends_with_1_then(till: Till, place: Path) -> None:
    till.customer("alice", BTC // 10)
    config = configured(till, place)
    with signer(till, place):
        code, said = once(config)
        assert (code, said) == (0, "0 findings, 0 not known now\n")
        Forger(till.admin).run("UPDATE deposits SET customer_id = NULL, units = 7")
        code, said = once(config)
        assert code == 1
        assert said.startswith("deposit-edited alice ")
        Forger(till.admin).run("UPDATE deposits SET customer_id = 'alice', units = %s", BTC // 10)
    code, said = once(config)
    assert code == 2
    assert said.startswith("not known: signer hot: ")


def test_it_does_not_start_with_a_file_that_others_may_read_or_another_root_than_before(
    till: Till, place: Path
) -> None:
    config = configured(till, place)
    config.chmod(0o644)
    code, said = once(config)
    assert code == 2
    assert "chmod 600" in said
    config.chmod(0o600)
    with signer(till, place):
        assert once(config)[0] == 0
    (place / "root.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(till.house.root, threshold=1))
    )
    code, said = once(config)
    assert code == 2
    assert "another trust root" in said
