"""Health, readiness and metrics: for the machines that look after this process, without a token."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from custody.api import parts
from custody.api.metrics import ApiMetrics
from custody.api.services import ApiServices

router = APIRouter(tags=["operations"])


async def _services(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


async def _metrics(request: Request) -> ApiMetrics:
    metrics: ApiMetrics = request.app.state.metrics
    return metrics


def _example(description: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": answer}}}


@router.get("/healthz", responses={200: _example("It runs.", {"status": "ok"})})
async def health() -> dict[str, str]:
    """The process runs. Says nothing about the parts it needs: see `/readyz`."""
    return {"status": "ok"}


_PARTS: Final = {
    "bundle": {"ok": True, "detail": "version 1"},
    "database": {"ok": True, "detail": "answers"},
    "monitor bitcoin-regtest": {"ok": True, "detail": "at height 242"},
    "node bitcoin-regtest": {"ok": True, "detail": "tip at height 242"},
    "workers": {"ok": True, "detail": "at work"},
    "beat": {"ok": True, "detail": "at work"},
    "redis": {"ok": True, "detail": "answers"},
}
_THERE: Final = {
    "signer btc-hot": {"ok": True, "detail": "bundle version 1"},
    "verifier": {"ok": True, "detail": "transactions that wait for final blocks: 3"},
}
_AWAY: Final = {
    "signer btc-hot": {"ok": False, "detail": "SignerUnavailable: the signer does not answer"},
    "verifier": {"ok": False, "detail": "no signer says how it is"},
}


@router.get(
    "/readyz",
    responses={
        200: _example("Every part is there.", {"ready": True, "parts": _PARTS | _THERE}),
        503: _example("A part is missing.", {"ready": False, "parts": _PARTS | _AWAY}),
    },
)
def ready(services: Annotated[ApiServices, Depends(_services)]) -> JSONResponse:
    """Whether every part that requests need is there; 503 and which one is missing otherwise."""
    found = parts.look(services)
    ok = all(part.ok for part in found)
    told = {part.name: {"ok": part.ok, "detail": part.detail} for part in found}
    return JSONResponse({"ready": ok, "parts": told}, 200 if ok else 503)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(found: Annotated[ApiMetrics, Depends(_metrics)]) -> Response:
    """Prometheus text format."""
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)
