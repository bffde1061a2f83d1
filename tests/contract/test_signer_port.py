"""One suite for every way to reach a signer: in this process, over a Unix socket, over TLS 1.3.

Then what only a connection can do wrong: strangers, garbage, lost answers.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.canonical import verify_ed25519
from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.config import ListenSection
from signers.ports import (
    AttestRequest,
    Refused,
    Signer,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.process.tls import client_context
from signers.wire import MAX_FRAME_BYTES, Disconnected, read_frame, write_frame
from tests.fakes.certificates import make_certificate
from tests.fakes.signer import SignerBench
from tests.fakes.signer_server import WAYS, served, served_tls
from tests.fakes.signer_server import reached as by_way
from tests.fakes.signing import CHAIN, KEYSET


@dataclass
class Reached:
    bench: SignerBench
    signer: Signer


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def unix_server(bench: SignerBench, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "signer.sock"
    with served(bench.service, ListenSection(unix=str(path))):
        yield path


@dataclass
class TlsSetup:
    address: TlsAddress
    directory: Path


@pytest.fixture
def tls_server(bench: SignerBench, tmp_path: Path) -> Iterator[TlsSetup]:
    with served_tls(bench.service, tmp_path) as address:
        yield TlsSetup(address, tmp_path)


@pytest.fixture(params=WAYS)
def reached(request: pytest.FixtureRequest, bench: SignerBench, tmp_path: Path) -> Iterator[Reached]:
    with by_way(bench.service, request.param, tmp_path) as signer:
        yield Reached(bench, signer)


def test_status_names_bundle_keysets_count_and_journal(reached: Reached) -> None:
    journal = reached.bench.journal.id
    status = reached.signer.status()
    assert status == SignerStatus(
        bundle_version=1,
        keysets=(KEYSET,),
        signed=0,
        journal=journal,
        at=reached.bench.time,
        windows=status.windows,
    )
    assert {use.scope for use in status.windows} == {"hot|BTC", CHAIN, f"all-{KEYSET}"}


def test_a_payment_is_signed_and_again_changes_nothing(reached: Reached) -> None:
    request = reached.bench.request()
    first = reached.signer.sign(request)
    assert reached.signer.sign(request) == first
    assert reached.signer.status().signed == 1


def test_a_refusal_arrives_with_all_its_reasons(reached: Reached) -> None:
    with pytest.raises(Refused) as refused:
        reached.signer.sign(reached.bench.request(20_000_000, locktime=5))
    assert {reason.code for reason in refused.value.reasons} == {
        "payment-cap",
        "policy-tier",
        "policy-no-rule",
        "locktime",
    }
    assert not refused.value.transient


def test_an_address_is_attested(reached: Reached) -> None:
    request = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=3)
    signed = reached.signer.attest(request)
    key = reached.bench.keys.record.attestation_key
    verify_ed25519(key, signed.attestation.digest(), signed.signature)
    with pytest.raises(Refused, match="address-taken"):
        reached.signer.attest(msgspec.structs.replace(request, customer="bob"))


def test_what_fails_after_it_was_journaled_is_not_called_refused(bench: SignerBench, tmp_path: Path) -> None:
    def broken(branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        raise InvalidValue("no such place")

    request = bench.request()
    with by_way(bench.service, "unix", tmp_path) as signer:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.keys, "sign", broken)
            with pytest.raises(SignerUnavailable):
                signer.sign(request)
        assert bench.service.status().signed == 1
        assert signer.sign(request) == bench.service.sign(request)


def test_what_was_signed_is_withheld_under_a_freeze_and_what_was_not_is_refused(reached: Reached) -> None:
    bench = reached.bench
    signed, new = bench.request(), bench.request()
    before = reached.signer.sign(signed)
    bench.freeze("all")
    with pytest.raises(SignerUnavailable, match="it was signed"):
        reached.signer.sign(signed)
    with pytest.raises(Refused, match="frozen"):
        reached.signer.sign(new)
    bench.adopt(2)
    assert reached.signer.sign(signed) == before


def test_eight_at_once_each_get_their_own_answer(reached: Reached) -> None:
    requests = [reached.bench.request(10_000 + n, fee_sats=500) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(reached.signer.sign, requests))
    assert answers == [reached.bench.service.sign(request) for request in requests]
    assert reached.signer.status().signed == 24


def test_of_two_racing_transactions_for_one_intent_only_one_is_signed(reached: Reached) -> None:
    drafts = [reached.bench.draft(100_000) for _ in range(12)]
    pairs = [(d, replace(d, coins=[reached.bench.world.coin(5_000_000)])) for d in drafts]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(
                lambda draft: _outcome(reached.signer, reached.bench.world.request(draft)),
                [draft for pair in pairs for draft in pair],
            )
        )
    assert [outcomes[n : n + 2].count("signed") for n in range(0, 24, 2)] == [1] * 12
    assert set(outcomes) == {"signed", "conflicting-version"}


def _outcome(signer: Signer, request: SignRequest) -> str:
    try:
        signer.sign(request)
    except Refused as refused:
        return refused.reasons[0].code
    return "signed"


def test_racing_payments_never_exceed_the_window_cap(reached: Reached) -> None:
    reached.bench.adopt(2, cap_window_cap="1010000")
    drafts = [reached.bench.draft(200_000, fee_sats=1_000) for _ in range(16)]
    for draft in drafts:
        draft.intents = [reached.bench.world.intent(draft.orders[0], policy_version=2)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda d: _outcome(reached.signer, reached.bench.world.request(d)), drafts))
    assert outcomes.count("signed") == 5
    assert outcomes.count("window-cap") == 11


class Failing:
    """A signer that can't right now."""

    def status(self) -> SignerStatus:
        raise RuntimeError("a bug with a [secret] in its message")

    def attest(self, request: AttestRequest) -> object:
        raise SignerUnavailable("the token is gone")

    def sign(self, request: SignRequest) -> SignResponse:
        raise Refused(())


