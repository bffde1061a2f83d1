"""What callers see: decimal strings, with all places written; times as microseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chains.errors import InvalidValue
from chains.types import Amount, Asset
from custody.errors import NotFound
from custody.trading.candles import Candle
from custody.trading.history import FillRecord, OrderRecord
from custody.trading.market import Market
from custody.trading.marketdata import Increment, Level, MarketView
from custody.trading.transferbook import Entry

Json = dict[str, Any]

_STATUS = {"asked": "cancelled", "spent": "filled", "unfilled": "cancelled"}
"""Why an order ended, as customers know it; what is not here is told as it is."""


class Views:
    """Renders and reads amounts of these assets and markets.

    Args:
        assets: by id.
        markets: by id, as the engine has them at any time.
    """

    def __init__(self, assets: Mapping[str, Asset], markets: Mapping[str, Market]) -> None:
        self._assets = assets
        self._markets = markets

    def market_of(self, market: str) -> Market:
        """A market by id. Raises NotFound."""
        found = self._markets.get(market)
        if found is None:
            raise NotFound("market", market)
        return found

    def asset_of(self, asset: str) -> Asset:
        """An asset by id. Raises NotFound."""
        found = self._assets.get(asset)
        if found is None:
            raise NotFound("asset", asset)
        return found

    def base_units(self, market: Market, text: str | None) -> int:
        """A size in base units; 0 for none. Raises InvalidValue."""
        return _units(self._assets[market.base], text)

    def quote_units(self, market: Market, text: str | None) -> int:
        """A price or an amount in quote units; 0 for none. Raises InvalidValue."""
        return _units(self._assets[market.quote], text)

    def base(self, market: Market, units: int) -> str:
        """Base units as a decimal."""
        return self._assets[market.base].decimal(units)

    def quote(self, market: Market, units: int) -> str:
        """Quote units, or a price, as a decimal."""
        return self._assets[market.quote].decimal(units)

    def order(self, record: OrderRecord) -> Json:
        """An order."""
        market = self._markets[record.market]
        base, quote = self._assets[market.base].decimal, self._assets[market.quote].decimal
        average = None
        if record.filled_base:
            average = quote(record.filled_quote * market.scale // record.filled_base)
        return {
            "order": record.id,
            "customer": record.customer,
            "client_order_id": record.client_order_id,
            "market": record.market,
            "side": record.side,
            "type": record.type,
            "tif": record.tif,
            "price": quote(record.price) if record.price else None,
            "base_amount": base(record.base_units) if record.base_units else None,
            "quote_amount": quote(record.quote_units) if record.quote_units else None,
            "stop_price": quote(record.stop_price) if record.stop_price else None,
            "status": _STATUS.get(record.status, record.status),
            "reason": record.status,
            "filled_base": base(record.filled_base),
            "filled_quote": quote(record.filled_quote),
            "average_price": average,
            "fees": quote(record.fees),
            "fee_asset": market.quote,
            "at": record.at,
            "updated_at": record.updated_at,
        }

    def fill(self, fill: FillRecord, customer: str) -> Json:
        """One side of a trade."""
        market = self._markets[fill.market]
        makes = fill.maker == customer
        buys = (fill.taker_side == "buy") is not makes
        return {
            "sequence": fill.sequence,
            "index": fill.number,
            "market": fill.market,
            "side": "buy" if buys else "sell",
            "role": "maker" if makes else "taker",
            "order": fill.maker_order if makes else fill.taker_order,
            "client_order_id": fill.maker_client_order_id if makes else fill.taker_client_order_id,
            "price": self.quote(market, fill.price),
            "base_amount": self.base(market, fill.base_units),
            "quote_amount": self.quote(market, fill.quote_units),
            "fee": self.quote(market, fill.maker_fee if makes else fill.taker_fee),
            "fee_asset": market.quote,
            "at": fill.at,
        }

    def trade(self, fill: FillRecord) -> Json:
        """A trade as everybody sees it: without names."""
        market = self._markets[fill.market]
        return {
            "sequence": fill.sequence,
            "index": fill.number,
            "price": self.quote(market, fill.price),
            "base_amount": self.base(market, fill.base_units),
            "quote_amount": self.quote(market, fill.quote_units),
            "taker_side": fill.taker_side,
            "at": fill.at,
        }

    def candle(self, market: Market, candle: Candle) -> Json:
        """One candle."""
        quote = self._assets[market.quote].decimal
        return {
            "start": candle.start,
            "open": quote(candle.open),
            "high": quote(candle.high),
            "low": quote(candle.low),
            "close": quote(candle.close),
            "base_volume": self.base(market, candle.base_units),
            "quote_volume": quote(candle.quote_units),
            "trades": candle.trades,
        }

    def depth(self, market: Market, view: MarketView, levels: int) -> Json:
        """A snapshot of the depth."""
        bids, asks = view.depth(levels)
        return {
            "market": market.id,
            "sequence": view.sequence,
            "bids": self._levels(market, bids),
            "asks": self._levels(market, asks),
        }

    def increment(self, market: Market, change: Increment) -> Json:
        """What changed in the depth."""
        return {
            "market": market.id,
            "previous": change.previous,
            "sequence": change.sequence,
            "bids": self._levels(market, change.bids),
            "asks": self._levels(market, change.asks),
        }

    def ticker(self, market: Market, view: MarketView, now: int) -> Json:
        """The last 24 hours, best prices, and the market's state."""
        found = view.ticker(now)
        quote = self._assets[market.quote].decimal

        def price(units: int) -> str | None:
            return quote(units) if units else None

        return {
            "market": market.id,
            "state": view.state,
            "state_until": view.until or None,
            "bid": price(found.bid),
            "ask": price(found.ask),
            "last": price(found.last),
            "open": price(found.open),
            "high": price(found.high),
            "low": price(found.low),
            "base_volume": self.base(market, found.base_units),
            "quote_volume": quote(found.quote_units),
            "at": now,
        }

    def terms(self, market: Market, state: str) -> Json:
        """What is traded where, and in which steps."""
        return {
            "id": market.id,
            "base": market.base,
            "quote": market.quote,
            "state": state,
            "tick": self.quote(market, market.tick),
            "lot": self.base(market, market.lot),
            "minimum_notional": self.quote(market, market.minimum_notional),
            "maker_ppm": market.maker_ppm,
            "taker_ppm": market.taker_ppm,
            "slippage_bps": market.slippage_bps,
            "open_orders": market.open_orders,
        }

    def transfer(self, entry: Entry) -> Json:
        """A transfer and how far it is."""
        moved = entry.transfer
        return {
            "id": moved.id,
            "customer": moved.customer,
            "asset": moved.asset,
            "amount": self._assets[moved.asset].decimal(moved.units),
            "to": moved.to,
            "state": entry.state,
            "reason": entry.reason or None,
            "at": entry.at,
        }

    def balances(self, found: Mapping[str, tuple[int, int]]) -> list[Json]:
        """Balances by asset."""
        return [
            {
                "asset": asset,
                "free": self._assets[asset].decimal(free),
                "held": self._assets[asset].decimal(held),
            }
            for asset, (free, held) in found.items()
        ]

    def _levels(self, market: Market, levels: list[Level]) -> list[list[str]]:
        base, quote = self._assets[market.base].decimal, self._assets[market.quote].decimal
        return [[quote(price), base(units)] for price, units in levels]


def _units(asset: Asset, text: str | None) -> int:
    if text is None:
        return 0
    units = Amount.parse(asset, text).units
    if not units:
        raise InvalidValue(f"{asset.id}: 0 is no amount: leave the field out, or write one above 0")
    return units
