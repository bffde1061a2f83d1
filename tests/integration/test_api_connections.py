"""Clients that are slow, silent, many, or no HTTP: real sockets against the API as it is served.

None of them may make it unavailable for the others, and each is told what is wrong where it can still be told.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from custody.api import gate
from custody.api.gate import MAX_BODY_BYTES
from custody.web import connections, server
from custody.web.connections import DEADLINES, MAX_HEAD_BYTES, Phase
from ops.devnet.process import wait_until
from policies.token import Request
from tests.fakes.api import RunningApi, authorization, kind, running_api


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    with running_api(database) as running:
        yield running


class Wire:
    """A connection on which a test says exactly these bytes."""

    def __init__(self, api: RunningApi) -> None:
        self._socket = socket.create_connection(("127.0.0.1", api.port), 10)
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one answer."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        self._received = rest
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return int(first.split(" ")[1]), headers, body

    def problem(self) -> tuple[int, str]:
        """Status and kind of the problem that is the answer."""
        status, headers, body = self.answer()
        assert headers["content-type"] == "application/problem+json"
        found = json.loads(body)
        assert found["status"] == status
        assert ("retry-after" in headers) == found["retryable"]
        return status, str(found["type"].rpartition(":")[2])

    def has_ended(self) -> bool:
        """Whether the server has ended the connection; what it still said is thrown away."""
        self._socket.settimeout(0.05)
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    def _receive(self) -> None:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionError("the server ended the connection without a whole answer")
        self._received += chunk


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def post_head(api: RunningApi, body: bytes, *, length: int | None = None) -> bytes:
    """Head of a good request to create a customer with this body."""
    token = authorization(api, Request("POST", "/v1/customers", "", body))
    return (
        f"POST /v1/customers HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: k\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode()


def test_three_hundred_connections_that_say_nothing_disturb_nobody(api: RunningApi) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(Wire(api))
        wait_until(lambda: api.connected() >= 300, timeout=10, what="all of them to be taken in")
        assert api.client().create_customer("alice")["id"] == "alice"
        assert api.client().get("/v1/customers")["items"][0]["id"] == "alice"


def test_where_there_are_too_many_the_longest_silent_ones_make_room(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "FRESH_SECONDS", 0)
    with running_api(database) as api, ExitStack() as stack:
        client = api.client()
        client.create_customer("alice")
        silent = [stack.enter_context(Wire(api)) for _ in range(20)]
        more = [stack.enter_context(Wire(api)) for _ in range(10)]
        wait_until(lambda: all(wire.has_ended() for wire in silent[:10]), timeout=10, what="room")
        wait_until(lambda: api.connected() <= 20, timeout=10, what="those that were ended to be gone")
        assert not any(wire.has_ended() for wire in more)
        # The one that was served is still there, though all the silent ones are younger.
        assert client.get("/v1/customers")["items"][0]["id"] == "alice"
        assert api.client().create_customer("bob")["id"] == "bob"


def test_when_all_are_at_work_the_next_one_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with running_api(database) as api, ExitStack() as stack, psycopg.connect(api.superuser_dsn) as brake:
        brake.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        busy = [stack.enter_context(Wire(api)) for _ in range(2)]
        for number, wire in enumerate(busy):
            body = b'{"id":"customer-%d"}' % number
            wire.say(post_head(api, body).replace(b"Key: k", b"Key: k%d" % number) + body)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: api.query(waiting) == [(2,)], timeout=10, what="both to be at work")
        with Wire(api) as third:
            assert third.problem() == (503, "overloaded")
            assert third.has_ended()
        brake.rollback()
        assert [wire.answer()[0] for wire in busy] == [201, 201]


def test_a_connection_that_says_nothing_ends(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEADLINES, Phase.NEW, 1)
    monkeypatch.setitem(DEADLINES, Phase.IDLE, 1)
    with Wire(api) as silent, Wire(api) as served:
        served.say(HEALTH)
        assert served.answer()[0] == 200
        for wire in (silent, served):
            wait_until(wire.has_ended, timeout=10, what="its end")


def test_a_head_that_drips_in_is_told_to_hurry_and_ended(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEADLINES, Phase.HEAD, 1)
    with Wire(api) as wire:
        begun = time.monotonic()
        wire.say(b"GET /healthz HTTP/1.1\r\n")

        def drip() -> bool:
            try:
                wire.say(b"x-a: b\r\n")
            except ConnectionError:
                return True
            return time.monotonic() - begun > 2

        wait_until(drip, timeout=10, what="some drops")
        assert wire.problem() == (408, "request-too-slow")
        wait_until(wire.has_ended, timeout=10, what="its end")


def test_a_head_that_drips_in_on_a_used_connection_has_no_more_time(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEADLINES, Phase.HEAD, 1)
    with Wire(api) as wire:
        wire.say(HEALTH)
        assert wire.answer()[0] == 200
        wire.say(b"GET ")
        assert wire.problem() == (408, "request-too-slow")


def test_a_body_that_drips_in_is_told_to_hurry_and_ended(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 1)
    monkeypatch.setitem(DEADLINES, Phase.LINGER, 1)
    with ExitStack() as stack:
        slow = [stack.enter_context(Wire(api)) for _ in range(gate.MAX_REQUESTS_AT_ONCE + 20)]
        for wire in slow:
            wire.say(post_head(api, b"", length=1000) + b"{")
        # They are more than may be at work, and disturb nobody.
        assert api.client().create_customer("alice")["id"] == "alice"
        for wire in slow:
            assert wire.problem() == (408, "request-too-slow")
        for wire in slow:
            wait_until(wire.has_ended, timeout=10, what="its end")


def test_an_answer_that_nobody_takes_in_is_thrown_away(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks for much, again and again, and reads nothing: the kernel's buffers fill, then ours would."""
    for phase in (Phase.REQUEST, Phase.IDLE, Phase.ENDED):
        monkeypatch.setitem(DEADLINES, phase, 1)
    with Wire(api) as wire:
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        wire._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.say(ask * 60)
        wait_until(lambda: api.connected() == 0, timeout=20, what="the server to let go of it")
    assert api.client().create_customer("alice")["id"] == "alice"


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(api: RunningApi) -> None:
    with Wire(api) as wire:
        wire.say(post_head(api, b"", length=10**10))
        assert wire.problem() == (413, "body-too-large")


