"""What becomes of a deposit that is deep enough, for every combination that can occur."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.deposits.decisions import Decision, decide
from custody.deposits.lifecycle import DEPOSIT
from custody.deposits.lifecycle import DepositEvent as E
from custody.deposits.lifecycle import DepositState as S
from custody.deposits.screening import Clear, Hit

HIT = Hit("listed")


@pytest.mark.parametrize(
    ("state", "units", "unproven", "verdict", "event"),
    [
        (S.CONFIRMING, 1_000, None, Clear(), E.CREDIT),
        (S.CONFIRMING, 999, None, Clear(), E.TOO_SMALL),
        (S.CONFIRMING, 999, None, HIT, E.TOO_SMALL),
        (S.CONFIRMING, 1_000, None, HIT, E.HOLD),
        (S.CONFIRMING, 1_000, None, None, E.HOLD),
        (S.CONFIRMING, 1_000, "forged", Clear(), E.HOLD),
        (S.HELD, 1_000, None, Clear(), E.RELEASE),
        (S.HELD, 1_000, None, HIT, None),
        (S.HELD, 1_000, None, None, None),
        (S.HELD, 1_000, "forged", Clear(), None),
    ],
)
def test_each_case_has_one_outcome(
    state: S, units: int, unproven: str | None, verdict: Clear | Hit | None, event: E | None
) -> None:
    decision = decide(state, units, 1_000, unproven, verdict)
    assert (decision and decision.event) == event


@given(
    st.sampled_from([S.CONFIRMING, S.HELD]),
    st.integers(1, 2_000),
    st.sampled_from([None, "forged"]),
    st.sampled_from([Clear(), HIT, None]),
)
def test_nothing_is_credited_unless_proven_screened_and_large_enough_or_released(
    state: S, units: int, unproven: str | None, verdict: Clear | Hit | None
) -> None:
    decision = decide(state, units, 1_000, unproven, verdict)
    if decision is None:
        return
    assert isinstance(decision, Decision)
    if DEPOSIT.next(state, decision.event) is S.CREDITED:
        assert unproven is None
        assert verdict == Clear()
        assert units >= 1_000 or state is S.HELD
    else:
        assert decision.reason
