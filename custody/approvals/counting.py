"""What follows from answers, from time, and from a new bundle: workers' steps, each of them safe to repeat."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from chains.errors import PermanentError
from custody.approvals import judging, repository, service
from custody.approvals.model import Heard, Question
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.withdrawals import repository as withdrawals
from custody.withdrawals import service as withdrawal_service
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.bundle import Bundle

BATCH = 200
TAMPERED = "approval.tampered"
EXPIRED = "approval.expired"


def reconsider(db: Database, bundle: Bundle, *, now: int) -> int:
    """Have withdrawals decided again that an older bundle has let through; returns how many.

    Approvals of them were given under rules that are no longer in force, so they are void: what is signed about from
    now on is another intent (FAULTS row 47). A rejection that nobody has counted yet still ends it.

    Args:
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.outdated(tx, bundle.version, limit=BATCH)
    done = 0
    for withdrawal_id in ids:
        with db.transaction() as tx:
            withdrawal = withdrawals.claim(tx, withdrawal_id, repository.OPEN)
            if withdrawal is None or not _older(withdrawal, bundle):
                continue
            if _rejected_before(tx, withdrawal, bundle, now=now):
                done += 1
                continue
            reason = f"policy: it is decided again under version {bundle.version} of the bundle"
            withdrawals.apply(tx, withdrawal, WithdrawalEvent.RECONSIDER, reason=reason)
            withdrawals.set_delay(tx, withdrawal.id, 0)
            if withdrawal.policy_version == 0:
                # Under the same bundle it is the same intent, whose answers somebody has counted already.
                repository.count_again(tx, withdrawal.id)
            done += 1
    return done


def _older(withdrawal: Withdrawal, bundle: Bundle) -> bool:
    return withdrawal.policy_version is not None and withdrawal.policy_version < bundle.version


def _rejected_before(tx: Tx, withdrawal: Withdrawal, bundle: Bundle, *, now: int) -> bool:
    decision = repository.decisions(tx, [withdrawal.id])[withdrawal.id]
    try:
        # The column no longer says it where the withdrawal is to be decided again under the same bundle.
        last = replace(withdrawal, policy_version=judging.version_of(decision))
        intent = judging.last_intent_of(last, bundle)
    except PermanentError:
        return False  # what is wrong with it, deciding again finds out
    said = repository.about(tx, [intent.digest_hex()])[intent.digest_hex()]
    heard = judging.heard(said, intent, withdrawal.signed_order.order, bundle, now=now)
    if heard.rejected:
        _reject(tx, withdrawal, heard)
    return bool(heard.rejected)