def test_a_body_without_end_is_refused_and_not_read_for_ever(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEADLINES, Phase.LINGER, 1)
    with Wire(api) as wire:
        wire.say(b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0

        def cut_off() -> bool:
            nonlocal sent
            try:
                wire.say(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
            except ConnectionError:
                return True
            sent += 0x2000
            return False

        wait_until(cut_off, timeout=20, what="the server to end it")
        assert sent > MAX_BODY_BYTES


def test_after_a_body_that_was_too_long_the_connection_goes_on(api: RunningApi) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)
    with Wire(api) as wire:
        wire.say(post_head(api, b"", length=len(body)))
        assert wire.problem() == (413, "body-too-large")
        wire.say(body)
        wire.say(HEALTH)
        assert wire.answer()[0] == 200


@pytest.mark.parametrize("pieces", [1, 8])
def test_a_head_that_is_too_large_is_refused(api: RunningApi, pieces: int) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"x-%d: %s\r\n" % (number, b"a" * 1000) for number in range(MAX_HEAD_BYTES // 1000 + 1)
    )
    whole += b"\r\n"
    step = len(whole) // pieces + 1
    with Wire(api) as wire:
        for start in range(0, len(whole), step):
            try:
                wire.say(whole[start : start + step])
            except ConnectionError:
                break
        assert wire.problem() == (431, "head-too-large")


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_and_ended(api: RunningApi, said: bytes) -> None:
    with Wire(api) as wire:
        wire.say(said)
        assert wire.problem() == (400, "malformed-request")
        wait_until(wire.has_ended, timeout=10, what="its end")


def test_a_header_that_is_there_twice_is_refused(api: RunningApi) -> None:
    body = b'{"id":"alice"}'
    for name in (b"Authorization", b"Idempotency-Key", b"Content-Type"):
        with Wire(api) as wire:
            wire.say(post_head(api, body).replace(b"\r\n\r\n", b"\r\n" + name + b": other\r\n\r\n") + body)
            assert wire.problem() == (400, "malformed-request")
    assert api.query("SELECT count(*) FROM customers") == [(0,)]


def test_requests_sent_without_waiting_are_answered_in_their_order(api: RunningApi) -> None:
    with Wire(api) as wire:
        bodies = [b'{"id":"c%d"}' % number for number in range(5)]
        wire.say(
            b"".join(
                post_head(api, body).replace(b"Key: k", b"Key: k%d" % number) + body
                for number, body in enumerate(bodies)
            )
        )
        answers = [json.loads(wire.answer()[2]) for _ in bodies]
    assert [answer["id"] for answer in answers] == [f"c{number}" for number in range(5)]


def test_too_much_at_once_is_a_problem_that_says_when_to_come_again(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_REQUESTS_AT_ONCE", 3)
    with ThreadPoolExecutor(3) as pool, psycopg.connect(api.superuser_dsn) as brake:
        brake.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        held = [pool.submit(api.client().create_customer, f"customer-{number}") for number in range(3)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: api.query(waiting) == [(3,)], timeout=10, what="three requests at work")
        refused = api.client().send("GET", "/v1/assets")
        assert (refused.status_code, kind(refused)) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        brake.rollback()
        assert [future.result()["id"] for future in held] == [f"customer-{number}" for number in range(3)]
    assert api.client().get("/v1/assets")["items"]


def test_a_database_that_hangs_does_not_hang_callers(database: str) -> None:
    with running_api(database, answer_seconds=1) as api, psycopg.connect(api.superuser_dsn) as brake:
        brake.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        answer = api.client().send("POST", "/v1/customers", None, {"id": "alice"}, idempotency_key="k")
        assert (answer.status_code, kind(answer)) == (503, "no-answer")
        assert time.monotonic() - begun < 5
        assert api.raw().get("/healthz").status_code == 200
        brake.rollback()
        # It took effect after all, once; the caller who repeats learns so.
        again = api.client().send("POST", "/v1/customers", None, {"id": "alice"}, idempotency_key="k")
        assert (again.status_code, again.json()["id"]) == (201, "alice")
        assert api.query("SELECT count(*) FROM customers") == [(1,)]


def test_a_caller_above_its_rate_waits_and_others_do_not(database: str) -> None:
    with running_api(database, requests_per_second=5) as api:
        client, other = api.client(), api.client("other")

        def limited() -> bool:
            answer = client.send("GET", "/v1/assets")
            if answer.status_code == 200:
                return False
            assert (answer.status_code, kind(answer)) == (429, "too-many-requests")
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["retryable"] is True
            return True

        wait_until(limited, timeout=10, what="the limit")
        assert other.send("GET", "/v1/assets").status_code == 200
        wait_until(
            lambda: client.send("GET", "/v1/assets").status_code == 200,
            timeout=10,
            what="it to be let in again",
        )


def test_a_stranger_above_its_rate_waits_and_a_good_token_is_heard_all_the_same(database: str) -> None:
    with running_api(database, unauthenticated_per_second=5) as api:
        stranger, client = api.raw(), api.client()
        assert client.send("GET", "/v1/assets").status_code == 200

        def limited() -> bool:
            answer = stranger.get("/v1/assets", headers={"Authorization": "Strongroom x"})
            assert kind(answer) == ("malformed-token" if answer.status_code == 401 else "too-many-requests")
            return answer.status_code == 429

        wait_until(limited, timeout=10, what="the limit")
        assert client.send("GET", "/v1/assets").status_code == 200
        assert kind(stranger.get("/readyz")) == "too-many-requests"
        assert stranger.get("/healthz").status_code == 200


def test_an_address_without_a_good_token_is_refused_before_anything_is_read(database: str) -> None:
    with running_api(database, unauthenticated_per_second=5) as api:
        stranger = api.raw()
        wait_until(lambda: stranger.get("/v1/assets").status_code == 429, timeout=10, what="the limit")
        with Wire(api) as wire:
            wire.say(post_head(api, b"", length=1000))  # and no body
            assert wire.problem() == (429, "too-many-requests")
