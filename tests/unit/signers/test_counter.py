"""The counter against the obvious sum over all keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from signers.journal.counter import Counter

SECONDS = 10
STEPS = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from("abcd"), st.integers(0, 2**80), st.sampled_from(["open", "close"])
    ),
    max_size=40,
)


class Plain:
    """Every key's largest amount, and since when it counts down (None: open)."""

    def __init__(self) -> None:
        self.largest: dict[str, int] = {}
        self.since: dict[str, int | None] = {}

    def put(self, key: str, units: int, since: int | None) -> int:
        self.largest[key] = max(units, self.largest.get(key, 0))
        self.since[key] = since
        return self.largest[key]

    def total(self, now: int) -> int:
        return sum(self.largest[key] for key, at in self.since.items() if at is None or now < at + SECONDS)


def play(steps: list[tuple[int, str, int, str]]) -> tuple[Counter, Plain, int]:
    plain, now = Plain(), 100
    counter = Counter(SECONDS, lambda key: plain.largest.get(key, 0))
    for step, key, units, what in steps:
        now += step
        if what == "open":
            counter.open(key, plain.put(key, units, None))
        else:
            since = now - step
            counter.close(key, plain.put(key, units, since), since)
        assert counter.total(now) == plain.total(now)
    return counter, plain, now


@given(STEPS, st.integers(0, 30))
def test_the_total_is_the_sum_of_what_is_open_or_ended_not_long_ago(
    steps: list[tuple[int, str, int, str]], after: int
) -> None:
    counter, plain, now = play(steps)
    assert counter.total(now + after) == plain.total(now + after)


@given(STEPS, st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2**80)))
def test_looking_ahead_says_what_signing_would_give_and_changes_nothing(
    steps: list[tuple[int, str, int, str]], additions: dict[str, int]
) -> None:
    counter, plain, now = play(steps)
    before = counter.total(now)
    ahead = counter.total_with(additions.items(), now)
    assert counter.total(now) == before
    for key, units in additions.items():
        counter.open(key, plain.put(key, units, None))
    assert counter.total(now) == ahead == plain.total(now)


def test_what_is_open_counts_for_ever() -> None:
    counter = Counter(SECONDS, lambda key: 0)
    counter.open("a", 5)
    assert counter.total(2**50) == 5
    counter.close("a", 5, 2**50)
    assert counter.total(2**50 + SECONDS - 1) == 5
    assert counter.total(2**50 + SECONDS) == 0


def test_closing_the_same_again_changes_nothing() -> None:
    counter = Counter(SECONDS, lambda key: 0)
    for _ in range(3):
        counter.close("a", 5, 100)
    assert counter.total(109) == 5
    assert counter.total(110) == 0


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(InvalidValue):
        Counter(0, lambda key: 0)
