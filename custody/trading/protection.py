"""What protects a market from its own orders: a price band that trades cannot leave, a breaker on fast moves."""

from __future__ import annotations

from typing import Final

import msgspec

from custody.trading.market import BPS, Market

NO_BOUND: Final = 10**78
"""Above every price."""


class Guard(msgspec.Struct, eq=False):
    """Price band and circuit breaker of one market. Prices are 0 where there is none yet."""

    reference: int = 0
    low: int = 0
    """Trades below this price are not made."""
    high: int = NO_BOUND
    band_end: int = 0
    """When the reference follows the last price."""
    window_end: int = 0
    """When the breaker's present window ends."""
    lowest: int = 0
    highest: int = 0
    """Of the prices in the present window."""
    before_lowest: int = 0
    before_highest: int = 0
    """Of those in the window before it, so that no move within one window's time is cut in two."""

    def lay(self, market: Market, reference: int) -> None:
        """Lays the band around a price; 0 takes it away."""
        self.reference = reference
        self.low, self.high = 0, NO_BOUND
        if reference and market.band_bps:
            self.low = -(-reference * (BPS - market.band_bps) // BPS)
            self.high = reference * (BPS + market.band_bps) // BPS

    def start(self, price: int) -> None:
        """Forgets all moves: from now on they are measured from this price."""
        self.lowest = self.highest = self.before_lowest = self.before_highest = price

    def due(self) -> int:
        """When `advance` has something to do next."""
        return min(self.band_end, self.window_end)

    def advance(self, market: Market, at: int, last: int) -> None:
        """Moves the windows on to `at`."""
        if at >= self.band_end:
            self.band_end = (at // market.band_micros + 1) * market.band_micros
            if last:
                self.lay(market, last)
        if at >= self.window_end:
            width = market.breaker_micros
            if at < self.window_end + width:
                self.before_lowest, self.before_highest = self.lowest, self.highest
            else:
                self.before_lowest = self.before_highest = last
            self.lowest = self.highest = last
            self.window_end = (at // width + 1) * width

    def moved_too_fast(self, market: Market, first: int, last: int) -> bool:
        """Counts trades that went from one price to another; True if the breaker has to halt the market."""
        self.lowest = min(self.lowest or first, first, last)
        self.highest = max(self.highest, first, last)
        lowest = min(self.lowest, self.before_lowest or self.lowest)
        highest = max(self.highest, self.before_highest)
        limit = market.breaker_bps
        return bool(limit) and (
            (last - lowest) * BPS > lowest * limit or (highest - last) * BPS > highest * limit
        )
