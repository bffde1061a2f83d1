"""One market as integers: what is traded for what, in which steps, and which protections hold.

A price is the number of quote units for one whole base (10**base_decimals base units): 60,300 USDX with 6 decimals for
one BTC is 60_300_000_000. A fill of `base_units` costs `base_units * price / 10**base_decimals` quote units; because
`tick * lot` is a multiple of 10**base_decimals, this is an integer for every price and size the market admits.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from chains.errors import InvalidValue

MarketState = Literal["halted", "cancel_only", "auction", "open"]
"""Nothing moves; orders may be cancelled; orders collect without trading; orders trade."""

PPM: Final = 1_000_000
BPS: Final = 10_000


class Market(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Configuration of one market.

    Raises:
        InvalidValue: a field is out of its range, or a price times a size would not be a whole number of quote units.
    """

    id: str
    """E.g. `BTC-USDX`."""
    base: str
    """Asset id of what is bought and sold."""
    quote: str
    """Asset id of what is paid, and of all fees."""
    base_decimals: int
    tick: int
    """Prices are multiples of this many quote units per whole base."""
    lot: int
    """Sizes are multiples of this many base units."""
    minimum_notional: int
    """Smallest size times price of an order, in quote units."""
    maker_ppm: int
    """Fee of the resting side, in millionths of the quote amount; negative: a rebate."""
    taker_ppm: int
    """Fee of the incoming side, in millionths of the quote amount."""
    slippage_bps: int = 500
    """How far from the best price a market order may go at the most."""
    open_orders: int = 1_000
    """Most open orders of one customer in this market."""
    reference_price: int = 0
    """Where price bands are laid before the first trade; 0: none until then."""
    band_bps: int = 1_000
    """No trade further than this from the reference; an order that would go there halts the market. 0: no band."""
    band_micros: int = 3_600_000_000
    """The reference price follows the last trade once in this time."""
    breaker_bps: int = 500
    """Prices that move further than this within `breaker_micros` halt the market. 0: no breaker."""
    breaker_micros: int = 10_000_000
    halt_micros: int = 60_000_000
    """How long a halt by band or breaker lasts before an auction opens."""
    auction_micros: int = 30_000_000
    """How long that auction collects orders before it uncrosses and the market is open again."""

    def __post_init__(self) -> None:
        if not (self.id and self.base and self.quote) or self.base == self.quote:
            raise InvalidValue(f"market {self.id!r}: needs an id and two different assets")
        if not 0 <= self.base_decimals <= 36:
            raise InvalidValue(f"market {self.id}: base_decimals {self.base_decimals}: expected 0 to 36")
        for name in ("tick", "lot", "minimum_notional", "open_orders"):
            if getattr(self, name) <= 0:
                raise InvalidValue(f"market {self.id}: {name} must be above 0")
        for name in ("reference_price", "band_bps", "breaker_bps"):
            if getattr(self, name) < 0:
                raise InvalidValue(f"market {self.id}: {name} must not be below 0")
        for name in ("band_micros", "breaker_micros", "halt_micros", "auction_micros"):
            if getattr(self, name) <= 0:
                raise InvalidValue(f"market {self.id}: {name} must be above 0")
        if not 0 < self.slippage_bps < BPS or self.band_bps >= BPS:
            raise InvalidValue(f"market {self.id}: slippage and band must be below {BPS} basis points")
        if self.tick * self.lot % self.scale:
            raise InvalidValue(
                f"market {self.id}: tick {self.tick} times lot {self.lot} must be a multiple of {self.scale}, "
                "or fills would not be whole units of the quote asset"
            )
        if self.reference_price % self.tick:
            raise InvalidValue(
                f"market {self.id}: reference price {self.reference_price} is off the tick {self.tick}"
            )
        if not 0 <= self.taker_ppm <= PPM // 10 or not -self.taker_ppm <= self.maker_ppm <= self.taker_ppm:
            raise InvalidValue(
                f"market {self.id}: fees must be 0 to 100,000 ppm for takers, and for makers neither more than "
                "that nor a rebate above it"
            )

    @property
    def scale(self) -> int:
        """Base units in one whole base."""
        return int(10**self.base_decimals)

    def quote_units(self, base_units: int, price: int) -> int:
        """What `base_units` cost at `price`: exact for multiples of lot and tick."""
        return base_units * price // self.scale
