"""How often each client may call: a token bucket for every client and kind of call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec

from signers.wire import CallName

_TOKEN: Final = 1_000_000_000
"""Parts of a token: a nanosecond refills as many as tokens a second are allowed, so no fraction is ever lost."""
SIZE_OF_A_TOKEN_BYTES: Final = 256 * 1024
"""A longer call takes a token more for each such piece: it keeps the signer busy for longer."""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls of one kind that one client may make."""

    per_second: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """In the long run."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """At once, after a pause."""


MALFORMED: Final = "malformed"
"""Counts what is no call at all."""
DEFAULT_RATES: Final[Mapping[str, Rate]] = {
    "sign": Rate(per_second=200, burst=1_000),
    "attest": Rate(per_second=200, burst=1_000),
    "announce": Rate(per_second=20, burst=100),
    "status": Rate(per_second=50, burst=200),
    "metrics": Rate(per_second=5, burst=20),
    "deliver": Rate(per_second=2, burst=20),
    "freeze": Rate(per_second=5, burst=50),
    "veto": Rate(per_second=5, burst=50),
    "lower": Rate(per_second=5, burst=50),
    "confirm_clock": Rate(per_second=2, burst=20),
    "open": Rate(per_second=50, burst=500),
    "resolve": Rate(per_second=50, burst=500),
    "log": Rate(per_second=50, burst=500),
    "seal": Rate(per_second=5, burst=100),
    "verdict": Rate(per_second=20, burst=100),
    "audit": Rate(per_second=10, burst=50),
    MALFORMED: Rate(per_second=5, burst=50),
}
"""Used where the configuration says nothing else. An exchange's batches need a tenth of them."""


class Gate:
    """The buckets of all clients. Clients are few (pinned certificates, users of this machine), so none is dropped.

    Args:
        rates: by kind of call; kinds that are missing have their default.
        nanoseconds: a clock that only rises.
    """

    def __init__(
        self, rates: Mapping[CallName, Rate], *, nanoseconds: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._rates = dict(DEFAULT_RATES)
        self._rates.update((str(call), rate) for call, rate in rates.items())
        self._nanoseconds = nanoseconds
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], tuple[int, int]] = {}

    def wait_ms(self, client: str, kind: str, size: int = 0) -> int:
        """Take the tokens for a call of `size` bytes: 0 if they were there, else milliseconds until they will be.

        A call that is larger than the whole bucket takes a full one.
        """
        rate = self._rates[kind]
        full = rate.burst * _TOKEN
        cost = min((1 + size // SIZE_OF_A_TOKEN_BYTES) * _TOKEN, full)
        with self._lock:
            now = self._nanoseconds()
            left, at = self._buckets.get((client, kind), (full, now))
            left = min(left + (now - at) * rate.per_second, full)
            enough = left >= cost
            self._buckets[client, kind] = (left - cost if enough else left, now)
        return 0 if enough else -(-(cost - left) // (rate.per_second * 1_000_000))
