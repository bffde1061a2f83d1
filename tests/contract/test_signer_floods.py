"""A flood at the signer's door, over real sockets: whoever makes it, another client is served meanwhile.

The signer behind the door does nothing, so that what is tested is the door.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.devnet.process import wait_until
from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.config import ListenSection
from signers.ports import (
    AttestRequest,
    Refused,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.process.places import MEMORY_BYTES
from signers.process.rates import Rate
from signers.process.server import Server
from signers.process.tls import client_context
from signers.wire import MAX_FRAME_BYTES, read_frame, write_frame
from tests.fakes.certificates import make_certificate
from tests.fakes.signer_server import served

PLACES = 6
STATUS = b'{"v":1,"call":"status","body":{}}'


class Idle:
    """A signer that only says that it is there; while `hold` is clear, after a while."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()

    def status(self) -> SignerStatus:
        self.hold.wait(30)
        return SignerStatus(bundle_version=7, keysets=(), signed=0)

    def attest(self, request: AttestRequest) -> SignedAttestation:
        raise Refused(())

    def sign(self, request: SignRequest) -> SignResponse:
        raise Refused(())


@dataclass
class Door:
    """A server with two clients of its own, and any number of strangers."""

    server: Server
    signer: Idle
    good: TlsAddress
    bad: TlsAddress

    def plain(self) -> socket.socket:
        connection = socket.create_connection((self.good.host, self.good.port), timeout=20)
        connection.settimeout(20)
        return connection

    def bad_one(self) -> socket.socket:
        """A connection of the client that has gone bad."""
        context = client_context(self.bad.certificate, self.bad.private_key, self.bad.server_certificate)
        return context.wrap_socket(self.plain())

    def is_served(self, address: TlsAddress) -> bool:
        """Whether a fresh connection of a client gets an answer."""
        client = SignerClient(address, timeout_s=20)
        try:
            return client.status().bundle_version == 7
        except SignerUnavailable:
            return False
        finally:
            client.close()


@contextmanager
def door(directory: Path, rates: dict[str, Rate] | None = None) -> Iterator[Door]:
    server, good, bad = (make_certificate(directory, name) for name in ("signer", "good", "bad"))
    listen = ListenSection(
        host="127.0.0.1",
        port=0,
        certificate=str(server[0]),
        private_key=str(server[1]),
        clients=(str(good[0]), str(bad[0])),
        max_connections=PLACES,
        rates=rates or {},  # type: ignore[arg-type]
    )
    signer = Idle()
    with served(signer, listen) as running:
        port = int(running.address.rpartition(":")[2])
        yield Door(
            running,
            signer,
            TlsAddress("127.0.0.1", port, *good, server[0]),
            TlsAddress("127.0.0.1", port, *bad, server[0]),
        )


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path) as made:
        yield made


