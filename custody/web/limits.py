"""How often one caller, or one address without a good token, may ask: token buckets in memory, per process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from custody.web.errors import TooManyRequests

_BURST_SECONDS: Final = 2
_MAX_BUCKETS: Final = 4096
_GOOD_SECONDS: Final = 60


class RateLimit:
    """Lets `per_second` requests of each name through on average, and bursts of two seconds' worth.

    Used from the event loop only. The table is bounded: buckets that are full again are as good as none.
    """

    def __init__(self, per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._full = per_second * _BURST_SECONDS
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Count one request.

        Raises:
            TooManyRequests: the name's bucket is empty.
        """
        left = self._left(name)
        if name not in self._buckets and len(self._buckets) >= _MAX_BUCKETS:
            self._tidy()
        now = self._clock()
        if left < 1:
            self._buckets[name] = (left, now)
            raise TooManyRequests(self._per_second)
        self._buckets[name] = (left - 1, now)

    def check(self, name: str) -> None:
        """Look without counting.

        Raises:
            TooManyRequests: the name's bucket is empty.
        """
        if name in self._buckets and self._left(name) < 1:
            raise TooManyRequests(self._per_second)

    def _left(self, name: str) -> float:
        now = self._clock()
        left, since = self._buckets.get(name, (self._full, now))
        return min(self._full, left + (now - since) * self._per_second)

    def _tidy(self) -> None:
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if self._left(name) < self._full
        }
        while len(self._buckets) >= _MAX_BUCKETS:  # all of them are busy: forget who was first
            del self._buckets[next(iter(self._buckets))]


class Strangers:
    """What addresses may ask without a token, or with one that is no good.

    An address is that of the connection: behind a proxy many callers share it. So one from which good tokens come is
    always heard: only its bad ones are refused.
    """

    def __init__(self, per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = RateLimit(per_second, clock=clock)
        self._clock = clock
        self._good: dict[str, float] = {}

    def check(self, address: str) -> None:
        """Before anything is read from an address. Raises TooManyRequests."""
        if self._good.get(address, 0.0) < self._clock():
            self._limit.check(address)

    def take(self, address: str) -> None:
        """Count one request that showed no good token. Raises TooManyRequests."""
        self._limit.take(address)

    def vouch(self, address: str) -> None:
        """A good token came from this address."""
        if address not in self._good and len(self._good) >= _MAX_BUCKETS:
            del self._good[next(iter(self._good))]
        self._good[address] = self._clock() + _GOOD_SECONDS
