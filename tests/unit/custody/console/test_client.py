"""The client repeats what may be repeated, with a new token and the same key, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from custody.console.client import ApiClient
from custody.web.client import ApiRefused, ApiUnavailable
from policies.keys import SigningKey

UNAVAILABLE = httpx.Response(503, json={"type": "urn:x:away", "title": "Away", "retryable": True})
CONFLICT = httpx.Response(
    409, json={"type": "urn:x:taken", "title": "Taken", "detail": "No.", "retryable": False}
)


def client(
    answers: list[httpx.Response | Exception], *, retries: int = 4
) -> tuple[ApiClient, list[httpx.Request], list[float]]:
    seen: list[httpx.Request] = []
    pauses: list[float] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = answers[len(seen) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = ApiClient(
        "http://api.test",
        "strongroom",
        "exchange",
        SigningKey.generate(),
        retries=retries,
        transport=httpx.MockTransport(handle),
        pause=pauses.append,
    )
    return made, seen, pauses


def test_a_repeated_request_has_a_new_token_and_the_same_key_and_body() -> None:
    lost = httpx.ReadTimeout("lost")
    api, seen, pauses = client([lost, UNAVAILABLE, httpx.Response(201, json={"id": "a"})])
    assert api.create_customer("a") == {"id": "a"}
    assert len({request.headers["authorization"] for request in seen}) == 3
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert len({request.content for request in seen}) == 1
    assert pauses == [0.2, 0.5]


def test_a_refusal_is_not_repeated() -> None:
    api, seen, _ = client([CONFLICT])
    with pytest.raises(ApiRefused) as caught:
        api.create_customer("a")
    assert (caught.value.kind, caught.value.status, len(seen)) == ("taken", 409, 1)


@pytest.mark.parametrize(
    "answer",
    [
        UNAVAILABLE,
        httpx.ConnectError("down"),
        httpx.Response(502, text="<html>"),
        httpx.Response(200, text="x"),
    ],
)
def test_after_the_last_retry_the_outcome_is_unknown(answer: httpx.Response | Exception) -> None:
    api, seen, _ = client([answer] * 3, retries=2)
    with pytest.raises(ApiUnavailable):
        api.get("/v1/assets")
    assert len(seen) == 3


def test_a_list_is_read_to_its_end() -> None:
    api, seen, _ = client(
        [
            httpx.Response(200, json={"items": [{"n": 1}], "next": "abc"}),
            httpx.Response(200, json={"items": [{"n": 2}], "next": None}),
        ]
    )
    assert [item["n"] for item in api.deposits(customer="a")] == [1, 2]
    assert [request.url.query for request in seen] == [b"customer=a", b"customer=a&after=abc"]


def test_the_key_is_never_shown() -> None:
    api, _, _ = client([])
    assert "[secret]" in repr(api)


def test_two_tokens_never_share_a_nonce() -> None:
    answers: Callable[[], httpx.Response] = lambda: httpx.Response(200, json={})  # noqa: E731
    api, seen, _ = client([answers() for _ in range(50)])
    for _ in range(50):
        api.get("/v1/assets")
    assert len({request.headers["authorization"] for request in seen}) == 50
