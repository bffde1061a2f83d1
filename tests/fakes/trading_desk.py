"""A trading core as custody meets it: a key with the scope `trading`, and batches of fills, honest or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import msgspec

from custody.ids import new_id
from ops.devnet.postgres import EmbeddedPostgres
from policies.bundle import AssetEntry, Bundle, Confirmations
from tests.fakes.api import RunningApi, running_api

CORE: Final = UUID("0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f")
DOLLAR: Final = 1_000_000


def with_dollars(bundle: Bundle) -> Bundle:
    """With USDX beside BTC, on the same chain: the ledger does not care."""
    dollars = AssetEntry(
        id="USDX",
        chain="bitcoin-regtest",
        decimals=6,
        contract=None,
        minimum_deposit="1",
        withdrawal_fee="1",
        confirmations=(Confirmations(from_units="0", blocks=1),),
    )
    return msgspec.structs.replace(bundle, assets=(*bundle.assets, dollars))


class TradingDesk:
    """What the trading core's key can ask of an API, and what the ledger says afterwards."""

    def __init__(self, api: RunningApi, core: UUID = CORE) -> None:
        self.api, self.core = api, core
        self.client = api.client("trading")
        self.last = 0

    def post(self, path: str, body: Mapping[str, Any], *, key: str | None = None) -> httpx.Response:
        """One request of the trading core, under a key of its own unless said otherwise."""
        return self.client.send("POST", path, None, dict(body), idempotency_key=key or str(new_id()))

    def move(
        self, customer: str, asset: str, units: int, to: str = "trading", *, id: UUID | None = None
    ) -> httpx.Response:
        """Ask for a move between funding and trading."""
        return self.post(
            "/v1/trading/transfers",
            {
                "id": str(id or uuid4()),
                "customer": customer,
                "asset": asset,
                "units": str(units),
                "to": to,
            },
        )

    def batch(self, *fills: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The next batch, one sequence a fill."""
        first = self.last + 1
        numbered = [{**each, "sequence": first + i, "index": 0} for i, each in enumerate(fills)]
        return {
            "core": str(self.core),
            "first": first,
            "last": self.last + max(len(fills), 1),
            "fills": numbered,
            **changes,
        }

    def settle(self, *fills: Mapping[str, Any], **changes: Any) -> httpx.Response:
        """Settle the next batch; a refused one does not count."""
        body = self.batch(*fills, **changes)
        answer = self.post("/v1/trading/settlements", body)
        if answer.status_code == 201:
            self.last = int(body["last"])
        return answer

    def balances(self) -> dict[tuple[str, str, str], int]:
        """Every balance of the ledger that is not zero: (customer or house, kind, asset) to base units."""
        rows = self.api.query(
            "SELECT coalesce(customer_id, 'house'), kind, asset, balance FROM ledger_accounts WHERE balance <> 0"
        )
        return {(customer, kind, asset): int(balance) for customer, kind, asset, balance in rows}

    def trading(self, customer: str, asset: str) -> int:
        """What a customer has in trading."""
        return self.balances().get((customer, "trading", asset), 0)


def fill(**changes: Any) -> dict[str, Any]:
    """Alice buys 0.8 BTC of bob at 60,300: 48,240 USDX; she pays 48.24, bob the maker gets 9.648 of it."""
    return {
        "base": "BTC",
        "quote": "USDX",
        "buyer": "alice",
        "seller": "bob",
        "base_units": "80000000",
        "quote_units": str(48_240 * DOLLAR),
        "buyer_fee": "48240000",
        "seller_fee": "-9648000",
        **changes,
    }


@contextmanager
def trading_desk(database: str, **changes: Any) -> Iterator[TradingDesk]:
    """An API with a trading core, and alice (100,000 USDX), bob (2 BTC) and mallory (nothing), all of it in funding."""
    callers = {"trading": ("trading",)}
    with running_api(database, callers=callers, extend=with_dollars, **changes) as api:
        for customer in ("alice", "bob", "mallory"):
            api.client().create_customer(customer)
        api.fund("alice", 100_000 * DOLLAR, asset="USDX")
        api.fund("bob", 200_000_000)
        yield TradingDesk(api)


@contextmanager
def shared_desk(postgres: EmbeddedPostgres, template: str) -> Iterator[TradingDesk]:
    """A desk for many tests that change nothing: both customers have money on both sides, the house has fees."""
    name = f"desk_{uuid4().hex}"
    postgres.create_database(name, template=template)
    with trading_desk(postgres.superuser_dsn(name)) as desk:
        funded(desk)
        assert desk.settle(fill()).status_code == 201
        for customer, asset in (("alice", "USDX"), ("bob", "BTC")):
            assert desk.move(customer, asset, 10, "funding").status_code == 201
        yield desk
    postgres.drop_database(name)


def funded(desk: TradingDesk) -> TradingDesk:
    """With everything of alice and bob in trading."""
    assert desk.move("alice", "USDX", 100_000 * DOLLAR).status_code == 201
    assert desk.move("bob", "BTC", 200_000_000).status_code == 201
    return desk
