"""The WebSocket face: `GET /v1/stream` with a token, then JSON messages both ways.

What a client sends has an `op` and an `id` of its own; the answer has the same `id`. An order's answer comes
when its command is on the disk and applied.

```
{"op": "subscribe", "id": "1", "channel": "depth", "market": "BTC-USDX"}
        or trades, ticker, candles (with "interval"); or orders (with "customer", no market): own orders and fills
{"op": "unsubscribe", "id": "2", ...}
{"op": "place", "id": "3", "customer": "alice", "order": {...}}              the body of REST's POST
{"op": "cancel", "id": "4", "customer": "alice", "client_order_id": "a-1"}
{"op": "cancel_all", "id": "5", "customer": "alice", "market": null}
{"op": "replace", "id": "6", "customer": "alice", "client_order_id": "a-1", "order": {...}}   price, base_amount
{"op": "ping", "id": "7"}
```
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from chains.errors import StrongroomError
from custody.trading import orderentry, schemas
from custody.trading.access import Door, Visitor
from custody.trading.candles import INTERVALS
from custody.trading.problems import describe
from custody.trading.service import Trading
from custody.trading.streams import Reader, Streams, Topic
from custody.web.errors import FieldError, InvalidRequest, TooManyConnections
from custody.web.schemas import In, NameText
from custody.web.strictjson import read_object

MAX_IN_FLIGHT: Final = 256
"""Commands of one connection that may wait for their answers; then its next message is not read yet."""
MAX_CONNECTIONS: Final = 512
SLOW: Final = 4008
"""Close code: the client did not read what it must not miss."""

_log = structlog.get_logger("strongroom.trading")


class _Message(In):
    id: Annotated[str, StringConstraints(max_length=64)] | None = None


class Subscribe(_Message):
    """To be told of something, or no longer."""

    op: Literal["subscribe", "unsubscribe"]
    channel: Literal["depth", "trades", "ticker", "candles", "orders"]
    market: NameText | None = None
    customer: NameText | None = None
    interval: str | None = None

    def topic(self, trading: Trading) -> Topic:
        """What it is about. Raises NotFound, InvalidRequest."""
        if self.channel == "orders":
            if self.customer is None or self.market is not None:
                raise InvalidRequest(
                    [FieldError("customer", "orders are a customer's: name the customer only")]
                )
            return "orders", self.customer
        if self.market is None or self.customer is not None:
            raise InvalidRequest(
                [FieldError("market", f"{self.channel} is a market's: name the market only")]
            )
        trading.views.market_of(self.market)
        if self.channel != "candles":
            return self.channel, self.market
        if self.interval not in INTERVALS:
            raise InvalidRequest([FieldError("interval", f"expected one of {', '.join(INTERVALS)}")])
        return "candles", f"{self.market}/{self.interval}"


class PlaceIn(_Message):
    """An order."""

    op: Literal["place"]
    customer: NameText
    order: schemas.NewOrder


class CancelIn(_Message):
    """An order is to be cancelled."""

    op: Literal["cancel"]
    customer: NameText
    client_order_id: schemas.ClientOrderId


class CancelAllIn(_Message):
    """All open orders are to be cancelled."""

    op: Literal["cancel_all"]
    customer: NameText
    market: NameText | None = None


class ReplaceIn(_Message):
    """An order is to be changed."""

    op: Literal["replace"]
    customer: NameText
    client_order_id: schemas.ClientOrderId
    order: schemas.NewTerms


class Ping(_Message):
    """To see whether anybody is there."""

    op: Literal["ping"]


_Command = PlaceIn | CancelIn | CancelAllIn | ReplaceIn
_ANY: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[Subscribe | PlaceIn | CancelIn | CancelAllIn | ReplaceIn | Ping, Field(discriminator="op")]
)


class Session:
    """One connection of an admitted visitor."""

    def __init__(
        self, websocket: WebSocket, visitor: Visitor, trading: Trading, streams: Streams, door: Door
    ) -> None:
        self._websocket = websocket
        self._visitor = visitor
        self._trading = trading
        self._streams = streams
        self._door = door
        self.reader = Reader()
        self._flying: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def run(self) -> None:
        """Serve until either side ends."""
        self._streams.enter(self.reader)
        tasks = {asyncio.create_task(self._receive()), asyncio.create_task(self._send())}
        self.reader.cut = lambda: [task.cancel() for task in tasks]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.exit(self.reader)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                text = await self._websocket.receive_text()
                await self._room.acquire()
                # Not awaited: the next message is read meanwhile. Commands keep the order in which they came, as each
                # is submitted before its task first waits for anything.
                task = asyncio.create_task(self._handle(text))
                self._flying.add(task)
                task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        self._room.release()

    async def _handle(self, text: str) -> None:
        id: str | None = None
        try:
            self._door.count(self._visitor)
            document = read_object(text.encode())
            known = document.get("id")
            id = known if isinstance(known, str) else None
            answer = await self._act(_parse(document))
            self.reader.insist(_text({"type": "answer", "id": id, **answer}))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the connection goes on
            problem = describe(error)
            if problem.status >= 500 and not isinstance(error, StrongroomError):
                _log.error("unexpected error", error=type(error).__name__)
            body = read_object(problem.body().encode())
            self.reader.insist(_text({"type": "problem", "id": id, "problem": body}))

    async def _act(self, message: Any) -> dict[str, Any]:
        visitor, trading = self._visitor, self._trading
        if isinstance(message, Ping):
            return {"at": trading.core.now()}
        if isinstance(message, Subscribe):
            visitor.need("trading:read")
            topic = message.topic(trading)
            if topic[0] == "orders":
                visitor.need_customer(topic[1])
            if message.op == "unsubscribe":
                self._streams.leave(self.reader, topic)
            elif topic not in self.reader.topics:
                self._streams.join(self.reader, topic)
            return {"op": message.op, "channel": message.channel}
        visitor.need("trading:write")
        visitor.need_customer(message.customer)
        return {"op": message.op, **await self._command(message)}

    async def _command(self, message: _Command) -> dict[str, Any]:
        trading, customer = self._trading, message.customer
        if isinstance(message, PlaceIn):
            channel = self._visitor.entry.channel
            return {"order": await orderentry.place(trading, customer, message.order, channel)}
        if isinstance(message, CancelIn):
            return {"order": await orderentry.cancel(trading, customer, message.client_order_id)}
        if isinstance(message, ReplaceIn):
            found = await orderentry.replace(trading, customer, message.client_order_id, message.order)
            return {"order": found}
        return await orderentry.cancel_all(trading, customer, schemas.CancelMany(market=message.market))

    async def _send(self) -> None:
        reader, send = self.reader, self._websocket.send_text
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while not reader.lost:
                message = await reader.next()
                if message is None:
                    self._streams.catch_up(reader)
                    continue
                reader.sending_since = time.monotonic()
                await send(message)
                reader.sending_since = None
            await self._websocket.close(SLOW, "too slow: read faster, then come back")


def _parse(document: dict[str, Any]) -> Any:
    try:
        return _ANY.validate_python(document)
    except ValidationError as error:
        raise InvalidRequest(
            [
                FieldError(".".join(map(str, entry["loc"]))[:200] or "op", str(entry["msg"]))
                for entry in error.errors()[:10]
            ]
        ) from None


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


async def serve(websocket: WebSocket, visitor: Visitor) -> None:
    """Serve one connection of a visitor who has been let in."""
    state = websocket.app.state
    trading: Trading = state.trading
    streams: Streams = state.streams
    if len(streams.all) >= MAX_CONNECTIONS:
        await websocket.send_denial_response(describe(TooManyConnections(MAX_CONNECTIONS)).response())
        return
    await websocket.accept()
    await Session(websocket, visitor, trading, streams, state.door).run()