def count(db: Database, bundle: Bundle, *, now: int) -> int:
    """Count what was said since the last time; returns how many withdrawals went on or ended by it.

    Args:
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.unheard(tx, limit=BATCH)
    return sum(_count_one(db, withdrawal_id, bundle, now=now) for withdrawal_id in ids)


def _count_one(db: Database, withdrawal_id: UUID, bundle: Bundle, *, now: int) -> int:
    with db.transaction() as tx:
        withdrawal = withdrawals.claim(tx, withdrawal_id, repository.OPEN)
        if withdrawal is None or withdrawals.stopped(tx, withdrawal) is not None:
            return 0
        if withdrawal.policy_version != bundle.version:
            return 0  # it is decided again first
        try:
            question = service.question(tx, withdrawal, bundle, now=now)
        except PermanentError as error:
            report(tx, withdrawal.id, str(error))
            repository.mark_heard(tx, withdrawal.id, until=None)
            return 0
        for broken in question.heard.broken:
            report(tx, withdrawal.id, f"approval {broken.id}: {broken.problem}")
        return _follow(tx, question, bundle)


def _follow(tx: Tx, question: Question[Withdrawal], bundle: Bundle) -> int:
    withdrawal, heard = question.subject, question.heard
    if heard.rejected:
        _reject(tx, withdrawal, heard)
        return 1
    until = judging.until(question.asked, heard, bundle)
    repository.mark_heard(tx, withdrawal.id, until=until)
    if withdrawal.state is not WithdrawalState.AWAITING_APPROVAL:
        if question.lacking:
            _lapse(tx, withdrawal)
        return int(bool(question.lacking))
    if question.lacking:
        withdrawals.explain(tx, withdrawal.id, f"approval: {question.lacking}"[:1000])
        return 0
    people = sorted(each.approval.approver for each in heard.approved)
    withdrawals.apply(
        tx,
        withdrawal,
        WithdrawalEvent.APPROVE,
        reason=f"approved: by {', '.join(people)}"[:1000],
        detail={"approvals": [each.approval.digest_hex() for each in heard.approved]},
    )
    alerts.resolve_alert(tx, EXPIRED, str(withdrawal.id))
    return 1


def _reject(tx: Tx, withdrawal: Withdrawal, heard: Heard) -> None:
    repository.mark_heard(tx, withdrawal.id, until=None)
    reason = judging.rejection(heard)
    withdrawal_service.release(tx, withdrawals.apply(tx, withdrawal, WithdrawalEvent.REJECT, reason=reason))
    alerts.resolve_alert(tx, EXPIRED, str(withdrawal.id))


def lapse(db: Database, *, now: int) -> int:
    """Ask again about withdrawals whose approvals have ended before they were paid; returns how many.

    Args:
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.lapsed(tx, now=now, limit=BATCH)
    done = 0
    for withdrawal_id in ids:
        with db.transaction() as tx:
            withdrawal = withdrawals.claim(
                tx, withdrawal_id, [WithdrawalState.COOLING, WithdrawalState.QUEUED]
            )
            if withdrawal is None:
                continue
            _lapse(tx, withdrawal)
            done += 1
    return done


def end_with_approvers(db: Database, bundle: Bundle, *, now: int) -> int:
    """Ask again about withdrawals that were approved by people whom an officer has ended since; returns how many.

    Args:
        now: UNIX seconds.
    """
    ended = [approver.id for approver in bundle.approvers if now >= approver.not_after]
    if bundle.overlay is None or not ended:
        return 0
    with db.snapshot() as tx:
        ids = repository.approved_by(tx, ended)
    done = 0
    for withdrawal_id in ids:
        with db.transaction() as tx:
            withdrawal = withdrawals.claim(
                tx, withdrawal_id, [WithdrawalState.COOLING, WithdrawalState.QUEUED]
            )
            if withdrawal is None or withdrawal.policy_version != bundle.version:
                continue
            with suppress(PermanentError):  # what is wrong with it, whoever pays it finds out
                done += not is_approved(tx, withdrawal, bundle, now=now)
    return done


def is_approved(tx: Tx, withdrawal: Withdrawal, bundle: Bundle, *, now: int) -> bool:
    """Whether a claimed withdrawal that waits to be paid has its approvals still. Else it waits for people, or ends.

    Args:
        now: UNIX seconds.

    Raises:
        ApprovalRefused: it is being decided again.
        PermanentError: it is not what its caller has signed, or no wallet could pay it.
    """
    question = service.question(tx, withdrawal, bundle, now=now)
    if question.heard.rejected:
        _reject(tx, withdrawal, question.heard)
        return False
    if question.lacking:
        _lapse(tx, withdrawal)
        return False
    return True


def _lapse(tx: Tx, withdrawal: Withdrawal) -> None:
    withdrawals.apply(
        tx,
        withdrawal,
        WithdrawalEvent.LAPSE,
        reason="approval: what was given has expired before it was signed",
    )
    repository.count_again(tx, withdrawal.id)
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        EXPIRED,
        str(withdrawal.id),
        "its approvals have expired before it was signed: it waits for new ones",
        {},
    )


def report(tx: Tx, subject: UUID, problem: str) -> None:
    """Raise the alert about a withdrawal or refill, of which something stored is not what was signed."""
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        TAMPERED,
        str(subject),
        f"what is stored is not what was signed: {problem}"[:1000],
        {},
    )
