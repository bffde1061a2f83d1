"""Choosing coins: which UTXOs to spend for a set of payments, and whether to make change. Pure.

Three algorithms propose, and the proposal with the least *waste* wins (the metric of Bitcoin Core): what
spending these inputs now costs beyond spending them later at the long-term feerate, plus the cost of the
change (making it now and spending it later), or without change, what is overpaid.

- Branch and bound looks for a set that needs no change. It jumps to the next useful coin by bisection, so
  its budget of tries goes far in a big wallet.
- Fewest inputs: the largest coins, except that the last one is the smallest that completes the sum.
- Single random draw keeps the wallet's mix of coins as it is, and is cheap where many inputs are wanted.

All comparisons are exact: values are scaled by 4,000, so feerate (sat/kvB) times weight needs no division.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chains.btc.codec import compact_size
from chains.btc.coin_index import SCALE, Coin, CoinIndex, Pool
from chains.btc.fees import FeeRate
from chains.btc.script import MAX_STANDARD_TX_WU, P2WPKH_INPUT_WU, dust_limit_sats, output_size_vb
from chains.errors import InvalidValue, PermanentError

_BRANCH_LIMITS: Final = ((2, 100), (3, 100), (252, 250))
"""Branch and bound is run for at most so many inputs, with so many tries; few inputs waste least."""

_VSIZE_ROUNDING_WU: Final = 3
"""Weight is rounded up to whole virtual bytes, so up to three units more are paid for."""


class InsufficientFunds(PermanentError):
    """The coins can't pay. Both numbers are net of what spending the coins costs, so they can be compared."""

    def __init__(self, needed_sats: int, available_sats: int) -> None:
        super().__init__(f"needed {needed_sats} sats with fees, available {available_sats} sats")
        self.needed_sats = needed_sats
        self.available_sats = available_sats


class TooManyInputs(PermanentError):
    """The money is there, but in so many coins that the transaction would be too heavy: pay less at once."""

    def __init__(self, weight_wu: int, max_weight_wu: int) -> None:
        super().__init__(f"at least {weight_wu} weight units, at most {max_weight_wu} allowed")
        self.weight_wu = weight_wu
        self.max_weight_wu = max_weight_wu


class FeeAboveLimit(PermanentError):
    """At this feerate every choice costs more than the caller allows: wait for lower fees."""

    def __init__(self, fee_sats: int, max_fee_sats: int) -> None:
        super().__init__(f"the cheapest choice costs {fee_sats} sats, at most {max_fee_sats} allowed")
        self.fee_sats = fee_sats
        self.max_fee_sats = max_fee_sats


@dataclass(frozen=True, slots=True)
class Payments:
    """What the transaction pays, without change.

    Raises:
        InvalidValue: nothing is paid, or a size can't be right.
    """

    total_sats: int
    count: int
    """Number of outputs."""
    outputs_vb: int
    """Bytes of all outputs together."""

    def __post_init__(self) -> None:
        if self.total_sats < 0 or self.count < 1 or self.outputs_vb < 9 * self.count:
            raise InvalidValue(
                f"payments of {self.total_sats} sats in {self.count} outputs, {self.outputs_vb} vB"
            )

    @classmethod
    def to(cls, outputs: Iterable[tuple[int, bytes]]) -> Payments:
        """From satoshis and script of each output."""
        pairs = list(outputs)
        return cls(
            sum(units for units, _ in pairs), len(pairs), sum(output_size_vb(script) for _, script in pairs)
        )


