"""A signer in this process, reached as its clients reach one: directly, over a Unix socket, over TLS 1.3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.config import ListenSection
from signers.ports import Signer
from signers.process.calls import Desk, handlers
from signers.process.rates import Gate
from signers.process.server import Server
from tests.fakes.certificates import make_certificate

WAYS = ("in process", "unix", "tls")


@contextmanager
def served(signer: Signer, listen: ListenSection, **parts: Any) -> Iterator[Server]:
    """A server in a thread; `parts` are further ones for `handlers`."""
    server = Server(Desk(handlers(signer, **parts), Gate(listen.rates)), listen)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def served_tls(signer: Signer, directory: Path) -> Iterator[TlsAddress]:
    """A server with pinned certificates, and the address for the one client that it knows."""
    server, client = make_certificate(directory, "signer"), make_certificate(directory, "worker")
    listen = ListenSection(
        host="127.0.0.1",
        port=0,
        certificate=str(server[0]),
        private_key=str(server[1]),
        clients=(str(client[0]),),
    )
    with served(signer, listen) as running:
        port = int(running.address.rpartition(":")[2])
        yield TlsAddress("127.0.0.1", port, *client, server[0])


@contextmanager
def reached(signer: Signer, way: str, directory: Path) -> Iterator[Signer]:
    """The signer itself, or a client of it."""
    if way == "in process":
        yield signer
    elif way == "unix":
        path = directory / "signer.sock"
        with served(signer, ListenSection(unix=str(path))):
            client = SignerClient(UnixAddress(path))
            yield client
            client.close()
    else:
        with served_tls(signer, directory) as address:
            client = SignerClient(address)
            yield client
            client.close()
