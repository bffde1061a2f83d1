"""Who may do what: every route of the application, with every scope and every kind of wrong token.

The matrix is made from the routes themselves. A route that nobody gave a rule here fails it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest
from fastapi.routing import APIRoute

from custody.api.app import ROUTERS
from custody.api.calls import Scope
from custody.api.openapi import scope_of
from custody.ids import new_id
from ops.devnet.postgres import EmbeddedPostgres
from policies.administration import OPERATORS_ONLY
from policies.keys import SigningKey, sign_veto
from policies.statements import Veto
from policies.token import MAX_CLOCK_AHEAD_SECONDS, MAX_LIFETIME_SECONDS, Request
from tests.fakes.api import BTC, RunningApi, authorization, kind, running_api
from tests.support.ivms import travel_rule

PUBLIC: Final = {"GET /healthz", "GET /readyz", "GET /metrics"}
"""For machines that look after the process; with the OpenAPI document, all that needs no token."""

RULES: Final = {
    "POST /v1/customers": Scope.CUSTOMERS_WRITE,
    "GET /v1/customers": Scope.CUSTOMERS_READ,
    "GET /v1/customers/{customer}": Scope.CUSTOMERS_READ,
    "GET /v1/networks": Scope.CUSTOMERS_READ,
    "GET /v1/assets": Scope.CUSTOMERS_READ,
    "GET /v1/fees": Scope.CUSTOMERS_READ,
    "GET /v1/tiers": Scope.CUSTOMERS_READ,
    "GET /v1/refills": Scope.CUSTOMERS_READ,
    "GET /v1/refills/{refill}": Scope.CUSTOMERS_READ,
    "GET /v1/sessions": Scope.CUSTOMERS_READ,
    "GET /v1/sessions/{session}": Scope.CUSTOMERS_READ,
    "POST /v1/refills/{refill}/approvals": Scope.APPROVALS_GIVE,
    "POST /v1/customers/{customer}/addresses": Scope.ADDRESSES_WRITE,
    "GET /v1/customers/{customer}/addresses": Scope.CUSTOMERS_READ,
    "GET /v1/customers/{customer}/balances": Scope.LEDGER_READ,
    "GET /v1/customers/{customer}/statement": Scope.LEDGER_READ,
    "GET /v1/customers/{customer}/statement/period": Scope.LEDGER_READ,
    "GET /v1/deposits": Scope.DEPOSITS_READ,
    "GET /v1/deposits/{deposit}": Scope.DEPOSITS_READ,
    "POST /v1/withdrawals": Scope.WITHDRAWALS_WRITE,
    "GET /v1/withdrawals": Scope.WITHDRAWALS_READ,
    "GET /v1/withdrawals/{withdrawal}": Scope.WITHDRAWALS_READ,
    "POST /v1/withdrawals/{withdrawal}/cancel": Scope.WITHDRAWALS_WRITE,
    "POST /v1/withdrawals/{withdrawal}/bump": Scope.OPERATOR,
    "POST /v1/withdrawals/{withdrawal}/approvals": Scope.APPROVALS_GIVE,
    "GET /v1/approvals": Scope.APPROVALS_READ,
    "GET /v1/sweeps": Scope.EVENTS_READ,
    "GET /v1/sweeps/{sweep}": Scope.EVENTS_READ,
    "GET /v1/events": Scope.EVENTS_READ,
    "GET /v1/alerts": Scope.EVENTS_READ,
    "GET /v1/status": Scope.EVENTS_READ,
    "GET /v1/cases": Scope.CASES_READ,
    "GET /v1/screenings/{subject}": Scope.CASES_READ,
    "GET /v1/operator-actions": Scope.ACTIONS_READ,
    "PUT /v1/withdrawals/{withdrawal}/travel-rule": Scope.WITHDRAWALS_WRITE,
    "POST /v1/statements": Scope.STATEMENTS_GIVE,
    "POST /v1/trading/settlements": Scope.TRADING,
    "POST /v1/trading/transfers": Scope.TRADING,
    "GET /v1/trading/balances": Scope.TRADING,
    "PUT /v1/whitelist/{entry}": Scope.WHITELIST_WRITE,
    "POST /v1/whitelist/{entry}/confirm": Scope.WHITELIST_WRITE,
    "POST /v1/whitelist/{entry}/remove": Scope.WHITELIST_WRITE,
    "GET /v1/whitelist/{entry}": Scope.WHITELIST_READ,
    "GET /v1/whitelist": Scope.WHITELIST_READ,
    "POST /v1/ownership-challenges": Scope.WHITELIST_WRITE,
    "POST /v1/ownership-challenges/{challenge}/proof": Scope.WHITELIST_WRITE,
}
"""What each route is to ask for, written down a second time: a scope that is taken off a route by mistake shows."""

ROUTES: Final = {
    f"{method} {route.path}": route
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
}
GUARDED: Final = sorted(ROUTES.keys() - PUBLIC)
BY_HAND: Final = sorted(name for name, scope in RULES.items() if scope in OPERATORS_ONLY)
"""Operators' routes: no caller has them, whatever its scopes."""


