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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chains.errors import StrongroomError
from custody.api.calls import Call
from custody.api.errors import BodyTooLarge, MalformedBody
from custody.api.limits import RateLimit
from custody.api.metrics import ApiMetrics
from custody.api.problems import describe
from custody.api.services import ApiServices
from custody.api.strictjson import read_object
from custody.ids import new_id
from policies.token import Request, authenticate

MAX_BODY_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 10
PREFIX: Final = "/v1/"

_log = structlog.get_logger("strongroom.api")


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: ApiServices, metrics: ApiMetrics) -> None:
        self._app = app
        self._services = services
        self._metrics = metrics
        self._limit = RateLimit(services.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = str(new_id())
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        caller = None
        try:
            if scope["path"].startswith(PREFIX):
                call = await self._admit(scope, receive)
                caller = call.caller.id
                scope.setdefault("state", {})["call"] = call
                receive = _again(call.request.body, receive)
            await self._app(scope, receive, answer)
        except _Gone:
            return
        except StrongroomError as error:
            await describe(error).response()(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the last line of defence: an answer, and a place to look
            # The message may quote what a client sent; type and place do not.
            _log.error(
                "unexpected error",
                request_id=request_id,
                error=type(error).__name__,
                at=[
                    f"{frame.f_code.co_filename}:{line}"
                    for frame, line in traceback.walk_tb(error.__traceback__)
                ][-4:],
            )
            if status == 0:
                await describe(error).response()(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            seconds = time.perf_counter() - started
            self._metrics.observe(scope["method"], route, status, seconds)
            _log.info(
                "request",
                request_id=request_id,
                caller=caller,
                method=scope["method"],
                route=route,
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )

    async def _admit(self, scope: Scope, receive: Receive) -> Call:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive, headers.get(b"content-length"))
        except TimeoutError:
            raise MalformedBody(f"the body did not arrive within {BODY_SECONDS} s") from None
        request = Request(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            body=body,
        )
        now = self._services.clock()
        bundle = self._services.bundle()
        token, caller = authenticate(
            headers.get(b"authorization"), request, bundle=bundle, audience=self._services.audience, now=now
        )
        self._limit.take(caller.id)
        document = None
        if body:
            if headers.get(b"content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise MalformedBody("send the body as Content-Type: application/json")
            document = read_object(body)
        return Call(
            self._services, bundle, caller, token, request, document, headers.get(b"idempotency-key"), now
        )


class _Gone(Exception):
    """The client left before its request was read."""


async def _read(receive: Receive, declared: str | None) -> bytes:
    if declared is not None and declared.isdigit() and int(declared[:12]) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
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
