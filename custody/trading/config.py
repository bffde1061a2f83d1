"""Settings of the trading core, from the TOML file that `STRONGROOM_CONFIG` names; `sample.toml` beside this
module shows all.

What has no sensible default must be written. How many decimals an asset has is in the bundle, so that ledger and
engine can never disagree on it: prices and sizes are decimal strings here, and integers from there on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from chains.errors import InvalidValue
from chains.types import Amount, Asset
from custody.errors import InvalidConfiguration
from custody.trading.commands import Channel
from custody.trading.fees import FeeSchedule, Tier, Value
from custody.trading.market import Market, MarketState

FILE_VARIABLE: Final = "STRONGROOM_CONFIG"
EVERYBODY: Final = "*"
"""Among a caller's customers: it may act for all of them."""
_MICROS: Final = 1_000_000
_T = TypeVar("_T")
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: a field too many is a mistake, not a wish."""


class CustodySettings(_Table, frozen=True):
    """How the core calls custody's REST API."""

    url: str
    audience: str
    """Custody's own name, as its operator configured it."""
    caller: _Name
    """Our id in the bundle; its scope is `trading`."""
    key_path: str
    """File of our private key (Ed25519, PKCS#8 PEM, mode 0600)."""
    batch: _Positive = 500
    """Most fills of one settlement."""
    max_unsettled: _Positive = 50_000
    """With more fills that wait for the ledger, new orders are refused."""
    max_lag_seconds: _Positive = 60
    """The same if the oldest waits for longer."""
    alarm_lag_seconds: _Positive = 10
    """From then on the status says that settlement lags."""


class MarketSettings(_Table, frozen=True):
    """One market. Prices and sizes are decimal strings in whole units."""

    id: _Name
    base: _Name
    quote: _Name
    tick: str
    """Step of prices, in the quote asset."""
    lot: str
    """Step of sizes, in the base asset."""
    minimum_notional: str
    """Smallest size times price, in the quote asset."""
    maker_ppm: int
    """Fee of the resting side in millionths; negative: a rebate."""
    taker_ppm: int
    slippage_bps: int = 500
    open_orders: int = 1_000
    reference_price: str = "0"
    band_bps: int = 1_000
    band_seconds: int = 3_600
    breaker_bps: int = 500
    breaker_seconds: int = 10
    halt_seconds: int = 60
    auction_seconds: int = 30
    opens: MarketState = "open"
    """The state that a market gets when it is new; later only operators and its protections change it."""

    def market(self, assets: Mapping[str, Asset]) -> Market:
        """As the engine has it.

        Raises:
            InvalidValue: an asset is not in the bundle, a number is finer than its asset, or the engine refuses it.
        """
        base, quote = _asset(assets, self.base), _asset(assets, self.quote)
        return Market(
            id=self.id,
            base=self.base,
            quote=self.quote,
            base_decimals=base.decimals,
            tick=_units(quote, "tick", self.tick),
            lot=_units(base, "lot", self.lot),
            minimum_notional=_units(quote, "minimum_notional", self.minimum_notional),
            maker_ppm=self.maker_ppm,
            taker_ppm=self.taker_ppm,
            slippage_bps=self.slippage_bps,
            open_orders=self.open_orders,
            reference_price=_units(quote, "reference_price", self.reference_price),
            band_bps=self.band_bps,
            band_micros=self.band_seconds * _MICROS,
            breaker_bps=self.breaker_bps,
            breaker_micros=self.breaker_seconds * _MICROS,
            halt_micros=self.halt_seconds * _MICROS,
            auction_micros=self.auction_seconds * _MICROS,
        )


class TierSettings(_Table, frozen=True):
    """One step of the fee schedule."""

    volume: str
    """Thirty-day volume from which it holds, in the reference asset."""
    discount_percent: int
    rebate_ppm: int = 0


class FeeSettings(_Table, frozen=True):
    """The fee schedule. One unit of the reference asset is worth one; `values` says what one of another quote
    asset is."""

    reference: _Name
    tiers: tuple[TierSettings, ...]
    api_discount_percent: int = 10
    values: dict[str, str] = {}
    """By quote asset: what one whole of it counts for in volumes, in the reference asset."""

    def schedule(self, assets: Mapping[str, Asset]) -> FeeSchedule:
        """As the engine has it.

        Raises:
            InvalidValue: an asset is not in the bundle, a number is finer than the reference asset, or the
            engine refuses it.
        """
        reference = _asset(assets, self.reference)
        return FeeSchedule(
            tiers=tuple(
                Tier(_units(reference, "volume", tier.volume), tier.discount_percent, tier.rebate_ppm)
                for tier in self.tiers
            ),
            api_discount_percent=self.api_discount_percent,
            values=tuple(
                Value(name, _units(reference, f"value of {name}", worth), 10 ** _asset(assets, name).decimals)
                for name, worth in sorted(self.values.items())
            ),
        )