def sender(name: str) -> str:
    """Somebody who may use a route."""
    return "otto" if name in BY_HAND else "exchange"


def sample(api: RunningApi, name: str, caller: str) -> Request:
    """A request to a route that is good but for who sends it."""
    method, _, template = name.partition(" ")
    path = template.format(
        customer="alice",
        deposit=new_id(),
        withdrawal=new_id(),
        sweep=new_id(),
        refill=new_id(),
        entry=new_id(),
        challenge=new_id(),
        subject=new_id(),
        session=new_id(),
    )
    destination = {
        "owner": "alice",
        "chain": "bitcoin-regtest",
        "address": api.order(caller=caller).destination,
    }
    answered = {
        "approval": {
            "v": 1,
            "intent": "ab" * 32,
            "decision": "approve",
            "approver": "ada",
            "group": "operators",
            "policy_version": 1,
            "expires_at": 1,
        },
        "signature": "A" * 86 + "==",
    }
    bodies: dict[str, Callable[[], dict[str, Any]]] = {
        "POST /v1/customers": lambda: {"id": f"c-{new_id()}"},
        "POST /v1/customers/{customer}/addresses": lambda: {"asset": "BTC"},
        "POST /v1/withdrawals": lambda: api.signed(api.order(caller=caller, amount="10000"), by=caller),
        "POST /v1/withdrawals/{withdrawal}/bump": dict,
        "PUT /v1/withdrawals/{withdrawal}/travel-rule": lambda: {"ivms101": travel_rule("bc1q")},
        "POST /v1/withdrawals/{withdrawal}/approvals": lambda: answered,
        "POST /v1/refills/{refill}/approvals": lambda: answered,
        "PUT /v1/whitelist/{entry}": lambda: {**destination, "provenance": "a test"},
        "POST /v1/whitelist/{entry}/confirm": lambda: {
            "entry": {"v": 1, "id": str(new_id()), "caller": caller, "issued_at": 1, **destination},
            "signature": "A" * 86 + "==",
        },
        "POST /v1/ownership-challenges": lambda: destination,
        "POST /v1/ownership-challenges/{challenge}/proof": lambda: {"signature": "AA=="},
        "POST /v1/statements": lambda: vetoed(api),
        "POST /v1/trading/settlements": lambda: {"core": str(new_id()), "first": 1, "last": 1, "fills": []},
        "POST /v1/trading/transfers": lambda: {
            "id": str(new_id()),
            "customer": "alice",
            "asset": "BTC",
            "units": "1",
            "to": "trading",
        },
    }
    body = bodies[name]() if name in bodies else None
    raw = b"" if body is None else json.dumps(body).encode()
    period = "asset=BTC&since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z"
    query = {
        "/v1/customers/{customer}/statement": "asset=BTC",
        "/v1/customers/{customer}/statement/period": period,
        "/v1/whitelist": "owner=alice",
        "/v1/trading/balances": f"core={new_id()}",
    }.get(template, "")
    query = "" if method != "GET" else query
    return Request(method, path, query, raw)