@dataclass(frozen=True, slots=True)
class ChangeOutput:
    """What making change costs now and later."""

    output_vb: int
    """Bytes of the change output."""
    input_wu: int
    """Weight of spending it later."""
    dust_sats: int
    """bitcoind doesn't relay an output below this."""

    @classmethod
    def to(cls, script: bytes, input_wu: int = P2WPKH_INPUT_WU) -> ChangeOutput:
        """For change to `script`, to be spent with an input of `input_wu`."""
        return cls(output_size_vb(script), input_wu, dust_limit_sats(script))


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice. The coins are worth exactly the payments, the change (if any) and the fee."""

    coins: tuple[Coin, ...]
    """Pinned coins first, in their order."""
    change_sats: int | None
    """None: no change output."""
    fee_sats: int
    """With change, the feerate times `vsize_vb`, rounded up; without, also what was left over."""
    vsize_vb: int
    """Of the signed transaction if every signature has its largest size; signed it is at most this."""
    waste_sats: int
    """Waste metric, rounded down; negative where spending now is cheaper than later."""
    algorithm: str
    """Which one proposed it: `branch-and-bound`, `fewest-inputs`, `random-draw` or `pinned`."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Everything about one call except the coins to choose from."""

    payments: Payments
    feerate: FeeRate
    long_term: FeeRate
    change: ChangeOutput
    pinned: tuple[Coin, ...]
    max_weight_wu: int

    def weight_wu(self, coins: Sequence[Coin], outputs_vb: int, output_count: int) -> int:
        counts = len(compact_size(len(coins))) + len(compact_size(output_count))
        # version and locktime, the two counts, outputs; segwit marker and flag
        return (8 + counts + outputs_vb) * 4 + 2 + sum(coin.input_wu for coin in coins)

    def without_change_wu(self, coins: Sequence[Coin]) -> int:
        return self.weight_wu(coins, self.payments.outputs_vb, self.payments.count)

    def with_change_wu(self, coins: Sequence[Coin]) -> int:
        return self.weight_wu(
            coins, self.payments.outputs_vb + self.change.output_vb, self.payments.count + 1
        )

    @property
    def min_change_sats(self) -> int:
        """Smaller change isn't made: bitcoind wouldn't relay it, or spending it would eat it up."""
        return max(self.change.dust_sats, self.long_term.fee_for_weight(self.change.input_wu) + 1)

    @property
    def change_cost(self) -> int:
        """Scaled cost of making change now and spending it later."""
        return (
            self.feerate.sat_per_kvb * self.change.output_vb * 4
            + self.long_term.sat_per_kvb * self.change.input_wu
        )

    def target(self) -> int:
        """Scaled effective value that coins beside the pinned ones must bring, without change."""
        base_wu = self.without_change_wu(self.pinned) + _VSIZE_ROUNDING_WU
        pinned_sats = sum(coin.units for coin in self.pinned)
        return (self.payments.total_sats - pinned_sats) * SCALE + self.feerate.sat_per_kvb * base_wu

    def count_extra(self, pool_inputs: int) -> int:
        """Scaled cost of the two bytes more that the number of inputs takes beyond 252."""
        inputs = len(self.pinned)
        return self.feerate.sat_per_kvb * 8 if inputs <= 252 < inputs + pool_inputs else 0

    def change_extra(self) -> int:
        """Scaled value beyond `target` with which change can be made."""
        grown = len(compact_size(self.payments.count + 1)) - len(compact_size(self.payments.count))
        return self.min_change_sats * SCALE + self.feerate.sat_per_kvb * (self.change.output_vb + grown) * 4

    def finish(self, chosen: Sequence[Coin], algorithm: str) -> tuple[int, Selection] | None:
        """Scaled waste and the selection; None if these coins don't pay, or weigh too much."""
        coins = (*self.pinned, *chosen)
        left = sum(coin.units for coin in coins) - self.payments.total_sats
        waste = (self.feerate.sat_per_kvb - self.long_term.sat_per_kvb) * sum(c.input_wu for c in coins)
        weight = self.with_change_wu(coins)
        fee = self.feerate.fee_for(-(-weight // 4))
        if weight <= self.max_weight_wu and left - fee >= self.min_change_sats:
            waste += self.change_cost
            return waste, Selection(coins, left - fee, fee, -(-weight // 4), waste // SCALE, algorithm)
        weight = self.without_change_wu(coins)
        needed = self.feerate.fee_for(-(-weight // 4))
        if weight > self.max_weight_wu or left < needed or left - needed > self._largest_overpayment():
            return None
        waste += (left - needed) * SCALE
        return waste, Selection(coins, None, left, -(-weight // 4), waste // SCALE, algorithm)

    def _largest_overpayment(self) -> int:
        # What remains when change would be just too small, with a virtual byte of rounding.
        return -(-self.change_extra() // SCALE) + self.feerate.fee_for(1)


def select(
    coins: CoinIndex | Iterable[Coin],
    payments: Payments,
    *,
    feerate: FeeRate,
    long_term_feerate: FeeRate,
    change: ChangeOutput,
    pinned: Sequence[Coin] = (),
    seed: int = 0,
    max_weight_wu: int = MAX_STANDARD_TX_WU,
    max_fee_sats: int | None = None,
) -> Selection:
    """Choose coins that pay `payments` and the fee. The same arguments give the same answer.

    Args:
        coins: what may be spent; give a `CoinIndex` when choosing more than once from many.
        payments: outputs and their sum.
        feerate: for the whole transaction.
        long_term_feerate: what spending a coin is expected to cost at leisure; below it, spending more
            inputs now saves fees later.
        change: cost and limit of the change output.
        pinned: coins that must be spent, for a replacement that conflicts with earlier versions.
        seed: of the random draw.
        max_weight_wu: bound of the transaction's weight.
        max_fee_sats: bound of the fee, None for no bound beside the feerate.

    Raises:
        InsufficientFunds: all coins worth spending at this feerate don't suffice.
        TooManyInputs: they do, but not within `max_weight_wu`.
        FeeAboveLimit: they do, but not within `max_fee_sats`.
        InvalidValue: a coin is pinned twice.
    """
    task = _Task(payments, feerate, long_term_feerate, change, tuple(pinned), max_weight_wu)
    pinned_resources = {coin.resource for coin in pinned}
    if len(pinned_resources) != len(pinned):
        raise InvalidValue("a coin is pinned twice")
    index = coins if isinstance(coins, CoinIndex) else CoinIndex(coins)
    pool = index.without(pinned_resources).pool(feerate)

    proposals = [done for chosen, name in _proposals(task, pool, seed) if (done := task.finish(chosen, name))]
    if not proposals:
        raise _why_not(task, pool)
    affordable = [p for p in proposals if max_fee_sats is None or p[1].fee_sats <= max_fee_sats]
    if not affordable:
        assert max_fee_sats is not None
        raise FeeAboveLimit(min(selection.fee_sats for _, selection in proposals), max_fee_sats)
    return min(affordable, key=lambda p: (p[0], p[1].fee_sats, len(p[1].coins)))[1]


def _proposals(task: _Task, pool: Pool, seed: int) -> Iterator[tuple[list[Coin], str]]:
    """Sets of coins to be judged by `finish`, each with the name of the algorithm."""
    room_wu = task.max_weight_wu - task.without_change_wu(task.pinned) - _VSIZE_ROUNDING_WU
    max_inputs = max(0, room_wu // pool.heaviest_wu) if len(pool) else 0
    target, change_extra = task.target(), task.change_extra()
    if target <= 0:
        yield [], "pinned"
    if target > 0:
        input_waste = (task.feerate.sat_per_kvb - task.long_term.sat_per_kvb) * pool.heaviest_wu
        for most, tries in _BRANCH_LIMITS:
            limit = min(most, max_inputs)
            chosen = _branch_and_bound(pool, target, task.change_cost, input_waste, limit, tries)
            if chosen:
                yield pool.coins(chosen), "branch-and-bound"

    def without_change(inputs: int) -> int:
        return target + task.count_extra(inputs)

    def with_change(inputs: int) -> int:
        return target + change_extra + task.count_extra(inputs)

    for needed in (without_change, with_change):
        if chosen := _fewest_inputs(pool, needed, max_inputs):
            yield pool.coins(chosen), "fewest-inputs"
    if chosen := _random_draw(pool, with_change, max_inputs, random.Random(seed)):
        yield pool.coins(chosen), "random-draw"


def _branch_and_bound(
    pool: Pool, target: int, window: int, input_waste: int, max_inputs: int, tries: int
) -> list[int]:
    """The set worth `target` to `target + window` that wastes least; [] if none is found within `tries`.

    Depth first, larger coins first. A branch is cut when even the largest coins still allowed can't reach
    the target. Coins of equal value are tried once. `input_waste` is what each input wastes, scaled.
    """
    best: list[int] = []
    best_waste = 0
    chosen: list[int] = []
    missing = target
    cursor = pool.end
    for _ in range(tries):
        room = max_inputs - len(chosen)
        last = pool.first_at_least(missing)
        if room > 0 and last < cursor and pool.value(last) <= missing + window:
            # The smallest coin that completes is the best one that does.
            waste = (len(chosen) + 1) * input_waste + pool.value(last) - missing
            if not best or waste < best_waste:
                best, best_waste = [*chosen, last], waste
        cursor = min(cursor, last)
        if room > 1 and pool.sum(max(pool.start, cursor - room), cursor) >= missing:
            cursor -= 1
            chosen.append(cursor)
            missing -= pool.value(cursor)
        elif chosen:
            cursor = pool.first_at_least(pool.value(chosen[-1]))
            missing += pool.value(chosen.pop())
        else:
            break
    return best


def _fewest_inputs(pool: Pool, needed: Callable[[int], int], max_inputs: int) -> list[int]:
    """The largest coins that reach what is needed, the last one as small as possible; [] if they can't."""
    low, high = 1, min(len(pool), max_inputs)
    if high < 1 or pool.sum(pool.end - high, pool.end) < needed(high):
        return []
    while low < high:
        middle = (low + high) // 2
        if pool.sum(pool.end - middle, pool.end) >= needed(middle):
            high = middle
        else:
            low = middle + 1
    first = pool.end - low + 1
    last = pool.first_at_least(needed(low) - pool.sum(first, pool.end))
    return [*range(pool.end - 1, first - 1, -1), max(last, pool.start)]


def _random_draw(pool: Pool, wanted: Callable[[int], int], max_inputs: int, draw: random.Random) -> list[int]:
    """Coins drawn evenly until they reach what is wanted; [] if that takes too many."""
    chosen: dict[int, None] = {}
    value = 0
    limit = min(max_inputs, len(pool))
    while len(chosen) < limit:
        position = draw.randrange(pool.start, pool.end)
        if position in chosen:
            continue
        chosen[position] = None
        value += pool.value(position)
        if value >= wanted(len(chosen)):
            return list(chosen)
    return []


def _why_not(task: _Task, pool: Pool) -> PermanentError:
    everything = pool.sum(pool.start, pool.end)
    target = task.target() + task.count_extra(len(pool))
    if everything < target:
        return InsufficientFunds(-(-target // SCALE), max(0, everything // SCALE))
    count = 0
    while pool.sum(pool.end - count, pool.end) < target:
        count += 1
    lightest = [*task.pinned, *pool.coins(range(pool.end - count, pool.end))]
    return TooManyInputs(task.with_change_wu(lightest), task.max_weight_wu)
