"""The trading core as its callers meet it: the process itself, on a free port, against a custody of the test's
own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from websockets.sync.client import ClientConnection, connect

from custody.ids import new_id
from custody.trading.failures import CustodyRefused, CustodyUnavailable
from custody.trading.ports import Batch, Cursor, Fill, Transfer
from custody.web.client import RestCaller
from ops.devnet.process import free_port, release_port, wait_until
from ops.stack.listing import evm
from ops.stack.networks import ETHEREUM
from policies.bundle import Bundle, Operator, TrustRoot
from policies.keys import SigningKey, sign_bundle
from policies.token import Request, Token, header
from tests.fakes.api import make_bundle
from tests.fakes.attesting_signer import AttestingSigner

AUDIENCE: Final = "trading-test"
CUSTODY_AUDIENCE: Final = "custody-test"
BTC: Final = 100_000_000
SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "exchange": ("trading:read", "trading:write"),
    "bot": ("trading:read", "trading:write"),
    "watcher": ("trading:read",),
    "trading-core": ("trading",),
}
SETTINGS: Final = """
directory = "{directory}/core"
audience = "{audience}"
bundle_path = "{directory}/bundle.json"
trust_root_path = "{directory}/trust-root.json"
port = {port}
{extra}

[custody]
url = "{custody}"
audience = "{custody_audience}"
caller = "trading-core"
key_path = "{directory}/trading-core.pem"
{custody_extra}

[fees]
reference = "USDX"
tiers = [{{ volume = "0", discount_percent = 0 }}]

[[markets]]
id = "BTC-USDX"
base = "BTC"
quote = "USDX"
tick = "0.01"
lot = "0.0001"
minimum_notional = "1"
maker_ppm = 800
taker_ppm = 1000
band_bps = 0
breaker_bps = 0

[[callers]]
id = "exchange"
customers = ["*"]
per_second = 100000

[[callers]]
id = "bot"
customers = ["bot"]
channel = "api"
per_second = 100000
"""


@dataclass
class FakeCustody:
    """Custody's side of the port, in memory: it keeps the same rules as the real one (`tests/contract`)."""

    funding: dict[tuple[str, str], int] = field(default_factory=dict)
    trading: dict[tuple[str, str], int] = field(default_factory=dict)
    fees: dict[str, int] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    moves: dict[str, Transfer] = field(default_factory=dict)
    batches: dict[tuple[int, int, bool], Batch] = field(default_factory=dict)
    at: Cursor = field(default_factory=Cursor)
    away: bool = False
    frozen: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fund(self, customer: str, asset: str, units: int) -> None:
        """Money in funding."""
        self.funding[customer, asset] = self.funding.get((customer, asset), 0) + units

    def settle(self, core: UUID, batch: Batch) -> None:
        """As `Custody`."""
        with self._open():
            if self.batches.get((batch.first, batch.last, batch.complete)) == batch:
                return
            if batch.first != self.at.expected or any(
                self.at.covers(fill.sequence, fill.index) for fill in batch.fills
            ):
                raise CustodyRefused("settlement-out-of-order", f"expected {self.at.expected}")
            after = dict(self.trading)
            for fill in batch.fills:
                for key, units in (
                    ((fill.buyer, fill.quote), -fill.quote_units - fill.buyer_fee),
                    ((fill.buyer, fill.base), fill.base_units),
                    ((fill.seller, fill.base), -fill.base_units),
                    ((fill.seller, fill.quote), fill.quote_units - fill.seller_fee),
                ):
                    after[key] = after.get(key, 0) + units
                    if after[key] < 0:
                        raise CustodyRefused("ledger-rejected", f"{key} would be {after[key]}")
            self.trading = after
            for fill in batch.fills:
                self.fees[fill.quote] = self.fees.get(fill.quote, 0) + fill.buyer_fee + fill.seller_fee
            self.fills += batch.fills
            self.batches[batch.first, batch.last, batch.complete] = batch
            last = batch.fills[-1] if batch.fills else None
            place = (
                (self.at.fill_sequence, self.at.fill_index) if last is None else (last.sequence, last.index)
            )
            self.at = Cursor(batch.last, batch.complete, *place)

    def move(self, transfer: Transfer) -> None:
        """As `Custody`."""
        with self._open():
            known = self.moves.get(transfer.id)
            if known == transfer:
                return
            if known is not None:
                raise CustodyRefused("transfer-exists", "the id is taken")
            if transfer.customer in self.frozen:
                raise CustodyRefused("customer-frozen", "frozen by the test")
            source, target = (
                (self.funding, self.trading) if transfer.to == "trading" else (self.trading, self.funding)
            )
            key = transfer.customer, transfer.asset
            if source.get(key, 0) < transfer.units:
                raise CustodyRefused("insufficient-funds", f"{source.get(key, 0)} are there")
            source[key] -= transfer.units
            target[key] = target.get(key, 0) + transfer.units
            self.moves[transfer.id] = transfer

    def cursor(self, core: UUID) -> Cursor:
        """As `Custody`."""
        with self._open():
            return self.at

    def total(self, asset: str) -> int:
        """Of everybody: what a trade must not change."""
        return self.fees.get(asset, 0) + sum(
            units
            for book in (self.funding, self.trading)
            for (_, name), units in book.items()
            if name == asset
        )

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self.lock:
            if self.away:
                raise CustodyUnavailable("away, as the test wants it")
            yield


