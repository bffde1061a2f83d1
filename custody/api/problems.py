"""The one place where errors become HTTP: RFC 9457 `application/problem+json`.

Every error type that can reach a request has a rule here, its own or that of its nearest listed ancestor; a
test fails for a type whose nearest ancestor is only a root. A problem's `type` is stable and for programs,
`detail` is for people and says what to do, `retryable` says whether the same request can succeed later, and
further members carry the numbers involved.
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
from custody import lifecycle
from custody.api import errors as api_errors
from custody.approvals import errors as approvals
from custody.audit import errors as audit
from custody.customers import service as customers
from custody.deposits import attestation
from custody.storage import sealing
from custody.travelrule import service as travelrule
from custody.whitelist import errors as whitelists
from policies import bundle as bundles
from policies import canonical, token
from signers import ports as signer_ports

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:strongroom:problem:"
RETRY_AFTER_SECONDS: Final = 1

Numbers = Callable[[Any], dict[str, Any]]


def _none(_: Any) -> dict[str, Any]:
    return {}


def _of(*names: str) -> Numbers:
    """Members copied from the error's attributes of the same names."""
    return lambda error: {name: getattr(error, name) for name in names}


@dataclass(frozen=True, slots=True)
class _Units:
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
    numbers: Numbers = _none
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


def _reasons(error: Any) -> dict[str, Any]:
    return {"reasons": [{"code": reason.code, "detail": reason.detail} for reason in error.reasons]}


def _funds(error: Any) -> dict[str, Any]:
    return {
        "available": _Units(error.asset, error.available),
        "needed": _Units(error.asset, error.needed),
    }


def _inside(sentence: str) -> Callable[[Any], str]:
    return lambda _: sentence


_REPEAT: Final = "Repeat the request with a new token and the same Idempotency-Key."

_NOT_OURS: Final = Rule(
    "address-not-trusted",
    500,
    "An address failed its check",
    "Pay to no address of this customer until an operator has looked.",
    public=_inside("an address is not what our keys and the signer's word say."),
)

