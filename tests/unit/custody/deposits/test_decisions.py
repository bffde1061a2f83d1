"""What becomes of a deposit that is deep enough, for every combination that can occur."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.deposits.decisions import Decision, Withheld, decide
from custody.deposits.lifecycle import DEPOSIT
from custody.deposits.lifecycle import DepositEvent as E
from custody.deposits.lifecycle import DepositState as S
from custody.screening.judging import Cleared, Hit, Judgement, Refused, Unknown, Waits
from custody.screening.model import Finding

HIT = Hit((Finding("lists", "address", "listed", "", "1"),))
CASE = uuid4()
JUDGED: list[Judgement | Withheld] = [
    Cleared(),
    HIT,
    Waits(CASE),
    Refused(CASE),
    Unknown("away"),
    Withheld("stolen"),
]


@pytest.mark.parametrize(
    ("state", "units", "unproven", "judged", "event"),
    [
        (S.CONFIRMING, 1_000, None, Cleared(), E.CREDIT),
        (S.CONFIRMING, 999, None, Cleared(), E.TOO_SMALL),
        (S.CONFIRMING, 999, None, HIT, E.TOO_SMALL),
        (S.CONFIRMING, 1_000, None, HIT, E.HOLD),
        (S.CONFIRMING, 1_000, None, Unknown("away"), E.HOLD),
        (S.CONFIRMING, 1_000, None, Waits(CASE), E.HOLD),
        (S.CONFIRMING, 1_000, None, Refused(CASE), E.HOLD),
        (S.CONFIRMING, 1_000, None, Withheld("stolen"), E.HOLD),
        (S.CONFIRMING, 1_000, "forged", Cleared(), E.HOLD),
        (S.HELD, 1_000, None, Cleared(), E.RELEASE),
        (S.HELD, 1_000, None, Refused(CASE), E.QUARANTINE),
        (S.HELD, 1_000, None, Waits(CASE), None),
        (S.HELD, 1_000, None, Unknown("away"), None),
        (S.HELD, 1_000, None, Withheld("stolen"), None),
        (S.HELD, 1_000, "forged", Cleared(), None),
        (S.HELD, 1_000, "forged", Refused(CASE), None),
    ],
)
def test_each_case_has_one_outcome(
    state: S, units: int, unproven: str | None, judged: Judgement | Withheld, event: E | None
) -> None:
    decision = decide(state, units, 1_000, unproven, judged)
    assert (decision and decision.event) == event


@pytest.mark.parametrize("state", [S.CONFIRMING, S.HELD])
def test_what_is_found_opens_a_case_also_while_something_else_held_it(state: S) -> None:
    decision = decide(state, 1_000, 1_000, None, HIT)
    assert decision is not None
    assert decision.case == HIT
    assert decision.event is (None if state is S.HELD else E.HOLD)


@given(
    st.sampled_from([S.CONFIRMING, S.HELD]),
    st.integers(1, 2_000),
    st.sampled_from([None, "forged"]),
    st.sampled_from(JUDGED),
)
def test_nothing_is_credited_unless_proven_screened_and_large_enough_or_released(
    state: S, units: int, unproven: str | None, judged: Judgement | Withheld
) -> None:
    decision = decide(state, units, 1_000, unproven, judged)
    if decision is None:
        return
    assert isinstance(decision, Decision)
    if decision.event is not None and DEPOSIT.next(state, decision.event) is S.CREDITED:
        assert unproven is None
        assert judged == Cleared()
        assert units >= 1_000 or state is S.HELD
    else:
        assert decision.reason
