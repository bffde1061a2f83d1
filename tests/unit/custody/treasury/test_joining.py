"""What becomes of a wish to move money while refills of the same way are open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.ids import new_id
from custody.treasury.joining import OPEN_AT_MOST, join
from custody.treasury.lifecycle import OPEN, RefillState
from custody.treasury.model import ASKED, Refill
from custody.treasury.planner import Proposal, Why

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def refill(state: RefillState, units: int, why: str = Why.LOW) -> Refill:
    id: UUID = new_id()
    return Refill(
        id=id,
        chain="bitcoin",
        asset="BTC",
        source="warm",
        tier="warm",
        target="hot",
        destination="bcrt1",
        place=0,
        units=units,
        why=why,
        about="",
        proposed_by="house",
        state=state,
        reason="",
        decision={},
        policy_version=1,
        not_before=NOW,
        transaction_id=None,
        created_at=NOW,
        updated_at=NOW,
    )


def wanted(units: int, why: Why = Why.LOW) -> Proposal:
    return Proposal("warm", "hot", "BTC", units, why, "the test wants it")


def test_with_nothing_open_it_is_proposed_as_it_is() -> None:
    found = join([], wanted(5))
    assert found is not None
    assert (found.proposal, found.instead) == (wanted(5), None)


def test_what_people_have_still_to_answer_grows_into_one_larger_question() -> None:
    small = refill(RefillState.PROPOSED, 10)
    found = join([small], wanted(90, Why.NEED))
    assert found is not None
    assert (found.proposal.units, found.proposal.why, found.instead) == (100, Why.NEED, small)


def test_a_question_is_not_asked_anew_for_a_little_more() -> None:
    assert join([refill(RefillState.PROPOSED, 100)], wanted(49, Why.NEED)) is None


@pytest.mark.parametrize("state", [RefillState.APPROVED, RefillState.SIGNING, RefillState.BROADCAST])
def test_beside_what_goes_on_comes_what_somebody_waits_for_or_what_is_larger(state: RefillState) -> None:
    going = refill(state, 100)
    for more, waits in ((wanted(1, Why.NEED), False), (wanted(101), False), (wanted(100), True)):
        found = join([going], more)
        assert (found is None) == waits
        assert found is None or (found.proposal, found.instead) == (more, None)


def test_what_an_operator_wants_is_not_called_off_for_more() -> None:
    found = join([refill(RefillState.PROPOSED, 10, ASKED)], wanted(100))
    assert found is not None
    assert found.instead is None


@given(st.lists(st.tuples(st.sampled_from(OPEN), st.integers(1, 10**9)), max_size=8), st.integers(1, 10**9))
def test_what_is_asked_for_is_what_is_wanted_and_what_it_takes_the_place_of(
    open_: Sequence[tuple[RefillState, int]], units: int
) -> None:
    under_way = [refill(state, each) for state, each in open_]
    found = join(under_way, wanted(units, Why.NEED))
    if found is None:
        return
    replaced = 0 if found.instead is None else found.instead.units
    assert found.proposal.units == units + replaced
    assert found.instead is None or found.proposal.units * 2 >= found.instead.units * 3
    assert found.instead is not None or len(under_way) < OPEN_AT_MOST


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=300))
def test_however_much_is_wanted_bit_by_bit_people_are_asked_anew_only_so_often(more: Sequence[int]) -> None:
    asked = refill(RefillState.PROPOSED, 1_000)
    times, total, pending = 0, 1_000, 0
    for units in more:
        pending += units  # what was not asked for yet is wanted again with the next
        total += units
        found = join([asked], wanted(pending, Why.NEED))
        if found is not None:
            asked, pending, times = refill(RefillState.PROPOSED, found.proposal.units), 0, times + 1
    assert 2**times <= (total / 1_000) ** 2  # float: of a test, each time it is half as much again at least
