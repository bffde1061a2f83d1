"""Approvals of payments and refills: what makes one count, and whether those that count are enough. Pure.

Online side and signers judge by this alike. Somebody approves one intent under one version of the policy, for one of
the groups that the rules ask for, until a time. The initiator never counts, nobody counts twice, and one rejection
ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from policies.bundle import Approver, Bundle
from policies.canonical import BadSignature, verify_ed25519
from policies.decision import Reason
from policies.intent import Approval, Assertion, Intent, Order, SignedApproval
from policies.passkeys import raw_key, verify_assertion
from policies.rules import AllOf, AnyOf, Approvals, Need, Policy
from policies.words import needed

MAX_APPROVAL_SECONDS: Final = 24 * 3600
"""An approval that expires later from now does not count: so long can an old one be used for what nobody wants any
more."""


Given = tuple[Approver, str]
"""Whose approval counts, and for which group: one approval a person, so nobody counts for two groups."""


def verify(signed: SignedApproval, approver: Approver) -> None:
    """Check who has signed an approval.

    Raises:
        BadSignature: not this approver's key or passkey.
    """
    digest = signed.approval.digest()
    match approver.key, signed.signature:
        case str(key), str(signature):
            verify_ed25519(key, digest, signature)
        case passkey, Assertion() as assertion if not isinstance(passkey, str):
            verify_assertion(assertion, passkey, digest)
        case _:
            raise BadSignature(f"{approver.id} signs with {_kind(approver)}")


def _kind(approver: Approver) -> str:
    return "an Ed25519 key" if isinstance(approver.key, str) else "a passkey"


def objections(
    approval: Approval, intent: Intent, order: Order | None, bundle: Bundle, *, now: int
) -> list[Reason]:
    """Why an approval or a rejection does not count, its signature aside; nothing if it does.

    Args:
        approval: for this intent.
        intent: of the payment or refill.
        order: that the intent carries out; its caller is the initiator. None for the house's own, which nobody has
            initiated.
        bundle: the one in force; the approver must be in it.
        now: UNIX seconds.
    """
    who = f"the approval of {approval.approver} for {approval.group}"
    if approval.intent != intent.digest_hex():
        return [Reason("approval-stray", f"{who} is of another intent than {intent.id}")]
    approver = next((entry for entry in bundle.approvers if entry.id == approval.approver), None)
    if approver is None:
        return [Reason("approval-unknown", f"the bundle has no approver {approval.approver}")]
    reasons = []
    if not belongs(approver, approval.group, bundle.policy):
        reasons.append(Reason("approval-group", f"{approver.id} is not of the group {approval.group}"))
    if now >= approver.not_after:
        reasons.append(Reason("approval-ended", f"approver {approver.id} ended at {approver.not_after}"))
    if order is not None and initiated(order, approver, bundle):
        reasons.append(Reason("approval-own", f"{approver.id} has given the order of {intent.id}"))
    if approval.policy_version != intent.policy_version:
        told = f"{who} was given under version {approval.policy_version}, not {intent.policy_version}"
        reasons.append(Reason("approval-version", told))
    if now >= approval.expires_at:
        reasons.append(Reason("approval-expired", f"{who} expired at {approval.expires_at}"))
    if approval.expires_at > now + MAX_APPROVAL_SECONDS:
        left = approval.expires_at - now
        reasons.append(
            Reason("approval-too-long", f"{who} expires in {left} s: at most {MAX_APPROVAL_SECONDS}")
        )
    return reasons


def belongs(approver: Approver, group: str, policy: Policy) -> bool:
    """Whether somebody is of a group of the policy: by a role, or by name."""
    return any(
        approver.id in entry.people or not set(entry.roles).isdisjoint(approver.roles)
        for entry in policy.groups
        if entry.id == group
    )


def initiated(order: Order, approver: Approver, bundle: Bundle) -> bool:
    """Whether an approver is the caller whose order this is, under whatever name: by id, or by key."""
    if approver.id == order.caller:
        return True
    key = approver.key if isinstance(approver.key, str) else raw_key(approver.key)
    return any(caller.id == order.caller and caller.key == key for caller in bundle.callers)


def met(asked: Approvals, given: Sequence[Given]) -> bool:
    """Whether approvals that count are enough. Of somebody who is there twice only the first one counts.

    More approvals never make it less.
    """
    return _met(asked, _once(given))


def _met(asked: Approvals, given: Sequence[Given]) -> bool:
    match asked:
        case Need():
            return _counted(asked, given) >= asked.count
        case AllOf(needs=needs):
            return all(_met(need, given) for need in needs)
        case AnyOf(needs=needs):
            return any(_met(need, given) for need in needs)


def _once(given: Sequence[Given]) -> list[Given]:
    people: dict[str, Given] = {}
    for each in given:
        people.setdefault(each[0].id, each)
    return list(people.values())


def _counted(need: Need, given: Sequence[Given]) -> int:
    """How many people, or organisations, of a need's group have approved."""
    approvers = [approver for approver, group in given if group == need.group]
    if need.distinct == "organisations":
        return len({approver.organisation for approver in approvers})
    return len(approvers)


def lacking(asked: Approvals, given: Sequence[Given]) -> str:
    """What is missing, in words with the numbers, such as `1 of 2 of operators`; empty if nothing is."""
    return _lacking(asked, _once(given))


def _lacking(asked: Approvals, given: Sequence[Given]) -> str:
    if _met(asked, given):
        return ""
    match asked:
        case Need():
            return f"{_counted(asked, given)} of {needed(asked)}"
        case AllOf(needs=needs):
            return " and ".join(told for need in needs if (told := _lacking(need, given)))
        case AnyOf(needs=needs):
            return " or ".join(f"({_lacking(need, given)})" for need in needs)


def lasts_until(asked: Approvals, given: Sequence[tuple[Given, int]]) -> int | None:
    """When approvals that are enough will no longer be: the first end (UNIX seconds) after which they are too few.

    Args:
        asked: the approvals that the rules ask for.
        given: those that count, each with its end.

    Returns:
        None if they are not enough now, or always will be, as nobody is asked.
    """
    if not met(asked, [each for each, _ in given]):
        return None
    ends = sorted({end for _, end in given})
    return next((end for end in ends if not met(asked, [each for each, until in given if until > end])), None)
