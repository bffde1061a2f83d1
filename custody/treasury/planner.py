"""Which money should move between the tiers of an asset now, and when the hot one runs dry. Pure.

Need flows up (cold to warm to hot), an excess flows down. What payments that wait in a tier ask for is never taken from
it, and is not counted as held by it: it leaves as soon as it can. What is on its way to a tier counts as there for
whether it needs more, and only once it has come for what can be taken.

A tier is filled to a little below its maximum, and drained to the same mark: the next deposit makes no excess, and what
moves is worth its fee. Moves down wait for low fees while the excess is small; moves up don't wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from chains.errors import InvalidValue
from policies.bundle import Tier
from policies.rules import Holding

TARGET_PERCENT: Final = 90
"""Of its maximum: to this a tier is filled, and drained."""
URGENT_PERCENT: Final = 5
"""Of its maximum: an excess of so much doesn't wait for low fees."""
LEAST_PERCENT: Final = 1
"""Of its maximum: less is not moved, unless that is all that is needed."""
LEAD_SECONDS: Final = 6 * 3600
"""Hot is filled early if it would run dry within this time: people have to approve."""
EARLY_PERCENT: Final = 60
"""Of its maximum: what is above it is not filled early."""
PAYER_PERCENT: Final = 30
"""Of what a gas payer may hold: below it is topped up."""

Told = Callable[[str, int], str]
"""Base units of an asset for people."""


class Why(StrEnum):
    """What a move is for."""

    NEED = "need"
    """Payments wait for it, or keys for their gas."""
    LOW = "low"
    """The tier is below its mark, or would be empty before long."""
    EXCESS = "excess"
    """The tier holds more than it may."""
    GAS = "gas"
    """A gas payer runs low."""


@dataclass(frozen=True, slots=True)
class Fees:
    """What the network asks for, in one unit."""

    now: int
    long_term: int

    @property
    def low(self) -> bool:
        """Whether it is a good time for what can wait."""
        return self.now <= self.long_term


