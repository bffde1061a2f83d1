"""The daemon's socket: one thread a connection, bounded; never crashes on input."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue
from signers.calls import Handler, answer
from signers.config import ListenSection
from signers.errors import BadConfiguration
from signers.tls import is_pinned, pins, server_context
from signers.wire import CallName, Disconnected, read_frame, write_frame

IDLE_SECONDS: Final = 600
"""A connection without a call for so long is closed; clients open another."""
HANDSHAKE_SECONDS: Final = 10
ACCEPT_PAUSE_SECONDS: Final = 0.1

_log = logging.getLogger("strongroom.signer")


class Server:
    """Listens and serves until `close`.

    Args:
        served: the calls that it answers, from `signers.calls.handlers`.
        listen: where.

    Raises:
        BadConfiguration: the address can't be used.
    """

    def __init__(self, served: Mapping[CallName, Handler], listen: ListenSection) -> None:
        self._served = served
        self._places = threading.BoundedSemaphore(listen.max_connections)
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._pins: frozenset[bytes] = frozenset()
        try:
            if listen.unix is not None:
                self._socket = _unix_socket(Path(listen.unix))
                self.address = listen.unix
            else:
                clients = [Path(client) for client in listen.clients]
                self._tls = server_context(
                    Path(listen.certificate or ""), Path(listen.private_key or ""), clients
                )
                self._pins = pins(clients)
                self._socket = socket.create_server((listen.host or "", listen.port or 0))
                self.address = "{}:{}".format(*self._socket.getsockname()[:2])
        except OSError as error:
            raise BadConfiguration(f"can't listen: {error}") from None

    def serve(self) -> None:
        """Accept connections until `close` is called from another thread or a signal handler."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if self._closing.is_set():
                    return
                # Out of descriptors, say: those that are connected go on, and later ones may find a place.
                _log.error("a connection could not be accepted: %s", error)
                self._closing.wait(ACCEPT_PAUSE_SECONDS)
                continue
            if not self._places.acquire(blocking=False):
                _log.warning("too many connections: one more was turned away")
                connection.close()
                continue
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve_one(self, plain: socket.socket) -> None:
        try:
            with plain, self._secured(plain) as connection:
                connection.settimeout(IDLE_SECONDS)
                while True:
                    reply = answer(self._served, read_frame(connection))
                    write_frame(connection, msgspec.json.encode(reply))
        except (OSError, Disconnected):
            return
        except InvalidValue as error:
            _log.warning("a connection was dropped: %s", error)
        finally:
            with self._lock:
                self._open.discard(plain)
            self._places.release()

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self._tls is None:
            return plain
        plain.settimeout(HANDSHAKE_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._tls.wrap_socket(plain, server_side=True)
        if not is_pinned(connection, self._pins):
            connection.close()
            raise Disconnected("the client's certificate is not pinned", mid_frame=False)
        return connection


def _unix_socket(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The journal's lock is ours already, so a socket file that is there was left by a dead daemon.
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(128)
    return listener
