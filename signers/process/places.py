"""Who is connected, doing what, and since when: nobody holds a place for long without using it.

Each client has places of its own, so that one of them can't lock out another; strangers, who have not shown a
certificate yet, share some that no client needs for longer than a handshake. Where places run out, whoever has
waited longest of the same kind makes room.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final


class Doing(Enum):
    """What a connection is at."""

    HANDSHAKE = auto()
    IDLE = auto()
    """No call is under way."""
    READING = auto()
    WORKING = auto()
    WRITING = auto()


FRAME_SECONDS: Final = 30
LONGEST_SECONDS: Final[Mapping[Doing, int | None]] = {
    Doing.HANDSHAKE: 10,
    Doing.IDLE: 600,  # clients open another connection
    Doing.READING: FRAME_SECONDS,
    Doing.WORKING: None,  # the signer's own time
    Doing.WRITING: FRAME_SECONDS,
}
"""How long a connection may be at it."""
LEAVING_SECONDS: Final = 10
STRANGER: Final = ""
UNCOUNTED_BYTES: Final = 64 * 1024
"""Shorter frames are not counted: as many as there are places fit into memory."""
MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Longest frames of one client under way together: four of the longest."""
_NANO: Final = 1_000_000_000


@dataclass(eq=False, slots=True)
class Connection:
    """One connection."""

    socket: socket.socket
    since: int
    client: str
    doing: Doing
    bytes_held: int = 0
    dropped: bool = False


@dataclass(slots=True)
class _Client:
    connections: set[Connection] = field(default_factory=set)
    bytes_held: int = 0


class NoPlace(Exception):
    """No place, or not in time."""


class Places:
    """All connections. Methods may be called from many threads.

    Args:
        per_client: places of each client, and of all strangers together.
        nanoseconds: a clock that only rises.
        leaving_seconds: how long those that were dropped may take to leave.
    """

    def __init__(
        self,
        per_client: int,
        *,
        nanoseconds: Callable[[], int] = time.monotonic_ns,
        leaving_seconds: int = LEAVING_SECONDS,
    ) -> None:
        self._per_client, self._nanoseconds, self._leaving_seconds = per_client, nanoseconds, leaving_seconds
        self._changed = threading.Condition()
        self._clients: dict[str, _Client] = {}

    def enter(self, plain: socket.socket, client: str = STRANGER) -> Connection:
        """Give a connection a place.

        Raises:
            NoPlace: all of them are at work.
        """
        with self._changed:
            doing = Doing.HANDSHAKE if client == STRANGER else Doing.IDLE
            connection = Connection(plain, self._nanoseconds(), client, doing)
            self._take(connection, client)
            return connection

    def known(self, connection: Connection, client: str) -> None:
        """Its stranger has turned out to be a client. Raises NoPlace."""
        with self._changed:
            self._clients[connection.client].connections.discard(connection)
            self._take(connection, client)

    def replaced(self, connection: Connection, secured: socket.socket) -> None:
        """The socket itself has become another one (TLS). Raises NoPlace if it was dropped meanwhile."""
        with self._changed:
            connection.socket = secured
            if connection.dropped:
                raise NoPlace

    def now(self, connection: Connection, doing: Doing) -> None:
        """What the connection does from now on. Raises NoPlace if it was dropped meanwhile."""
        with self._changed:
            if connection.dropped:
                raise NoPlace
            connection.doing, connection.since = doing, self._nanoseconds()

    def hold(self, connection: Connection, size: int) -> None:
        """Wait until a frame of `size` bytes fits into its client's memory.

        Raises:
            NoPlace: it did not in the time that a frame has.
        """
        if size <= UNCOUNTED_BYTES:
            return
        with self._changed:
            client = self._clients[connection.client]
            fits = self._changed.wait_for(
                lambda: connection.dropped or client.bytes_held + size <= MEMORY_BYTES,
                timeout=FRAME_SECONDS,
            )
            if connection.dropped or not fits:
                raise NoPlace
            connection.bytes_held = size
            client.bytes_held += size

    def free(self, connection: Connection) -> None:
        """Its frame is done with."""
        with self._changed:
            self._clients[connection.client].bytes_held -= connection.bytes_held
            connection.bytes_held = 0
            self._changed.notify_all()

    def leave(self, connection: Connection) -> None:
        """It is over; afterwards its socket may be closed."""
        self.free(connection)
        with self._changed:
            self._clients[connection.client].connections.discard(connection)
            self._changed.notify_all()

    def drop_overdue(self) -> None:
        """Drop whoever takes too long."""
        with self._changed:
            now = self._nanoseconds()
            for connection in self._all():
                seconds = LONGEST_SECONDS[connection.doing]
                if seconds is not None and now - connection.since > seconds * _NANO:
                    self._drop(connection)

    def drop_all(self) -> None:
        """Drop everybody."""
        with self._changed:
            for connection in self._all():
                self._drop(connection)

    def count(self) -> int:
        """Connections at present."""
        with self._changed:
            return sum(1 for _ in self._all())

    def _all(self) -> list[Connection]:
        return [connection for client in self._clients.values() for connection in client.connections]

    def _take(self, connection: Connection, name: str) -> None:
        client = self._clients.setdefault(name, _Client())
        # Those that were dropped end at once, but each in its own thread: whoever comes waits for them, not in vain.
        most = 2 * self._per_client
        if not self._changed.wait_for(lambda: len(client.connections) < most, timeout=self._leaving_seconds):
            raise NoPlace
        here = [found for found in client.connections if not found.dropped]
        if len(here) >= self._per_client:
            waiting = [found for found in here if found.doing is not Doing.WORKING]
            if not waiting:
                raise NoPlace
            self._drop(min(waiting, key=lambda found: found.since))
        connection.client = name
        client.connections.add(connection)

    def _drop(self, connection: Connection) -> None:
        connection.dropped = True
        # The plain socket's own method: TLS's would take the session away under the thread that reads from it.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
        self._changed.notify_all()
