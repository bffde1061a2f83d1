"""Adding to a whitelist is never immediate, whatever is called in which order; removing always is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.lifecycle import ImpossibleTransition
from custody.whitelist.lifecycle import (
    LEAST_COOLING_SECONDS,
    WHITELIST,
    EntryEvent,
    EntryState,
    Standing,
    cooling_seconds,
    standing,
)
from policies.rules import Policy, Rule, When

steps = st.lists(st.tuples(st.sampled_from(EntryEvent), st.integers(min_value=0, max_value=200)), max_size=12)


@given(
    steps=steps,
    cooling=st.integers(min_value=1, max_value=300),
    later=st.integers(min_value=0, max_value=400),
)
def test_an_entry_is_usable_only_when_it_was_confirmed_listed_and_has_cooled_since(
    steps: list[tuple[EntryEvent, int]], cooling: int, later: int
) -> None:
    state, listed_at, now = EntryState.REQUESTED, None, 1_000
    confirmed_at: int | None = None
    removed = False
    for event, pause in steps:
        now += pause
        try:
            state = WHITELIST.next(state, event)
        except ImpossibleTransition:
            continue
        if event is EntryEvent.CONFIRM:
            confirmed_at = now
        if event is EntryEvent.LIST:
            listed_at = now
        removed = removed or event is EntryEvent.REMOVE
        found = standing(state, listed_at, cooling, now=now)
        # No single step, and no step at all, makes it usable: only time does.
        assert found is not Standing.USABLE or (listed_at is not None and now >= listed_at + cooling)
    now += later
    if standing(state, listed_at, cooling, now=now) is Standing.USABLE:
        assert not removed
        assert confirmed_at is not None
        assert listed_at is not None
        assert confirmed_at <= listed_at <= now - cooling
    elif removed:
        assert standing(state, listed_at, cooling, now=now) is Standing.REMOVED


@pytest.mark.parametrize("state", EntryState)
def test_removing_is_possible_from_everywhere_and_final(state: EntryState) -> None:
    if state is EntryState.REMOVED:
        for event in EntryEvent:
            with pytest.raises(ImpossibleTransition):
                WHITELIST.next(state, event)
        return
    assert WHITELIST.next(state, EntryEvent.REMOVE) is EntryState.REMOVED


def test_a_listed_entry_whose_time_is_not_known_is_not_usable() -> None:
    assert standing(EntryState.LISTED, None, 1, now=10**9) is Standing.CONFIRMED
    assert standing(EntryState.LISTED, 10**9, 1, now=10) is Standing.COOLING


def rule(name: str, seconds: int, deny: str | None = "too new") -> Rule:
    return Rule(id=name, when=When(destination_younger_than=seconds), deny=deny)


def test_entries_cool_for_the_longest_time_that_a_rule_denies_a_young_destination() -> None:
    assert cooling_seconds(Policy(rules=(rule("a", 60), rule("b", 3600)))) == 3600
    assert cooling_seconds(Policy(rules=(rule("a", 60), rule("b", 3600, None)))) == 60


@pytest.mark.parametrize(
    "rules", [(), (rule("a", 0),), (rule("a", 60, None),), (Rule(id="a", deny="never"),)]
)
def test_without_such_a_rule_they_cool_for_a_day(rules: tuple[Rule, ...]) -> None:
    assert cooling_seconds(Policy(rules=rules)) == LEAST_COOLING_SECONDS
