"""Prices: fresh, in the bundle's unit, within its bounds, or none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from custody.pricing import PriceFile, PriceUnavailable, worth
from tests.fakes.signing import NOW, SoftKeys, World

BUNDLE = World(SoftKeys.make().record).bundle()
UNIT = BUNDLE.unit


def file(directory: Path, **changes: Any) -> PriceFile:
    path = directory / "prices.json"
    path.write_text(json.dumps({"at": NOW, "unit": UNIT, "prices": {"BTC": "100000"}} | changes))
    return PriceFile(path, lambda: NOW, valid_seconds=60)


def test_a_fresh_price_is_one_value_rounded_up(tmp_path: Path) -> None:
    prices = file(tmp_path, at=NOW - 60)
    assert prices.price("BTC", UNIT) == 100_000
    assert worth(BUNDLE, prices, "BTC", 100_000_000) == (100_000, 100_000)
    assert worth(BUNDLE, prices, "BTC", 1) == (1, 1)
    assert worth(BUNDLE, prices, "BTC", 0) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"at": NOW - 61},
        {"at": NOW + 6},
        {"unit": "EUR-cents"},
        {"prices": {"ETH": "1"}},
        {"prices": {"BTC": "1.5"}},
        {"prices": {"BTC": 100000}},
        {"more": 1},
        {"at": "now"},
    ],
)
def test_any_other_price_is_none_and_so_is_the_value(tmp_path: Path, changes: dict[str, Any]) -> None:
    prices = file(tmp_path, **changes)
    with pytest.raises(PriceUnavailable):
        prices.price("BTC", UNIT)
    assert worth(BUNDLE, prices, "BTC", 1) is None


def test_a_missing_file_is_no_price(tmp_path: Path) -> None:
    prices = PriceFile(tmp_path / "none.json", lambda: NOW, valid_seconds=60)
    with pytest.raises(PriceUnavailable, match=r"none\.json"):
        prices.price("BTC", UNIT)


@pytest.mark.parametrize("price", ["0", "10000001"])
def test_a_price_that_the_bundle_does_not_believe_is_none(tmp_path: Path, price: str) -> None:
    assert worth(BUNDLE, file(tmp_path, prices={"BTC": price}), "BTC", 1) is None


def test_without_prices_a_value_is_known_between_the_bounds() -> None:
    assert worth(BUNDLE, None, "BTC", 100_000_000) == (1, 10_000_000)
