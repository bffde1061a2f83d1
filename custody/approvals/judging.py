"""What people are asked about, and what of their answers counts. Pure: rows in, what follows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from custody.approvals.errors import ApprovalRefused
from custody.approvals.model import MAX_ANSWERS, Broken, Heard, Said
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import check_row
from policies.approvals import Given, lasts_until, objections, verify
from policies.bundle import Bundle
from policies.canonical import decoder_for
from policies.decision import Reason
from policies.engine import groups_of
from policies.intent import Approval, Assertion, Intent, Order, Signature, SignedApproval, payment_intent
from policies.rules import Approvals

LEDGER: Final = "ledger"
"""Tier and wallet of what the ledger settles without a transaction."""

_SIGNATURE: Final = msgspec.json.Decoder(Signature | Assertion)


def genuine_order(withdrawal: Withdrawal, bundle: Bundle) -> Order:
    """The order of a stored withdrawal, if it is what its caller has signed.

    Raises:
        PermanentError: a column was changed, or the signature is wrong.
    """
    order = check_row(withdrawal)
    withdrawal.signed_order.verify(bundle.caller(order.caller).key)
    return order


def intent_of(withdrawal: Withdrawal, bundle: Bundle) -> Intent:
    """The intent that will be signed for a withdrawal that the policy has sent to a tier.

    Raises:
        ApprovalRefused: it was decided under another version of the bundle, and is decided again.
        InvalidValue: no wallet of that tier is active.
        PermanentError: it is not what its caller has signed.
    """
    version = withdrawal.policy_version
    if version != bundle.version:
        detail = f"it was decided under version {version} of the bundle, in force is {bundle.version}"
        raise ApprovalRefused([Reason("approval-version", detail)])
    return last_intent_of(withdrawal, bundle)


def last_intent_of(withdrawal: Withdrawal, bundle: Bundle) -> Intent:
    """The intent that people were asked about last, be it under an older bundle, if its wallet is still the same.

    Raises:
        InvalidValue: nobody was, or no wallet of that tier is active.
        PermanentError: the withdrawal is not what its caller has signed.
    """
    order = genuine_order(withdrawal, bundle)
    if withdrawal.policy_version is None or withdrawal.tier is None:
        raise InvalidValue(f"withdrawal {withdrawal.id} is not decided")
    wallet = _wallet(bundle, order.chain, withdrawal.tier)
    return payment_intent(order, wallet, withdrawal.tier, withdrawal.policy_version)


def _wallet(bundle: Bundle, chain: str, tier: str) -> str:
    if tier == LEDGER:
        return LEDGER
    for wallet in (*bundle.keysets, *bundle.vaults):
        if (wallet.chain, wallet.tier, wallet.state) == (chain, tier, "active"):
            return wallet.id
    raise InvalidValue(f"no {tier} wallet on {chain} is active")


def asked_of(decision: object) -> Approvals:
    """The approvals that a recorded decision asks for.

    Raises:
        InvalidValue: there is no decision, or it routes nothing.
    """
    try:
        return msgspec.convert(decision, _Asked).approvals
    except msgspec.ValidationError as error:
        raise InvalidValue(f"record of a decision: {error}") from None


def version_of(decision: object) -> int:
    """The version of the bundle by which a recorded decision was made.

    Raises:
        InvalidValue: there is no decision.
    """
    try:
        return msgspec.convert(decision, _Decided).bundle_version
    except msgspec.ValidationError as error:
        raise InvalidValue(f"record of a decision: {error}") from None


class _Asked(msgspec.Struct, frozen=True):
    approvals: Approvals


class _Decided(msgspec.Struct, frozen=True):
    bundle_version: int


decoder_for(_Asked)


def refusals(
    signed: SignedApproval, intent: Intent, order: Order | None, asked: Approvals, bundle: Bundle, *, now: int
) -> list[Reason]:
    """Why an answer that arrives now is not taken; nothing if it is. `order`: None for a refill."""
    approval = signed.approval
    reasons = objections(approval, intent, order, bundle, now=now)
    if approval.group not in set(groups_of(asked)):
        reasons.append(Reason("approval-not-asked", f"nobody of {approval.group} is asked about {intent.id}"))
    if reasons:
        return reasons
    try:
        verify(signed, bundle.approver(approval.approver))
    except PermanentError as error:
        return [Reason("approval-signature", str(error))]
    return []


def heard(said: Sequence[Said], intent: Intent, order: Order | None, bundle: Bundle, *, now: int) -> Heard:
    """What counts of the stored answers about an intent, oldest first. A rejection counts for ever.

    Nobody has ordered a refill: `order` is None.

    Where not all were read, for there are too many, no approval counts: a rejection may be among the rest.
    """
    approved: dict[str, SignedApproval] = {}
    rejected: list[Approval] = []
    broken: list[Broken] = []
    for row in said:
        try:
            signed = read(row)
            approval = signed.approval
            # Whose key that is, the bundle may no longer say; then it counts no more than one that has expired.
            codes = {reason.code for reason in objections(approval, intent, order, bundle, now=now)}
            if "approval-unknown" not in codes:
                verify(signed, bundle.approver(approval.approver))
        except PermanentError as error:
            broken.append(Broken(row.id, str(error)))
            continue
        if approval.decision == "reject" and codes <= {"approval-expired"}:
            rejected.append(approval)
        elif approval.decision == "approve" and not codes:
            approved[approval.approver] = signed
    if len(said) >= MAX_ANSWERS:
        approved.clear()
        broken.append(Broken(said[-1].id, f"{len(said)} answers and more about one intent: none approves it"))
    return Heard(tuple(approved.values()), tuple(rejected), tuple(broken))


def given(approved: Iterable[SignedApproval], bundle: Bundle) -> list[Given]:
    """Whose approvals they are."""
    return [(bundle.approver(each.approval.approver), each.approval.group) for each in approved]


def until(asked: Approvals, heard: Heard, bundle: Bundle) -> int | None:
    """When the approvals that count will no longer be enough (UNIX seconds); None: they aren't, or nobody is asked."""
    given = []
    for each in heard.approved:
        approver = bundle.approver(each.approval.approver)
        end = min(each.approval.expires_at, approver.not_after)
        given.append(((approver, each.approval.group), end))
    return lasts_until(asked, given)


def rejection(heard: Heard) -> str:
    """Why it ended, by those who rejected it."""
    who = "; ".join(
        f"by {each.approver}" + (f" ({each.reason})" if each.reason else "") for each in heard.rejected
    )
    return f"approval-rejected: {who}"[:1000]


def read(row: Said) -> SignedApproval:
    """A stored answer. Raises InvalidValue: it is none in canonical form."""
    approval = Approval.from_canonical(row.document.encode())
    try:
        signature = _SIGNATURE.decode(row.signature)
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"signature of an approval: {error}") from None
    return SignedApproval(approval=approval, signature=signature)
