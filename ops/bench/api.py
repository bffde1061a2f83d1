"""One API request with one commit, beside requests to the same server that do nothing.

Two peers, because "a request that does nothing" has two meanings:

* the same request without its commit: the same bytes through the same server, token check, scope and field
  checks, answered without the database. Its nonce is not spent, as to spend it is a commit. This row says what
  the transaction costs: nonce, idempotency, effect, event, one commit that waits for the disk.
* nothing at all: `GET /healthz`, no token, no body. This row says what everything costs together; the Ed25519
  check alone takes about a third of such a request.

Both print the raw rates. One server process; the client, the server and PostgreSQL share the machine's cores.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from fastapi import Depends, FastAPI, Response

from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import ManagedProcess, free_port, release_port
from ops.stack.keys import person
from ops.stack.listing import bitcoin
from ops.stack.quorum import CallerGrant, make_bundle, make_quorum, publish
from policies.bundle import BitcoinKeyset, TrustRoot, read_bundle
from policies.keys import SigningKey
from policies.token import Request, Token, header

_CONNECTIONS: Final = 8
_REQUESTS: Final = 400
_REPEATS: Final = 7
_AUDIENCE: Final = "bench"
_PATH: Final = "/v1/customers"
_NOTHING: Final = "/v1/nothing"
"""Only the bench's server has it."""


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Requests a second over eight kept-alive connections; the commit waits for the disk."""
    directory = part_directory("strongroom-bench-")
    server = EmbeddedPostgres(directory / "pg", durability=Durability.FULL)
    port = free_port()
    try:
        progress("api: starting PostgreSQL and the API")
        server.start()
        server.create_database("bench")
        key = _prepare(directory, server.superuser_dsn("bench"))
        service = ManagedProcess(
            "api",
            [sys.executable, "-m", "ops.bench.api", server.superuser_dsn("bench"), str(port), directory],
            log_path=directory / "api.log",
        )
        with service:
            service.wait_ready(lambda: _listens(port), timeout=60)
            yield from _compare(port, key, progress)
    finally:
        release_port(port)
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(directory: Path, dsn: str) -> SigningKey:
    """The schema, and a bundle that names one caller; returns the caller's key."""
    from embit import bip32
    from embit.networks import NETWORKS

    from custody.storage.migrate import upgrade

    upgrade(dsn)
    caller = person(directory / "callers", "bench", organisation="bench")
    quorum = make_quorum(directory / "officers")
    master = bip32.HDKey.from_seed(bytes(range(64)), version=NETWORKS["regtest"]["xprv"])
    keyset = BitcoinKeyset(
        id="hot-btc",
        chain="bitcoin-regtest",
        tier="hot",
        account=master.derive("m/84h/1h/0h").to_public().to_base58(),
        origin=f"{bytes(master.my_fingerprint).hex()}/84'/1'/0'",
        attestation_key=caller.key.public_hex,
    )
    grants = [CallerGrant(caller, ("customers:write",))]
    bundle = make_bundle(version=1, listings=[bitcoin(keyset)], callers=grants, quorum=quorum)
    publish(directory, quorum.sign(bundle), quorum.trust_root(minimum_version=1))
    return caller.key


def _listens(port: int) -> bool:
    try:
        return b" 200 " in _exchange(socket.create_connection(("127.0.0.1", port), 5), _NO_OP)
    except OSError:
        return False


_NO_OP: Final = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