def _over(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    try:
        return connection.recv(1) == b""
    except OSError:
        return True


def test_strangers_who_never_shake_hands_lock_nobody_out(tls: Door) -> None:
    with ExitStack() as held:
        for _ in range(200):
            held.enter_context(tls.plain())
        assert tls.is_served(tls.good)
        assert threading.active_count() < 50
        wait_until(lambda: tls.server.places.count() <= PLACES, timeout=20, what="the first to be dropped")


def test_strangers_who_shake_hands_byte_by_byte_lock_nobody_out(tls: Door) -> None:
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(tls.plain()).sendall(b"\x16\x03\x01\x02\x00")
        assert tls.is_served(tls.good)


def test_a_client_that_leaves_half_frames_loses_its_oldest_and_locks_out_nobody(tls: Door) -> None:
    with ExitStack() as held:
        slow = [held.enter_context(tls.bad_one()) for _ in range(3 * PLACES)]
        for connection in slow:
            try:
                connection.sendall(b"\x00\x00\x10\x00{")
            except OSError:
                continue  # dropped already
        assert tls.is_served(tls.good)
        assert tls.is_served(tls.bad)
        assert _over(slow[0])
        assert tls.server.places.count() <= 2 * PLACES


def test_a_kept_connection_that_was_dropped_for_another_is_made_again(tls: Door) -> None:
    client = SignerClient(tls.bad, timeout_s=20)
    assert client.status().bundle_version == 7
    with ExitStack() as held:
        for _ in range(2 * PLACES):
            held.enter_context(tls.bad_one())
        assert client.status().bundle_version == 7
    client.close()


def test_a_client_whose_calls_are_all_at_work_gets_no_further_place(tls: Door) -> None:
    tls.signer.hold.clear()
    with ExitStack() as held:
        at_work = [held.enter_context(tls.bad_one()) for _ in range(PLACES)]
        for connection in at_work:
            write_frame(connection, STATUS)
        wait_until(lambda: _working(tls.server) == PLACES, timeout=20, what="all calls to be at work")
        with held.enter_context(tls.bad_one()) as one_more:
            assert _over(one_more)
        tls.signer.hold.set()
        assert all(b'"bundle_version":7' in read_frame(connection) for connection in at_work)


def _working(server: Server) -> int:
    return sum(connection.doing.name == "WORKING" for connection in server.places._all())


def test_the_longest_frames_of_one_client_fill_its_own_memory_only(tls: Door) -> None:
    """Ten at once of 16 MiB, each but for its last byte: four are being read, the others wait their turn."""
    most = MEMORY_BYTES // MAX_FRAME_BYTES
    with ExitStack() as held:
        senders = []
        for _ in range(PLACES):
            connection = held.enter_context(tls.bad_one())
            connection.sendall(MAX_FRAME_BYTES.to_bytes(4, "big"))
            sender = threading.Thread(target=_pour, args=(connection, MAX_FRAME_BYTES - 1), daemon=True)
            sender.start()
            senders.append(sender)
        wait_until(
            lambda: sum(not sender.is_alive() for sender in senders) >= most,
            timeout=60,
            what="as many frames as fit",
        )
        assert _held(tls.server) == MEMORY_BYTES
        assert tls.is_served(tls.good)


def _held(server: Server) -> int:
    return sum(connection.bytes_held for connection in server.places._all())


def _pour(connection: socket.socket, size: int) -> None:
    piece = b" " * (1 << 16)
    try:
        while size > 0:
            connection.sendall(piece[:size])
            size -= len(piece)
    except OSError:
        return


def test_a_frame_that_is_too_long_ends_its_connection_before_any_of_it_is_read(tls: Door) -> None:
    with tls.bad_one() as connection:
        connection.sendall((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        assert _over(connection)
    assert tls.is_served(tls.bad)


def test_a_call_that_is_longer_than_its_kind_ever_is_is_refused(tls: Door) -> None:
    with tls.bad_one() as connection:
        write_frame(connection, b'{"v":1,"call":"status","body":{}' + b" " * 20_000 + b"}")
        assert b"status of 20033 bytes: at most 16384" in read_frame(connection)


def test_who_calls_too_often_is_told_when_to_come_back_and_others_are_served(tmp_path: Path) -> None:
    with door(tmp_path, {"status": Rate(per_second=1, burst=3)}) as made:
        eager = SignerClient(made.bad, timeout_s=20)
        for _ in range(3):
            eager.status()
        with pytest.raises(SignerUnavailable) as busy:
            eager.status()
        assert busy.value.transient
        assert busy.value.retry_ms is not None
        assert 0 < busy.value.retry_ms <= 1000
        assert made.is_served(made.good)
        wait_until(lambda: made.is_served(made.bad), timeout=20, what="another token")
        eager.close()


def test_what_is_no_call_is_answered_rarely_too(tmp_path: Path) -> None:
    with door(tmp_path) as made, made.bad_one() as connection:
        replies = []
        for _ in range(60):
            write_frame(connection, b"{}")
            replies.append(read_frame(connection))
            if b"retry_ms" in replies[-1]:
                break
        assert b"malformed-request" in replies[0]
        assert b"retry_ms" in replies[-1]
        assert made.is_served(made.good)


def test_on_a_unix_socket_half_frames_lock_nobody_out(tmp_path: Path) -> None:
    """There all clients are one user, so whoever has waited longest makes room for whoever comes."""
    path = tmp_path / "s.sock"
    with served(Idle(), ListenSection(unix=str(path), max_connections=PLACES)), ExitStack() as held:
        for _ in range(3 * PLACES):
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(path))
            connection.sendall(b"\x00")
        client = SignerClient(UnixAddress(path), timeout_s=20)
        assert client.status().bundle_version == 7
        client.close()


def test_after_a_flood_nothing_is_left_of_it(tls: Door) -> None:
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(tls.plain())
        for _ in range(2 * PLACES):
            try:
                held.enter_context(tls.bad_one()).sendall(b"\x00\x01")
            except OSError:
                continue  # dropped for another before it had its say
    wait_until(lambda: tls.server.places.count() == 0, timeout=20, what="all to have left")
    assert tls.is_served(tls.good)