class CallerSettings(_Table, frozen=True):
    """For whom a caller of the bundle acts. One that is not listed acts for nobody."""

    id: _Name
    customers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Customers' ids, or `*` alone for all."""
    channel: Channel = "web"
    """How its orders are charged: `api` has the API discount."""
    per_second: _Positive = 500
    """Most commands and requests a second; twice as many in a burst."""

    def acts_for(self, customer: str) -> bool:
        """Whether it may act for this customer."""
        return customer in self.customers or self.customers == (EVERYBODY,)


class TradingSettings(_Table, frozen=True):
    """All of it."""

    directory: str
    """Where journal, snapshots and what waits for custody are kept: on a disk whose writes last."""
    audience: _Name
    """Our own name: tokens made for another service are refused."""
    bundle_path: str
    trust_root_path: str
    custody: CustodySettings
    fees: FeeSettings
    markets: Annotated[tuple[MarketSettings, ...], msgspec.Meta(min_length=1)]
    callers: tuple[CallerSettings, ...] = ()
    host: str = "127.0.0.1"
    port: _Port = 8090
    queue: _Positive = 10_000
    """Commands that may wait; beyond them callers hear `busy`."""
    segment_kilobytes: _Positive = 16 * 1024
    """From which size on a segment of the journal is closed, and a snapshot made."""
    demo_clock_path: str | None = None
    """What a demonstration sets its clock forward by, on test networks only."""

    def caller(self, caller: str) -> CallerSettings | None:
        """The entry of a caller; None: it acts for nobody."""
        return next((entry for entry in self.callers if entry.id == caller), None)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration means, with the bundle's decimals."""

    markets: tuple[Market, ...]
    fees: FeeSchedule
    opens: Mapping[str, MarketState]
    """By market: its state when it is new."""
    assets: Mapping[str, Asset]
    """All of the bundle, by id."""


def load(environment: Mapping[str, str] | None = None) -> TradingSettings:
    """Read the file.

    Raises:
        InvalidConfiguration: says what to write where.
    """
    path = (os.environ if environment is None else environment).get(FILE_VARIABLE)
    if not path:
        raise InvalidConfiguration(
            [f"set {FILE_VARIABLE} to the TOML file of this process (see custody/trading/sample.toml)"]
        )
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InvalidConfiguration([f"{path}: {error.strerror}"]) from None
    return parse(raw, path)


def parse(raw: bytes, name: str = "settings") -> TradingSettings:
    """Read settings from TOML.

    Raises:
        InvalidConfiguration: says what to write where.
    """
    try:
        found = msgspec.toml.decode(raw, type=TradingSettings)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration([f"{name}: {error}"]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration([f"{name} is not TOML: {error}"]) from None
    problems: list[str] = []
    for what, ids in (
        ("markets", [market.id for market in found.markets]),
        ("callers", [caller.id for caller in found.callers]),
    ):
        problems += [
            f"{name}: {what}: {id} is there twice" for id in sorted({i for i in ids if ids.count(i) > 1})
        ]
    problems += [
        f"{name}: callers: {caller.id}: write `*` alone, or customers' ids"
        for caller in found.callers
        if EVERYBODY in caller.customers and len(caller.customers) > 1
    ]
    if not found.custody.url.startswith(("http://", "https://")):
        problems.append(f"{name}: custody: url: write it with http:// or https://")
    if problems:
        raise InvalidConfiguration(problems)
    return found


def terms(settings: TradingSettings, assets: Iterable[Asset]) -> Terms:
    """Markets and fees as the engine has them.

    Args:
        settings: as loaded.
        assets: of the bundle.

    Raises:
        InvalidConfiguration: with a sentence for each market that cannot be.
    """
    known = {asset.id: asset for asset in assets}
    problems: list[str] = []

    def attempt(where: str, make: Callable[[], _T]) -> list[_T]:
        try:
            return [make()]
        except InvalidValue as error:
            problems.append(f"{where}: {error}")
            return []

    fees = attempt("fees", lambda: settings.fees.schedule(known))
    markets = [
        market
        for entry in settings.markets
        for market in attempt(entry.id, functools.partial(entry.market, known))
    ]
    for schedule in fees:
        for market in markets:
            attempt(market.id, functools.partial(schedule.rates, market))
    if problems:
        raise InvalidConfiguration(problems)
    return Terms(
        tuple(markets),
        fees[0],
        {entry.id: entry.opens for entry in settings.markets},
        known,
    )


def _asset(assets: Mapping[str, Asset], name: str) -> Asset:
    if name not in assets:
        raise InvalidValue(f"the bundle has no asset {name!r}; it has {', '.join(sorted(assets))}")
    return assets[name]


def _units(asset: Asset, field: str, text: str) -> int:
    try:
        return Amount.parse(asset, text).units
    except InvalidValue as error:
        raise InvalidValue(f"{field}: {error}") from None
