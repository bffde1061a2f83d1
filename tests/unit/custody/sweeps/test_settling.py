"""Which deposits are gone, from what a forwarder still has."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from custody.sweeps.settling import Arrived, gone


def deposits(*units: int) -> list[Arrived]:
    return [Arrived(UUID(int=n), each) for n, each in enumerate(units)]


@given(st.lists(st.integers(1, 10**20)), st.lists(st.integers(1, 10**20)))
def test_what_came_before_the_last_flush_is_gone_and_what_came_after_it_is_there(
    before: list[int], after: list[int]
) -> None:
    arrived = deposits(*before, *after)
    assert gone(arrived, sum(after)) == tuple(each.id for each in arrived[: len(before)])


@given(st.lists(st.integers(1, 10**20)), st.integers(0, 10**22))
def test_what_is_left_never_exceeds_what_the_forwarder_has(units: list[int], balance: int) -> None:
    arrived = deposits(*units)
    taken = gone(arrived, balance)
    assert taken == tuple(each.id for each in arrived[: len(taken)]), "always the oldest"
    assert sum(each.units for each in arrived[len(taken) :]) <= balance


def test_dust_that_a_stranger_leaves_behind_hides_nothing() -> None:
    arrived = deposits(5, 7)
    assert len(gone(arrived, 1)) == 2
    assert gone(arrived, 13) == ()
    assert gone([], 0) == ()
