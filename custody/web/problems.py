"""The one way in which errors become HTTP: RFC 9457 `application/problem+json`, and the rules that all faces share.

A problem's `type` is stable and for programs, `detail` is for people and says what to do, `retryable` says whether
the same request can succeed later, and further members carry the numbers involved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.responses import Response

from chains import errors as chain_errors
from chains.types import Amount
from custody import errors as custody_errors
from custody.web import errors
from policies import bundle as bundles
from policies import canonical, token

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:strongroom:problem:"
RETRY_AFTER_SECONDS: Final = 1

Numbers = Callable[[Any], dict[str, Any]]


def nothing(_: Any) -> dict[str, Any]:
    """No further members."""
    return {}


def of(*names: str) -> Numbers:
    """Members copied from the error's attributes of the same names."""
    return lambda error: {name: getattr(error, name) for name in names}


@dataclass(frozen=True, slots=True)
class Units:
    """Base units in an error, to be shown as a decimal of the bundle's asset."""

    asset: str
    units: int


@dataclass(frozen=True, slots=True)
class Rule:
    """How one error type looks on the wire."""

    slug: str
    """Last part of `type`; never changes its meaning."""
    status: int
    title: str
    advice: str = ""
    """What to do, where the error's own message does not say it."""
    numbers: Numbers = nothing
    public: Callable[[Any], str] = str
    """The sentence shown; replaced where an error's text is about our inside."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that says no."""

    slug: str
    status: int
    title: str
    detail: str
    retryable: bool
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether this is a decision about the state of things, to be remembered under the request's key.

        What is wrong with the request itself (400, 401, 403, 404 of a route, 413) needs no memory: the same
        request is refused again by itself. What can pass (429, 5xx) must not be remembered.
        """
        return self.status in (404, 409, 422) and not self.retryable

    def body(self) -> str:
        """The JSON text."""
        return json.dumps(
            {
                "type": TYPE_PREFIX + self.slug,
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "retryable": self.retryable,
                **self.members,
            }
        )

    def response(self) -> Response:
        """The HTTP answer."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = token.SCHEME
        if self.retryable:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return Response(self.body(), self.status, headers, MEDIA_TYPE)


def _field_errors(error: Any) -> dict[str, Any]:
    return {"errors": [{"field": entry.field, "message": entry.message} for entry in error.errors]}


def inside(sentence: str) -> Callable[[Any], str]:
    """A sentence that stands for an error whose own text is about our inside."""
    return lambda _: sentence


REPEAT: Final = "Repeat the request with a new token and the same Idempotency-Key."

Rules = Mapping[type[Exception], Rule]
"""From error type to its form on the wire; a face's own begin with `RULES`."""

