"""The life of a sweep: every pair of state and event is in the table, or refused."""

from __future__ import annotations

import itertools

import pytest

from custody.lifecycle import ImpossibleTransition
from custody.sweeps.lifecycle import SWEEP, SweepEvent, SweepState

S, E = SweepState, SweepEvent
ALLOWED = {
    (S.PLANNED, E.RECORD): S.SIGNING,
    (S.SIGNING, E.SIGN): S.BROADCAST,
    (S.SIGNING, E.REFUSE): S.ABANDONED,
    (S.SIGNING, E.DIE): S.ABANDONED,
    (S.BROADCAST, E.FINALISE): S.CONFIRMED,
    (S.BROADCAST, E.DIE): S.ABANDONED,
    (S.CONFIRMED, E.UNDO): S.BROADCAST,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(SweepState, SweepEvent)))
def test_each_state_and_event_has_one_outcome_or_is_refused(state: SweepState, event: SweepEvent) -> None:
    if (state, event) in ALLOWED:
        assert SWEEP.next(state, event) is ALLOWED[state, event]
    else:
        with pytest.raises(ImpossibleTransition):
            SWEEP.next(state, event)


def test_what_may_have_been_signed_ends_only_by_a_final_conflict() -> None:
    assert SWEEP.sources(E.REFUSE) == {S.SIGNING}
    assert {state for state, event in SWEEP.table if SWEEP.table[state, event] is S.ABANDONED} <= {
        S.SIGNING,
        S.BROADCAST,
    }
    assert not [event for state, event in SWEEP.table if state is S.ABANDONED]
