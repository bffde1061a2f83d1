"""Health, readiness and metrics: for the machines that look after this process, without a token."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chains.errors import StrongroomError
from custody.api import gauges
from custody.api.metrics import ApiMetrics
from custody.api.services import ApiServices
from policies.bundle import Bundle

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
}
_THERE: Final = {"signer btc-hot": {"ok": True, "detail": "bundle version 1"}}
_AWAY: Final = {"signer btc-hot": {"ok": False, "detail": "SignerUnavailable: the signer does not answer"}}


@router.get(
    "/readyz",
    responses={
        200: _example("Every part is there.", {"ready": True, "parts": _PARTS | _THERE}),
        503: _example("A part is missing.", {"ready": False, "parts": _PARTS | _AWAY}),
    },
)
def ready(services: Annotated[ApiServices, Depends(_services)]) -> JSONResponse:
    """Whether every part that requests need is there; 503 and which one is missing otherwise."""
    parts: dict[str, Any] = {}
    bundle = _bundle(services, parts)
    _database(services, bundle, parts)
    if bundle is not None:
        _signers(services, bundle, parts)
    ok = all(part["ok"] for part in parts.values())
    return JSONResponse({"ready": ok, "parts": parts}, 200 if ok else 503)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(found: Annotated[ApiMetrics, Depends(_metrics)]) -> Response:
    """Prometheus text format."""
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)


def _bundle(services: ApiServices, parts: dict[str, Any]) -> Bundle | None:
    try:
        bundle = services.bundle()
    except StrongroomError as error:
        parts["bundle"] = {"ok": False, "detail": str(error)}
        return None
    parts["bundle"] = {"ok": True, "detail": f"version {bundle.version}"}
    return bundle


def _database(services: ApiServices, bundle: Bundle | None, parts: dict[str, Any]) -> None:
    try:
        with services.database.snapshot() as tx:
            chains = {chain.chain: chain for chain in gauges.chains(tx)}
    except StrongroomError:
        parts["database"] = {"ok": False, "detail": "the database does not answer"}
        return
    parts["database"] = {"ok": True, "detail": "answers"}
    for network in bundle.networks if bundle is not None else ():
        found = chains.get(network.chain)
        if found is None:
            part = {"ok": False, "detail": "no monitor has begun with this chain"}
        elif found.age_seconds > services.monitor_lag_seconds:
            part = {"ok": False, "detail": f"the monitor was last heard of {found.age_seconds:.0f} s ago"}
        else:
            part = {"ok": True, "detail": f"at height {found.height}"}
        parts[f"monitor {network.chain}"] = part


def _signers(services: ApiServices, bundle: Bundle, parts: dict[str, Any]) -> None:
    for keyset in bundle.keysets:
        if keyset.tier != "hot":
            continue
        try:
            status = services.signer(keyset.id).status()
        except StrongroomError as error:
            part = {"ok": False, "detail": f"{type(error).__name__}: the signer does not answer"}
        else:
            same = status.bundle_version == bundle.version and keyset.id in status.keysets
            part = {"ok": same, "detail": f"bundle version {status.bundle_version}"}
        parts[f"signer {keyset.id}"] = part