RULES: Final[Mapping[type[Exception], Rule]] = {
    # What is wrong with the token.
    token.Unauthenticated: Rule("unauthenticated", 401, "The token is not accepted"),
    token.MissingToken: Rule("missing-token", 401, "There is no token"),
    token.MalformedToken: Rule("malformed-token", 401, "The token cannot be read"),
    token.UnknownCaller: Rule("unknown-caller", 401, "The caller is not known"),
    token.WrongTokenSignature: Rule("bad-token-signature", 401, "The token's signature is wrong"),
    token.WrongAudience: Rule("wrong-audience", 401, "The token is for another service"),
    token.TokenOutOfTime: Rule(
        "token-expired", 401, "The token is out of its time", "", _of("now", "issued_at", "expires_at")
    ),
    token.TokenForAnotherRequest: Rule(
        "token-mismatch", 401, "The token is for another request", "", _of("part")
    ),
    token.TokenReplayed: Rule(
        "token-replayed", 401, "The token was used before", "Sign a new token for every request, retries too."
    ),
    api_errors.MissingScope: Rule(
        "missing-scope", 403, "The caller may not do this",
        "Have the policy quorum sign a bundle that gives it this scope.", _of("caller", "scope"),
    ),
    api_errors.OperatorsOnly: Rule(
        "operators-only", 403, "This is for operators", "Use an operator's own key.", _of("caller")
    ),
    api_errors.AddressNotAllowed: Rule(
        "address-not-allowed", 403, "Operators do not come from there",
        "Come from a network of the setting operator_networks. This is recorded.", _of("operator", "address"),
    ),
    audit.NotDone: Rule("action-not-done", 403, "It was not done", "", _of("operator", "action")),
    audit.NotAnOperator: Rule(
        "not-an-operator", 403, "This is no operator", "This is recorded.", _of("operator", "action")
    ),
    audit.ActionRefused: Rule(
        "action-refused", 403, "The operator may not do this", "This is recorded.", _of("operator", "action")
    ),
    audit.ActionAsked: Rule(
        "action-asked", 403, "Other operators must approve it", "", _of("operator", "action", "number", "lacking")
    ),
    # What is wrong with the request.
    api_errors.RequestError: Rule("bad-request", 400, "The request is wrong"),
    api_errors.MalformedBody: Rule("malformed-body", 400, "The body cannot be read"),
    api_errors.BodyTooLarge: Rule("body-too-large", 413, "The body is too large", "", _of("limit")),
    api_errors.InvalidRequest: Rule("invalid-request", 400, "A field is wrong", "", _field_errors),
    api_errors.IdempotencyKeyMissing: Rule("idempotency-key-missing", 400, "The Idempotency-Key is missing"),
    api_errors.IdempotencyKeyReused: Rule("idempotency-key-reused", 409, "The Idempotency-Key is taken"),
    api_errors.InvalidCursor: Rule("invalid-cursor", 400, "The cursor is wrong"),
    custody_errors.NotFound: Rule("not-found", 404, "There is no such thing", "", _of("what", "id")),
    custody_errors.UnknownCustomer: Rule(
        "unknown-customer", 404, "There is no such customer", "Create it with POST /v1/customers.", _of("id")
    ),
    api_errors.RouteNotFound: Rule("no-such-path", 404, "There is no such path", "See /openapi.json."),
    api_errors.MethodNotAllowed: Rule("method-not-allowed", 405, "The path has no such method"),
    api_errors.NotBumpable: Rule(
        "not-bumpable", 409, "There is nothing to bump", "", _of("withdrawal", "state")
    ),
    api_errors.BumpPending: Rule("bump-pending", 409, "A bump is already asked for"),
    api_errors.HeadTooLarge: Rule("head-too-large", 431, "The headers are too large", "", _of("limit")),
    api_errors.MalformedRequest: Rule("malformed-request", 400, "The request cannot be read"),
    api_errors.TooManyRequests: Rule("too-many-requests", 429, "Too many requests", "", _of("per_second")),
    api_errors.RequestTooSlow: Rule("request-too-slow", 408, "The request came too slowly", "", _of("seconds")),
    api_errors.Overloaded: Rule("overloaded", 503, "There is too much to do", _REPEAT),
    api_errors.AnswerTooLate: Rule("no-answer", 503, "The answer takes too long", _REPEAT),
    # Values and documents.
    chain_errors.InvalidValue: Rule("invalid-value", 400, "A value is wrong"),
    chain_errors.InvalidAddress: Rule(
        "invalid-address", 400, "The address is wrong", "Nothing was requested; check it with the receiver."
    ),
    chain_errors.AssetMismatch: Rule("asset-mismatch", 400, "Two assets were mixed"),
    canonical.BadSignature: Rule(
        "bad-signature", 400, "A signature is wrong", "Sign the canonical order with the caller's own key."
    ),
    # Decisions about the state of things.
    travelrule.DifferentData: Rule(
        "travel-rule-attached", 409, "Other travel-rule data is attached",
        "What was attached stays; cancel the withdrawal and sign a new order to correct it.", _of("withdrawal"),
    ),
    sealing.UnusableKeyRing: Rule(
        "sealing-keys", 500, "The sealing keys cannot be used", "", public=_inside("an operator must look.")
    ),
    sealing.CannotOpen: Rule(
        "cannot-open", 500, "Sealed data cannot be opened", "", public=_inside("an operator must look.")
    ),
    custody_errors.InsufficientFunds: Rule(
        "insufficient-funds", 409, "Not enough funds",
        "Wait for a deposit, or ask for less; the withdrawal fee is part of what is needed.", _funds,
        public=lambda error: f"not enough {error.asset} is available.",
    ),
    custody_errors.OrderMismatch: Rule(
        "order-mismatch", 400, "The order does not fit", "Sign a new order.",
        _of("field", "expected", "found"),
    ),
    approvals.ApprovalRefused: Rule(
        "approval-refused", 409, "The approval does not count",
        "Read what waits again, with GET /v1/approvals, and sign anew if it is still to be paid.", _reasons,
    ),
    whitelists.DuplicateEntry: Rule("duplicate-entry", 409, "The entry's id is taken", "", _of("id")),
    whitelists.AlreadyListed: Rule(
        "already-listed", 409, "The address is listed already", "Use that entry, or remove it first.", _of("entry")
    ),
    whitelists.EntryMismatch: Rule(
        "entry-mismatch", 400, "The signed entry does not fit", "Sign it anew.", _of("field", "expected", "found")
    ),
    whitelists.ProofRefused: Rule(
        "proof-refused", 409, "The signature proves nothing",
        "Sign the challenge's text word for word, with the key of this address.",
    ),
    whitelists.ChallengeUsed: Rule("challenge-used", 409, "The challenge was answered", "Ask for a new one."),
    whitelists.ChallengeExpired: Rule(
        "challenge-expired", 409, "The challenge has expired", "Ask for a new one.", _of("expires_at", "now")
    ),
    custody_errors.ExpiredOrder: Rule(
        "order-expired", 409, "The order has expired", "Sign a new order with a new id.",
        _of("expires_at", "now"),
    ),
    custody_errors.DuplicateOrder: Rule("duplicate-order", 409, "The order's id is taken", "", _of("id")),
    custody_errors.Halted: Rule(
        "halted", 503, "Paying is halted", "An operator has to lift the halt.", _of("scope", "reason")
    ),
    custody_errors.LedgerRejected: Rule("ledger-rejected", 409, "The ledger refused"),
    lifecycle.ImpossibleTransition: Rule(
        "wrong-state", 409, "That cannot happen in this state", "Read the resource again.",
        _of("lifecycle", "state", "event"),
    ),
    customers.CustomerExists: Rule("customer-exists", 409, "The customer exists already", "", _of("id")),
    # What must never happen: somebody has to look before anything goes on.
    attestation.AddressNotOurs: _NOT_OURS,
    attestation.AttestationMismatch: _NOT_OURS,
    chain_errors.DerivationDisagreement: _NOT_OURS,
    # What cannot be done now.
    custody_errors.DatabaseUnavailable: Rule(
        "database-unavailable", 503, "The database does not answer", _REPEAT,
        public=_inside("the database is away; whether the request took effect is not known."),
    ),
    custody_errors.Conflict: Rule(
        "conflict", 503, "Another request won a race", _REPEAT, public=_inside("nothing was changed.")
    ),
    custody_errors.InvalidConfiguration: Rule(
        "misconfigured", 500, "The service is misconfigured", "", public=_inside("an operator must look.")
    ),
    chain_errors.NodeUnavailable: Rule(
        "node-unavailable", 503, "A chain node does not answer", _REPEAT, public=_inside("the node is away.")
    ),
    chain_errors.NodeRefused: Rule(
        "node-refused", 502, "A chain node refused", "", public=_inside("the node refused a call of ours.")
    ),
    chain_errors.WrongNetwork: Rule(
        "wrong-network", 502, "A chain node follows another network", "",
        public=_inside("an operator must look at the node."),
    ),
    chain_errors.Reorganised: Rule("reorganised", 503, "The chain was reorganised meanwhile", _REPEAT),
    signer_ports.SignerUnavailable: Rule(
        "signer-unavailable", 503, "The signer does not answer", _REPEAT,
        public=_inside("the signer is away."),
    ),
    signer_ports.Refused: Rule("signer-refused", 409, "The signer refused"),
    bundles.UntrustedBundle: Rule(
        "bundle-not-trusted", 503, "There is no valid bundle", "An operator must install one."
    ),
    # The roots: what nobody thought of.
    chain_errors.TransientError: Rule(
        "temporarily-unavailable", 503, "Temporarily unavailable", _REPEAT, public=_inside("a part is away.")
    ),
    chain_errors.StrongroomError: Rule(
        "internal", 500, "Something is wrong on our side",
        "Nothing of this request was kept; report the X-Request-Id.", public=_inside("an unexpected error."),
    ),
}  # fmt: skip
"""From error type to its form on the wire."""

