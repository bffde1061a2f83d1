"""What comes with payments and refills beside orders: approvals of people and verdicts of a verifier. Pure.

Here each piece finds its intent, and signatures are checked. Whether a piece counts, and whether there are enough, is
asked where the policy is (`signers.guard.policy`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, Protocol, TypeVar

from policies import approvals
from policies.bundle import Bundle
from policies.canonical import BadSignature
from policies.intent import Approval, Intent, Kind, SignedApproval, Verdict
from signers.guard.examined import Evidenced
from signers.ports import Reason, SignRequest


class _Signed(Protocol):
    """Any document that an Ed25519 key signs."""

    def verify(self, public_key_hex: str) -> None:
        """Raises BadSignature."""


def evidenced(
    request: SignRequest, payments: Mapping[str, Intent]
) -> tuple[tuple[Evidenced, ...], list[Reason]]:
    """Each payment or refill with its order and what was said of it; and objections to pieces that are of none of them,
    or repeat another: somebody has mixed things up or tries something. So what is left is bounded, and so are its
    signatures.

    Args:
        request: what is asked for.
        payments: its payments, refills and administrations by their digests.
    """
    evidence, reasons = request.evidence, list[Reason]()
    orders = {signed.order.id: signed.order for signed in evidence.orders}
    approved: defaultdict[str, dict[str, Approval]] = defaultdict(dict)
    found: defaultdict[str, dict[str, Verdict]] = defaultdict(dict)
    for approval in (signed.approval for signed in evidence.approvals):
        problem = _placed(approval.approver, approval, approval.intent, payments, approved)
        told = f"the approval of {approval.approver}"
        if problem == "stray":
            reasons.append(Reason("stray-approval", f"{told} is for no payment or refill of this request"))
        elif problem == "repeated":
            reasons.append(Reason("approval-repeated", f"{told} comes twice: one of each person counts"))
    for verdict in (each.verdict for each in evidence.verdicts):
        problem = _placed(verdict.verifier, verdict, verdict.intent, payments, found)
        told = f"the verdict of {verdict.verifier}"
        if problem == "stray":
            reasons.append(Reason("stray-verdict", f"{told} is for no payment or refill of this request"))
        elif problem == "repeated":
            reasons.append(Reason("verdict-repeated", f"{told} comes twice"))
    each = tuple(
        Evidenced(
            intent,
            orders.get(intent.id),
            tuple(approved[digest].values()) if digest in approved else (),
            tuple(found[digest].values()) if digest in found else (),
        )
        for digest, intent in payments.items()
        if intent.id in orders or intent.kind is not Kind.PAYMENT
    )
    return each, reasons


_P = TypeVar("_P", Approval, Verdict)


def _placed(
    whose: str,
    piece: _P,
    intent: str,
    payments: Mapping[str, Intent],
    places: defaultdict[str, dict[str, _P]],
) -> Literal["placed", "stray", "repeated"]:
    """Put a piece to its payment."""
    if intent not in payments:
        return "stray"
    if whose in places[intent]:
        return "repeated"
    places[intent][whose] = piece
    return "placed"


def signature_reasons(request: SignRequest, bundle: Bundle) -> list[Reason]:
    """Objections to signatures of orders, approvals and verdicts, whose signers the bundle names.

    It stops at the first of a kind that does not verify: of a flood of bad ones no more are looked at. Pieces of people
    whom the bundle does not name don't count, and are left out.
    """
    evidence = request.evidence
    callers = {entry.id: entry.key for entry in bundle.callers}
    approvers = {entry.id: entry for entry in bundle.approvers}
    verifiers = {entry.id: entry.key for entry in bundle.verifiers}
    orders = ((s.order.caller, _check(s, callers[s.order.caller])) for s in evidence.orders)
    approved = (
        (s.approval.approver, _check_approval(s, bundle))
        for s in evidence.approvals
        if s.approval.approver in approvers
    )
    verdicts = (
        (s.verdict.verifier, _check(s, verifiers[s.verdict.verifier]))
        for s in evidence.verdicts
        if s.verdict.verifier in verifiers
    )
    return [
        *_first_bad(orders, lambda who: Reason("order-signature", f"an order of {who} is not signed by it")),
        *_first_bad(
            approved, lambda who: Reason("approval-signature", f"an approval of {who} is not signed by it")
        ),
        *_first_bad(
            verdicts, lambda who: Reason("verdict-signature", f"a verdict of {who} is not signed by it")
        ),
    ]


def _check(signed: _Signed, key: str) -> Callable[[], None]:
    return lambda: signed.verify(key)


def _check_approval(signed: SignedApproval, bundle: Bundle) -> Callable[[], None]:
    return lambda: approvals.verify(signed, bundle.approver(signed.approval.approver))


def _first_bad(
    evidence: Iterable[tuple[str, Callable[[], None]]], objection: Callable[[str], Reason]
) -> Iterator[Reason]:
    """The objection to the first piece (its signer, the check of its signature) that is not genuine."""
    for signer, check in evidence:
        try:
            check()
        except BadSignature:
            yield objection(signer)
            return
