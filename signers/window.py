"""A rolling sum: how much was signed within the last so many seconds. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from chains.errors import InvalidValue


class RollingWindow:
    """Amounts by key; each counts once, at its largest, from its latest time on for `seconds`.

    Replacing a transaction puts its key again: the larger of both amounts counts, and from now. Time given to
    `put` and `total` must not go back. Each operation costs amortised constant time.

    Raises:
        InvalidValue: a window shorter than a second.
    """

    __slots__ = ("_entries", "_total", "seconds")

    def __init__(self, seconds: int) -> None:
        if seconds < 1:
            raise InvalidValue(f"window of {seconds} seconds: expected 1 or more")
        self.seconds = seconds
        self._entries: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._total = 0

    def put(self, key: str, units: int, at: int) -> None:
        """Count `units` (0 or more) under `key` from time `at` (UNIX seconds) on."""
        self._expire(at)
        _, before = self._entries.pop(key, (0, 0))
        largest = max(before, units)
        self._entries[key] = (at, largest)
        self._total += largest - before

    def total(self, now: int) -> int:
        """Sum of what counts at `now`."""
        self._expire(now)
        return self._total

    def total_with(self, additions: Iterable[tuple[str, int]], now: int) -> int:
        """What `total` would be after putting all `additions` (distinct keys) at `now`; changes nothing."""
        total = self.total(now)
        for key, units in additions:
            total += max(0, units - self._entries.get(key, (0, 0))[1])
        return total

    def _expire(self, now: int) -> None:
        # Times are put in rising order, so the first entry is always the oldest.
        while self._entries:
            key, (at, units) = next(iter(self._entries.items()))
            if at > now - self.seconds:
                return
            del self._entries[key]
            self._total -= units
