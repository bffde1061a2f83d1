"""A request as its bytes, before anything interprets them; and the way back to the client."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Receive, Scope, Send

from custody.web.connections import MAX_HEAD_BYTES
from custody.web.errors import BodyTooLarge, HeadTooLarge, MalformedRequest

_ONCE: Final = frozenset({b"authorization", b"content-type", b"idempotency-key"})
"""Headers that we read: if one is there twice, somebody in between may have read the other one."""


class Answer:
    """The way back to the client: adds what every answer has, and knows the status that was sent."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                (b"cache-control", b"no-store"),
            ]
        await self._send(message)

    def part(self) -> Part:
        """A way to the client that can be closed."""
        return Part(self)


class Part:
    """What the application answers through; nobody hears it once it is closed."""

    def __init__(self, answer: Answer) -> None:
        self._answer: Answer | None = answer

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if self._answer is not None:
            await self._answer(message)

    def close(self) -> None:
        """Another answer is given."""
        self._answer = None


class Gone(Exception):
    """The client left before its request was read."""


def check_head(scope: Scope) -> None:
    """Bound a request's head, and refuse what could be read in two ways.

    h11 bounds a head that comes in pieces only; and reads repeated headers as they are.

    Raises:
        HeadTooLarge: line and headers together are too long.
        MalformedRequest: a header that we read is there twice.
    """
    size = len(scope["raw_path"]) + len(scope["query_string"])
    seen = set()
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in _ONCE:
            if name in seen:
                raise MalformedRequest(f"the header {name.decode()} is there twice")
            seen.add(name)
    if size > MAX_HEAD_BYTES:
        raise HeadTooLarge(MAX_HEAD_BYTES)


async def read_body(receive: Receive, declared: str | None, limit: int) -> bytes:
    """The whole body; `declared` is what Content-Length says.

    Raises:
        BodyTooLarge: it has more than `limit` bytes.
        Gone: the client left.
    """
    if declared is not None and declared.isdigit() and int(declared[:12]) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(limit)
        if not message.get("more_body", False):
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
