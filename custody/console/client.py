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
from urllib.parse import quote, urlencode

import httpx

from chains.errors import PermanentError, TransientError
from custody.console.clock import present
from custody.ids import new_id
from policies.intent import Order
from policies.keys import SigningKey, sign_entry, sign_order
from policies.statements import WhitelistEntry
from policies.token import Request, Token, header

TOKEN_SECONDS: Final = 30
REQUEST_SECONDS: Final = 30.0
_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)

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


class ApiClient:
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
        retries: int = len(_BACK_OFF_SECONDS),
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = present,
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
        return f"ApiClient({str(self._http.base_url)!r}, {self.caller_id!r}, key=[secret])"

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

    # --- the verbs that programs need most -------------------------------------------------------------

    def create_customer(self, customer: str, *, idempotency_key: str | None = None) -> Json:
        """Create a customer."""
        return self.post("/v1/customers", {"id": customer}, idempotency_key=idempotency_key)

    def new_address(self, customer: str, asset: str, *, idempotency_key: str | None = None) -> Json:
        """A new, attested deposit address."""
        path = f"/v1/customers/{quote(customer, safe='')}/addresses"
        return self.post(path, {"asset": asset}, idempotency_key=idempotency_key)

    def balances(self, customer: str) -> list[Json]:
        """Balances by asset, as decimal strings."""
        found: list[Json] = self.get(f"/v1/customers/{quote(customer, safe='')}/balances")["balances"]
        return found

    def statement(self, customer: str, asset: str) -> Iterator[Json]:
        """All lines of a customer's accounts of one asset."""
        return self.items(f"/v1/customers/{quote(customer, safe='')}/statement", {"asset": asset})

    def deposits(self, *, customer: str | None = None, state: str | None = None) -> Iterator[Json]:
        """Deposits, oldest first."""
        return self.items("/v1/deposits", {"customer": customer, "state": state})

    def deposit(self, deposit: str) -> Json:
        """One deposit."""
        return self.get(f"/v1/deposits/{deposit}")

    def sweeps(self, *, state: str | None = None) -> Iterator[Json]:
        """Sweeps, oldest first."""
        return self.items("/v1/sweeps", {"state": state})

    def sweep(self, sweep: str) -> Json:
        """One sweep."""
        return self.get(f"/v1/sweeps/{sweep}")

    def withdraw(self, order: Order, *, idempotency_key: str | None = None) -> Json:
        """Sign the order and request the withdrawal; the idempotency key is the order's id unless given."""
        signed = sign_order(order, self._key)
        body = {"order": signed.order.to_object(), "signature": signed.signature}
        return self.post("/v1/withdrawals", body, idempotency_key=idempotency_key or order.id)

    def withdrawal(self, withdrawal: str) -> Json:
        """One withdrawal."""
        return self.get(f"/v1/withdrawals/{withdrawal}")

    def withdrawals(self, *, customer: str | None = None, state: str | None = None) -> Iterator[Json]:
        """Withdrawals, by id (UUIDv7 ids: oldest first)."""
        return self.items("/v1/withdrawals", {"customer": customer, "state": state})

    def cancel_withdrawal(self, withdrawal: str, *, idempotency_key: str | None = None) -> Json:
        """Cancel a withdrawal that is not being paid yet."""
        return self.post(f"/v1/withdrawals/{withdrawal}/cancel", idempotency_key=idempotency_key)

    def request_entry(
        self,
        entry: str,
        *,
        owner: str,
        chain: str,
        address: str,
        provenance: str,
        label: str | None = None,
    ) -> Json:
        """Ask for an entry of a whitelist; `entry` is an id of yours."""
        body = {"owner": owner, "chain": chain, "address": address, "provenance": provenance}
        return self.put(f"/v1/whitelist/{entry}", body if label is None else {**body, "label": label})

    def confirm_entry(self, entry: WhitelistEntry, *, idempotency_key: str | None = None) -> Json:
        """Sign an entry and confirm it."""
        signed = sign_entry(entry, self._key)
        body = {"entry": signed.entry.to_object(), "signature": signed.signature}
        return self.post(f"/v1/whitelist/{entry.id}/confirm", body, idempotency_key=idempotency_key)

    def remove_entry(self, entry: str, *, idempotency_key: str | None = None) -> Json:
        """Remove an entry of a whitelist."""
        return self.post(f"/v1/whitelist/{entry}/remove", idempotency_key=idempotency_key)

    def bump_withdrawal(
        self, withdrawal: str, *, feerate: int | None = None, idempotency_key: str | None = None
    ) -> Json:
        """Ask for a replacement with a higher fee (`feerate`: sat/kvB on BTC, wei per gas on EVM)."""
        body = {} if feerate is None else {"feerate": feerate}
        return self.post(f"/v1/withdrawals/{withdrawal}/bump", body, idempotency_key=idempotency_key)

    def attach_travel_rule(self, withdrawal: str, ivms101: Json) -> Json:
        """Attach originator and beneficiary data (IVMS101); the same again changes nothing."""
        path = f"/v1/withdrawals/{withdrawal}/travel-rule"
        return self._repeat("PUT", path, None, {"ivms101": ivms101}, None)

    def asset(self, asset: str) -> Json:
        """The terms of one asset.

        Raises:
            ApiRefused: the bundle has no such asset.
        """
        found: dict[str, Json] = {entry["id"]: entry for entry in self.get("/v1/assets")["items"]}
        if asset in found:
            return found[asset]
        detail = f"the bundle has no asset {asset!r}; it has {', '.join(found)}"
        raise ApiRefused(404, {"type": "not-found", "title": "No such asset", "detail": detail})

    def events(self, after: str | None = None, *, limit: int = 100) -> tuple[list[Json], str | None]:
        """The feed's next events, and the cursor from which to go on (never None once there was one)."""
        page = self.get("/v1/events", {"after": after, "limit": limit})
        return page["items"], page["next"]

    def status(self) -> Json:
        """What runs, how far each chain is, what waits and why."""
        return self.get("/v1/status")

    def ready(self) -> Json:
        """What `/readyz` says, ready or not: `{"ready", "parts": {name: {"ok", "detail"}}}`.

        Raises:
            ApiUnavailable: no answer at all.
        """
        response = self.send("GET", "/readyz")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "parts" not in answer:
            raise ApiUnavailable(f"status {response.status_code} from /readyz")
        return answer

    # ---------------------------------------------------------------------------------------------------

    def _authorization(self, request: Request) -> str:
        now = int(self._clock())
        token = Token(
            v=1,
            caller=self.caller_id,
            audience=self._audience,
            issued_at=now,
            expires_at=now + TOKEN_SECONDS,
            nonce=secrets.token_hex(16),
            method=request.method,
            path=request.path,
            query=request.query,
            body_sha256=request.body_sha256,
        )
        return header(token, self._key)

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
                self._pause(_BACK_OFF_SECONDS[min(attempt, len(_BACK_OFF_SECONDS) - 1)])
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
