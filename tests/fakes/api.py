"""The API as callers meet it: uvicorn on a free loopback port, a real PostgreSQL with the API's own role."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from chains.errors import InvalidValue
from custody.api.__main__ import WAIT_SECONDS, WAITING_AT_MOST
from custody.api.app import create_app
from custody.api.calls import Scope
from custody.api.services import ApiServices
from custody.console.client import ApiClient
from custody.ids import derived_id, new_id
from custody.ledger import service as ledger
from custody.ledger.bookings import credit_deposit
from custody.ports import Step
from custody.storage.db import Database
from custody.storage.migrate import set_role_password
from custody.storage.sealing import Keys
from custody.web.server import make_server
from ops.devnet.process import wait_until
from policies.bundle import (
    AssetEntry,
    Attestor,
    BitcoinNetwork,
    Bundle,
    Caller,
    Confirmations,
    Officer,
    Operator,
    OperatorRole,
    TierCap,
    TrustRoot,
    UntrustedBundle,
)
from policies.intent import Order
from policies.keys import SigningKey
from policies.token import Request, Token, header
from signers.ports import Signer
from tests.fakes.attesting_signer import AttestingSigner
from tests.support.amounts import AmountRules, policy_of

AUDIENCE = "strongroom-test"
PASSWORD = "a password for tests"
BTC = 100_000_000
OPERATORS: dict[str, tuple[OperatorRole, ...]] = {
    "otto": ("support", "treasury", "compliance", "security", "auditor"),
    "sue": ("support",),
    "tess": ("treasury",),
    "aud": ("auditor",),
}
"""Who may act by hand in every bundle of `running_api`."""
GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
FOREIGN_ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
"""BIP173's example key on regtest: not ours."""


def as_role(dsn: str, role: str) -> str:
    """The same database for another role, whose password is set on the way."""
    set_role_password(dsn, role, PASSWORD)
    return make_conninfo(**{**conninfo_to_dict(dsn), "user": role, "password": PASSWORD})  # type: ignore[arg-type]


