"""The trading core's settings: the sample is good, and each mistake gets a sentence that says where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

import custody.trading
from chains.types import Asset
from custody.errors import InvalidConfiguration
from custody.trading.config import load, parse, terms
from custody.trading.engine import Engine

SAMPLE = Path(custody.trading.__file__).with_name("sample.toml").read_bytes()
ASSETS = [Asset("BTC", "bitcoin", 8), Asset("ETH", "ethereum", 18), Asset("USDX", "ethereum", 6)]


def test_the_sample_has_three_markets_that_the_engine_takes() -> None:
    found = terms(parse(SAMPLE), ASSETS)
    assert [market.id for market in found.markets] == ["BTC-USDX", "ETH-USDX", "ETH-BTC"]
    assert found.markets[0].tick == 10_000
    assert found.markets[0].lot == 10_000
    assert found.markets[2].tick == 1_000
    assert len(found.fees.tiers) == 6
    assert found.fees.values[0].numerator * 10**8 == 60_000 * 10**6 * found.fees.values[0].denominator
    assert set(Engine(found.markets, found.fees).books) == {"BTC-USDX", "ETH-USDX", "ETH-BTC"}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b'tick = "0.01"', b'tick = "0.001"', "must be a multiple of"),
        (b'tick = "0.01"', b'tick = "0.00000001"', "USDX has 6"),
        (b'base = "ETH"', b'base = "DOGE"', "the bundle has no asset 'DOGE'"),
        (b"taker_ppm = 1000 ", b"taker_ppm = 100 ", "fees must be"),
        (b"rebate_ppm = 50 ", b"rebate_ppm = 500 ", "above the lowest taker fee"),
        (b'volume = "100000"', b'volume = "1000000"', "volumes must rise"),
    ],
)
def test_what_a_market_or_the_fees_cannot_be_is_said_by_name(old: bytes, new: bytes, sentence: str) -> None:
    assert old in SAMPLE
    with pytest.raises(InvalidConfiguration, match=sentence):
        terms(parse(SAMPLE.replace(old, new, 1)), ASSETS)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"port = 8090", b"prot = 8090", "unknown field `prot`"),
        (b"port = 8090", b'port = "8090"', r"Expected `int`, got `str` - at `\$.port`"),
        (b"queue = 10000", b"queue = 0", r"`\$.queue`"),
        (b'id = "ETH-BTC"', b'id = "BTC-USDX"', "BTC-USDX is there twice"),
        (b'"mm-1", "mm-2"', b'"mm-1", "*"', "write `\\*` alone"),
        (b'"http://127.0.0.1:8080"', b'"127.0.0.1:8080"', "http://"),
        (b"[fees]", b"[fees", "is not TOML"),
        (b'audience = "strongroom-trading"', b"", "missing required field `audience`"),
    ],
)
def test_what_the_file_cannot_be_is_said_by_place(old: bytes, new: bytes, sentence: str) -> None:
    assert old in SAMPLE
    with pytest.raises(InvalidConfiguration, match=sentence):
        parse(SAMPLE.replace(old, new, 1))


def test_without_a_file_the_sentence_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="STRONGROOM_CONFIG"):
        load({})
    with pytest.raises(InvalidConfiguration, match="No such file"):
        load({"STRONGROOM_CONFIG": str(tmp_path / "none.toml")})
