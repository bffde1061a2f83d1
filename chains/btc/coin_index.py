"""Coins in order of value with running sums, so that a choice among 100,000 touches only a few. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from chains.btc.fees import FeeRate
from chains.btc.tx import MAX_MONEY_SATS
from chains.errors import InvalidValue

SCALE: Final = 4_000
"""Effective values are satoshis times this: sat/kvB times weight units is then exact without division."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output that may be spent.

    Raises:
        InvalidValue: no positive number of satoshis, or no positive weight.
    """

    resource: str
    """`txid:vout`."""
    units: int
    """Satoshis."""
    input_wu: int
    """Weight of the input that spends it, such as `P2WPKH_INPUT_WU`."""

    def __post_init__(self) -> None:
        if not 0 < self.units <= MAX_MONEY_SATS or self.input_wu < 164:
            raise InvalidValue(f"coin {self.resource}: {self.units} sats, {self.input_wu} weight units")


class CoinIndex:
    """Coins sorted by value once, for many choices. Immutable; `without` makes another one.

    Raises:
        InvalidValue: an outpoint occurs twice.
    """

    __slots__ = ("_coins", "_one_weight", "_resources", "_sums", "_units")

    def __init__(self, coins: Iterable[Coin]) -> None:
        self._coins = sorted(coins, key=lambda coin: (coin.units, coin.resource))
        self._resources = frozenset(coin.resource for coin in self._coins)
        if len(self._resources) != len(self._coins):
            raise InvalidValue("a coin is listed twice")
        self._units = [coin.units for coin in self._coins]
        self._sums = [0, *accumulate(self._units)]
        weights = {coin.input_wu for coin in self._coins}
        self._one_weight = weights.pop() if len(weights) == 1 else None

    def __len__(self) -> int:
        return len(self._coins)

    @property
    def total_sats(self) -> int:
        """Sum of all coins, not counting what spending them costs."""
        return self._sums[-1]

    def without(self, resources: Collection[str]) -> CoinIndex:
        """The same coins except those; itself if none of them is here."""
        if self._resources.isdisjoint(resources):
            return self
        return CoinIndex(coin for coin in self._coins if coin.resource not in resources)

    def pool(self, feerate: FeeRate) -> Pool:
        """The coins by effective value at `feerate`: no work if all have the same weight."""
        if self._one_weight is not None:
            # Equal weights keep the order by units, so the sums can be used as they are.
            offset = feerate.sat_per_kvb * self._one_weight
            return Pool(self._coins, self._units, self._sums, SCALE, offset, self._one_weight)
        rate = feerate.sat_per_kvb
        pairs = sorted(
            ((coin.units * SCALE - rate * coin.input_wu, coin) for coin in self._coins),
            key=lambda pair: (pair[0], pair[1].resource),
        )
        values = [value for value, _ in pairs]
        heaviest = max((coin.input_wu for coin in self._coins), default=1)
        return Pool([coin for _, coin in pairs], values, [0, *accumulate(values)], 1, 0, heaviest)


class Pool:
    """Coins in ascending order of effective value (scaled units less the fee of their input).

    Positions `start` to `end` (exclusive) are worth more than they cost; the others are never chosen.
    """

    __slots__ = ("_coins", "_factor", "_numbers", "_offset", "_sums", "end", "heaviest_wu", "start")

    def __init__(
        self,
        coins: list[Coin],
        numbers: list[int],
        sums: list[int],
        factor: int,
        offset: int,
        heaviest_wu: int,
    ) -> None:
        self._coins = coins
        self._numbers = numbers
        self._sums = sums
        self._factor = factor
        self._offset = offset
        self.heaviest_wu = heaviest_wu
        self.end = len(coins)
        self.start = 0
        self.start = self.first_at_least(1)

    def __len__(self) -> int:
        return self.end - self.start

    def value(self, position: int) -> int:
        """Scaled effective value at a position."""
        return self._numbers[position] * self._factor - self._offset

    def sum(self, first: int, end: int) -> int:
        """Scaled effective value of positions `first` to `end` (exclusive), in constant time."""
        return (self._sums[end] - self._sums[first]) * self._factor - (end - first) * self._offset

    def first_at_least(self, value: int) -> int:
        """First position, from `start`, whose effective value is at least `value`."""
        return max(self.start, bisect_left(self._numbers, -(-(value + self._offset) // self._factor)))

    def coins(self, positions: Iterable[int]) -> list[Coin]:
        """The coins at these positions."""
        return [self._coins[position] for position in positions]
