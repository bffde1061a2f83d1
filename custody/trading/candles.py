"""Candles: what trades did to the price, second by second up to day by day. Integers; times are microseconds
since 1970."""

from __future__ import annotations

from typing import Final

import msgspec

SECOND: Final = 1_000_000
INTERVALS: Final = {
    "1s": SECOND,
    "1m": 60 * SECOND,
    "5m": 300 * SECOND,
    "15m": 900 * SECOND,
    "1h": 3_600 * SECOND,
    "4h": 14_400 * SECOND,
    "1d": 86_400 * SECOND,
}
"""Name and length; each begins at a multiple of its length, days at midnight UTC."""


class Candle(msgspec.Struct):
    """One interval of one market in which something was traded. Intervals without trades have none."""

    start: int
    open: int
    high: int
    low: int
    close: int
    base_units: int
    """Sum of what was traded."""
    quote_units: int
    trades: int


class Candles:
    """The newest candle of each market and interval, and which have changed since they were last written."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], Candle] = {}
        self._changed: dict[tuple[str, str, int], Candle] = {}

    def load(self, market: str, interval: str, candle: Candle) -> None:
        """Go on with this one."""
        self._newest[market, interval] = candle

    def trade(self, market: str, at: int, price: int, base_units: int, quote_units: int) -> None:
        """Count one trade; trades come in the order of time."""
        for interval, length in INTERVALS.items():
            start = at - at % length
            candle = self._newest.get((market, interval))
            if candle is None or candle.start < start:
                candle = Candle(start, price, price, price, price, 0, 0, 0)
                self._newest[market, interval] = candle
            elif price > candle.high:
                candle.high = price
            elif price < candle.low:
                candle.low = price
            candle.close = price
            candle.base_units += base_units
            candle.quote_units += quote_units
            candle.trades += 1
            self._changed[market, interval, candle.start] = candle

    def newest(self, market: str, interval: str) -> Candle | None:
        """The candle of the last trade."""
        return self._newest.get((market, interval))

    def take_changed(self) -> list[tuple[str, str, Candle]]:
        """Copies of what has changed since the last call."""
        found = [
            (market, interval, msgspec.structs.replace(candle))
            for (market, interval, _), candle in self._changed.items()
        ]
        self._changed.clear()
        return found
