"""One authenticated API request with one commit, beside a request to the same server that does nothing."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import ManagedProcess, free_port, release_port
from ops.stack.keys import person
from ops.stack.quorum import CallerGrant, make_bundle, make_quorum, publish
from policies.bundle import KeysetEntry, TrustRoot, read_bundle
from policies.keys import SigningKey
from policies.token import Request, Token, header

_CONNECTIONS: Final = 8
_REQUESTS: Final = 400
_REPEATS: Final = 7
_AUDIENCE: Final = "bench"
_PATH: Final = "/v1/customers"


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
            yield _compare(port, key, progress)
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
    keyset = KeysetEntry(
        id="hot-btc",
        chain="bitcoin-regtest",
        tier="hot",
        kind="p2wpkh-hd",
        account=master.derive("m/84h/1h/0h").to_public().to_base58(),
        origin=f"{bytes(master.my_fingerprint).hex()}/84'/1'/0'",
        attestation_key=caller.key.public_hex,
    )
    grants = [CallerGrant(caller, ("customers:write",))]
    bundle = make_bundle(version=1, keyset=keyset, callers=grants, quorum=quorum)
    publish(directory, quorum.sign(bundle), quorum.trust_root(minimum_version=1))
    return caller.key


def _listens(port: int) -> bool:
    try:
        return b" 200 " in _exchange(socket.create_connection(("127.0.0.1", port), 5), _NO_OP)
    except OSError:
        return False


_NO_OP: Final = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


def _compare(port: int, key: SigningKey, progress: Callable[[str], None]) -> Row:
    sockets = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(_CONNECTIONS)]
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Signed just before they are sent, outside of what is measured: a token lives for a minute.
    waiting: list[list[bytes]] = []

    def ours() -> None:
        _drive(sockets, waiting.pop(), b" 201 ")

    def peer() -> None:
        _drive(sockets, [_NO_OP] * _REQUESTS, b" 200 ")

    progress("api: requesting")
    rates: list[tuple[float, float]] = []
    for _ in range(_REPEATS):
        waiting.extend([_signed(key) for _ in range(_REQUESTS)] for _ in range(2))
        rates.append(interleave(Side(ours, _REQUESTS), Side(peer, _REQUESTS), repeats=1))
    for connection in sockets:
        connection.close()
    middle = sorted(rates, key=lambda pair: pair[0] / pair[1])[len(rates) // 2]
    return Row("api", *middle, "the same server: GET /healthz, no token, no database", "requests/s")


def _signed(key: SigningKey) -> bytes:
    """A request to create a customer, with a token of its own."""
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
        path=_PATH,
        query="",
        body_sha256=Request("POST", _PATH, "", body).body_sha256,
    )
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
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
    """The server process of the bench: the product's application as it is, for one caller."""
    import uvicorn

    from custody.api.app import create_app
    from custody.api.services import ApiServices
    from custody.storage.db import Database
    from signers.ports import Signer, SignerUnavailable

    def no_signer(keyset: str) -> Signer:
        raise SignerUnavailable(f"the bench has no signer for {keyset}")

    root = msgspec.json.decode((directory / "trust-root.json").read_bytes(), type=TrustRoot)
    bundle = read_bundle((directory / "bundle.json").read_bytes(), root, now=int(time.time()))
    services = ApiServices(
        database=Database(dsn, application="bench-api"),
        bundle=lambda: bundle,
        signer=no_signer,
        audience=_AUDIENCE,
        requests_per_second=1_000_000,
    )
    uvicorn.run(
        create_app(services), host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="on"
    )


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
