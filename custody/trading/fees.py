"""Fees: tiers by the volume of thirty days, a discount for API callers, rebates for makers; integers throughout.

All fees are in the quote asset. A rate is a numerator over `RATE_SCALE`. An order's charges are rounded up once over
all its fills (the sum so far, rounded up, less what was charged before), so splitting an order never costs more;
rebates are rounded down at each fill. No rebate is above the lowest taker rate: the house never gives in a trade.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chains.errors import InvalidValue
from custody.trading.market import PPM, Market

RATE_SCALE: Final = PPM * 100 * 100
"""Denominator of all rates: ppm, less a discount in per cent, less the API discount in per cent."""
MAX_DISCOUNT_PERCENT: Final = 60
MAX_TIERS: Final = 6


class Tier(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a customer gets whose thirty-day volume is at least `volume`."""

    volume: int
    """In units of reference value (see `FeeSchedule.values`)."""
    discount_percent: int
    """Off the market's maker and taker fees, 0 to 60."""
    rebate_ppm: int = 0
    """Above 0: as a maker the customer pays nothing and is paid this."""


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a quote asset counts for in volumes: `units * numerator // denominator`."""

    asset: str
    numerator: int
    denominator: int


class FeeSchedule(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The house's schedule; market by market it applies to `Market.maker_ppm` and `taker_ppm`.

    Raises:
        InvalidValue: no first tier at volume 0, tiers out of order, too many, or a discount out of range.
    """

    tiers: tuple[Tier, ...]
    """By rising volume, the first at 0; at most six."""
    api_discount_percent: int = 10
    """Further discount on charges (not on rebates) of orders that come through the API."""
    values: tuple[Value, ...] = ()
    """Quote assets not named here count one for one."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.tiers) <= MAX_TIERS or self.tiers[0].volume != 0:
            raise InvalidValue(f"fee tiers: expected 1 to {MAX_TIERS}, the first at volume 0")
        if any(low.volume >= high.volume for low, high in zip(self.tiers, self.tiers[1:], strict=False)):
            raise InvalidValue("fee tiers: volumes must rise")
        for tier in self.tiers:
            if not 0 <= tier.discount_percent <= MAX_DISCOUNT_PERCENT or tier.rebate_ppm < 0:
                raise InvalidValue(
                    f"fee tier at {tier.volume}: discount is 0 to {MAX_DISCOUNT_PERCENT} per cent"
                )
        if not 0 <= self.api_discount_percent <= 100:
            raise InvalidValue("api_discount_percent: expected 0 to 100")
        for value in self.values:
            if value.numerator < 0 or value.denominator <= 0:
                raise InvalidValue(f"value of {value.asset}: expected a fraction of at least 0")

    def tier_of(self, volume: int) -> int:
        """Index of the highest tier that a volume reaches."""
        return max(index for index, tier in enumerate(self.tiers) if volume >= tier.volume)

    def rates(self, market: Market) -> dict[str, tuple[tuple[int, int], ...]]:
        """Per channel and tier the pair (maker, taker) over `RATE_SCALE`; a negative maker rate is a rebate.

        Raises:
            InvalidValue: some maker would get more than some taker pays.
        """
        table = {
            channel: tuple(self._pair(market, tier, 100 - off) for tier in self.tiers)
            for channel, off in (("web", 0), ("api", self.api_discount_percent))
        }
        pairs = [pair for row in table.values() for pair in row]
        if -min(maker for maker, _ in pairs) > min(taker for _, taker in pairs):
            raise InvalidValue(f"market {market.id}: the highest rebate is above the lowest taker fee")
        return table

    def value_of(self, asset: str) -> tuple[int, int]:
        """Numerator and denominator of what one unit of a quote asset counts for in volumes."""
        for value in self.values:
            if value.asset == asset:
                return value.numerator, value.denominator
        return 1, 1

    @staticmethod
    def _pair(market: Market, tier: Tier, api_percent: int) -> tuple[int, int]:
        paid = (100 - tier.discount_percent) * api_percent
        rebate = max(tier.rebate_ppm, -market.maker_ppm)
        maker = -rebate * 10_000 if rebate > 0 else market.maker_ppm * paid
        return maker, market.taker_ppm * paid