RULES: Final[Rules] = {
    # What is wrong with the token.
    token.Unauthenticated: Rule("unauthenticated", 401, "The token is not accepted"),
    token.MissingToken: Rule("missing-token", 401, "There is no token"),
    token.MalformedToken: Rule("malformed-token", 401, "The token cannot be read"),
    token.UnknownCaller: Rule("unknown-caller", 401, "The caller is not known"),
    token.WrongTokenSignature: Rule("bad-token-signature", 401, "The token's signature is wrong"),
    token.WrongAudience: Rule("wrong-audience", 401, "The token is for another service"),
    token.TokenOutOfTime: Rule(
        "token-expired", 401, "The token is out of its time", "", of("now", "issued_at", "expires_at")
    ),
    token.TokenForAnotherRequest: Rule(
        "token-mismatch", 401, "The token is for another request", "", of("part")
    ),
    token.TokenReplayed: Rule(
        "token-replayed", 401, "The token was used before", "Sign a new token for every request, retries too."
    ),
    errors.MissingScope: Rule(
        "missing-scope", 403, "The caller may not do this",
        "Have the policy quorum sign a bundle that gives it this scope.", of("caller", "scope"),
    ),
    # What is wrong with the request.
    errors.RequestError: Rule("bad-request", 400, "The request is wrong"),
    errors.MalformedBody: Rule("malformed-body", 400, "The body cannot be read"),
    errors.BodyTooLarge: Rule("body-too-large", 413, "The body is too large", "", of("limit")),
    errors.InvalidRequest: Rule("invalid-request", 400, "A field is wrong", "", _field_errors),
    errors.IdempotencyKeyMissing: Rule("idempotency-key-missing", 400, "The Idempotency-Key is missing"),
    errors.IdempotencyKeyReused: Rule("idempotency-key-reused", 409, "The Idempotency-Key is taken"),
    errors.InvalidCursor: Rule("invalid-cursor", 400, "The cursor is wrong"),
    custody_errors.NotFound: Rule("not-found", 404, "There is no such thing", "", of("what", "id")),
    errors.RouteNotFound: Rule("no-such-path", 404, "There is no such path", "See /openapi.json."),
    errors.MethodNotAllowed: Rule("method-not-allowed", 405, "The path has no such method"),
    errors.HeadTooLarge: Rule("head-too-large", 431, "The headers are too large", "", of("limit")),
    errors.MalformedRequest: Rule("malformed-request", 400, "The request cannot be read"),
    errors.TooManyRequests: Rule("too-many-requests", 429, "Too many requests", "", of("per_second")),
    errors.RequestTooSlow: Rule("request-too-slow", 408, "The request came too slowly", "", of("seconds")),
    errors.Overloaded: Rule("overloaded", 503, "There is too much to do", REPEAT),
    errors.AnswerTooLate: Rule("no-answer", 503, "The answer takes too long", REPEAT),
    # Values and documents.
    chain_errors.InvalidValue: Rule("invalid-value", 400, "A value is wrong"),
    chain_errors.InvalidAddress: Rule(
        "invalid-address", 400, "The address is wrong", "Nothing was requested; check it with the receiver."
    ),
    chain_errors.AssetMismatch: Rule("asset-mismatch", 400, "Two assets were mixed"),
    canonical.BadSignature: Rule(
        "bad-signature", 400, "A signature is wrong", "Sign the canonical order with the caller's own key."
    ),
    # What cannot be done now.
    custody_errors.InvalidConfiguration: Rule(
        "misconfigured", 500, "The service is misconfigured", "", public=inside("an operator must look.")
    ),
    bundles.UntrustedBundle: Rule(
        "bundle-not-trusted", 503, "There is no valid bundle", "An operator must install one."
    ),
    # The roots: what nobody thought of.
    chain_errors.TransientError: Rule(
        "temporarily-unavailable", 503, "Temporarily unavailable", REPEAT, public=inside("a part is away.")
    ),
    chain_errors.StrongroomError: Rule(
        "internal", 500, "Something is wrong on our side",
        "Nothing of this request was kept; report the X-Request-Id.", public=inside("an unexpected error."),
    ),
}  # fmt: skip
"""What can be wrong with any request to any face."""

ROOTS: Final = (chain_errors.TransientError, chain_errors.PermanentError, chain_errors.StrongroomError)
"""Types whose rule is only a safety net: a test fails on an error type that has no nearer rule."""


def rule_for(error_type: type[BaseException], rules: Rules = RULES) -> tuple[type[BaseException], Rule]:
    """The nearest ancestor with a rule, and that rule; the last root for anything else."""
    for ancestor in error_type.__mro__:
        rule = rules.get(ancestor)
        if rule is not None:
            return ancestor, rule
    return chain_errors.StrongroomError, RULES[chain_errors.StrongroomError]


def describe(error: Exception, bundle: bundles.Bundle | None = None, rules: Rules = RULES) -> Problem:
    """The problem that an error is by a face's `rules`; `bundle` says how many decimals the amounts in it have."""
    _, rule = rule_for(type(error), rules)
    members: dict[str, Any] = {}
    sums: list[str] = []
    for name, value in rule.numbers(error).items():
        if isinstance(value, Units):
            members[name] = _money(value, bundle)
            sums.append(f"{name} {' '.join(reversed(list(members[name].values())))}")
        else:
            members[name] = value
    detail = " ".join(
        part for part in (_sentence(rule.public(error)), _sentence(", ".join(sums)), rule.advice) if part
    )
    transient = bool(getattr(error, "transient", False)) or rule.status == 503
    return Problem(rule.slug, rule.status, rule.title, detail, transient, members)


def _money(value: Units, bundle: bundles.Bundle | None) -> dict[str, str]:
    entry = next((a for a in bundle.assets if a.id == value.asset), None) if bundle is not None else None
    if entry is None:
        return {"asset": value.asset, "units": str(value.units)}
    return {"asset": value.asset, "amount": Amount(entry.asset(), value.units).decimal()}


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."
