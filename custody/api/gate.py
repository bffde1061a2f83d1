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
from starlette.types import ASGIApp, Receive, Scope, Send

from chains.errors import StrongroomError
from custody.api import acting
from custody.api.calls import Call, caller_of
from custody.api.metrics import ApiMetrics
from custody.api.problems import describe
from custody.api.services import ApiServices
from custody.ids import new_id
from custody.web.asgi import Answer, Gone, again, check_head, read_body
from custody.web.errors import (
    AnswerTooLate,
    MalformedBody,
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
        answer = Answer(send, str(new_id()))
        caller = None
        try:
            check_head(scope)
            if scope["path"].startswith(PREFIX):
                call = await self._admit(scope, receive)
                caller = call.caller.id
                scope.setdefault("state", {})["call"] = call
                receive = again(call.request.body, receive)
            elif scope["path"] != ALWAYS_ANSWERED:
                self._strangers.take(peer(scope))
            await self._work(scope, receive, answer)
        except Gone:
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

    async def _work(self, scope: Scope, receive: Receive, answer: Answer) -> None:
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
                body = await read_body(receive, headers.get(b"content-length"), limit)
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
