"""Amounts as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signers.airgap.figures import SEGMENTS, big, btc, feerate, grouped, percent


@given(st.integers(0, 21_000_000 * 10**8))
def test_bitcoin_has_all_its_digits(units_sats: int) -> None:
    text = btc(units_sats)
    assert Decimal(text) * 10**8 == units_sats
    assert len(text.partition(".")[2]) == 8


@given(st.integers(0, 10**30))
def test_groups_lose_no_digit(number: int) -> None:
    assert grouped(number).replace(" ", "") == str(number)
    assert all(len(group) == 3 for group in grouped(number).split(" ")[1:])


EXPECTED = """\
       _   _         _   _   _     _   _   _
  |    _|  _| |_|   |_  |_    |   |_| |_| | |
  |   |_   _|   |    _| |_|   | . |_|  _| |_|"""


def test_large_figures_are_those_of_a_pocket_calculator() -> None:
    assert "\n".join(big("1234567.890")) == EXPECTED
    assert len(set(SEGMENTS.values())) == len(SEGMENTS)


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [(1, 10_000, "0.01 %"), (1, 1_000_000, "0.01 %"), (5, 100, "5.00 %"), (3, 2, "150.00 %"), (0, 9, "0.00 %"),
     (1, 0, "-")],
)  # fmt: skip
def test_a_percentage_is_rounded_up(part: int, whole: int, told: str) -> None:
    assert percent(part, whole) == told


def test_feerates_have_tenths() -> None:
    assert (feerate(10_000, 225), feerate(0, 100), feerate(99, 100)) == (
        "44.4 sat/vB",
        "0.0 sat/vB",
        "0.9 sat/vB",
    )
