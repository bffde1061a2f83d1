"""Ports that several slices share: the clock, prices, and the bell that wakes workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from chains.errors import InvalidValue, TransientError

Clock = Callable[[], int]
"""The present, in whole UNIX seconds."""


def system_clock() -> int:
    """This machine's clock, whole UNIX seconds."""
    return int(time.time())


class PriceUnavailable(TransientError):
    """No price, or one that is too old. Whoever needs it must deny or wait, never assume."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one base unit of an asset is worth, as an exact fraction, at a moment.

    Raises:
        InvalidValue: not positive, or not integers.
    """

    asset: str
    currency: str
    """ISO 4217, e.g. `EUR`."""
    numerator: int
    """Smallest units of the currency (cents) ..."""
    denominator: int
    """... for so many base units of the asset."""
    at: int
    """When it was quoted, UNIX seconds."""

    def __post_init__(self) -> None:
        numbers = (self.numerator, self.denominator, self.at)
        if any(type(n) is not int for n in numbers) or self.numerator <= 0 or self.denominator <= 0:
            raise InvalidValue(f"price of {self.asset}: expected positive integers")

    def value(self, units: int) -> int:
        """Worth of `units` base units in the currency's smallest units, rounded up: caps err to the safe
        side."""
        return -(-units * self.numerator // self.denominator)


class Prices(Protocol):
    """Where values come from."""

    def price(self, asset: str) -> Price:
        """The present price of an asset of the bundle. Raises PriceUnavailable."""


class FreshPrices:
    """Prices no older than a bound: a stale one is as good as none.

    Args:
        prices: where they come from.
        clock: the present.
        max_age_seconds: older ones, and those from the future, are refused.
    """

    def __init__(self, prices: Prices, clock: Clock, *, max_age_seconds: int) -> None:
        self._prices, self._clock, self._max_age_seconds = prices, clock, max_age_seconds

    def price(self, asset: str) -> Price:
        """The price, if it is fresh. Raises PriceUnavailable."""
        price = self._prices.price(asset)
        age = self._clock() - price.at
        if not 0 <= age <= self._max_age_seconds:
            raise PriceUnavailable(
                f"price of {asset}: {age} s old, at most {self._max_age_seconds} s are accepted"
            )
        return price


class FixedPrices:
    """Prices given at the start, quoted again at every call: for regtest, and for assets with a fixed
    rate."""

    def __init__(self, prices: Mapping[str, tuple[str, int, int]], clock: Clock) -> None:
        self._prices, self._clock = dict(prices), clock

    def price(self, asset: str) -> Price:
        """The fixed price, as of now. Raises PriceUnavailable if none was given."""
        if asset not in self._prices:
            raise PriceUnavailable(f"price of {asset}: none is configured")
        currency, numerator, denominator = self._prices[asset]
        return Price(asset, currency, numerator, denominator, self._clock())


class Step(StrEnum):
    """A step of the workers. Each finds all its work in the database, so ringing for it is never needed
    twice."""

    ROUTE = "route"
    EXPIRE = "expire"
    SETTLE_INTERNAL = "settle_internal"
    ANNOUNCE = "announce"
    """Signers are shown what they have to know for a while before they pay."""
    BUILD = "build"
    SIGN = "sign"
    BROADCAST = "broadcast"
    TRACK = "track"
    BUMP = "bump"
    BOOK_LOSSES = "book_losses"
    SWEEP = "sweep"
    RECONCILE = "reconcile"
    WATCH_SIGNERS = "watch_signers"
    TELL_OTHERS = "tell_others"
    """Travel-rule data goes to the services whose customers are paid."""


class Wake(Protocol):
    """The bell: tells workers that there is something to do. Best effort; without it the next beat finds
    it."""

    def __call__(self, step: Step) -> None:
        """Ring for `step` and return soon. Never raises."""


def wake_nobody(step: Step) -> None:
    """A bell that nobody hears."""
