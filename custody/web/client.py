"""A caller of the REST API: signs a token for every request, repeats what may be repeated, reads problems.

A request that got no answer, or the answer that a retry can help, is sent again with a new token and the same
Idempotency-Key, so that it takes effect at most once.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import httpx

from chains.errors import PermanentError, TransientError
from custody.ids import new_id
from policies.keys import SigningKey
from policies.token import Request, Token, header

TOKEN_SECONDS: Final = 30
REQUEST_SECONDS: Final = 30.0
BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)

Json = dict[str, Any]


class ApiRefused(PermanentError):
    """The API said no, and saying it again cannot help."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{problem.get('title', 'refused')} ({status}): {problem.get('detail', '')}")
        self.status = status
        self.problem = problem
        """The problem+json object: `type`, `title`, `status`, `detail`, `retryable` and the numbers."""

    @property
    def kind(self) -> str:
        """Last part of the problem's `type`, e.g. `insufficient-funds`."""
        return str(self.problem.get("type", "")).rpartition(":")[2]


class ApiUnavailable(TransientError):
    """No answer, or an answer that a later retry can change; whether the request took effect is not known."""

    def __init__(self, message: str, problem: Json | None = None) -> None:
        super().__init__(message)
        self.problem = problem or {}


def authorization(key: SigningKey, caller: str, audience: str, request: Request, *, now: int) -> str:
    """The `Authorization` header of one request: a fresh token, good for half a minute.

    Args:
        key: of the caller.
        caller: its id in the bundle.
        audience: the name of the service that is asked.
        request: exactly as it is sent.
        now: UNIX seconds.
    """
    token = Token(
        v=1,
        caller=caller,
        audience=audience,
        issued_at=now,
        expires_at=now + TOKEN_SECONDS,
        nonce=secrets.token_hex(16),
        method=request.method,
        path=request.path,
        query=request.query,
        body_sha256=request.body_sha256,
    )
    return header(token, key)


class RestCaller:
    """One caller of one API. May be shared by threads.

    Args:
        base_url: e.g. `http://127.0.0.1:8080`.
        audience: the service's own name, as its operator configured it.
        caller_id: id in the bundle.
        key: the caller's private key.
        retries: how often a request is repeated when that can help.
        transport: another HTTP transport, for tests.
    """

    def __init__(
        self,
        base_url: str,
        audience: str,
        caller_id: str,
        key: SigningKey,
        *,
        retries: int = len(BACK_OFF_SECONDS),
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.caller_id = caller_id
        self._audience = audience
        self._key = key
        self._retries = retries
        self._clock = clock
        self._pause = pause
        # trust_env off: a proxy of the environment has no business with money.
        self._http = httpx.Client(
            base_url=base_url, timeout=REQUEST_SECONDS, transport=transport, trust_env=False
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r}, {self.caller_id!r}, key=[secret])"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Json:
        """GET `path` (such as `/v1/assets`); None values of `query` are left out.

        Raises:
            ApiRefused: the API said no.
            ApiUnavailable: no answer after all retries.
        """
        return self._repeat("GET", path, query, None, None)

    def post(self, path: str, body: Json | None = None, *, idempotency_key: str | None = None) -> Json:
        """POST `body`; a new idempotency key is made unless one is given (to repeat an earlier call).

        Raises:
            ApiRefused: the API said no; nothing was done.
            ApiUnavailable: no answer after all retries: repeat with the same `idempotency_key`.
        """
        return self._repeat("POST", path, None, body, idempotency_key or str(new_id()))

    def put(self, path: str, body: Json) -> Json:
        """PUT `body`; the same again changes nothing.

        Raises:
            ApiRefused: the API said no; nothing was done.
            ApiUnavailable: no answer after all retries: repeat it.
        """
        return self._repeat("PUT", path, None, body, None)

    def items(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[Json]:
        """All items of a list, page by page. Raises as `get`."""
        after: object = None
        while True:
            page = self.get(path, {**(query or {}), "after": after})
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: Json | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        """Send once, with a fresh token, and return whatever comes back.

        Raises:
            ApiUnavailable: no answer.
        """
        text = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        raw = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Authorization": self._authorization(Request(method, path, text, raw))}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        try:
            return self._http.request(
                method, path + ("?" + text if text else ""), content=raw, headers=headers
            )
        except httpx.HTTPError as error:
            raise ApiUnavailable(f"{self._http.base_url}: {type(error).__name__}: {error}") from None

    def _authorization(self, request: Request) -> str:
        return authorization(self._key, self.caller_id, self._audience, request, now=int(self._clock()))

    def _repeat(
        self, method: str, path: str, query: Mapping[str, object] | None, body: Json | None, key: str | None
    ) -> Json:
        attempt = 0
        while True:
            try:
                return _read(self.send(method, path, query, body, idempotency_key=key))
            except ApiUnavailable:
                if attempt >= self._retries:
                    raise
                self._pause(BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)])
                attempt += 1


def _read(response: httpx.Response) -> Json:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiUnavailable(f"status {response.status_code} with a body that is no JSON object")
    if response.status_code < 400:
        return value
    if value.get("retryable") or response.status_code >= 502:
        raise ApiUnavailable(f"{value.get('title', 'unavailable')}: {value.get('detail', '')}", value)
    raise ApiRefused(response.status_code, value)