def make_bundle(callers: Mapping[str, tuple[SigningKey, tuple[str, ...]]], signer: AttestingSigner) -> Bundle:
    """A regtest bundle with one asset, one hot key-set and these callers."""
    far = int(time.time()) + 86_400
    return Bundle(
        v=1,
        version=1,
        issued_at=1,
        expires_at=far,
        longest_order_seconds=86_400,
        networks=(
            BitcoinNetwork(
                chain="bitcoin-regtest",
                network="regtest",
                genesis=GENESIS,
                native_asset="BTC",
                settle_blocks=6,
                feerate_floor=1000,
                feerate_cap=500_000,
                fee_cap="1000000",
                fee_window_cap="10000000",
                fee_window_seconds=86_400,
            ),
        ),
        assets=(
            AssetEntry(
                id="BTC",
                chain="bitcoin-regtest",
                decimals=8,
                contract=None,
                minimum_deposit="1000",
                withdrawal_fee="50000",
                confirmations=(Confirmations(from_units="0", blocks=6),),
            ),
        ),
        keysets=(signer.entry(),),
        caps=(
            TierCap(
                tier="hot",
                asset="BTC",
                payment_below=str(BTC // 10),
                window_cap=str(5 * BTC),
                window_seconds=86_400,
            ),
        ),
        callers=tuple(
            Caller(id=name, key=key.public_hex, organisation="acme", scopes=scopes, not_after=far)
            for name, (key, scopes) in callers.items()
        ),
        officers=(),
        verifiers=(Attestor(id="vera", key="11" * 32, organisation="audit", not_after=far),),
        policy=policy_of(
            [
                AmountRules(
                    asset="BTC",
                    hot_below=BTC // 10,
                    warm_below=10 * BTC,
                    hot_window_cap=5 * BTC,
                    customer_window_cap=2 * BTC,
                    window_seconds=86_400,
                )
            ]
        ),
    )


@dataclass
class RunningApi:
    """A served API and everything a test may turn on it."""

    url: str
    superuser_dsn: str
    database: Database
    bundle: Bundle
    signer: AttestingSigner
    keys: Mapping[str, SigningKey]
    officer: SigningKey
    """Of olga, the bundle's one officer, whose key alone is pinned."""
    trusted: bool = True
    now_offset: int = 0
    woken: list[Step] = field(default_factory=list)
    clients: list[ApiClient | httpx.Client] = field(default_factory=list)
    connected: Callable[[], int] = lambda: 0
    """How many connections the server has."""

    @property
    def port(self) -> int:
        """On the loopback address."""
        return int(self.url.rpartition(":")[2])

    def client(self, caller: str = "exchange", **changes: Any) -> ApiClient:
        """A client of one of the bundle's callers that does not retry."""
        arguments: dict[str, Any] = {
            "base_url": self.url,
            "audience": AUDIENCE,
            "caller_id": caller,
            "key": self.keys[caller],
            "retries": 0,
            **changes,
        }
        client = ApiClient(**arguments)
        self.clients.append(client)
        return client

    def raw(self) -> httpx.Client:
        """The client without tokens."""
        found = next((client for client in self.clients if isinstance(client, httpx.Client)), None)
        if found is None:
            found = httpx.Client(base_url=self.url, trust_env=False)
            self.clients.append(found)
        return found

    def fund(self, customer: str, units: int, *, asset: str = "BTC", wallet: str = "hot-btc") -> None:
        """Credit a customer as the monitor would for a deposit."""
        with Database(self.superuser_dsn, application="test") as db, db.transaction() as tx:
            ledger.post_all(
                tx,
                [
                    credit_deposit(
                        derived_id("test", new_id()),
                        1,
                        customer=customer,
                        asset=asset,
                        wallet=wallet,
                        units=units,
                    )
                ],
            )

    def others_run(self, *, ago: str = "1 second", tip: int = 7) -> None:
        """Let a monitor at height 7, its node, a worker and the beat have been heard of so long ago."""
        with psycopg.connect(self.superuser_dsn) as connection:
            for network in self.bundle.networks:
                connection.execute(
                    "INSERT INTO cursors (chain, height, hash, anchor, updated_at)"
                    " VALUES (%s, 7, %s, 7, now() - %s::interval)"
                    " ON CONFLICT (chain) DO UPDATE SET updated_at = excluded.updated_at",
                    [network.chain, "a" * 64, ago],
                )
            beats = [("monitor", network.chain, {"tip": tip}) for network in self.bundle.networks]
            for process, instance, detail in [*beats, ("worker", "host:1", {}), ("beat", "beat", {})]:
                connection.execute(
                    "INSERT INTO heartbeats (process, instance, detail, at)"
                    " VALUES (%s, %s, %s, now() - %s::interval) ON CONFLICT (process, instance)"
                    " DO UPDATE SET at = excluded.at, detail = excluded.detail",
                    [process, instance, Jsonb(detail), ago],
                )

    def now(self) -> int:
        """The API's clock."""
        return int(time.time()) + self.now_offset

    def query(self, text: str, *params: Any) -> list[tuple[Any, ...]]:
        """Rows, read as superuser."""
        with psycopg.connect(self.superuser_dsn) as connection:
            return connection.execute(text, params).fetchall()

    def contents(self) -> dict[str, Any]:
        """Everything in the database but what only authenticates: to show that nothing was changed."""
        with psycopg.connect(self.superuser_dsn) as connection:
            rows = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            whole = "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM {} t"
            return {
                name: connection.execute(sql.SQL(whole).format(sql.Identifier(name))).fetchone()
                for (name,) in sorted(rows)
                if name != "token_nonces"
            }

    def order(self, **changes: Any) -> Order:
        """An order for alice's 0.01 BTC to a foreign address."""
        return Order(
            **{
                "v": 1,
                "id": str(new_id()),
                "caller": "exchange",
                "customer": "alice",
                "chain": "bitcoin-regtest",
                "asset": "BTC",
                "destination": FOREIGN_ADDRESS,
                "amount": "1000000",
                "fee_ceiling": "50000",
                "expires_at": int(time.time()) + 3600,
                **changes,
            }
        )

    def signed(self, order: Order, *, by: str = "exchange") -> dict[str, Any]:
        """The body of a withdrawal request."""
        return {"order": order.to_object(), "signature": self.keys[by].sign(order)}


@contextmanager
def running_api(
    superuser_dsn: str,
    *,
    callers: Mapping[str, tuple[str, ...]] | None = None,
    extend: Callable[[Bundle], Bundle] = lambda bundle: bundle,
    signers: Mapping[str, Signer] | None = None,
    **changes: Any,
) -> Iterator[RunningApi]:
    """Serve the API for this database until the block ends.

    Args:
        superuser_dsn: of the database.
        callers: further callers with their scopes, beside `exchange`, `other` (all scopes), `reader` (customers only)
            and `past` (all scopes, whose time is over); and `OPERATORS`.
        extend: adds to the bundle.
        signers: further signers by key-set.
        changes: of the `ApiServices`.
    """
    changes.setdefault("sealing", lambda: Keys({"tests": bytes(32)}))
    every = tuple(str(scope) for scope in Scope)
    scopes = {"exchange": every, "other": every, "past": every, "reader": (str(Scope.CUSTOMERS_READ),)}
    scopes |= callers or {}
    keys = {name: SigningKey.generate() for name in (*scopes, *OPERATORS)}
    signer = AttestingSigner()
    bundle = make_bundle({name: (keys[name], scopes[name]) for name in scopes}, signer)
    past = tuple(msgspec.structs.replace(c, not_after=1) if c.id == "past" else c for c in bundle.callers)
    operators = tuple(
        Operator(
            id=name, key=keys[name].public_hex, organisation="acme", roles=roles, not_after=bundle.expires_at
        )
        for name, roles in OPERATORS.items()
    )
    bundle = extend(msgspec.structs.replace(bundle, callers=past, operators=operators))
    officer = SigningKey.generate()
    olga = Officer(
        id="olga", key=officer.public_hex, organisation="board", not_after=int(time.time()) + 86_400
    )
    bundle = msgspec.structs.replace(bundle, officers=(olga,))
    root = TrustRoot(
        threshold=1, keys={"olga": officer.public_hex}, organisations={"olga": "board"}, minimum_version=1
    )
    known: Mapping[str, Signer] = {signer.keyset_id: signer, **(signers or {})}
    database = Database(
        as_role(superuser_dsn, "strongroom_api"),
        application="api",
        pool_size=8,
        wait_seconds=WAIT_SECONDS,
        waiting_at_most=WAITING_AT_MOST,
    )
    api = RunningApi("", superuser_dsn, database, bundle, signer, keys, officer)

    def believed() -> Bundle:
        if not api.trusted:
            raise UntrustedBundle("the bundle expired")
        return api.bundle

    def signer_of(keyset: str) -> Signer:
        if keyset not in known:
            raise InvalidValue(f"no signer for {keyset}")
        return known[keyset]

    services = ApiServices(
        database=database,
        bundle=believed,
        root=root,
        signer=signer_of,
        members=lambda vault: {
            name.partition("/")[2]: one for name, one in known.items() if name.startswith(f"{vault}/")
        },
        audience=AUDIENCE,
        wake=lambda step: api.woken.append(step),
        clock=lambda: int(time.time()) + api.now_offset,
        **changes,
    )
    server = make_server(create_app(services), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, timeout=10, what="uvicorn to serve")
        api.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        api.connected = lambda: len(server.server_state.connections)
        yield api
    finally:
        for client in api.clients:
            client.close()
        server.should_exit = True
        thread.join(timeout=15)
        database.close()
        assert not thread.is_alive()


def authorization(api: RunningApi, request: Request, *, key: SigningKey | None = None, **changes: Any) -> str:
    """The header of a token for `request` by `exchange`, with some fields changed before it is signed."""
    now = int(time.time())
    token = Token(
        **{
            "v": 1,
            "caller": "exchange",
            "audience": AUDIENCE,
            "issued_at": now,
            "expires_at": now + 30,
            "nonce": secrets.token_hex(16),
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "body_sha256": request.body_sha256,
            **changes,
        }
    )
    return header(token, key or api.keys["exchange"])


def post_raw(api: RunningApi, path: str, body: bytes, **headers: str) -> httpx.Response:
    """POST exactly these bytes with a good token and a new idempotency key; None-like headers are left out."""
    sent = {
        "Authorization": authorization(api, Request("POST", path, "", body)),
        "Content-Type": "application/json",
        "Idempotency-Key": str(new_id()),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return api.raw().post(path, content=body, headers={name: value for name, value in sent.items() if value})


def kind(response: httpx.Response) -> str:
    """Last part of a problem's type, after checking that it is a whole problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert problem["type"].startswith("urn:strongroom:problem:")
    assert problem["status"] == response.status_code
    assert isinstance(problem["retryable"], bool)
    assert problem["title"]
    assert len(problem["detail"]) > 10
    return str(problem["type"].rpartition(":")[2])
