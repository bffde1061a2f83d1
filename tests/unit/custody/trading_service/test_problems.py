"""Every error of the trading core's service has its own form on the wire."""

from __future__ import annotations

import inspect

from chains.errors import StrongroomError
from custody.trading import failures
from custody.trading.problems import RULES, describe
from custody.web.problems import ROOTS, rule_for


def test_every_error_has_a_rule_nearer_than_a_root_and_what_can_pass_says_so() -> None:
    ours = [
        found
        for _, found in inspect.getmembers(failures, inspect.isclass)
        if issubclass(found, StrongroomError) and found.__module__ == failures.__name__
    ]
    assert len(ours) > 10
    assert [error.__name__ for error in ours if rule_for(error, RULES)[0] in ROOTS] == []


def test_a_refusal_tells_its_code_and_its_numbers() -> None:
    problem = describe(failures.OrderRejected("insufficient_funds", "o-1", {"needed": "7", "free": "3"}))
    assert (problem.status, problem.decided, problem.members["code"]) == (409, True, "insufficient_funds")
    assert problem.members["numbers"] == {"needed": "7", "free": "3"}
    behind = describe(failures.SettlementBehind(9, 70))
    assert (behind.status, behind.retryable, behind.members["unsettled"]) == (503, True, 9)
    assert (describe(failures.Busy(3)).status, describe(failures.Busy(3)).retryable) == (429, True)
