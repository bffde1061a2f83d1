"""The application: REST routes and the stream behind one gate that admits by token."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import structlog
from fastapi import FastAPI, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from chains.errors import StrongroomError
from custody.ids import new_id
from custody.trading import orderentry, rest, ws
from custody.trading.access import Door
from custody.trading.answers import Answers
from custody.trading.problems import describe
from custody.trading.service import Trading
from custody.trading.streams import Streams
from custody.web.asgi import Answer, Gone, again, check_head, read_body
from custody.web.errors import (
    FieldError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    RequestTooSlow,
    RouteNotFound,
)
from custody.web.peers import peer
from custody.web.strictjson import read_object
from policies.bundle import Bundle
from policies.token import Request

MAX_BODY_BYTES: Final = 16 * 1024
BODY_SECONDS: Final = 10
PREFIX: Final = "/v1/"
MAX_FIELD_ERRORS: Final = 20
DESCRIPTION: Final = """\
Orders and market data. Every request carries `Authorization: Strongroom PAYLOAD.SIGNATURE`, an Ed25519-signed
token of a caller of the bundle, made for this service's own audience; every POST an `Idempotency-Key`. Amounts
are exact decimal strings in whole units. Errors are `application/problem+json`. `GET /v1/stream` is a WebSocket."""

_log = structlog.get_logger("strongroom.trading")


def create_app(
    trading: Trading,
    bundle: Callable[[], Bundle],
    clock: Callable[[], int],
    *,
    ended: Callable[[BaseException | None], None] = lambda _: None,
) -> FastAPI:
    """The ASGI application of a core, which runs for as long as the application does.

    Args:
        trading: not running yet.
        bundle: the one in force now. Raises UntrustedBundle when there is none.
        clock: UNIX seconds.
        ended: called when the core has ended by itself, with why.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        streams = Streams(trading)
        app.state.streams = streams
        trading.core.listen(streams)
        core = asyncio.create_task(trading.run(), name="trading")
        core.add_done_callback(lambda task: ended(None if task.cancelled() else task.exception()))
        ready = asyncio.create_task(trading.ready.wait())
        await asyncio.wait({core, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        publishing = asyncio.create_task(streams.run())
        try:
            yield
        finally:
            publishing.cancel()
            trading.core.close()
            await asyncio.gather(core, publishing, return_exceptions=True)

    app = FastAPI(
        title="Strongroom trading core",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.trading = trading
    app.state.answers = Answers()
    app.state.door = Door(trading.settings, bundle, clock)
    app.include_router(rest.router)
    _add_health(app, trading)

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await ws.serve(websocket, websocket.state.visitor)

    app.add_exception_handler(StrongroomError, _strongroom_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Gate, door=app.state.door)
    return app


def _add_health(app: FastAPI, trading: Trading) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz(response: Response) -> dict[str, Any]:
        """Whether orders are taken; 503 while something needs to be looked at."""
        alarms = orderentry.alarms(trading)
        ready = trading.ready.is_set() and not alarms
        response.status_code = 200 if ready else 503
        return {"ready": ready, "alarms": alarms}


class Gate:
    """ASGI middleware around the whole application: bounded body, good token, a problem for every error, one log
    line."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope, "GET", b"")
        except StrongroomError as error:
            await WebSocket(scope, receive, send).send_denial_response(describe(error).response())
            return
        await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        answer = Answer(send, str(new_id()))
        try:
            check_head(scope)
            if scope["path"].startswith(PREFIX):
                body = await self._body(scope, receive)
                self._admit(scope, scope["method"], body)
                receive = again(body, receive)
            elif scope["path"] != "/healthz":
                self._door.stranger(peer(scope))
            await self._app(scope, receive, answer)
        except Gone:
            return
        except StrongroomError as error:
            await describe(error).response()(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the last line of defence: an answer, and a place to look
            at = [f"{f.f_code.co_filename}:{line}" for f, line in traceback.walk_tb(error.__traceback__)][-4:]
            _log.error("unexpected error", request_id=answer.request_id, error=type(error).__name__, at=at)
            if answer.status == 0:
                await describe(error).response()(scope, receive, answer)
        finally:
            _log.info(
                "request",
                request_id=answer.request_id,
                caller=getattr(scope.get("state", {}).get("visitor"), "id", None),
                method=scope["method"],
                route=getattr(scope.get("route"), "path", "unknown"),
                status=answer.status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"").decode("latin-1") or None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(receive, declared, MAX_BODY_BYTES)
        except TimeoutError:
            raise RequestTooSlow(BODY_SECONDS) from None
        if body:
            media_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
            if media_type != "application/json":
                raise MalformedBody("send the body as Content-Type: application/json")
        return body

    def _admit(self, scope: Scope, method: str, body: bytes) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        visitor = self._door.admit(
            headers.get(b"authorization"), Request(method, path, query, body), peer(scope)
        )
        if body:
            read_object(body)  # refuses what two parsers could read in two ways
        scope.setdefault("state", {})["visitor"] = visitor


async def _strongroom_error(_: HttpRequest, error: Exception) -> Response:
    return describe(error).response()


async def _invalid_request(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = []
    for entry in error.errors()[:MAX_FIELD_ERRORS]:
        where = [str(part) for part in entry["loc"]]
        name = ".".join(where[1:] if where[0] == "body" and len(where) > 1 else where)
        found.append(FieldError(name[:200], str(entry["msg"]).removeprefix("Value error, ")))
    return describe(InvalidRequest(found)).response()


async def _http_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return describe(MethodNotAllowed("see /openapi.json")).response()
    return describe(RouteNotFound("there is no such path")).response()
