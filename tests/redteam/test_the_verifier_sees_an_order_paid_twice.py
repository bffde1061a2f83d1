"""One lying member of a vault, and all that is online in the same hands: two others have each signed another
transaction for one order, and both confirmed. Each log by itself is in order; together they tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from signers.verifier.model import Held
from signers.verifier.paid import PaidCase

WITHDRAWAL = UUID(int=7)


class _Told:
    """What logs tell, as the verifier has kept it, with what became of each."""

    def __init__(self, *outcomes: str) -> None:
        self._rows = [
            (str(WITHDRAWAL), "bitcoin", f"{number:064x}", "btc-warm", "BTC", "1000", outcome)
            for number, outcome in enumerate(outcomes)
        ]

    def rows(self, sql: str, *params: object) -> Sequence[tuple[str, ...]]:
        return self._rows


class _Nothing:
    """Payouts, members and ledger that have nothing to say."""

    def claims(self, withdrawals: list[UUID]) -> dict[UUID, Any]:
        return {}

    def release(self, customer: str, standing: set[str]) -> None:
        return None


def _found(*outcomes: str) -> list[str]:
    nothing: Any = _Nothing()
    told: Any = _Told(*outcomes)
    case = PaidCase(told, nothing, nothing, nothing, nothing, "alice")
    held = Held(WITHDRAWAL, "BTC", 1_500, "pending")
    case.run({WITHDRAWAL: held}, {WITHDRAWAL: None})
    return [finding.kind for finding in case.findings]


def test_an_order_that_two_transactions_have_paid_is_found_though_it_was_debited() -> None:
    assert _found("confirmed", "confirmed") == ["payment-not-debited"]


@pytest.mark.parametrize(
    "outcomes", [("confirmed",), ("confirmed", "dead"), ("open", "confirmed"), ("open",)]
)
def test_versions_of_which_one_has_paid_are_in_order(outcomes: tuple[str, ...]) -> None:
    assert _found(*outcomes) == []
