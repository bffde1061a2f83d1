"""The lives of transactions and withdrawals: every state and every event, and what never happens."""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Any

import pytest

from custody.lifecycle import ImpossibleTransition, Lifecycle
from custody.signing.lifecycle import TRANSACTION, TransactionEvent, TransactionState
from custody.withdrawals.lifecycle import WITHDRAWAL, WithdrawalEvent, WithdrawalState

LIVES: list[tuple[Lifecycle[Any, Any], type[StrEnum], type[StrEnum]]] = [
    (TRANSACTION, TransactionState, TransactionEvent),
    (WITHDRAWAL, WithdrawalState, WithdrawalEvent),
]


@pytest.mark.parametrize(("life", "states", "events"), LIVES, ids=["transaction", "withdrawal"])
def test_every_pair_of_state_and_event_leads_to_a_state_or_raises(
    life: Lifecycle[Any, Any], states: type[StrEnum], events: type[StrEnum]
) -> None:
    for state, event in itertools.product(states, events):
        if (state, event) in life.table:
            assert life.next(state, event) in states
            assert state in life.sources(event)
        else:
            with pytest.raises(ImpossibleTransition):
                life.next(state, event)
            assert state not in life.sources(event)


@pytest.mark.parametrize(("life", "states", "events"), LIVES, ids=["transaction", "withdrawal"])
def test_every_event_can_happen_and_every_state_can_be_reached(
    life: Lifecycle[Any, Any], states: type[StrEnum], events: type[StrEnum]
) -> None:
    assert {event for _, event in life.table} == set(events)
    reached = {next(iter(states)), *life.table.values()}
    assert reached == set(states)


def test_the_ends_are_ends() -> None:
    for end in (S.REJECTED, S.CANCELLED, S.EXPIRED, S.FAILED):
        assert not [event for state, event in WITHDRAWAL.table if state is end]
    for last in (TransactionState.REFUSED, TransactionState.DEAD):
        assert not [event for state, event in TRANSACTION.table if state is last]


def test_what_is_contested_ends_like_all_else_that_may_have_been_signed() -> None:
    ends = {
        event: target
        for (state, event), target in TRANSACTION.table.items()
        if state is TransactionState.CONTESTED
    }
    assert ends == {
        TransactionEvent.SIGN: TransactionState.CONTESTED,
        TransactionEvent.REFUSE: TransactionState.REFUSED,
        TransactionEvent.MINE: TransactionState.CONFIRMING,
        TransactionEvent.DIE: TransactionState.DEAD,
    }


S, E = WithdrawalState, WithdrawalEvent
RECORDED = (S.SIGNING, S.BROADCAST, S.CONFIRMING, S.SETTLED)


def test_once_a_transaction_is_recorded_only_a_final_conflict_or_a_refusal_frees_the_money() -> None:
    for (state, event), target in WITHDRAWAL.table.items():
        if state in RECORDED and target not in RECORDED:
            assert (event, target) in [(E.DIE, S.FAILED), (E.REFUSE, S.QUEUED)]
    assert WITHDRAWAL.sources(E.REFUSE) == {S.SIGNING}


def test_what_failed_or_ended_is_never_paid_again() -> None:
    paying = {S.BUILDING, *RECORDED}
    for (state, _), target in WITHDRAWAL.table.items():
        if target in paying and state not in paying:
            assert state is S.QUEUED
