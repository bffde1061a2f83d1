"""Token buckets: in every stretch of time a client gets its burst and its rate, and no more."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from signers.process.rates import SIZE_OF_A_TOKEN_BYTES, Gate, Rate

NANO = 1_000_000_000


@dataclass
class Watch:
    now: int = 0

    def __call__(self) -> int:
        return self.now


def gate(watch: Watch, per_second: int = 10, burst: int = 3) -> Gate:
    return Gate({"sign": Rate(per_second=per_second, burst=burst)}, nanoseconds=watch)


def test_a_burst_passes_then_the_wait_is_said() -> None:
    watch = Watch()
    bucket = gate(watch)
    assert [bucket.wait_ms("a", "sign") for _ in range(4)] == [0, 0, 0, 100]
    watch.now += 99_999_999
    assert bucket.wait_ms("a", "sign") == 1
    watch.now += 1
    assert bucket.wait_ms("a", "sign") == 0


def test_one_client_takes_nothing_from_another_and_one_call_nothing_from_another() -> None:
    bucket = gate(Watch())
    for _ in range(9):
        bucket.wait_ms("a", "sign")
    assert bucket.wait_ms("a", "sign") > 0
    assert bucket.wait_ms("b", "sign") == 0
    assert bucket.wait_ms("a", "status") == 0


def test_a_long_call_takes_more_and_the_longest_of_all_is_still_possible() -> None:
    watch = Watch()
    bucket = gate(watch)
    assert bucket.wait_ms("a", "sign", SIZE_OF_A_TOKEN_BYTES) == 0
    assert bucket.wait_ms("a", "sign", SIZE_OF_A_TOKEN_BYTES) == 100
    watch.now += NANO
    assert bucket.wait_ms("a", "sign", 100 * SIZE_OF_A_TOKEN_BYTES) == 0
    assert bucket.wait_ms("a", "sign", 0) > 0


def test_who_is_refused_pays_nothing_for_asking() -> None:
    watch = Watch()
    bucket = gate(watch)
    assert [bucket.wait_ms("a", "sign") for _ in range(3)] == [0, 0, 0]
    assert {bucket.wait_ms("a", "sign") for _ in range(50)} == {100}


@given(
    per_second=st.integers(1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.integers(0, NANO), max_size=60),
)
def test_no_stretch_of_time_lets_more_through(per_second: int, burst: int, pauses: list[int]) -> None:
    watch = Watch()
    bucket = gate(watch, per_second, burst)
    passed: list[int] = []
    for pause in pauses:
        watch.now += pause
        if bucket.wait_ms("a", "sign") == 0:
            passed.append(watch.now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            # In whole tokens: the burst, and what the time between both has brought.
            assert (last - first + 1 - burst) * NANO <= (passed[last] - begin) * per_second


@given(per_second=st.integers(1, 1000), burst=st.integers(1, 50), taken=st.integers(1, 60))
def test_after_the_wait_that_was_said_it_passes(per_second: int, burst: int, taken: int) -> None:
    watch = Watch()
    bucket = gate(watch, per_second, burst)
    for _ in range(taken):
        wait_ms = bucket.wait_ms("a", "sign")
        watch.now += wait_ms * 1_000_000
        assert wait_ms == 0 or bucket.wait_ms("a", "sign") == 0
