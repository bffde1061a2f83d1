"""The life of a refill: only what is approved is carried out, and nothing ends that a signer may have signed."""

from __future__ import annotations

import itertools

import pytest

from custody.lifecycle import ImpossibleTransition
from custody.treasury.lifecycle import OPEN, REFILL, RefillEvent, RefillState


def test_every_pair_of_state_and_event_moves_as_the_table_says_or_raises() -> None:
    for state, event in itertools.product(RefillState, RefillEvent):
        if (state, event) in REFILL.table:
            assert REFILL.next(state, event) is REFILL.table[state, event]
        else:
            with pytest.raises(ImpossibleTransition):
                REFILL.next(state, event)


def test_only_what_is_approved_is_recorded_and_what_is_recorded_nobody_calls_off() -> None:
    assert REFILL.sources(RefillEvent.RECORD) == {RefillState.APPROVED}
    assert REFILL.sources(RefillEvent.DECLINE) == {RefillState.PROPOSED, RefillState.APPROVED}
    assert REFILL.sources(RefillEvent.DIE) == {RefillState.SIGNING, RefillState.BROADCAST}


def test_a_confirmed_one_only_a_reorg_opens_again_and_a_declined_one_nothing_does() -> None:
    leaving = {state for state, _ in REFILL.edges()}
    assert RefillState.DECLINED not in leaving
    assert {edge for edge in REFILL.edges() if edge[0] == "confirmed"} == {("confirmed", "broadcast")}
    assert set(OPEN) == set(RefillState) - {RefillState.CONFIRMED, RefillState.DECLINED}