@contextmanager
def served(custody: FakeCustody) -> Iterator[str]:
    """The fake behind the HTTP contract of `custody.api.routers.trading`; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(lambda: _told(custody.cursor(UUID(int=0))))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))

            def settle() -> dict[str, Any]:
                fills = tuple(
                    Fill(
                        **{
                            **fill,
                            **{name: int(fill[name]) for name in fill if name.endswith(("_units", "_fee"))},
                        }
                    )
                    for fill in body["fills"]
                )
                custody.settle(
                    UUID(body["core"]), Batch(body["first"], body["last"], body["complete"], fills)
                )
                return {}

            def move() -> dict[str, Any]:
                custody.move(Transfer(**{**body, "units": int(body["units"])}))
                return {}

            self._answer(settle if self.path.endswith("settlements") else move)

        def _answer(self, call: Any) -> None:
            try:
                status, value = 200, call()
            except CustodyUnavailable:
                status, value = 503, {"type": "urn:x:away", "retryable": True}
            except CustodyRefused as error:
                status, value = 409, {"type": f"urn:x:{error.code}", "detail": error.detail}
            raw = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _told(cursor: Cursor) -> dict[str, Any]:
    return {
        "settled": {
            "last": cursor.last,
            "complete": cursor.complete,
            "fill_sequence": cursor.fill_sequence,
            "fill_index": max(cursor.fill_index, 0),
        }
    }


def callers_bundle(keys: Mapping[str, SigningKey]) -> Bundle:
    """A bundle with BTC and USDX, the callers of `SCOPES`, and the operator otto."""
    # What is read from a file is checked: dollars need a chain that has tokens.
    made = make_bundle({name: (keys[name], scopes) for name, scopes in SCOPES.items()}, AttestingSigner())
    ethereum = evm(ETHEREUM, "ab" * 32, made.keysets[0], {"USDX": "0x" + "11" * 20})
    otto = Operator(
        id="otto",
        key=keys["otto"].public_hex,
        organisation="acme",
        roles=("security",),
        not_after=made.expires_at,
    )
    return msgspec.structs.replace(
        made,
        networks=(*made.networks, ethereum.network),
        assets=(*made.assets, *ethereum.assets),
        operators=(otto,),
    )


@dataclass
class TradingProcess:
    """`python -m custody.trading` in a directory; may be killed and started again."""

    directory: Path
    port: int
    keys: Mapping[str, SigningKey]
    process: subprocess.Popen[bytes] | None = None
    clients: dict[str, RestCaller] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of its REST face."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes orders."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "custody.trading"],
                env={**os.environ, "STRONGROOM_CONFIG": str(self.directory / "trading.toml")},
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, timeout=60, what="the trading core answers")

    def kill(self, how: int = signal.SIGKILL) -> int:
        """End it. Returns its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.process = None
        return code

    def client(self, caller: str = "exchange") -> RestCaller:
        """A caller of it that does not retry."""
        if caller not in self.clients:
            self.clients[caller] = RestCaller(self.url, AUDIENCE, caller, self.keys[caller], retries=0)
        return self.clients[caller]

    def stream(self, caller: str = "exchange", **options: Any) -> ClientConnection:
        """A WebSocket of a caller."""
        headers = {"Authorization": authorization(self.keys[caller], caller, "GET", "/v1/stream")}
        found: ClientConnection = connect(
            f"ws://127.0.0.1:{self.port}/v1/stream", additional_headers=headers, compression=None, **options
        )
        return found

    def log(self) -> str:
        """What it has said so far."""
        return (self.directory / "log").read_text()

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the trading core ended: {self.log()[-3000:]}")
        try:
            self.client("watcher").get("/v1/status")
        except Exception:  # noqa: BLE001 - not yet
            return False
        return True