def test_failures_of_the_signer_are_transient_for_the_client_and_tell_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "failing.sock"
    with served(Failing(), ListenSection(unix=str(path))):  # type: ignore[arg-type]
        client = SignerClient(UnixAddress(path))
        with pytest.raises(SignerUnavailable) as bug:
            client.status()
        assert "secret" not in str(bug.value)
        with pytest.raises(SignerUnavailable, match="the token is gone"):
            client.attest(
                AttestRequest(chain=CHAIN, keyset=KEYSET, customer=None, asset="BTC", branch=0, index=0)
            )
        client.close()


def test_without_a_daemon_the_signer_is_unavailable(tmp_path: Path) -> None:
    client = SignerClient(UnixAddress(tmp_path / "nobody.sock"))
    with pytest.raises(SignerUnavailable) as error:
        client.status()
    assert error.value.transient


def test_a_signer_that_does_not_answer_in_time_is_unavailable(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "slow.sock"))
    listener.listen()
    client = SignerClient(UnixAddress(tmp_path / "slow.sock"), timeout_s=1)
    with pytest.raises(SignerUnavailable):
        client.status()
    listener.close()


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"ok":{},"error":"x"}', b'{"ok":{"signed":-"}}', b"\xff"]
)
def test_an_answer_that_makes_no_sense_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "odd.sock"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            read_frame(connection)
            write_frame(connection, answer)

    thread = threading.Thread(target=serve)
    thread.start()
    client = SignerClient(UnixAddress(tmp_path / "odd.sock"), timeout_s=5)
    with pytest.raises(SignerUnavailable):
        client.status()
    thread.join(10)
    client.close()
    listener.close()


def test_a_kept_connection_survives_a_restart_of_the_daemon(bench: SignerBench, tmp_path: Path) -> None:
    listen = ListenSection(unix=str(tmp_path / "again.sock"))
    client = SignerClient(UnixAddress(tmp_path / "again.sock"))
    request = bench.request()
    with served(bench.service, listen):
        first = client.sign(request)
    with served(bench.service, listen):
        assert client.sign(request) == first
    client.close()


def test_the_unix_socket_is_for_its_owner_only(unix_server: Path) -> None:
    assert unix_server.stat().st_mode & 0o777 == 0o600


def _ended(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection, with or without having read everything."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x05hell",
    ],
)
def test_garbage_ends_its_own_connection_only(bench: SignerBench, unix_server: Path, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(unix_server))
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert _ended(connection)
    client = SignerClient(UnixAddress(unix_server))
    assert client.status().signed == 0
    client.close()


@pytest.mark.parametrize(
    "call",
    [
        b"",
        b"[]",
        b"{",
        b'{"v":2,"call":"status","body":{}}',
        b'{"v":1,"call":"export","body":{}}',
        b'{"v":1,"call":"sign","body":{}}',
        b'{"v":1,"call":"sign","body":{"v":1,"surprise":1}}',
        b'{"v":1,"call":"attest","body":[]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_call_is_refused_and_the_connection_stays(unix_server: Path, call: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(unix_server))
        write_frame(connection, call)
        assert b'"code":"malformed-request"' in read_frame(connection)
        write_frame(connection, b'{"v":1,"call":"status","body":{}}')
        assert b'"signed":0' in read_frame(connection)


def test_a_client_with_another_certificate_is_turned_away(tls_server: TlsSetup) -> None:
    stranger = make_certificate(tls_server.directory, "stranger")
    address = replace(tls_server.address, certificate=stranger[0], private_key=stranger[1])
    with pytest.raises(SignerUnavailable):
        SignerClient(address, timeout_s=5).status()


def test_a_client_without_a_certificate_is_turned_away(tls_server: TlsSetup) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = tls_server.address
    # With TLS 1.3 the client's side is done before the server has looked at the missing certificate.
    with (
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        context.wrap_socket(plain) as connection,
        pytest.raises((OSError, Disconnected)),
    ):
        _ask_for_status(connection)


def _ask_for_status(connection: socket.socket) -> None:
    write_frame(connection, b'{"v":1,"call":"status","body":{}}')
    read_frame(connection)


def test_a_client_does_not_talk_to_another_server(tls_server: TlsSetup) -> None:
    other = make_certificate(tls_server.directory, "other")
    address = replace(tls_server.address, server_certificate=other[0])
    with pytest.raises(SignerUnavailable):
        SignerClient(address, timeout_s=5).status()


def test_older_tls_is_refused(tls_server: TlsSetup) -> None:
    address = tls_server.address
    context = client_context(address.certificate, address.private_key, address.server_certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((address.host, address.port), timeout=5) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain)
