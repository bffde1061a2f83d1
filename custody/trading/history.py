"""Fills, orders that had some, and candles, for those who ask later: SQLite, derived from the journal.

Nothing is decided by it, and it may be deleted: the next start makes it anew from the journal. Fills, candles
and how far they reach are written in one transaction, so after a crash it goes on where it stood.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, cast

import msgspec

from custody.trading.candles import INTERVALS, Candle, Candles
from custody.trading.commands import OrderType, Side, TimeInForce
from custody.trading.core import Applied
from custody.trading.events import Filled

Status = str
"""Of an order: `open`, `waiting` (for its stop price), `filled`, or why it ended."""

KEEP_SECONDS_OF_1S: Final = 86_400
"""Candles of one second are kept for a day."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reach (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), sequence INTEGER NOT NULL)
STRICT; CREATE TABLE IF NOT EXISTS fills (
    sequence INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, market TEXT NOT NULL,
    price TEXT NOT NULL, base_units TEXT NOT NULL, quote_units TEXT NOT NULL, taker_side TEXT NOT NULL,
    maker TEXT NOT NULL, maker_order INTEGER NOT NULL, maker_client_order_id TEXT NOT NULL, maker_fee TEXT NOT NULL,
    taker TEXT NOT NULL, taker_order INTEGER NOT NULL, taker_client_order_id TEXT NOT NULL, taker_fee TEXT NOT NULL,
    PRIMARY KEY (sequence, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fills_of_market ON fills (market, sequence, number);
CREATE INDEX IF NOT EXISTS fills_of_maker ON fills (maker, sequence, number);
CREATE INDEX IF NOT EXISTS fills_of_taker ON fills (taker, sequence, number);
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, customer TEXT NOT NULL, client_order_id TEXT NOT NULL, record BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS orders_of ON orders (customer, client_order_id);
CREATE TABLE IF NOT EXISTS candles (
    market TEXT NOT NULL, interval TEXT NOT NULL, start INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (market, interval, start)
) STRICT, WITHOUT ROWID;
"""


class FillRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One trade, with both sides."""

    sequence: int
    number: int
    """Among the events of its command."""
    at: int
    market: str
    price: int
    base_units: int
    quote_units: int
    taker_side: Side
    maker: str
    maker_order: int
    maker_client_order_id: str
    maker_fee: int
    taker: str
    taker_order: int
    taker_client_order_id: str
    taker_fee: int


def fill_record(event: Filled, one: Applied, number: int) -> FillRecord:
    """The record of a fill: event `number` of what a command gave."""
    return FillRecord(
        *(
            one.sequence,
            number,
            one.command.at,
            event.market,
            event.price,
            event.base_units,
            event.quote_units,
        ),
        *(event.taker_side, event.maker, event.maker_order, event.maker_client_order_id, event.maker_fee),
        *(event.taker, event.taker_order, event.taker_client_order_id, event.taker_fee),
    )


class OrderRecord(msgspec.Struct, array_like=True):
    """An order as its customer sees it."""

    id: int
    customer: str
    client_order_id: str
    market: str
    side: Side
    type: OrderType
    tif: TimeInForce
    price: int
    base_units: int
    quote_units: int
    """Of a market order by quote amount."""
    stop_price: int
    at: int
    """When it was placed, microseconds since 1970."""
    status: Status = "open"
    filled_base: int = 0
    filled_quote: int = 0
    fees: int = 0
    """In the quote asset, rebates taken off."""
    updated_at: int = 0


@dataclass(slots=True)
class Chapter:
    """What is to be written next."""

    until: int
    """The last command in it."""
    fills: list[FillRecord] = field(default_factory=list)
    orders: list[OrderRecord] = field(default_factory=list)
    candles: list[tuple[str, str, Candle]] = field(default_factory=list)
    at: int = 0


class History:
    """The file. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def reach(self) -> int:
        """The last command whose effects are in it; 0: none."""
        row = self._db.execute("SELECT sequence FROM reach").fetchone()
        return 0 if row is None else int(row[0])

    def write(self, chapter: Chapter) -> None:
        """Write all of it, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                f"INSERT OR REPLACE INTO fills VALUES ({', '.join('?' * 16)})",
                [_fill_row(fill) for fill in chapter.fills],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)",
                [(o.id, o.customer, o.client_order_id, msgspec.json.encode(o)) for o in chapter.orders],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO candles VALUES (?, ?, ?, ?)",
                [(market, name, c.start, msgspec.json.encode(c)) for market, name, c in chapter.candles],
            )
            self._db.execute("INSERT OR REPLACE INTO reach VALUES (1, ?)", (chapter.until,))
            if chapter.candles:
                old = chapter.at - KEEP_SECONDS_OF_1S * INTERVALS["1s"]
                self._db.execute("DELETE FROM candles WHERE interval = '1s' AND start < ?", (old,))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def candles_to_go_on_with(self, markets: Sequence[str]) -> Candles:
        """The newest candle of each market and interval."""
        found = Candles()
        for market in markets:
            for interval in INTERVALS:
                for candle in self.candles(market, interval, before=1 << 62, limit=1):
                    found.load(market, interval, candle)
        return found

    def candles(self, market: str, interval: str, *, before: int, limit: int) -> list[Candle]:
        """At most `limit` candles that begin before this time (microseconds), the newest first."""
        rows = self._db.execute(
            "SELECT record FROM candles WHERE market = ? AND interval = ? AND start < ? ORDER BY start DESC LIMIT ?",
            (market, interval, before, limit),
        )
        return [msgspec.json.decode(record, type=Candle) for (record,) in rows]

    def trades(self, market: str, *, before: tuple[int, int], limit: int) -> list[FillRecord]:
        """A market's trades before this one (sequence, number), the newest first."""
        rows = self._db.execute(
            "SELECT * FROM fills WHERE market = ? AND (sequence, number) < (?, ?)"
            " ORDER BY sequence DESC, number DESC LIMIT ?",
            (market, *before, limit),
        )
        return [_fill(row) for row in rows]

    def fills(self, customer: str, *, after: tuple[int, int], limit: int) -> list[FillRecord]:
        """A customer's fills behind this one (sequence, number), oldest first."""
        found = [
            _fill(row)
            for side in ("maker", "taker")
            for row in self._db.execute(
                f"SELECT * FROM fills WHERE {side} = ? AND (sequence, number) > (?, ?)"
                " ORDER BY sequence, number LIMIT ?",
                (customer, *after, limit),
            )
        ]
        found.sort(key=lambda fill: (fill.sequence, fill.number))
        return found[:limit]

    def order(self, customer: str, client_order_id: str) -> OrderRecord | None:
        """The newest closed order of this id that had fills."""
        row = self._db.execute(
            "SELECT record FROM orders WHERE customer = ? AND client_order_id = ? ORDER BY id DESC LIMIT 1",
            (customer, client_order_id),
        ).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=OrderRecord)

    def filled(self, order: int, customer: str) -> tuple[int, int, int]:
        """What an order's fills were, together: base units, quote units, fees."""
        base = quote = fees = 0
        for side in ("maker", "taker"):
            for row in self._db.execute(
                f"SELECT base_units, quote_units, {side}_fee FROM fills WHERE {side} = ? AND {side}_order = ?"
                " AND sequence >= ?",
                (customer, order, order),
            ):
                base, quote, fees = base + int(row[0]), quote + int(row[1]), fees + int(row[2])
        return base, quote, fees


def _fill_row(fill: FillRecord) -> tuple[object, ...]:
    return (
        *(fill.sequence, fill.number, fill.at, fill.market),
        *(str(fill.price), str(fill.base_units), str(fill.quote_units), fill.taker_side),
        *(fill.maker, fill.maker_order, fill.maker_client_order_id, str(fill.maker_fee)),
        *(fill.taker, fill.taker_order, fill.taker_client_order_id, str(fill.taker_fee)),
    )


def _fill(row: Sequence[object]) -> FillRecord:
    numbers = {0, 1, 2, 4, 5, 6, 9, 11, 13, 15}
    values = [int(str(value)) if index in numbers else str(value) for index, value in enumerate(row)]
    return FillRecord(*cast("tuple[int]", tuple(values)))  # type: ignore[call-arg]