def authorization(key: SigningKey, caller: str, method: str, path: str, body: bytes = b"") -> str:
    """The header of one request."""
    now = int(time.time())
    token = Token(
        v=1,
        caller=caller,
        audience=AUDIENCE,
        issued_at=now,
        expires_at=now + 60,
        nonce=secrets.token_hex(16),
        method=method,
        path=path,
        query="",
        body_sha256=Request(method, path, "", body).body_sha256,
    )
    return header(token, key)


@contextmanager
def trading_process(
    directory: Path,
    custody_url: str,
    *,
    extra: str = "",
    custody_extra: str = "",
    keys: Mapping[str, SigningKey] | None = None,
) -> Iterator[TradingProcess]:
    """A trading core with the market BTC-USDX, started."""
    made = keys or {name: SigningKey.generate() for name in (*SCOPES, "otto")}
    officer = SigningKey.generate()
    bundle = callers_bundle(made)
    root = TrustRoot(
        threshold=1, keys={"olga": officer.public_hex}, organisations={"olga": "board"}, minimum_version=1
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bundle.json").write_bytes(sign_bundle(bundle, {"olga": officer}).encode())
    (directory / "trust-root.json").write_bytes(msgspec.json.encode(root))
    made["trading-core"].save(directory / "trading-core.pem")
    port = free_port()
    text = SETTINGS.format(
        directory=directory,
        audience=AUDIENCE,
        port=port,
        custody=custody_url,
        custody_audience=CUSTODY_AUDIENCE,
        extra=extra,
        custody_extra=custody_extra,
    )
    (directory / "trading.toml").write_text(text)
    running = TradingProcess(directory, port, made)
    try:
        running.start()
        yield running
    finally:
        for client in running.clients.values():
            client.close()
        if running.process is not None:
            running.kill()
        release_port(port)


def deposit(
    client: RestCaller, customer: str, asset: str, amount: str, to: str = "trading"
) -> dict[str, Any]:
    """Move money, and wait for the end."""
    id = str(new_id())
    body = {"id": id, "asset": asset, "amount": amount, "to": to}
    found = client.post(f"/v1/customers/{customer}/transfers", body)

    def ended() -> bool:
        nonlocal found
        found = client.get(f"/v1/customers/{customer}/transfers/{to}/{id}")
        return found["state"] in ("done", "refused", "returned")

    if found["state"] not in ("done", "refused", "returned"):
        wait_until(ended, timeout=30, what="the transfer ends")
    return found


def order(number: object, side: str, price: str | None, amount: str, **changes: Any) -> dict[str, Any]:
    """The body of an order in BTC-USDX."""
    return {
        "client_order_id": f"o-{number}",
        "market": "BTC-USDX",
        "side": side,
        "price": price,
        "base_amount": amount,
        **changes,
    }