def _compare(port: int, key: SigningKey, progress: Callable[[str], None]) -> Iterator[Row]:
    sockets = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(_CONNECTIONS)]
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def unwritten() -> list[bytes]:
        return [_signed(key, _NOTHING) for _ in range(_REQUESTS)]

    def bare() -> list[bytes]:
        return [_NO_OP] * _REQUESTS

    for name, make, peer_name in (
        ("api", unwritten, "the same request and token, answered without a commit"),
        ("api, all of it", bare, "the same server: GET /healthz, no token, no database"),
    ):
        progress(f"{name}: requesting")
        rates = [_measure(sockets, key, make) for _ in range(_REPEATS)]
        middle = sorted(rates, key=lambda pair: pair[0] / pair[1])[len(rates) // 2]
        yield Row(name, *middle, peer_name, "requests/s")
    for connection in sockets:
        connection.close()


def _measure(
    sockets: Sequence[socket.socket], key: SigningKey, make_peer: Callable[[], list[bytes]]
) -> tuple[float, float]:
    """One measurement of both sides, after a run of each to warm up."""
    # Signed just before they are sent, outside of what is measured: a token lives for a minute.
    ours = [[_signed(key, _PATH) for _ in range(_REQUESTS)] for _ in range(2)]
    peers = [make_peer() for _ in range(2)]
    return interleave(
        Side(lambda: _drive(sockets, ours.pop(), b" 201 "), _REQUESTS),
        Side(lambda: _drive(sockets, peers.pop(), b" 20"), _REQUESTS),
        repeats=1,
    )


def _signed(key: SigningKey, path: str) -> bytes:
    """A request to create a customer, or to `_NOTHING`, with a token of its own."""
    body = json.dumps({"id": f"c-{secrets.token_hex(12)}"}).encode()
    now = int(time.time())
    token = Token(
        v=1,
        caller="bench",
        audience=_AUDIENCE,
        issued_at=now,
        expires_at=now + 60,
        nonce=secrets.token_hex(16),
        method="POST",
        path=path,
        query="",
        body_sha256=Request("POST", path, "", body).body_sha256,
    )
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nIdempotency-Key: {secrets.token_hex(16)}\r\n"
        f"Authorization: {header(token, key)}\r\n\r\n"
    )
    return head.encode() + body


def _drive(sockets: Sequence[socket.socket], requests: Sequence[bytes], expected: bytes) -> None:
    """Sends the requests over all connections at once, one at a time on each."""

    def one(number: int) -> None:
        for request in requests[number :: len(sockets)]:
            answer = _exchange(sockets[number], request)
            if expected not in answer[:16]:
                raise AssertionError(f"the API answered {answer[:300]!r}")

    with ThreadPoolExecutor(len(sockets)) as pool:
        list(pool.map(one, range(len(sockets))))


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Sends one request and reads its whole answer."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _some(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    chunk = connection.recv(65536)
    if not chunk:
        raise ConnectionError("the API closed the connection")
    return chunk


def _serve(dsn: str, port: int, directory: Path) -> None:
    """The server process of the bench: the product's application, served and logging as ever, for one caller."""
    from custody.api.__main__ import POOL_SIZE
    from custody.api.app import create_app
    from custody.api.services import ApiServices
    from custody.logs import log_to_stderr
    from custody.storage.db import Database
    from custody.web.server import make_server
    from signers.ports import Signer, SignerUnavailable

    def no_signer(keyset: str) -> Signer:
        raise SignerUnavailable(f"the bench has no signer for {keyset}")

    log_to_stderr()
    root = msgspec.json.decode((directory / "trust-root.json").read_bytes(), type=TrustRoot)
    bundle = read_bundle((directory / "bundle.json").read_bytes(), root, now=int(time.time()))
    services = ApiServices(
        database=Database(dsn, application="bench-api", pool_size=POOL_SIZE),
        bundle=lambda: bundle,
        root=root,
        signer=no_signer,
        members=lambda vault: {},
        audience=_AUDIENCE,
        requests_per_second=1_000_000,
    )
    app = create_app(services)
    _add_nothing(app)
    make_server(app, host="127.0.0.1", port=port).run()


def _add_nothing(app: FastAPI) -> None:
    """A route that admits and checks a request as the one that creates a customer, and answers as it."""
    from custody.api import schemas, views
    from custody.api.calls import Call, Scope, needs

    async def nothing(call: Call, body: schemas.NewCustomer) -> Response:
        created_at = datetime.fromtimestamp(call.now, UTC)
        return views.answer(
            schemas.CustomerOut(id=body.id, state="active", reason="", created_at=created_at), 201
        )

    # Said as values, because FastAPI looks for the names of annotations in the module, not here.
    nothing.__annotations__ = {
        "call": Annotated[Call, Depends(needs(Scope.CUSTOMERS_WRITE))],
        "body": schemas.NewCustomer,
    }
    app.post(_NOTHING, status_code=201, response_model=schemas.CustomerOut)(nothing)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
