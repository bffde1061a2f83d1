"""What readers of the stream get, and how one who does not read harms nobody but himself.

Each message is encoded once, whoever gets it. A reader has a bounded queue. When it is full, market data is no
longer queued for him: once he has read what there is, he gets a fresh snapshot and goes on from there. What he
must not miss (answers, his own orders and fills) ends the connection instead: he comes back and asks how things are.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from custody.trading.candles import INTERVALS
from custody.trading.core import Applied
from custody.trading.events import Filled
from custody.trading.history import FillRecord, fill_record
from custody.trading.service import Trading

QUEUE: Final = 1_000
"""Messages that wait for one reader."""
STALLED_SECONDS: Final = 10.0
"""A reader who takes nothing for so long is cut off."""
SNAPSHOT_LEVELS: Final = 1_000
PUBLISH_SECONDS: Final = 1.0
"""How often tickers and candles are told of, where something was traded."""

Topic = tuple[str, str]
"""Channel, and market (of candles: market and interval, of orders: customer)."""
_ENCODER: Final = msgspec.json.Encoder()


class Reader:
    """One connection's outgoing side."""

    def __init__(self) -> None:
        self.topics: set[Topic] = set()
        self.behind: set[Topic] = set()
        """Topics of which something was left out since the queue was full."""
        self.lost = False
        """Something that must not be missed could not be queued: the connection has to end."""
        self.sending_since: float | None = None
        """Since when (monotonic seconds) one message is being sent; None: none is."""
        self.cut: Callable[[], object] = lambda: None
        """Ends the connection at once."""
        self._queue: deque[str] = deque()
        self._arrived = asyncio.Event()

    def offer(self, topic: Topic, message: str) -> None:
        """Market data: left out if the queue is full."""
        if topic in self.behind:
            return
        if len(self._queue) >= QUEUE:
            self.behind.add(topic)
        else:
            self._queue.append(message)
        self._arrived.set()

    def insist(self, message: str) -> None:
        """An answer, or news of an own order: the connection ends if it cannot be queued."""
        if len(self._queue) >= 2 * QUEUE:
            self.lost = True
        else:
            self._queue.append(message)
        self._arrived.set()

    async def next(self) -> str | None:
        """The next message; None: the queue is empty, and some topics are behind."""
        while True:
            if self._queue:
                return self._queue.popleft()
            if self.behind or self.lost:
                return None
            self._arrived.clear()
            await self._arrived.wait()


