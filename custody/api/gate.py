"""The gate before all routes: bounded body, authenticated token, a problem for every error, one log line.

Plain ASGI, because it must see the very bytes that were signed, once, before anything interprets them.
Neither bodies nor tokens nor queries are ever logged.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chains.errors import StrongroomError
from custody.api import acting
from custody.api.calls import Call, caller_of
from custody.api.metrics import ApiMetrics
from custody.api.problems import describe
from custody.api.services import ApiServices
from custody.ids import new_id
from custody.web.connections import MAX_HEAD_BYTES
from custody.web.errors import (
    AnswerTooLate,
    BodyTooLarge,
    HeadTooLarge,
    MalformedBody,
    MalformedRequest,
    Overloaded,
    RequestTooSlow,
)
from custody.web.limits import RateLimit, Strangers
from custody.web.peers import among, origin, peer
from custody.web.strictjson import read_object
from policies.bundle import Operator
from policies.token import Request, Unauthenticated, authenticate, signature_of

MAX_BODY_BYTES: Final = 64 * 1024
LARGE_BODIES: Final = {"/v1/trading/settlements": 1024 * 1024}
"""Most bytes of a body where that is more: a batch of fills is one request."""
BODY_SECONDS: Final = 10
MAX_REQUESTS_AT_ONCE: Final = 256
"""Requests that are let in and not answered yet. Those that still arrive do not count: they cost only a connection."""
PREFIX: Final = "/v1/"
ALWAYS_ANSWERED: Final = "/healthz"
_ONCE: Final = frozenset({b"authorization", b"content-type", b"idempotency-key"})
"""Headers that we read: if one is there twice, somebody in between may have read the other one."""

_log = structlog.get_logger("strongroom.api")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: ApiServices, metrics: ApiMetrics) -> None:
        self._app = app
        self._services = services
        self._metrics = metrics
        self._limit = RateLimit(services.requests_per_second)
        self._strangers = Strangers(services.unauthenticated_per_second)
        self._working: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answer = _Answer(send, str(new_id()))
        caller = None
        try:
            _check_head(scope)
            if scope["path"].startswith(PREFIX):
                call = await self._admit(scope, receive)
                caller = call.caller.id
                scope.setdefault("state", {})["call"] = call
                receive = _again(call.request.body, receive)
            elif scope["path"] != ALWAYS_ANSWERED:
                self._strangers.take(peer(scope))
            await self._work(scope, receive, answer)
        except _Gone:
            return
        except StrongroomError as error:
            await describe(error).response()(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the last line of defence: an answer, and a place to look
            # The message may quote what a client sent; type and place do not.
            _log.error(
                "unexpected error",
                request_id=answer.request_id,
                error=type(error).__name__,
                at=[
                    f"{frame.f_code.co_filename}:{line}"
                    for frame, line in traceback.walk_tb(error.__traceback__)
                ][-4:],
            )
            if answer.status == 0:
                await describe(error).response()(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            seconds = time.perf_counter() - started
            self._metrics.observe(scope["method"], route, answer.status, seconds)
            _log.info(
                "request",
                request_id=answer.request_id,
                caller=caller,
                method=scope["method"],
                route=route,
                status=answer.status,
                milliseconds=round(seconds * 1000, 1),
            )

    async def _work(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Have the application answer; or say in its place that it does not, and let it end unheard."""
        if len(self._working) >= MAX_REQUESTS_AT_ONCE:
            raise Overloaded(MAX_REQUESTS_AT_ONCE)
        heard = answer.part()
        task = asyncio.ensure_future(self._app(scope, receive, heard))
        self._working.add(task)
        task.add_done_callback(self._done)
        try:
            await asyncio.wait({task}, timeout=self._services.answer_seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            task.result()
        elif answer.status == 0:
            # A thread that waits for a database cannot be stopped. It counts as at work until it ends.
            heard.close()
            raise AnswerTooLate(self._services.answer_seconds)
        else:
            await task  # it has begun to answer: the connection has a deadline for the rest

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: asyncio would log that of a task nobody waits for, message and all

    async def _admit(self, scope: Scope, receive: Receive) -> Call:
        address = peer(scope)
        self._strangers.check(address)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            async with asyncio.timeout(BODY_SECONDS):
                limit = LARGE_BODIES.get(scope["path"], MAX_BODY_BYTES)
                body = await _read(receive, headers.get(b"content-length"), limit)
        except TimeoutError:
            raise RequestTooSlow(BODY_SECONDS) from None
        request = Request(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            body=body,
        )
        now = self._services.clock()
        bundle = self._services.bundle()
        try:
            token, who = authenticate(
                headers.get(b"authorization"),
                request,
                bundle=bundle,
                audience=self._services.audience,
                now=now,
            )
        except Unauthenticated:
            self._strangers.take(address)
            raise
        self._strangers.vouch(address)
        self._limit.take(who.id)
        document = None
        if body:
            if headers.get(b"content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise MalformedBody("send the body as Content-Type: application/json")
            document = read_object(body)
        call = Call(
            self._services,
            bundle,
            caller_of(who),
            token,
            request,
            document,
            headers.get(b"idempotency-key"),
            now,
            who if isinstance(who, Operator) else None,
            origin(scope, self._services.trusted_proxies),
            signature_of(headers[b"authorization"]),
        )
        if call.operator is not None and not among(call.origin, self._services.operator_networks):
            await run_in_threadpool(acting.keep_out, call)
        return call


class _Answer:
    """The way back to the client: adds what every answer has, and knows the status that was sent."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                (b"cache-control", b"no-store"),
            ]
        await self._send(message)

    def part(self) -> _Part:
        """A way to the client that can be closed."""
        return _Part(self)


class _Part:
    """What the application answers through; nobody hears it once it is closed."""

    def __init__(self, answer: _Answer) -> None:
        self._answer: _Answer | None = answer

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if self._answer is not None:
            await self._answer(message)

    def close(self) -> None:
        """Another answer is given."""
        self._answer = None


class _Gone(Exception):
    """The client left before its request was read."""


def _check_head(scope: Scope) -> None:
    """h11 bounds a head that comes in pieces only; and reads repeated headers as they are."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    seen = set()
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in _ONCE:
            if name in seen:
                raise MalformedRequest(f"the header {name.decode()} is there twice")
            seen.add(name)
    if size > MAX_HEAD_BYTES:
        raise HeadTooLarge(MAX_HEAD_BYTES)


async def _read(receive: Receive, declared: str | None, limit: int) -> bytes:
    if declared is not None and declared.isdigit() and int(declared[:12]) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
