"""Asking people about refills: the same answers, keys and rules as for withdrawals, but nobody has ordered one.

Who proposed it by hand does not count among its approvers, for the online side: signers don't know of him.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from chains.errors import PermanentError
from custody.approvals import judging, repository, service
from custody.approvals.counting import BATCH, EXPIRED, report
from custody.approvals.errors import ApprovalRefused
from custody.approvals.model import Question
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.treasury import repository as refills
from custody.treasury import service as treasury
from custody.treasury.lifecycle import RefillEvent, RefillState
from custody.treasury.model import Refill
from policies.approvals import lacking
from policies.bundle import Bundle
from policies.decision import Reason
from policies.intent import SignedApproval

WAITING: Final = (RefillState.PROPOSED, RefillState.APPROVED)
"""States in which an answer can still change something: no transaction carries it out."""


def question(tx: Tx, refill: Refill, bundle: Bundle, *, now: int) -> Question[Refill]:
    """What is asked about a refill, and what was said.

    Raises:
        ApprovalRefused: it was decided under another version of the bundle.
        InvalidValue: the row is no refill that could be signed.
    """
    if refill.policy_version != bundle.version:
        version = refill.policy_version
        detail = f"it was decided under version {version} of the bundle, in force is {bundle.version}"
        raise ApprovalRefused([Reason("approval-version", detail)])
    intent = refill.intent
    digest = intent.digest_hex()
    asked = judging.asked_of(refill.decision)
    heard = judging.heard(repository.about(tx, [digest])[digest], intent, None, bundle, now=now)
    return Question(refill, intent, asked, heard, lacking(asked, judging.given(heard.approved, bundle)))


def pending(
    tx: Tx, bundle: Bundle, *, after: UUID | None, limit: int, now: int
) -> tuple[Sequence[Refill], list[Question[Refill]]]:
    """What waits for approval now, by id, beginning after `after`: at most `limit` refills, and the questions about
    those of them that can be approved."""
    found = refills.page(tx, states=[RefillState.PROPOSED], after=after, limit=limit)
    fitting = [each for each in found if each.policy_version == bundle.version]
    return found, [question(tx, each, bundle, now=now) for each in fitting]


def give(tx: Tx, refill_id: UUID, signed: SignedApproval, bundle: Bundle, *, now: int) -> Refill:
    """Take one answer. A worker counts it. The same again changes nothing, whatever has become of the refill.

    Raises:
        NotFound: there is none.
        ApprovalRefused: it does not count, or comes too late.
    """
    refill = treasury.get(tx, refill_id)
    if repository.known(tx, refill, signed):
        return refill
    approval = signed.approval
    open_for = (RefillState.PROPOSED,) if approval.decision == "approve" else WAITING
    if refill.state not in open_for:
        detail = f"refill {refill_id} is {refill.state}: nobody is asked about it"
        raise ApprovalRefused([Reason("approval-late", detail)])
    present = question(tx, refill, bundle, now=now)
    refused = judging.refusals(signed, present.intent, None, present.asked, bundle, now=now)
    if (approval.approver, approval.decision) == (refill.proposed_by, "approve"):
        detail = f"{approval.approver} has proposed it: who does never counts among its approvers"
        refused.append(Reason("approval-initiator", detail))
    service.keep(tx, refill, signed, refused, present.heard)
    return refill


def count(db: Database, bundle: Bundle, *, now: int) -> int:
    """Count what was said since the last time; returns how many refills went on or ended by it.

    Args:
        db: the database, as the worker's role.
        bundle: the one in force.
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.unheard_refills(tx, bundle.version, limit=BATCH)
    return sum(_count_one(db, refill_id, bundle, now=now) for refill_id in ids)


def _count_one(db: Database, refill_id: UUID, bundle: Bundle, *, now: int) -> int:
    with db.transaction() as tx:
        refill = refills.claim(tx, refill_id, WAITING)
        if refill is None or refill.policy_version != bundle.version:
            return 0
        try:
            found = question(tx, refill, bundle, now=now)
        except PermanentError as error:
            report(tx, refill.id, str(error))
            repository.mark_refill_heard(tx, refill.id, until=None)
            return 0
        for broken in found.heard.broken:
            report(tx, refill.id, f"approval {broken.id}: {broken.problem}")
        return _follow(tx, found, bundle)


def _follow(tx: Tx, found: Question[Refill], bundle: Bundle) -> int:
    refill, heard = found.subject, found.heard
    repository.mark_refill_heard(tx, refill.id, until=judging.until(found.asked, heard, bundle))
    if heard.rejected:
        refills.apply(tx, refill, RefillEvent.DECLINE, reason=judging.rejection(heard))
        alerts.resolve_alert(tx, EXPIRED, str(refill.id))
        return 1
    if refill.state is RefillState.APPROVED:
        if found.lacking:
            _lapse(tx, refill)
        return int(bool(found.lacking))
    if found.lacking:
        refills.wait(tx, refill.id, f"approval: {found.lacking}", seconds=0)
        return 0
    people = sorted(each.approval.approver for each in heard.approved)
    detail = {"approvals": [each.approval.digest_hex() for each in heard.approved]}
    reason = f"approved: by {', '.join(people)}"
    refills.apply(tx, refill, RefillEvent.APPROVE, reason=reason, detail=detail)
    alerts.resolve_alert(tx, EXPIRED, str(refill.id))
    return 1


def lapse(db: Database, *, now: int) -> int:
    """Ask again about refills whose approvals have ended before they were built; returns how many.

    Args:
        db: the database, as the worker's role.
        now: UNIX seconds.
    """
    with db.snapshot() as tx:
        ids = repository.lapsed_refills(tx, now=now, limit=BATCH)
    done = 0
    for refill_id in ids:
        with db.transaction() as tx:
            refill = refills.claim(tx, refill_id, [RefillState.APPROVED])
            if refill is not None:
                _lapse(tx, refill)
                done += 1
    return done


def is_approved(tx: Tx, refill: Refill, bundle: Bundle, *, now: int) -> bool:
    """Whether a claimed refill that is about to be built has its approvals still. Else it waits for people, or ends.

    Raises:
        ApprovalRefused: it was decided under another version of the bundle.
        InvalidValue: the row is no refill that could be signed.
    """
    found = question(tx, refill, bundle, now=now)
    if found.heard.rejected or found.lacking:
        _follow(tx, found, bundle)
        return False
    return True


def _lapse(tx: Tx, refill: Refill) -> None:
    reason = "approval: what was given has expired before it was signed"
    refills.apply(tx, refill, RefillEvent.LAPSE, reason=reason)
    message = "its approvals have expired before it was signed: it waits for new ones"
    alerts.raise_alert(tx, Severity.WARNING, EXPIRED, str(refill.id), message, {})
