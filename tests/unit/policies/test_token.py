"""A token is believed only for exactly the request it was signed for, in its time, from its caller."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from policies import token as tokens
from policies.bundle import Bundle, Caller, Operator
from policies.canonical import domain_hash
from policies.keys import SigningKey
from policies.rules import Policy
from policies.token import Request, Token, authenticate, header

NOW = 1_800_000_000
KEY = SigningKey.generate()
REQUEST = Request("POST", "/v1/withdrawals", "a=1", b'{"x":1}')


def bundle(**changes: Any) -> Bundle:
    caller = Caller(
        **{
            "id": "exchange",
            "key": KEY.public_hex,
            "organisation": "acme",
            "scopes": ("customers:read",),
            "not_after": NOW + 1000,
            **changes,
        }
    )
    return Bundle(
        v=1, version=1, issued_at=0, expires_at=NOW + 1000, networks=(), assets=(), keysets=(), caps=(),
        callers=(caller,), officers=(), policy=Policy(), longest_order_seconds=1000,
    )  # fmt: skip


def token(**changes: Any) -> Token:
    return Token(
        **{
            "v": 1,
            "caller": "exchange",
            "audience": "strongroom",
            "issued_at": NOW,
            "expires_at": NOW + 30,
            "nonce": "0" * 32,
            "method": REQUEST.method,
            "path": REQUEST.path,
            "query": REQUEST.query,
            "body_sha256": REQUEST.body_sha256,
            **changes,
        }
    )


def check(
    authorization: str | None, request: Request = REQUEST, **changes: Any
) -> tuple[Token, Caller | Operator]:
    return authenticate(authorization, request, bundle=bundle(**changes), audience="strongroom", now=NOW)


def test_a_good_token_names_its_caller() -> None:
    found, caller = check(header(token(), KEY))
    assert found == token()
    assert caller.id == "exchange"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"caller": "nobody"}, tokens.UnknownCaller),
        ({"audience": "another"}, tokens.WrongAudience),
        ({"issued_at": NOW - 60, "expires_at": NOW}, tokens.TokenOutOfTime),
        ({"issued_at": NOW - 31, "expires_at": NOW + 30}, tokens.TokenOutOfTime),
        ({"issued_at": NOW + 6, "expires_at": NOW + 10}, tokens.TokenOutOfTime),
        ({"issued_at": NOW + 1, "expires_at": NOW + 1}, tokens.TokenOutOfTime),
        ({"method": "GET"}, tokens.TokenForAnotherRequest),
        ({"path": "/v1/withdrawals/"}, tokens.TokenForAnotherRequest),
        ({"query": "a=2"}, tokens.TokenForAnotherRequest),
        ({"query": ""}, tokens.TokenForAnotherRequest),
        ({"body_sha256": "0" * 64}, tokens.TokenForAnotherRequest),
    ],
)
def test_a_token_for_something_else_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        check(header(token(**changes), KEY))


def test_only_the_callers_own_key_counts() -> None:
    with pytest.raises(tokens.WrongTokenSignature):
        check(header(token(), SigningKey.generate()))


def test_a_caller_whose_time_is_over_is_unknown() -> None:
    with pytest.raises(tokens.UnknownCaller):
        check(header(token(), KEY), not_after=NOW)


def test_a_signed_order_is_never_a_token() -> None:
    """The same bytes signed in another domain do not verify."""
    right = header(token(), KEY)
    elsewhere = base64.b64decode(KEY.sign_digest(domain_hash("order", 1, token().canonical())))
    with pytest.raises(tokens.WrongTokenSignature):
        check(right.partition(".")[0] + "." + _b64(elsewhere))


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer abc",
        "Strongroom",
        "Strongroom abc",
        "Strongroom !!.!!",
        "Strongroom e30.AA",
        f"Strongroom {_b64(json.dumps(msgspec.to_builtins(token())).encode())}.AA",
        f"Strongroom {_b64(token().canonical())}=.AA",
        "Strongroom " + "A" * 9000 + ".AA",
        "strongroom e30.AA",
        "Strongroom \u00e9.AA",
    ],
)
def test_what_is_no_canonical_token_is_malformed(authorization: str) -> None:
    with pytest.raises(tokens.MalformedToken):
        check(authorization)


def test_no_token_is_missing() -> None:
    for nothing in (None, ""):
        with pytest.raises(tokens.MissingToken):
            check(nothing)
