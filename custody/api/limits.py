"""How often one caller may ask: a token bucket per caller, in memory, per process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from custody.api.errors import TooManyRequests

_BURST_SECONDS: Final = 2


class RateLimit:
    """Lets `per_second` requests of each caller through on average, and bursts of two seconds' worth.

    Callers are those of the bundle, so the table is bounded. Used from the event loop only.
    """

    def __init__(self, per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> None:
        """Count one request.

        Raises:
            TooManyRequests: the caller's bucket is empty.
        """
        now = self._clock()
        full = float(self._per_second * _BURST_SECONDS)
        left, since = self._buckets.get(caller, (full, now))
        left = min(full, left + (now - since) * self._per_second)
        if left < 1:
            self._buckets[caller] = (left, now)
            raise TooManyRequests(self._per_second)
        self._buckets[caller] = (left - 1, now)
