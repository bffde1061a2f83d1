"""What the OpenAPI document says beyond the routes: how to authenticate, repeat, page and read errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from custody.api.examples import ANSWERS
from custody.api.schemas import ProblemOut
from custody.web.problems import MEDIA_TYPE, TYPE_PREFIX

DESCRIPTION: Final = """
Custody of bitcoin and tokens, made for a trading core to call.

**Authentication.** Every request under `/v1` carries `Authorization: Strongroom PAYLOAD.SIGNATURE`.
PAYLOAD is base64url (no padding) of the RFC 8785 JSON of `{v, caller, audience, issued_at, expires_at, nonce,
method, path, query, body_sha256}`; SIGNATURE is base64url of the Ed25519 signature over SHA-256 of
`strongroom:token:v1\\n` and those bytes. A token lives at most 60 seconds and is good for one request: sign a
new one for every retry.

**Repeating.** Every POST carries `Idempotency-Key`. The same key with the same method, path, query and JSON
gives the same answer, for ever (`Idempotency-Replayed: true`); with another one, 409. Answers with status
400, 401, 403, 413, 429 and 5xx are not remembered.

**Amounts** are decimal strings with their asset beside them. Only the signed order has base units.

**Lists** page by `after` and `limit`; `next` is null at the end. The event feed's `next` is never null.

**Errors** are `application/problem+json` (RFC 9457) with a stable `type`, a `detail` that says what to do,
the numbers involved, and `retryable`.
"""

_PROBLEM_EXAMPLE: Final = {
    "type": TYPE_PREFIX + "insufficient-funds",
    "title": "Not enough funds",
    "status": 409,
    "detail": "Not enough BTC is available.",
    "retryable": False,
    "available": {"asset": "BTC", "amount": "0.01000000"},
    "needed": {"asset": "BTC", "amount": "0.50050000"},
}

_UNAVAILABLE_EXAMPLE: Final = {
    "type": TYPE_PREFIX + "database-unavailable",
    "title": "The database does not answer",
    "status": 503,
    "detail": "Repeat the same request, with the same Idempotency-Key.",
    "retryable": True,
}

COMMON_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ProblemOut, "description": text, "content": {MEDIA_TYPE: {"example": example}}}
    for status, text, example in (
        ("4XX", "Refused; see `type` and `detail`.", _PROBLEM_EXAMPLE),
        ("5XX", "Try again if `retryable`.", _UNAVAILABLE_EXAMPLE),
    )
}


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Make `app.openapi()` add security, scopes and Idempotency-Key to every operation under /v1."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schema["components"]["securitySchemes"] = {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "See above.",
                }
            }
            for route in (route for router in routers for route in router.routes):
                if isinstance(route, APIRoute) and route.path.startswith("/v1/"):
                    for method in route.methods or ():
                        _complete(schema["paths"][route.path][method.lower()], route, method)
            for methods in schema["paths"].values():
                for operation in methods.values():
                    _show_answers(operation["responses"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def scope_of(route: APIRoute) -> str | None:
    """The scope that a route asks for; None if it asks for none."""
    for dependency in route.dependant.dependencies:
        scope = getattr(dependency.call, "scope", None)
        if scope is not None:
            return str(scope)
    return None


def _show_answers(responses: dict[str, Any]) -> None:
    """Gives every answer its example, and problems the media type that they come with."""
    for status, response in responses.items():
        content = response.get("content", {})
        if status in COMMON_RESPONSES:
            # FastAPI writes the schema under the media type of the route's own answers.
            (other,) = content.keys() - {MEDIA_TYPE}
            content[MEDIA_TYPE] |= content.pop(other)
        elif "application/json" in content:
            name = content["application/json"].get("schema", {}).get("$ref", "").rpartition("/")[2]
            if name in ANSWERS:
                content["application/json"]["example"] = ANSWERS[name]


def _complete(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    operation["security"] = [{"token": []}]
    operation["x-scope"] = scope_of(route)
    # Wrong fields are a 400 problem here, not FastAPI's own form.
    operation["responses"].pop("422", None)
    # A body that may be left out may not be null.
    for media in operation.get("requestBody", {}).get("content", {}).values():
        choices = [each for each in media["schema"].get("anyOf", ()) if each.get("type") != "null"]
        if len(choices) == 1:
            media["schema"] = choices[0]
    if method == "POST":
        operation.setdefault("parameters", []).append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
                "example": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e",
            }
        )
