"""The application: routers, error handlers, the gate in front, the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from chains.errors import StrongroomError
from custody.api import openapi, repository
from custody.api.gate import Gate
from custody.api.metrics import ApiMetrics
from custody.api.problems import describe
from custody.api.routers import (
    accounts,
    approvals,
    catalogue,
    customers,
    deposits,
    feed,
    health,
    operations,
    sessions,
    statements,
    sweeps,
    trading,
    treasury,
    whitelist,
    withdrawals,
)
from custody.api.services import ApiServices
from custody.deposits.attestation import derive
from custody.web import errors

ROUTERS: Final = (
    health.router,
    customers.router,
    accounts.router,
    deposits.router,
    withdrawals.router,
    approvals.router,
    whitelist.router,
    whitelist.challenges,
    sweeps.router,
    treasury.router,
    sessions.router,
    trading.router,
    catalogue.router,
    feed.router,
    operations.router,
    statements.router,
)
NONCE_CLEANING_SECONDS: Final = 30
MAX_FIELD_ERRORS: Final = 20
"""A body of nothing but wrong fields gets no answer larger than itself."""


def create_app(services: ApiServices) -> FastAPI:
    """The ASGI application for these services. Opens nothing until the first request."""
    metrics = ApiMetrics(services.database)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(_clean(services))
        await run_in_threadpool(_warm, services)
        try:
            yield
        finally:
            cleaning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cleaning

    app = FastAPI(
        title="Strongroom",
        version="1",
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=openapi.COMMON_RESPONSES,
    )
    app.state.services = services
    app.state.metrics = metrics
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(StrongroomError, _strongroom_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Gate, services=services, metrics=metrics)
    openapi.install(app, ROUTERS)
    return app


async def _strongroom_error(request: Request, error: Exception) -> Response:
    call = getattr(request.state, "call", None)
    return describe(error, call.bundle if call is not None else None).response()


async def _invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_field_error(entry) for entry in error.errors()[:MAX_FIELD_ERRORS]]
    return describe(errors.InvalidRequest(found)).response()


def _field_error(entry: dict[str, Any]) -> errors.FieldError:
    where = [str(part) for part in entry["loc"]]
    name = ".".join(where[1:] if where[0] == "body" and len(where) > 1 else where)
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = "there is no such field"
    return errors.FieldError(name[:200], message)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return describe(errors.RouteNotFound("there is no such path")).response()
    allowed = sorted(_methods(request.url.path))
    answer = describe(errors.MethodNotAllowed(f"this path knows {', '.join(allowed)}")).response()
    answer.headers["Allow"] = ", ".join(allowed)  # RFC 9110
    return answer


def _methods(path: str) -> set[str]:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


def _warm(services: ApiServices) -> None:
    """Load the second implementation of address derivation now: it takes half a second, once."""
    with contextlib.suppress(StrongroomError):
        bundle = services.bundle()
        for keyset in bundle.keysets:
            derive(bundle, keyset.id, 0, 0)


async def _clean(services: ApiServices) -> None:
    """Forget nonces of expired tokens from time to time; failing to is no harm, the next round does it."""

    def once() -> None:
        with services.database.transaction() as tx:
            repository.commit_without_waiting(tx)
            repository.forget_expired_nonces(tx, services.clock())

    while True:
        with contextlib.suppress(StrongroomError):
            await run_in_threadpool(once)
        await asyncio.sleep(NONCE_CLEANING_SECONDS)
