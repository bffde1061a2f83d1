"""Screening of destinations: before the policy decides, and again before a transaction pays, for lists change.

What is found opens a case (`custody.screening.cases`), and the withdrawal waits for a person: released, it is decided
as if nothing had been found; refused, it is rejected. While a provider is silent, it waits for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from custody.screening import cases, verdicts
from custody.screening.cases import CaseKind
from custody.screening.judging import Cleared, Hit, Refused, Unknown, Waits, judge
from custody.screening.model import Answer, Subject
from custody.screening.ports import Screening
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.withdrawals import repository, service
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.facts import Screening as Verdict

FRESH_SECONDS: Final = 60
"""So long may an answer be used: whoever waits longer to be paid is screened again."""
BATCH: Final = 200
BLOCKED: Final = "destination-blocked"


def ask(screening: Screening, withdrawal: Withdrawal) -> Answer:
    """What is known of its destination. Outside any transaction: a provider that takes its time must hold no locks."""
    return screening.ask(Subject(withdrawal.chain, withdrawal.destination))


def take(tx: Tx, withdrawal: Withdrawal, answer: Answer) -> Verdict | None:
    """What the policy is told; None if the withdrawal waits, for a person or a provider, which it then says.

    HIT only if a person has refused it.
    """
    verdicts.note(tx, CaseKind.WITHDRAWAL, {withdrawal.id: answer})
    judged = judge(cases.standing(tx, CaseKind.WITHDRAWAL, [withdrawal.id])[withdrawal.id], answer)
    if not isinstance(judged, Unknown) and not answer.missing:
        alerts.resolve_alert(tx, "screening.unavailable", withdrawal.chain)
    match judged:
        case Cleared():
            repository.mark_screened(tx, withdrawal.id)
            return Verdict.CLEAR
        case Refused():
            return Verdict.HIT
        case Waits(case):
            repository.wait(tx, withdrawal.id, f"screening-case: {case} is open", seconds=0)
        case Hit():
            _open(tx, withdrawal, judged)
        case Unknown(why):
            repository.wait(tx, withdrawal.id, f"screening-unavailable: {why}"[:1000], seconds=0)
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "screening.unavailable",
                withdrawal.chain,
                f"withdrawals wait: {why}",
                {},
            )
    return None


def _open(tx: Tx, withdrawal: Withdrawal, hit: Hit) -> None:
    case = cases.open_case(
        tx, CaseKind.WITHDRAWAL, withdrawal.id, withdrawal.chain, withdrawal.destination, hit
    )
    repository.forget_screening(tx, withdrawal.id)
    repository.wait(tx, withdrawal.id, f"screening-case: {case}: {hit.reason}"[:1000], seconds=0)
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        "withdrawal.held",
        str(withdrawal.id),
        f"withdrawal {withdrawal.id} waits for case {case}: {hit.reason}",
        {"withdrawal": str(withdrawal.id), "case": str(case)},
    )


def screen_again(db: Database, chain: str, screening: Screening) -> int:
    """Ask again about queued withdrawals of a chain whose last answer is no longer fresh; returns about how many.

    Nothing pays them before: see `repository.payable`.

    Raises:
        DatabaseUnavailable, Conflict: the withdrawal at hand is as it was; the others are done.
    """
    with db.snapshot() as tx:
        stale = repository.unscreened(tx, chain, seconds=FRESH_SECONDS, limit=BATCH)
    for seen in stale:
        answer = ask(screening, seen)
        with db.transaction() as tx:
            withdrawal = repository.claim(tx, seen.id, [WithdrawalState.QUEUED])
            if withdrawal is not None and take(tx, withdrawal, answer) is Verdict.HIT:
                _reject(tx, withdrawal, {"screening": answer.describe()})
    return len(stale)


def _reject(tx: Tx, withdrawal: Withdrawal, detail: Mapping[str, Any]) -> None:
    reason = f"{BLOCKED}: screening says no to the destination"
    moved = repository.apply(tx, withdrawal, WithdrawalEvent.REJECT, reason=reason, detail=detail)
    service.release(tx, moved)
