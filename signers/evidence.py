"""What payments need beside their orders: approvals of people and verdicts of a verifier. Pure.

Every piece of evidence must be good, of this request, and asked for; a piece that is not refuses the request, as
somebody has mixed it up or tries something. Signatures come last: `signature_reasons`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from policies.bundle import Approver, Attestor, Bundle, Caller, Requirement, Tier
from policies.canonical import BadSignature
from policies.intent import Approval, Intent, Verdict
from signers.ports import Reason, SignRequest

MAX_APPROVAL_SECONDS: Final = 24 * 3600
"""An approval that expires later from now is refused: so long can an old one be used for what nobody wants any more."""
MAX_VERDICT_SECONDS: Final = 10 * 60
"""The same for a verdict: ledgers change quickly."""


class _Signed(Protocol):
    """Any signed document."""

    def verify(self, public_key_hex: str) -> None:
        """Raises BadSignature."""


def evidence_reasons(
    request: SignRequest, payments: Mapping[str, Intent], bundle: Bundle, tier: Tier, *, now: int
) -> list[Reason]:
    """Objections to approvals and verdicts, their signatures aside, and what of them is missing.

    Args:
        request: what is asked for.
        payments: its payments by their digests.
        bundle: the pinned bundle.
        tier: of the wallet that is to pay.
        now: the signer's own clock, UNIX seconds.
    """
    evidence = request.evidence
    asked = _asked(payments, bundle, tier)
    if tier == "hot" and not evidence.approvals and not evidence.verdicts and not any(asked.values()):
        return []  # most payments
    judge = _Judge(request, payments, bundle, asked, now)
    reasons: list[Reason] = []
    for signed in evidence.approvals:
        reasons += judge.approval_reasons(signed.approval)
    for told in evidence.verdicts:
        reasons += judge.verdict_reasons(told.verdict)
    for digest, intent in payments.items():
        reasons += judge.missing(digest, intent, tier)
    return reasons


def signature_reasons(request: SignRequest, bundle: Bundle) -> list[Reason]:
    """Objections to signatures of orders, approvals and verdicts, whose signers the bundle names.

    It stops at the first of a kind that does not verify: of a flood of bad ones no more are looked at.
    """
    evidence = request.evidence
    callers: Mapping[str, Caller] = {entry.id: entry for entry in bundle.callers}
    approvers: Mapping[str, Approver] = {entry.id: entry for entry in bundle.approvers}
    verifiers: Mapping[str, Attestor] = {entry.id: entry for entry in bundle.verifiers}
    orders = ((s.order.caller, callers[s.order.caller].key, s) for s in evidence.orders)
    approvals = ((s.approval.approver, approvers[s.approval.approver].key, s) for s in evidence.approvals)
    verdicts = ((s.verdict.verifier, verifiers[s.verdict.verifier].key, s) for s in evidence.verdicts)
    return [
        *_first_bad(
            orders, lambda whose: Reason("order-signature", f"an order of {whose} is not signed by it")
        ),
        *_first_bad(
            approvals,
            lambda whose: Reason("approval-signature", f"an approval of {whose} is not signed by it"),
        ),
        *_first_bad(
            verdicts, lambda whose: Reason("verdict-signature", f"a verdict of {whose} is not signed by it")
        ),
    ]


def _first_bad(
    evidence: Iterable[tuple[str, str, _Signed]], objection: Callable[[str], Reason]
) -> Iterator[Reason]:
    """The objection to the first piece (its signer, the signer's key, itself) whose signature is not genuine."""
    for signer, key, signed in evidence:
        try:
            signed.verify(key)
        except BadSignature:
            yield objection(signer)
            return


def _asked(payments: Mapping[str, Intent], bundle: Bundle, tier: Tier) -> dict[str, tuple[Requirement, ...]]:
    """What the bundle asks for, by asset."""
    return {
        asset: tuple(r for r in bundle.requirements if (r.tier, r.asset) == (tier, asset))
        for asset in {intent.asset for intent in payments.values()}
    }


class _Judge:
    """Takes one piece of evidence after the other, then says what is missing."""

    def __init__(
        self,
        request: SignRequest,
        payments: Mapping[str, Intent],
        bundle: Bundle,
        asked: Mapping[str, tuple[Requirement, ...]],
        now: int,
    ) -> None:
        self._payments, self._asked, self._now = payments, asked, now
        self._approvers = {entry.id: entry for entry in bundle.approvers}
        self._verifiers = {entry.id: entry for entry in bundle.verifiers}
        callers = {entry.id: entry for entry in bundle.callers}
        self._initiators = {
            signed.order.id: (signed.order.caller, callers.get(signed.order.caller))
            for signed in request.evidence.orders
        }
        self._seen: set[tuple[str, str, str]] = set()
        self._good: dict[tuple[str, str], list[Approver]] = {}
        self._covered: dict[str, set[str]] = {}

    def approval_reasons(self, approval: Approval) -> list[Reason]:
        """Objections to an approval; one without any counts from now on."""
        intent = self._payments.get(approval.intent)
        who = f"the approval of {approval.approver} as {approval.role}"
        if intent is None:
            return [Reason("stray-approval", f"{who} is for no payment of this request")]
        if approval.role not in {requirement.role for requirement in self._asked[intent.asset]}:
            return [Reason("stray-approval", f"{who}: nobody of that role is asked for {intent.asset}")]
        reasons = []
        key = (approval.intent, approval.approver, approval.role)
        if key in self._seen:
            reasons.append(Reason("approval-repeated", f"{who} for {intent.id} comes twice"))
        self._seen.add(key)
        approver = self._approvers.get(approval.approver)
        if approver is None:
            return [*reasons, Reason("approval-unknown", f"the bundle has no approver {approval.approver!r}")]
        if self._now >= approver.not_after:
            reasons.append(Reason("approval-ended", f"approver {approver.id} ended at {approver.not_after}"))
        if approval.role not in approver.roles:
            reasons.append(Reason("approval-role", f"{approver.id} has no role {approval.role}"))
        if self._initiated(intent, approver):
            reasons.append(Reason("approval-own", f"{approver.id} has given the order of {intent.id}"))
        if approval.policy_version != intent.policy_version:
            told = f"{who} was given under version {approval.policy_version}, not {intent.policy_version}"
            reasons.append(Reason("approval-version", told))
        if self._now >= approval.expires_at:
            reasons.append(Reason("approval-expired", f"{who} expired at {approval.expires_at}"))
        if approval.expires_at > self._now + MAX_APPROVAL_SECONDS:
            left = approval.expires_at - self._now
            reasons.append(
                Reason("approval-too-long", f"{who} expires in {left} s: at most {MAX_APPROVAL_SECONDS}")
            )
        if approval.decision != "approve":
            reasons.append(Reason("approval-rejected", f"{approver.id} has rejected {intent.id}"))
        if not reasons:
            self._good.setdefault((approval.intent, approval.role), []).append(approver)
        return reasons

    def _initiated(self, intent: Intent, approver: Approver) -> bool:
        """Whether an approver is the caller whose order this is, under whatever name."""
        name, caller = self._initiators.get(intent.id, ("", None))
        return approver.id == name or (caller is not None and approver.key == caller.key)

    def verdict_reasons(self, verdict: Verdict) -> list[Reason]:
        """Objections to a verdict; one without any counts from now on."""
        intent = self._payments.get(verdict.intent)
        who = f"the verdict of {verdict.verifier}"
        if intent is None:
            return [Reason("stray-verdict", f"{who} is for no payment of this request")]
        covered = self._covered.setdefault(verdict.intent, set())
        reasons = []
        if verdict.verifier in covered:
            reasons.append(Reason("verdict-repeated", f"{who} for {intent.id} comes twice"))
        verifier = self._verifiers.get(verdict.verifier)
        if verifier is None:
            return [*reasons, Reason("verdict-unknown", f"the bundle has no verifier {verdict.verifier!r}")]
        if self._now >= verifier.not_after:
            reasons.append(Reason("verdict-ended", f"verifier {verifier.id} ended at {verifier.not_after}"))
        if verdict.outcome != "covered":
            reasons.append(Reason("verdict-outcome", f"{verifier.id} has found {intent.id} not covered"))
        if self._now >= verdict.expires_at:
            reasons.append(Reason("verdict-expired", f"{who} expired at {verdict.expires_at}"))
        if verdict.expires_at > self._now + MAX_VERDICT_SECONDS:
            left = verdict.expires_at - self._now
            reasons.append(
                Reason("verdict-too-long", f"{who} expires in {left} s: at most {MAX_VERDICT_SECONDS}")
            )
        if not reasons:
            covered.add(verdict.verifier)
        return reasons

    def missing(self, digest: str, intent: Intent, tier: Tier) -> list[Reason]:
        """What a payment lacks of what the bundle asks for; colder tiers always need a verdict."""
        reasons = []
        requirements = self._asked[intent.asset]
        if tier != "hot" and not requirements:
            reasons.append(
                Reason(
                    "no-requirement", f"the bundle asks for nothing in {tier} {intent.asset}: none is paid"
                )
            )
        for requirement in requirements:
            given = self._good.get((digest, requirement.role), [])
            people = {a.organisation if requirement.count == "organisations" else a.id for a in given}
            if len(people) < requirement.approvals:
                told = f"{len(people)} of {requirement.approvals} {requirement.count} as {requirement.role}"
                reasons.append(Reason("approvals-missing", f"{told} have approved {intent.id}"))
        wanted = tier != "hot" or any(r.verdict == "required" for r in requirements)
        if wanted and not self._covered.get(digest):
            reasons.append(Reason("no-verdict", f"no verifier has found {intent.id} covered"))
        return reasons
