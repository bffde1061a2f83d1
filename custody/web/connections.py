"""Connections that cost more than they are worth: slow, idle, too many, or no HTTP.

uvicorn bounds neither how long a client may take to send a request's head, nor how long it may take to read an
answer, and a connection that says nothing counts against its limit for ever. Here every connection has a deadline
for what it is at, one watch ends those that are late, and where there are too many the one that is idle for longest
makes room. Whoever is sent away gets a problem, like everybody else.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection
from enum import Enum, auto
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from chains.errors import StrongroomError
from custody.web.errors import HeadTooLarge, MalformedRequest, RequestTooSlow, TooManyConnections
from custody.web.problems import describe

MAX_HEAD_BYTES: Final = 16 * 1024
"""Of a request's line and headers together."""
HEAD_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 15
REQUEST_SECONDS: Final = 40
LINGER_SECONDS: Final = 3
FRESH_SECONDS: Final = 2
"""A connection that is no older makes no room for another while there are older ones."""
_WATCH_TICKS: Final = 5
"""The server ticks ten times a second."""


class Phase(Enum):
    """What a connection is at."""

    NEW = auto()
    """Nothing has come yet."""
    HEAD = auto()
    """A request has begun, its head is not whole yet."""
    REQUEST = auto()
    """A request is being read, worked on or answered."""
    IDLE = auto()
    """A request was answered, no other one has begun."""
    LINGER = auto()
    """A request was answered before its end: what still comes of it is thrown away."""
    ENDED = auto()
    """It was told to end, and may take in the last words."""


DEADLINES: Final = {
    Phase.NEW: HEAD_SECONDS,
    Phase.HEAD: HEAD_SECONDS,
    Phase.REQUEST: REQUEST_SECONDS,
    Phase.IDLE: KEEP_ALIVE_SECONDS,
    Phase.LINGER: LINGER_SECONDS,
    Phase.ENDED: LINGER_SECONDS,
}
"""Most seconds in each phase; an answer that the client does not take in lasts no longer than the phase after it."""


class Connection(H11Protocol):
    """One connection of a client, with a deadline."""

    phase: Phase
    since: float
    """When the phase began, monotonic seconds."""
    answered: int
    """Requests so far."""

    def __init__(self, config: uvicorn.Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        # uvicorn would answer 503 to whoever comes when so many are connected, idle ones included.
        self._most, self.limit_concurrency = config.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and have another connection make room if there are too many."""
        super().connection_made(transport)
        self.answered = 0
        self._enter(Phase.NEW)
        most = self._most
        if most is not None and len(self.connections) > most and not make_room(self.connections, self, most):
            self.refuse(TooManyConnections(most))

    def data_received(self, data: bytes) -> None:
        """Take in bytes."""
        if self.phase is Phase.ENDED:
            return
        if self.phase in (Phase.NEW, Phase.IDLE):
            self._enter(Phase.HEAD)
        super().data_received(data)

    def handle_events(self) -> None:
        """Act on what has come: a head that is whole begins a request."""
        before = self.cycle
        super().handle_events()
        if self.phase is Phase.ENDED:
            return
        if self.cycle is not before:
            self._enter(Phase.REQUEST)
        elif self.phase is Phase.LINGER and self.conn.their_state is h11.IDLE:
            self._enter(Phase.IDLE)

    def on_response_complete(self) -> None:
        """The answer is handed over; go on to the next request."""
        self.answered += 1
        if self.phase is not Phase.ENDED:
            unread = self.conn.their_state is h11.SEND_BODY
            self._enter(Phase.LINGER if unread else Phase.IDLE)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What h11 cannot read ends the connection; called where its error is being handled."""
        error = sys.exc_info()[1]
        too_large = getattr(error, "error_status_hint", 400) == 431
        self.refuse(
            HeadTooLarge(MAX_HEAD_BYTES) if too_large else MalformedRequest("this is no HTTP/1.1 request")
        )

    def refuse(self, error: StrongroomError) -> None:
        """Say why, if an answer can still be said, and end."""
        self._enter(Phase.ENDED)
        answer = describe(error).response()
        head: Any = [*answer.raw_headers, (b"connection", b"close")]
        try:
            for event in (
                h11.Response(status_code=answer.status_code, headers=head),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # in the middle of an answer: there is no place for another one
            self.transport.abort()
        else:
            self.transport.close()

    def end_if_late(self, now: float) -> None:
        """End the connection if it has been in its phase for too long (`now`: monotonic seconds)."""
        if now - self.since < DEADLINES[self.phase]:
            return
        if self.phase is Phase.HEAD:
            self.refuse(RequestTooSlow(HEAD_SECONDS))
        elif self.phase in (Phase.NEW, Phase.IDLE):
            self._enter(Phase.ENDED)
            self.transport.close()
        else:
            self.drop()

    def drop(self) -> None:
        """End at once, without a word."""
        self._enter(Phase.ENDED)
        self.transport.abort()

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing of ours is under way: only the client would miss this connection."""
        return self.phase is not Phase.REQUEST or self.cycle.more_body

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, time.monotonic()


def make_room(connections: Collection[Any], newcomer: Connection, most: int) -> bool:
    """End the connection that is most likely to be missed by nobody. False if all are at work."""
    now = time.monotonic()
    # Those that are ending are still in the collection until the loop has seen to it.
    # What has become a WebSocket is none of ours any more, and bounded by whoever serves it.
    staying = [
        other for other in connections if isinstance(other, Connection) and other.phase is not Phase.ENDED
    ]
    if len(staying) <= most:
        return True
    idle = [other for other in staying if other is not newcomer and other.waits_for_client]
    if not idle:
        return False
    # Never answered and old first: that is what a flood of connections that say nothing looks like.
    least = min(idle, key=lambda other: (now - other.since < FRESH_SECONDS, other.answered > 0, other.since))
    least.drop()
    return True


class Server(uvicorn.Server):
    """uvicorn's server, which looks at its connections' deadlines twice a second."""

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second while it serves; True ends it."""
        if counter % _WATCH_TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.end_if_late(now)
        return await super().on_tick(counter)
