"""What programs and people ask of the REST API, one method a verb, over `custody.web.client`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx

from custody.console.clock import present
from custody.web.client import BACK_OFF_SECONDS, ApiRefused, ApiUnavailable, Json, RestCaller
from policies.intent import Order
from policies.keys import SigningKey, sign_entry, sign_order
from policies.statements import WhitelistEntry


class ApiClient(RestCaller):
    """One caller of one API. May be shared by threads."""

    def __init__(
        self,
        base_url: str,
        audience: str,
        caller_id: str,
        key: SigningKey,
        *,
        retries: int = len(BACK_OFF_SECONDS),
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = present,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            base_url,
            audience,
            caller_id,
            key,
            retries=retries,
            transport=transport,
            clock=clock,
            pause=pause,
        )

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
