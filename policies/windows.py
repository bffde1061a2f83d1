"""Rolling windows kept incrementally: what has been let through counts while it is unpaid, and for the window's length
after it was settled.

The database keeps the same as rows (`policy_counts`); this is for replaying histories and for measuring. Each step
costs the same however much a window holds: what is paid leaves it from the front of a queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from chains.errors import InvalidValue
from policies.decision import LimitKey
from policies.rules import Limit, Policy

_SWEEP_EVERY: Final = 1 << 16
"""Steps between two looks for windows that have emptied and that nobody asks for any more."""


class _Window:
    __slots__ = ("paid", "paid_sum", "unpaid_count", "unpaid_sum")

    def __init__(self) -> None:
        self.unpaid_sum = 0
        self.unpaid_count = 0
        self.paid: deque[tuple[int, int]] = deque()
        """When and how much, oldest first."""
        self.paid_sum = 0

    def leave_out(self, until: int) -> None:
        """Forget what was paid at or before `until`."""
        paid = self.paid
        while paid and paid[0][0] <= until:
            self.paid_sum -= paid.popleft()[1]


class Windows:
    """The windows of one policy's limits. Time, in UNIX seconds, only rises.

    Asking is `Engine.decide`'s `spent`: pass `windows` itself, after `move_to` the moment of decision.

    Args:
        policy: whose limits say how long each window is.
    """

    __slots__ = ("_lengths", "_now", "_open", "_steps", "_windows")

    def __init__(self, policy: Policy) -> None:
        self._lengths = {
            rule.id: rule.limit.window_seconds for rule in policy.rules if rule.limit is not None
        }
        self._windows: dict[LimitKey, _Window] = {}
        self._open: dict[str, tuple[tuple[LimitKey, int], ...]] = {}
        self._now = 0
        self._steps = 0

    def move_to(self, now: int) -> None:
        """Let time pass.

        Raises:
            InvalidValue: `now` is before what it was already.
        """
        if now < self._now:
            raise InvalidValue(f"time goes back from {self._now} to {now}")
        self._now = now

    def __call__(self, key: LimitKey, limit: Limit) -> int:
        """What the window holds now."""
        window = self._windows.get(key)
        if window is None:
            return 0
        window.leave_out(self._now - limit.window_seconds)
        return window.paid_sum + window.unpaid_sum

    def let_through(self, payment: str, counts: Iterable[tuple[LimitKey, int]]) -> None:
        """Count a payment, unpaid as yet.

        Args:
            payment: its id; one that is counted already is left as it is.
            counts: what it adds to which windows (`Routed.counts`).
        """
        if payment in self._open:
            return
        kept = tuple(counts)
        self._open[payment] = kept
        for key, amount in kept:
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = _Window()
            window.unpaid_sum += amount
            window.unpaid_count += 1

    def settled(self, payment: str) -> None:
        """It was paid now: it counts for the window's length from here. One that is not counted is no matter."""
        for key, amount in self._close(payment):
            window = self._windows[key]
            window.paid.append((self._now, amount))
            window.paid_sum += amount
        self._step()

    def released(self, payment: str) -> None:
        """It will not be paid: it no longer counts. One that is not counted is no matter."""
        self._close(payment)
        self._step()

    def add(self, key: LimitKey, amount: int) -> None:
        """Count an amount that is paid at this moment."""
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
        window.paid.append((self._now, amount))
        window.paid_sum += amount
        self._step()

    def held(self, rule: str, limit: Limit) -> list[tuple[str, int]]:
        """What each window of a rule holds now, by bucket."""
        keys = [key for key in self._windows if key.rule == rule]
        return [(key.bucket, self(key, limit)) for key in keys]

    def __len__(self) -> int:
        """How many windows are remembered."""
        return len(self._windows)

    def sweep(self) -> None:
        """Forget windows that have emptied."""
        for key, window in list(self._windows.items()):
            window.leave_out(self._now - self._lengths[key.rule])
            if not window.paid and not window.unpaid_count:
                del self._windows[key]

    def _close(self, payment: str) -> tuple[tuple[LimitKey, int], ...]:
        counts = self._open.pop(payment, ())
        for key, amount in counts:
            window = self._windows[key]
            window.unpaid_sum -= amount
            window.unpaid_count -= 1
        return counts

    def _step(self) -> None:
        self._steps += 1
        if self._steps % _SWEEP_EVERY == 0:
            self.sweep()
