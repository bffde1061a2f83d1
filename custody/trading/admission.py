"""Whether an order may enter at all: checks of its shape and of the market's state, before money is looked at."""

from __future__ import annotations

from typing import Final

from custody.trading.book import Book
from custody.trading.commands import Place, Side
from custody.trading.errors import Refused
from custody.trading.market import BPS

MAX_ID: Final = 64
"""Characters of a client order id."""
MAX_UNITS: Final = 10**39
"""Above every size and price, so that their product stays within 78 digits."""


def check_open(book: Book) -> None:
    """New and changed orders need a market that is open or in auction.

    Raises:
        Refused: it is not.
    """
    if book.state == "halted":
        raise Refused("market_halted")
    if book.state == "cancel_only":
        raise Refused("market_cancel_only")


def check_limit(book: Book, side: Side, price: int, base_units: int) -> None:
    """Price and size of a limit order: steps, bounds, smallest value, price band.

    Raises:
        Refused: one of them is wrong.
    """
    market = book.market
    if price <= 0 or price % market.tick or price > MAX_UNITS:
        raise Refused("bad_price", price=price, tick=market.tick)
    if base_units <= 0 or base_units % market.lot or base_units > MAX_UNITS:
        raise Refused("bad_size", base_units=base_units, lot=market.lot)
    if base_units * price < market.minimum_notional * book.scale:
        raise Refused("below_minimum_notional", minimum=market.minimum_notional)
    guard = book.guard
    if price > guard.high if side == "buy" else price < guard.low:
        raise Refused("outside_band", price=price, low=guard.low, high=guard.high)


def check_shape(command: Place, book: Book) -> None:
    """Everything about an order but a plain limit's price and size.

    Raises:
        Refused: the parts do not fit together.
    """
    market = book.market
    if not 0 < len(command.client_order_id) <= MAX_ID:
        raise Refused("bad_client_order_id")
    stop_price = command.stop_price
    if command.type == "limit":
        # By far the most frequent, and done with at once.
        if stop_price:
            raise Refused("bad_stop_price", stop_price=stop_price)
        if command.slippage_bps:
            raise Refused("bad_slippage", slippage_bps=command.slippage_bps)
        if command.quote_units:
            raise Refused("bad_size", quote_units=command.quote_units)
        return
    stop = command.type != "market"
    if (stop_price != 0) != stop or not 0 <= stop_price <= MAX_UNITS or stop_price % market.tick:
        raise Refused("bad_stop_price", stop_price=stop_price, tick=market.tick)
    if command.type == "stop_limit":
        if command.slippage_bps:
            raise Refused("bad_slippage", slippage_bps=command.slippage_bps)
        if command.quote_units:
            raise Refused("bad_size", quote_units=command.quote_units)
        if command.tif == "post_only":
            raise Refused("bad_tif")
        return
    if command.tif != "ioc":
        raise Refused("bad_tif")
    if command.price:
        raise Refused("bad_price", price=command.price)
    if not 0 <= command.slippage_bps <= market.slippage_bps:
        raise Refused("bad_slippage", slippage_bps=command.slippage_bps, most=market.slippage_bps)
    base_units, quote_units = command.base_units, command.quote_units
    if (base_units > 0) == (quote_units > 0) or min(base_units, quote_units) < 0:
        raise Refused("bad_size", base_units=base_units, quote_units=quote_units)
    if base_units % market.lot or max(base_units, quote_units) > MAX_UNITS:
        raise Refused("bad_size", base_units=base_units, lot=market.lot)
    if stop and quote_units and command.side == "sell":
        # How much base to hold until then is not known.
        raise Refused("bad_size", quote_units=quote_units)


def bound(book: Book, side: Side, price: int, slippage_bps: int) -> int:
    """The worst price of a market order: this far from `price`, on the tick and never further than asked for."""
    tick = book.market.tick
    bps = slippage_bps or book.market.slippage_bps
    if side == "buy":
        return max(price * (BPS + bps) // BPS // tick * tick, price)
    return -(-price * (BPS - bps) // BPS // tick) * tick
