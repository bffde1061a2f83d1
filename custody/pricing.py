"""What amounts are worth: a file of prices that somebody else writes, believed while fresh and within the bundle's
bounds.

A rule about values denies where no price can be believed. Without a file, values are known between the bundle's lowest
and highest price only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from chains.errors import TransientError
from custody.ports import Clock
from policies.bundle import Bundle
from policies.canonical import Name, Seconds, Units, decoder_for
from policies.values import value_of

MAX_BYTES: Final = 1024 * 1024
MAX_AHEAD_SECONDS: Final = 5
"""How far the clock of whoever writes prices may be ahead of ours."""


class PriceUnavailable(TransientError):
    """No price, or one that is too old. Whoever needs it must deny or wait, never assume."""


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: prices of one moment."""

    at: Seconds
    """When they held, UNIX seconds."""
    unit: Name
    """As in the bundle, e.g. `USD-cents`."""
    prices: Annotated[Mapping[str, Units], msgspec.Meta(max_length=10_000)]
    """By asset: what one whole one is worth, in whole units."""


decoder_for(PriceList)


class Prices(Protocol):
    """Where prices come from."""

    def price(self, asset: str, unit: str) -> int:
        """What one whole asset is worth now, in units of account. Raises PriceUnavailable."""


class PriceFile:
    """A JSON file of a `PriceList`, read anew for each answer. Whoever writes it replaces it as a whole (rename).

    Args:
        path: of the file.
        clock: the present.
        valid_seconds: older prices are none.
    """

    def __init__(self, path: Path, clock: Clock, *, valid_seconds: int) -> None:
        self._path, self._clock, self._valid_seconds = path, clock, valid_seconds

    def price(self, asset: str, unit: str) -> int:
        """What one whole asset is worth now, in units of account. Raises PriceUnavailable."""
        listed = self._read()
        age = self._clock() - listed.at
        if not -MAX_AHEAD_SECONDS <= age <= self._valid_seconds:
            raise PriceUnavailable(
                f"{self._path}: its prices are {age} s old, at most {self._valid_seconds} s are accepted"
            )
        if listed.unit != unit or asset not in listed.prices:
            raise PriceUnavailable(f"{self._path}: no price of {asset} in {unit}")
        return int(listed.prices[asset])

    def _read(self) -> PriceList:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise PriceUnavailable(f"{self._path}: longer than {MAX_BYTES} bytes")
            return decoder_for(PriceList).decode(raw)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise PriceUnavailable(f"{self._path}: {error}") from None


def worth(bundle: Bundle, prices: Prices | None, asset: str, units: int) -> tuple[int, int] | None:
    """What base units of an asset are worth, from and to, in the bundle's unit of account; None if that is not known.

    A price outside of the bundle's bounds is not believed: whoever writes the file is not trusted with more than that.

    Args:
        bundle: in force.
        prices: where present ones come from; None: the bundle's bounds are all that is known.
        asset: of the bundle.
        units: base units.
    """
    bounds = value_of(bundle, asset, units)
    if prices is None or bounds is None:
        return bounds
    try:
        price = prices.price(asset, bundle.unit)
    except PriceUnavailable:
        return None
    bound = bundle.price(asset)
    if not int(bound.low) <= price <= int(bound.high):
        return None
    value = -(-units * price // 10 ** bundle.asset(asset).decimals)
    return value, value