def vetoed(api: RunningApi) -> dict[str, Any]:
    """A genuine veto by olga, of a bundle that nobody knows."""
    said = {"v": 1, "officer": "olga", "bundle": "ab" * 32, "reason": "", "issued_at": int(time.time())}
    signed = sign_veto(Veto.from_object(said), api.officer)
    return {"kind": "veto", "statement": said, "signature": signed.signature}


def send(api: RunningApi, request: Request, token: str | None) -> httpx.Response:
    """Exactly this request with this token, with all else that it needs."""
    headers = {"Content-Type": "application/json"} if request.body else {}
    if request.method == "POST":
        headers["Idempotency-Key"] = str(new_id())
    if token is not None:
        headers["Authorization"] = token
    url = request.path + ("?" + request.query if request.query else "")
    return api.raw().request(request.method, url, content=request.body, headers=headers)


@pytest.fixture(scope="module")
def api(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[RunningApi]:
    """With one caller for each scope, who has that one only, and one caller for each scope who has all others."""
    name = f"api_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    scopes: dict[str, tuple[str, ...]] = {f"only-{n}": (str(scope),) for n, scope in enumerate(Scope)}
    scopes |= {
        f"all-but-{n}": tuple(str(other) for other in Scope if other is not scope)
        for n, scope in enumerate(Scope)
    }
    with running_api(
        postgres.superuser_dsn(name), callers=scopes, unauthenticated_per_second=100_000
    ) as running:
        running.client().create_customer("alice")
        running.fund("alice", 10 * BTC)
        yield running
    postgres.drop_database(name)


def test_every_route_has_a_rule_here_and_every_rule_a_route() -> None:
    assert {name: scope_of(ROUTES[name]) for name in GUARDED} == {
        name: str(scope) for name, scope in RULES.items()
    }, "a route was added, or asks for another scope: write into RULES which it is to ask for"


def test_only_what_is_below_v1_asks_for_a_token_and_all_of_it_does() -> None:
    assert {name for name in ROUTES if not name.split(" ")[1].startswith("/v1/")} == PUBLIC


@pytest.mark.parametrize("name", BY_HAND)
def test_a_route_of_operators_is_open_to_no_caller_whatever_its_scopes(api: RunningApi, name: str) -> None:
    before = api.contents()
    for caller in ("exchange", *(caller.id for caller in api.bundle.callers if "only-" in caller.id)):
        answer = answer_to(api, name, caller)
        assert (answer.status_code, kind(answer)) == (403, "operators-only"), f"{name} as {caller}"
    assert api.contents() == before
    assert answer_to(api, name, "otto").status_code in (200, 404)


@pytest.mark.parametrize("name", sorted(set(GUARDED) - set(BY_HAND)))
def test_a_route_is_open_to_its_scope_alone(api: RunningApi, name: str) -> None:
    every = list(enumerate(Scope))
    barred = [f"only-{n}" for n, scope in every if scope is not RULES[name]]
    barred += [f"all-but-{n}" for n, scope in every if scope is RULES[name]]
    before = api.contents()
    for caller in barred:
        answer = answer_to(api, name, caller)
        assert (answer.status_code, kind(answer)) == (403, "missing-scope"), f"{name} as {caller}"
        assert answer.json()["scope"] == RULES[name]
    assert api.contents() == before
    allowed = [f"only-{n}" for n, scope in every if scope is RULES[name]]
    allowed += [f"all-but-{n}" for n, scope in every if scope is not RULES[name]]
    for caller in allowed:
        answer = answer_to(api, name, caller)
        assert answer.status_code in (200, 201, 202, 400, 404, 409), f"{name} as {caller}: {answer.text}"
        if answer.status_code == 400:
            # An order is checked again for the scope to sign, which is another one.
            assert (name, kind(answer)) == ("POST /v1/withdrawals", "order-mismatch"), answer.text


def answer_to(api: RunningApi, name: str, caller: str) -> httpx.Response:
    """The answer to a good request of this caller."""
    good = sample(api, name, caller)
    return send(api, good, authorization(api, good, caller=caller, key=api.keys[caller]))


def wrong_tokens(api: RunningApi, request: Request, who: str) -> Iterator[tuple[str, int, str, str | None]]:
    """What is wrong, the status and the kind of the answer to it, and the token."""

    def signed(**changes: Any) -> str:
        return authorization(api, request, **{"caller": who, "key": api.keys[who], **changes})

    def issued(seconds: int, lifetime: int = 30) -> str:
        now = api.now()
        return signed(issued_at=now + seconds, expires_at=now + seconds + lifetime)

    good = signed()
    payload, _, signature = good.partition(".")
    flipped = ("A" if signature[5] != "A" else "B").join((signature[:5], signature[6:]))
    yield "no token", 401, "missing-token", None
    yield "another scheme", 401, "malformed-token", "Bearer " + good.partition(" ")[2]
    yield "no token's text", 401, "malformed-token", "Strongroom e30.AAAA"
    yield "a signature that was changed", 401, "bad-token-signature", f"{payload}.{flipped}"
    yield "a signature by another caller", 401, "bad-token-signature", signed(key=api.keys["other"])
    yield "a signature by nobody", 401, "bad-token-signature", signed(key=SigningKey.generate())
    yield "expired", 401, "token-expired", issued(-31)
    yield "from the future", 401, "token-expired", issued(MAX_CLOCK_AHEAD_SECONDS + 5)
    yield "lives too long", 401, "token-expired", issued(0, MAX_LIFETIME_SECONDS + 1)
    yield "never lives", 401, "token-expired", issued(0, 0)
    yield "another audience", 401, "wrong-audience", signed(audience="another")
    yield "another method", 401, "token-mismatch", signed(method="PATCH")
    yield "another path", 401, "token-mismatch", signed(path=request.path + "/")
    yield "another query", 401, "token-mismatch", signed(query="limit=1")
    yield "another body", 401, "token-mismatch", signed(body_sha256="0" * 64)
    yield "an unknown caller", 401, "unknown-caller", signed(caller="nobody")
    yield (
        "an operator's name by a caller",
        401,
        "bad-token-signature",
        signed(caller="otto", key=api.keys["exchange"]),
    )
    yield "a caller whose time is over", 401, "unknown-caller", signed(caller="past", key=api.keys["past"])


@pytest.mark.parametrize("name", GUARDED)
def test_no_route_takes_a_token_that_is_wrong_in_any_way(api: RunningApi, name: str) -> None:
    who = sender(name)
    good = sample(api, name, who)
    before = api.contents()
    for what, status, expected, token in wrong_tokens(api, good, who):
        answer = send(api, good, token)
        assert (answer.status_code, kind(answer)) == (status, expected), f"{name}: {what}: {answer.text}"
        assert answer.headers["www-authenticate"] == "Strongroom"
    for other in (
        replace(good, path=good.path.replace("/v1/", "/v1//")),
        replace(good, query="limit=2"),
        replace(good, body=good.body + b" "),
    ):
        answer = send(api, other, authorization(api, good, caller=who, key=api.keys[who]))
        assert (answer.status_code, kind(answer)) == (401, "token-mismatch"), f"{name}: {other}"
    assert api.contents() == before


@pytest.mark.parametrize("name", GUARDED)
def test_a_token_that_was_used_is_refused_everywhere(api: RunningApi, name: str) -> None:
    who = sender(name)
    good = sample(api, name, who)
    token = authorization(api, good, caller=who, key=api.keys[who])
    first = send(api, good, token)
    assert first.status_code in (200, 201, 202, 404, 409), first.text
    before = api.contents()
    again = send(api, good, token)
    assert (again.status_code, kind(again)) == (401, "token-replayed"), name
    assert api.contents() == before


def test_what_needs_no_token_shows_no_customer(api: RunningApi) -> None:
    for name in PUBLIC | {"GET /openapi.json"}:
        answer = api.raw().get(name.split(" ")[1])
        assert answer.status_code in (200, 503), name
        if name != "GET /openapi.json":  # it has examples
            assert "alice" not in answer.text
