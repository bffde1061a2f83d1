"""The rolling window against the obvious sum over all entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from signers.window import RollingWindow

SECONDS = 10
PUTS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abcd"), st.integers(0, 2**80)), max_size=40)


@given(PUTS, st.integers(0, 30))
def test_the_total_is_the_sum_of_the_largest_of_each_key_that_is_young_enough(
    puts: list[tuple[int, str, int]], after: int
) -> None:
    window, plain, now = RollingWindow(SECONDS), dict[str, tuple[int, int]](), 100
    for step, key, units in puts:
        now += step
        window.put(key, units, now)
        at, before = plain.get(key, (0, 0))
        plain[key] = (now, max(units, before if at > now - SECONDS else 0))
    now += after
    assert window.total(now) == sum(units for at, units in plain.values() if at > now - SECONDS)


@given(PUTS, st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2**80)))
def test_looking_ahead_says_what_putting_would_give_and_changes_nothing(
    puts: list[tuple[int, str, int]], additions: dict[str, int]
) -> None:
    window, now = RollingWindow(SECONDS), 100
    for step, key, units in puts:
        now += step
        window.put(key, units, now)
    before = window.total(now)
    ahead = window.total_with(additions.items(), now)
    assert window.total(now) == before
    for key, units in additions.items():
        window.put(key, units, now)
    assert window.total(now) == ahead


def test_putting_the_same_again_counts_once_and_lasts_longer() -> None:
    window = RollingWindow(SECONDS)
    window.put("a", 5, 100)
    window.put("a", 5, 109)
    assert window.total(110) == 5
    assert window.total(119) == 0


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(InvalidValue):
        RollingWindow(0)