ROOTS: Final = (chain_errors.TransientError, chain_errors.PermanentError, chain_errors.StrongroomError)
"""Types whose rule is only a safety net: a test fails on an error type that has no nearer rule."""


def rule_for(error_type: type[BaseException]) -> tuple[type[BaseException], Rule]:
    """The nearest ancestor with a rule, and that rule; the last root for anything else."""
    for ancestor in error_type.__mro__:
        rule = RULES.get(ancestor)
        if rule is not None:
            return ancestor, rule
    return chain_errors.StrongroomError, RULES[chain_errors.StrongroomError]


def describe(error: Exception, bundle: bundles.Bundle | None = None) -> Problem:
    """The problem that an error is; `bundle` says how many decimals the amounts in it have."""
    _, rule = rule_for(type(error))
    members: dict[str, Any] = {}
    sums: list[str] = []
    for name, value in rule.numbers(error).items():
        if isinstance(value, _Units):
            members[name] = _money(value, bundle)
            sums.append(f"{name} {' '.join(reversed(list(members[name].values())))}")
        else:
            members[name] = value
    detail = " ".join(
        part for part in (_sentence(rule.public(error)), _sentence(", ".join(sums)), rule.advice) if part
    )
    transient = bool(getattr(error, "transient", False)) or rule.status == 503
    return Problem(rule.slug, rule.status, rule.title, detail, transient, members)


def _money(value: _Units, bundle: bundles.Bundle | None) -> dict[str, str]:
    entry = next((a for a in bundle.assets if a.id == value.asset), None) if bundle is not None else None
    if entry is None:
        return {"asset": value.asset, "units": str(value.units)}
    return {"asset": value.asset, "amount": Amount(entry.asset(), value.units).decimal()}


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."
