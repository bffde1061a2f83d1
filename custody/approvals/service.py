"""Asking people and taking their answers: what waits for whom, and one more approval or rejection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from chains.errors import PermanentError
from custody.approvals import judging, repository
from custody.approvals.errors import ApprovalRefused
from custody.approvals.model import Heard, Question, Said
from custody.storage import events
from custody.storage.db import Tx
from custody.treasury.model import Refill
from custody.withdrawals import repository as withdrawals
from custody.withdrawals import service as withdrawal_service
from custody.withdrawals.lifecycle import WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.approvals import lacking
from policies.bundle import Bundle
from policies.decision import Reason
from policies.intent import Intent, SignedApproval


def question(tx: Tx, withdrawal: Withdrawal, bundle: Bundle, *, now: int) -> Question[Withdrawal]:
    """What is asked about a withdrawal, and what was said.

    Raises:
        ApprovalRefused: it is being decided again, under a new bundle.
        PermanentError: it is not what its caller has signed, or no wallet could pay it.
    """
    intent = judging.intent_of(withdrawal, bundle)
    digest = intent.digest_hex()
    said = repository.about(tx, [digest])[digest]
    decision = repository.decisions(tx, [withdrawal.id])[withdrawal.id]
    return _question(withdrawal, intent, decision, said, bundle, now)


def _question(
    withdrawal: Withdrawal, intent: Intent, decision: object, said: Sequence[Said], bundle: Bundle, now: int
) -> Question[Withdrawal]:
    asked = judging.asked_of(decision)
    heard = judging.heard(said, intent, withdrawal.signed_order.order, bundle, now=now)
    return Question(withdrawal, intent, asked, heard, lacking(asked, judging.given(heard.approved, bundle)))


def pending(
    tx: Tx, bundle: Bundle, *, after: UUID | None, limit: int, now: int
) -> tuple[Sequence[Withdrawal], list[Question[Withdrawal]]]:
    """What waits for approval now, by id, beginning after `after`: at most `limit` withdrawals.

    Returns:
        The withdrawals, and the questions about those of them that can be approved: not about one that is just decided
        again under a new bundle, or that is not what its caller has signed.
    """
    found = withdrawals.page(tx, state=WithdrawalState.AWAITING_APPROVAL, after=after, limit=limit)
    intents: dict[UUID, Intent] = {}
    for withdrawal in found:
        with suppress(PermanentError):
            intents[withdrawal.id] = judging.intent_of(withdrawal, bundle)
    decisions = repository.decisions(tx, list(intents))
    said = repository.about(tx, [intent.digest_hex() for intent in intents.values()])
    return found, [
        _question(
            each, intents[each.id], decisions[each.id], said[intents[each.id].digest_hex()], bundle, now
        )
        for each in found
        if each.id in intents
    ]


def give(tx: Tx, withdrawal_id: UUID, signed: SignedApproval, bundle: Bundle, *, now: int) -> Withdrawal:
    """Take one answer. A worker counts it. The same again changes nothing, whatever has become of the withdrawal.

    Args:
        withdrawal_id: what it is about.
        signed: the approval or rejection as it arrived.
        now: UNIX seconds.

    Returns:
        The withdrawal as it is now.

    Raises:
        NotFound: there is none.
        ApprovalRefused: it does not count, or comes too late.
        PermanentError: the withdrawal is not what its caller has signed, or no wallet could pay it.
    """
    withdrawal = withdrawal_service.get(tx, withdrawal_id)
    if repository.known(tx, withdrawal, signed):
        return withdrawal
    approval = signed.approval
    open_for = (WithdrawalState.AWAITING_APPROVAL,) if approval.decision == "approve" else repository.OPEN
    if withdrawal.state not in open_for:
        detail = f"withdrawal {withdrawal_id} is {withdrawal.state}: nobody is asked about it"
        raise ApprovalRefused([Reason("approval-late", detail)])
    present = question(tx, withdrawal, bundle, now=now)
    order = withdrawal.signed_order.order
    refused = judging.refusals(signed, present.intent, order, present.asked, bundle, now=now)
    keep(tx, withdrawal, signed, refused, present.heard)
    return withdrawal


def keep(
    tx: Tx, subject: Withdrawal | Refill, signed: SignedApproval, refused: Sequence[Reason], heard: Heard
) -> None:
    """Store an answer to which nothing was objected, and that was not given before.

    Raises:
        ApprovalRefused: it was, or something was.
    """
    approval = signed.approval
    reasons = list(refused) + [
        Reason("approval-given", f"{approval.approver} has approved it until {each.approval.expires_at}")
        for each in heard.approved
        if (each.approval.approver, each.approval.group, "approve")
        == (approval.approver, approval.group, approval.decision)
    ]
    if reasons:
        raise ApprovalRefused(reasons)
    repository.insert(tx, subject, signed)
    events.emit(
        tx,
        f"approval.{'given' if approval.decision == 'approve' else 'refused'}",
        str(subject.id),
        {"approver": approval.approver, "group": approval.group, "reason": approval.reason},
    )
