"""What was signed and may still be paid, or was within the last so many seconds. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from chains.errors import InvalidValue


class Counter:
    """Amounts by key; each counts once, at its largest: while it is open, and from its end on for `seconds`.

    An open key counts for ever, so that a hoarded signature never falls out of the sum. Time given to `total` must not
    go back. Each operation costs the logarithm of the number of keys that count.

    Args:
        seconds: how long a closed key still counts.
        largest: the largest amount ever signed for a key, also of one that counts no more; 0 for an unknown one.

    Raises:
        InvalidValue: a window shorter than a second.
    """

    __slots__ = ("_ends", "_entries", "_largest", "_total", "seconds")

    def __init__(self, seconds: int, largest: Callable[[str], int]) -> None:
        if seconds < 1:
            raise InvalidValue(f"window of {seconds} seconds: expected 1 or more")
        self.seconds = seconds
        self._largest = largest
        self._entries: dict[str, tuple[int, int | None]] = {}
        self._ends: list[tuple[int, str]] = []
        self._total = 0

    def open(self, key: str, units: int) -> None:
        """Count `units` (0 or more) under `key` until it is closed."""
        self._put(key, units, None)

    def close(self, key: str, units: int, since: int) -> None:
        """Count `units` under `key` until `seconds` after `since` (UNIX seconds)."""
        self._put(key, units, since)
        heapq.heappush(self._ends, (since, key))

    def total(self, now: int) -> int:
        """Sum of what counts at `now`."""
        while self._ends and self._ends[0][0] <= now - self.seconds:
            since, key = heapq.heappop(self._ends)
            units, ended = self._entries.get(key, (0, None))
            # Else it was opened again, or closed again later.
            if ended == since:
                del self._entries[key]
                self._total -= units
        return self._total

    def total_with(self, additions: Iterable[tuple[str, int]], now: int) -> int:
        """What `total` would be with all `additions` (distinct keys) signed at `now`; changes nothing."""
        total = self.total(now)
        for key, units in additions:
            entry = self._entries.get(key)
            total += max(units, self._largest(key)) if entry is None else max(0, units - entry[0])
        return total

    def _put(self, key: str, units: int, since: int | None) -> None:
        before, _ = self._entries.get(key, (0, None))
        self._entries[key] = (units, since)
        self._total += units - before
