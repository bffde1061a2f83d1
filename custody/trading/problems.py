"""The one place where the trading core's errors become HTTP, beside the rules that all faces share."""

from __future__ import annotations

from typing import Any, Final

from custody.trading import failures
from custody.web import problems
from custody.web.problems import REPEAT, Problem, Rule, Rules, inside, of


def _rejection(error: Any) -> dict[str, Any]:
    return {"code": error.code, "subject": error.subject, "numbers": dict(error.numbers)}


RULES: Final[Rules] = {
    **problems.RULES,
    failures.OrderRejected: Rule("rejected", 409, "The engine refused", "", _rejection),
    failures.NotYourCustomer: Rule(
        "not-your-customer", 403, "The caller may not act for this customer",
        "An operator lists callers' customers in the trading core's settings.", of("caller", "customer"),
    ),
    failures.TransferConflict: Rule("transfer-exists", 409, "The transfer's id is taken", "", of("id")),
    failures.Busy: Rule("busy", 429, "The trading core has too much to do", REPEAT, of("waiting")),
    failures.SettlementBehind: Rule(
        "settlement-behind", 503, "The ledger is not reached", "Cancels are taken.", of("unsettled", "seconds")
    ),
    failures.Closed: Rule("closed", 503, "The trading core is ending", REPEAT),
    failures.JournalError: Rule(
        "journal", 500, "The journal cannot be used", "", public=inside("an operator must look.")
    ),
    failures.CustodyUnavailable: Rule(
        "custody-unavailable", 503, "Custody does not answer", REPEAT, public=inside("custody is away.")
    ),
    failures.CustodyRefused: Rule("custody-refused", 409, "Custody refused", "", of("code")),
}  # fmt: skip
"""From error type to its form on the wire."""


def describe(error: Exception) -> Problem:
    """The problem that an error is."""
    return problems.describe(error, None, RULES)
