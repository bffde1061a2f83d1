"""The daemon's socket: one thread a connection, bounded in number, time and memory."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue
from signers.config import ListenSection
from signers.errors import BadConfiguration
from signers.process.calls import Desk
from signers.process.places import STRANGER, Connection, Doing, NoPlace, Places
from signers.process.tls import pins, server_context
from signers.wire import Disconnected, read_body, read_size, write_frame

ACCEPT_PAUSE_SECONDS: Final = 0.1
WATCH_SECONDS: Final = 1
"""How often somebody looks for connections that take too long."""
BUSY_PAUSE_SECONDS: Final = 0.25
"""An answer that says "not so often" comes so much later, for asking again at once would cost the same again."""

_log = logging.getLogger("strongroom.signer")


class Server:
    """Listens and serves until `close`.

    Args:
        desk: answers the calls.
        listen: where.

    Raises:
        BadConfiguration: the address can't be used.
    """

    def __init__(self, desk: Desk, listen: ListenSection) -> None:
        self._desk = desk
        self._closing = threading.Event()
        self.places = Places(listen.max_connections)
        """Who is connected."""
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
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError as error:
                if self._closing.is_set():
                    return
                # Out of descriptors, say: those that are connected go on, and later ones may find a place.
                _log.error("a connection could not be accepted: %s", error)
                self._closing.wait(ACCEPT_PAUSE_SECONDS)
                continue
            try:
                connection = self.places.enter(plain, STRANGER if self._tls is not None else _user(plain))
                threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()
            except (NoPlace, OSError):
                _log.warning("too many connections: one more was turned away")
                plain.close()

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.places.drop_all()

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_SECONDS):
            self.places.drop_overdue()

    def _serve_one(self, connection: Connection) -> None:
        try:
            if self._tls is not None:
                self._secure(connection, self._tls)
            while True:
                self._one_call(connection)
        except (OSError, Disconnected, NoPlace):
            return
        except InvalidValue as error:
            _log.warning("a connection of %s was dropped: %s", connection.client or "a stranger", error)
        finally:
            self.places.leave(connection)
            connection.socket.close()

    def _one_call(self, connection: Connection) -> None:
        places, stream = self.places, connection.socket
        places.now(connection, Doing.IDLE)
        size = read_size(stream)
        places.now(connection, Doing.READING)
        places.hold(connection, size)
        payload = read_body(stream, size)
        places.now(connection, Doing.WORKING)
        reply = self._desk.answer(connection.client, payload)
        del payload
        if reply.retry_ms is not None:
            self._closing.wait(BUSY_PAUSE_SECONDS)
        places.now(connection, Doing.WRITING)
        write_frame(stream, msgspec.json.encode(reply))
        places.free(connection)

    def _secure(self, connection: Connection, context: ssl.SSLContext) -> None:
        """Shake hands; then the stranger is a client. Raises OSError, Disconnected, NoPlace."""
        plain = connection.socket
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.places.replaced(connection, secured)
        secured.do_handshake()
        shown = secured.getpeercert(binary_form=True)
        if shown is None or shown not in self._pins:
            raise Disconnected("the client's certificate is not pinned", mid_frame=False)
        self.places.known(connection, f"certificate:{hashlib.sha256(shown).hexdigest()[:16]}")


def _user(connection: socket.socket) -> str:
    """Who is at the other end of a Unix socket (SO_PEERCRED: process, user, group)."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return f"user:{struct.unpack('3i', peer)[1]}"


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