@dataclass(frozen=True, slots=True, kw_only=True)
class TierState:
    """What one tier's active wallet has of an asset, in base units.

    Raises:
        InvalidValue: a negative number.
    """

    tier: Tier
    wallet: str
    present_units: int
    """There by the books, less what transactions in flight and open refills take out of it."""
    incoming_units: int = 0
    """On its way by open refills."""
    queued_units: int = 0
    """What payments that wait in this tier ask for, fees included."""
    reserve_units: int = 0
    """Kept for the gas of its keys."""

    def __post_init__(self) -> None:
        if min(self.incoming_units, self.queued_units, self.reserve_units) < 0:
            raise InvalidValue(f"a tier's numbers are not negative: {self}")

    @property
    def held_units(self) -> int:
        """What it has and gets."""
        return self.present_units + self.incoming_units

    @property
    def level_units(self) -> int:
        """What it will have once its waiting payments have left, beside what is kept for gas: below zero if it lacks
        some of that."""
        return self.held_units - self.queued_units - self.reserve_units

    @property
    def free_units(self) -> int:
        """What may be taken from it now."""
        return max(0, self.present_units - self.queued_units - self.reserve_units)

    @property
    def need_units(self) -> int:
        """What it lacks for payments that wait, and for gas."""
        return max(0, -self.level_units)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetState:
    """All tiers of an asset."""

    asset: str
    tiers: Mapping[Tier, TierState]
    """Those that have an active wallet on its chain."""
    total_units: int
    """All that is held of it, wherever."""
    holdings: tuple[Holding, ...] = ()
    """The policy's, of this asset."""
    fees: Fees | None = None
    """None: not known; then what can wait does."""
    outflow: Sequence[int] = ()
    """What left hot for customers, hour by hour, the last hour last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayerState:
    """What one gas payer has of its chain's native asset."""

    wallet: str
    asset: str
    held_units: int
    """What it has and gets."""
    cap_units: int
    """Most that it may hold."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Money that should move from one wallet of ours to another on the same chain."""

    source: str
    target: str
    asset: str
    units: int
    """What arrives, above zero; fees come on top, out of the source."""
    why: Why
    reason: str
    """A sentence with the numbers."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The maximum of one tier, or of two together, of one asset."""

    most_units: int
    refill_percent: int | None
    """Of the maximum; None: it is never filled for its own sake."""

    @property
    def target_units(self) -> int:
        """To which it is filled and drained."""
        return self.most_units * TARGET_PERCENT // 100

    @property
    def least_units(self) -> int:
        """Less is not worth moving."""
        return max(1, self.most_units * LEAST_PERCENT // 100)

    def low(self, level_units: int) -> bool:
        """Whether so much is below its mark."""
        return self.refill_percent is not None and level_units * 100 < self.most_units * self.refill_percent


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long hot lasts if customers go on as they did."""

    per_hour_units: int
    """The highest of the means over the last 6 hours, the last day, and all that is known."""
    seconds_left: int | None
    """None: nothing flows out."""


def bound(state: AssetState, *tiers: Tier) -> Bound | None:
    """The tightest of the policy's maxima for exactly these tiers together, by amount and by share."""
    fitting = [each for each in state.holdings if set(each.tiers) == set(tiers)]
    if not fitting:
        return None
    marks = [each.refill_below for each in fitting if each.refill_below is not None]
    return Bound(min(most_units(each, state.total_units) for each in fitting), max(marks, default=None))


def most_units(holding: Holding, total_units: int) -> int:
    """What a holding allows: its amount, or its share of everything if that is less."""
    most = int(holding.at_most)
    return most if holding.share is None else min(most, max(0, total_units) * holding.share // 10_000)


def forecast(available_units: int, outflow: Sequence[int]) -> Forecast:
    """When what is there has flowed out.

    Args:
        available_units: what can be paid out.
        outflow: base units hour by hour, the last hour last.
    """
    rates = [_per_hour(outflow[-hours:]) for hours in (6, 24, len(outflow)) if outflow]
    rate = max(rates, default=0)
    return Forecast(rate, max(0, available_units) * 3600 // rate if rate else None)


def _per_hour(hours: Sequence[int]) -> int:
    return -(-sum(hours) // len(hours))


def plan(states: Sequence[AssetState], payers: Sequence[PayerState], told: Told) -> tuple[Proposal, ...]:
    """What should move now, in the order of the arguments; again, with what was proposed on its way, nothing.

    Args:
        states: each asset once.
        payers: gas payers; each is topped up from the hot wallet of its asset.
        told: shows amounts in reasons.
    """
    found: list[Proposal] = []
    for state in states:
        board = _Board(state, told)
        for payer in payers:
            if payer.asset == state.asset:
                board.top_up(payer)
        board.drain_hot()
        board.fill()
        found += board.proposals
    return tuple(found)


class _Board:
    """One asset's tiers while moves are chosen: each takes from its source at once, and is on its way to its target."""

    def __init__(self, state: AssetState, told: Told) -> None:
        self._state, self._told = state, told
        self._tiers = dict(state.tiers)
        self._hot, self._warm = bound(state, "hot"), bound(state, "warm")
        self._both = bound(state, "hot", "warm")
        self.proposals: list[Proposal] = []

    def _level(self, *tiers: Tier) -> int:
        levels = [self._tiers[tier].level_units for tier in tiers if tier in self._tiers]
        # What one tier lacks, another doesn't have.
        return levels[0] if len(levels) == 1 else sum(max(0, level) for level in levels)

    def _held(self, *tiers: Tier) -> int:
        return sum(self._tiers[tier].held_units for tier in tiers if tier in self._tiers)

    def _free(self, tier: Tier) -> int:
        return self._tiers[tier].free_units if tier in self._tiers else 0

    def _idle_warm(self) -> int:
        """What may flow from warm to cold: not what hot needs of it."""
        needed = self._tiers["hot"].need_units if "hot" in self._tiers else 0
        return max(0, self._free("warm") - needed)

    def _move(self, source: Tier, target: Tier, units: int, why: Why, reason: str) -> None:
        giver, taker = self._tiers[source], self._tiers[target]
        self._tiers[source] = replace(giver, present_units=giver.present_units - units)
        self._tiers[target] = replace(taker, incoming_units=taker.incoming_units + units)
        for at, each in enumerate(self.proposals):
            if (each.source, each.target) == (giver.wallet, taker.wallet):
                self.proposals[at] = replace(each, units=each.units + units)
                return
        self.proposals.append(
            Proposal(giver.wallet, taker.wallet, self._state.asset, units, why, reason[:300])
        )

    def _say(self, units: int) -> str:
        return self._told(self._state.asset, units)

    # ------------------------------------------------------------------------------------------- gas payers

    def top_up(self, payer: PayerState) -> None:
        """Fill a gas payer that runs low, out of hot."""
        if payer.held_units * 100 >= payer.cap_units * PAYER_PERCENT:
            return
        units = min(payer.cap_units - payer.held_units, self._free("hot"))
        if units * 100 < payer.cap_units * LEAST_PERCENT or units < 1:
            return
        hot = self._tiers["hot"]
        self._tiers["hot"] = replace(hot, present_units=hot.present_units - units)
        reason = (
            f"{payer.wallet} has {self._say(payer.held_units)} for gas, less than {PAYER_PERCENT} % of the"
            f" {self._say(payer.cap_units)} that it may hold"
        )
        self.proposals.append(Proposal(hot.wallet, payer.wallet, payer.asset, units, Why.GAS, reason))

    # ------------------------------------------------------------------------------------------------- down

    def drain_hot(self) -> None:
        """What hot holds above its maximum flows to warm, or to cold."""
        most = self._hot
        if "hot" not in self._tiers or most is None or not self._due(most, self._level("hot")):
            return
        level = self._level("hot")
        units = min(level - most.target_units, self._free("hot"))
        room = [
            each.target_units - held for each, held in self._above_warm(level - units) if each is not None
        ]
        fits = "warm" in self._tiers and min(room, default=units) >= units
        # What doesn't fit into warm would have to leave it at once, with more people's signatures.
        target: Tier = "warm" if fits or "cold" not in self._tiers else "cold"
        self._down("hot", target, units, most, "hot")

    def _drain_to_cold(self) -> None:
        """What warm, and hot and warm together, hold above their maxima, and hot does not ask for, flows to cold."""
        if "cold" not in self._tiers:
            return
        bounds: tuple[tuple[Bound | None, tuple[Tier, ...]], ...]
        bounds = ((self._warm, ("warm",)), (self._both, ("hot", "warm")))
        found = [
            (self._level(*tiers) - most.target_units, most, " and ".join(tiers))
            for most, tiers in bounds
            if most is not None and self._due(most, self._level(*tiers))
        ]
        if found:
            over, most, who = max(found, key=lambda each: each[0])
            self._down("warm", "cold", min(over, self._idle_warm()), most, who)
        if self._both is not None and self._due(self._both, self._level("hot", "warm")):
            # What warm cannot give, hot does, and no more of it than it must.
            over = self._level("hot", "warm") - self._both.most_units
            self._down("hot", "cold", min(over, self._free("hot")), self._both, "hot and warm")

    def _above_warm(self, hot_units: int) -> Iterator[tuple[Bound | None, int]]:
        warm = self._level("warm")
        yield self._warm, warm
        yield self._both, warm + max(0, hot_units)

    def _due(self, most: Bound, level_units: int) -> bool:
        """Whether so much is an excess that moves now."""
        over = level_units - most.most_units
        low = self._state.fees is not None and self._state.fees.low
        return over > 0 and (low or over * 100 >= most.most_units * URGENT_PERCENT)

    def _down(self, source: Tier, target: Tier, units: int, most: Bound, who: str) -> None:
        if units < 1 or source not in self._tiers or target not in self._tiers:
            return
        held = self._level("hot", "warm") if who == "hot and warm" else self._level(source)
        reason = f"{who} would keep {self._say(held)} and may hold {self._say(most.most_units)} at most"
        self._move(source, target, units, Why.EXCESS, reason)

    # --------------------------------------------------------------------------------------------------- up

    def fill(self) -> None:
        """What payments wait for, and what hot and warm lack, comes from the next colder tier; what is left of warm's
        money above its maximum flows on to cold."""
        missing, need, reason = 0, 0, ""
        if "hot" in self._tiers:
            missing, need, reason = self._fill_hot()
        self._drain_to_cold()
        if "warm" in self._tiers and "cold" in self._tiers:
            self._fill_warm(missing, need, reason)

    def _fill_hot(self) -> tuple[int, int, str]:
        """Returns what its source could not give: of what it wants, and of what it needs; and why it wants it."""
        source: Tier = "warm" if "warm" in self._tiers else "cold"
        need, (want, reason) = self._tiers["hot"].need_units, self._wanted_hot()
        if source == "cold" and self._both is not None:
            want = min(want, max(0, self._both.most_units - self._held("hot", "warm")))
        if need:
            short = f"payments and gas need {self._say(need)} more than hot has"
            want, reason = (need, short) if need >= want else (want, f"{short}, and {reason}")
        if want < 1 or source not in self._tiers:
            return 0, 0, ""
        units = min(want, self._free(source))
        if self._worth(units, need, self._hot):
            self._move(source, "hot", units, Why.NEED if need else Why.LOW, reason)
        # What is not worth a move of its own is there all the same, and goes with the rest once that has come.
        return (want - units, max(0, need - units), reason) if source == "warm" else (0, 0, "")

    def _wanted_hot(self) -> tuple[int, str]:
        """What fills it to its target, if it is low or soon will be, and why."""
        most, level = self._hot, self._level("hot")
        if most is None or most.refill_percent is None:
            return 0, ""
        reason = (
            f"hot has {self._say(max(0, level))} for what comes, less than {most.refill_percent} % of the"
            f" {self._say(most.most_units)} that it may hold"
        )
        if not most.low(level):
            left = forecast(level, self._state.outflow).seconds_left
            if left is None or left >= LEAD_SECONDS or level * 100 >= most.most_units * EARLY_PERCENT:
                return 0, ""
            reason = f"as money flowed lately, hot runs dry in {left // 3600} h {left % 3600 // 60} min"
        room = max(0, most.most_units - self._held("hot"))
        return min(most.target_units - level, room), reason

    def _fill_warm(self, missing: int, needed_by_hot: int, for_hot: str) -> None:
        warm = self._tiers["warm"]
        coming = max(0, warm.level_units) - warm.free_units
        need = warm.need_units + max(0, needed_by_hot - coming)
        # Of both: what warm needs itself does not fill hot.
        want, reason = warm.need_units + max(0, missing - coming), for_hot
        most = self._both or self._warm
        groups: tuple[tuple[Bound | None, tuple[Tier, ...]], ...]
        groups = ((self._both, ("hot", "warm")), (self._warm, ("warm",)))
        for each, tiers in groups:
            level = self._level(*tiers)
            if each is not None and each.low(level) and each.target_units - level > want:
                want = each.target_units - level
                reason = (
                    f"{' and '.join(tiers)} have {self._say(max(0, level))}, less than {each.refill_percent} % of"
                    f" the {self._say(each.most_units)} that they may hold"
                )
        if self._both is not None:
            # To where they are drained: what was drained for one maximum's sake must not come back for another's.
            want = min(want, max(0, self._both.target_units - self._held("hot", "warm")))
        if self._warm is not None:
            want = min(want, max(0, self._warm.target_units - self._held("warm")))
        if need:
            short = f"payments need {self._say(need)} more than warm can give"
            want, reason = (need, short) if need >= want else (want, f"{short}, and {reason}")
        units = min(want, self._free("cold"))
        if self._worth(units, need, most):
            self._move("cold", "warm", units, Why.NEED if need else Why.LOW, reason)

    @staticmethod
    def _worth(units: int, need: int, most: Bound | None) -> bool:
        """Whether so much is worth a move: all that is needed, or not too little of what is allowed."""
        return units >= 1 and (0 < need <= units or most is None or units >= most.least_units)