class Streams:
    """Follows the core, behind records and market data, and tells readers."""

    def __init__(self, trading: Trading) -> None:
        self._trading = trading
        self._readers: dict[Topic, set[Reader]] = {}
        self.all: set[Reader] = set()
        self._trades: dict[str, list[FillRecord]] = {}
        self._traded: set[str] = set()
        self._sequence = 0

    def join(self, reader: Reader, topic: Topic) -> None:
        """Tell a reader of a topic from now on, beginning with how things are."""
        reader.topics.add(topic)
        self._readers.setdefault(topic, set()).add(reader)
        for message in self._present(topic):
            reader.offer(topic, message)

    def leave(self, reader: Reader, topic: Topic) -> None:
        """Tell a reader no more of a topic."""
        reader.topics.discard(topic)
        readers = self._readers.get(topic)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[topic]

    def catch_up(self, reader: Reader) -> None:
        """A reader has read all there was: begin again with the topics that he is behind in."""
        behind, reader.behind = reader.behind, set()
        for topic in behind & reader.topics:
            for message in self._present(topic):
                reader.offer(topic, message)

    def enter(self, reader: Reader) -> None:
        """A connection begins."""
        self.all.add(reader)

    def exit(self, reader: Reader) -> None:
        """A connection ends."""
        self.all.discard(reader)
        for topic in list(reader.topics):
            self.leave(reader, topic)

    # --- from the core --------------------------------------------------------------------------------------

    def take(self, one: Applied) -> None:
        """Follow the core."""
        self._sequence = one.sequence
        told: dict[Topic, dict[str, str]] = {}
        for number, event in enumerate(one.events):
            if isinstance(event, Filled):
                self._filled(event, one, number)
                sides = [
                    (event.maker, event.maker_client_order_id),
                    (event.taker, event.taker_client_order_id),
                ]
            else:
                sides = [(getattr(event, "customer", ""), getattr(event, "client_order_id", ""))]
            for customer, client_order_id in sides:
                topic = ("orders", customer)
                if client_order_id and topic in self._readers:
                    told.setdefault(topic, {})[client_order_id] = customer
        for topic, orders in told.items():
            for client_order_id, customer in orders.items():
                self._tell_order(topic, customer, client_order_id, one.sequence)

    def flush(self) -> None:
        """A group ends: tell how depth and trades have changed."""
        views = self._trading.views
        for name in self._trading.market_data.markets:
            change = self._trading.market_data.increment(name, self._sequence)
            if change is not None and (readers := self._readers.get(("depth", name))):
                shown = views.increment(views.market_of(name), change)
                self._tell(("depth", name), readers, {"type": "depth", **shown})
        for name, fills in self._trades.items():
            self._traded.add(name)
            if readers := self._readers.get(("trades", name)):
                items = [views.trade(fill) for fill in fills]
                self._tell(("trades", name), readers, {"type": "trades", "market": name, "items": items})
        self._trades.clear()

    def publish(self) -> None:
        """Tell of tickers and candles where something was traded since the last call."""
        for name in self._traded:
            for interval in ("", *INTERVALS):
                topic = ("candles", f"{name}/{interval}") if interval else ("ticker", name)
                if readers := self._readers.get(topic):
                    for message in self._present(topic):
                        for reader in readers:
                            reader.offer(topic, message)
        self._traded.clear()

    def cut_stalled(self) -> None:
        """End the connections of readers who take nothing."""
        since = time.monotonic() - STALLED_SECONDS
        for reader in self.all:
            if reader.sending_since is not None and reader.sending_since < since:
                reader.cut()

    async def run(self) -> None:
        """Publish and watch until cancelled."""
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            self.publish()
            self.cut_stalled()

    # ----------------------------------------------------------------------------------------------------------

    def _present(self, topic: Topic) -> list[str]:
        """How things are, as the first message (or none) of a topic."""
        channel, name = topic
        trading, views = self._trading, self._trading.views
        if channel == "orders":
            items = [views.order(record) for record in trading.records.open_orders(name, None)]
            return [_text({"type": "orders", "customer": name, "items": items})]
        market_name, _, interval = name.partition("/")
        market = views.market_of(market_name)
        view = trading.market_data.markets[market_name]
        if channel == "depth":
            return [_text({"type": "depth_snapshot", **views.depth(market, view, SNAPSHOT_LEVELS)})]
        if channel == "trades":
            items = [views.trade(fill) for fill in list(view.trades)[-50:]]
            return [_text({"type": "trades_snapshot", "market": market_name, "items": items})]
        if channel == "ticker":
            return [_text({"type": "ticker", **views.ticker(market, view, trading.core.now())})]
        candle = trading.records.candles.newest(market_name, interval)
        if candle is None:
            return []
        shown = views.candle(market, candle)
        return [_text({"type": "candle", "market": market_name, "interval": interval, **shown})]

    def _tell_order(self, topic: Topic, customer: str, client_order_id: str, sequence: int) -> None:
        record = self._trading.records.order(customer, client_order_id)
        if record is not None:
            message = _text({"type": "order", "sequence": sequence, **self._trading.views.order(record)})
            for reader in self._readers[topic]:
                reader.insist(message)

    def _filled(self, event: Filled, one: Applied, number: int) -> None:
        fill = fill_record(event, one, number)
        self._trades.setdefault(event.market, []).append(fill)
        for customer in (event.maker, event.taker):
            topic = ("orders", customer)
            if topic in self._readers:
                shown = self._trading.views.fill(fill, customer)
                message = _text({"type": "fill", "customer": customer, **shown})
                for reader in self._readers[topic]:
                    reader.insist(message)

    @staticmethod
    def _tell(topic: Topic, readers: set[Reader], value: dict[str, Any]) -> None:
        message = _text(value)
        for reader in readers:
            reader.offer(topic, message)


def _text(value: dict[str, Any]) -> str:
    return _ENCODER.encode(value).decode()
