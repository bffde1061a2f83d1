"""What a signer must see before it signs (DESIGN section 1). Pure: no I/O, no clock, no keys.

Two steps. `examine` needs no journal and can run for many requests at once: it decodes the transaction and
lists every objection that the documents alone give. `admit` compares with the journal, inside the journal's
single writer, so that nothing can change between the check and the record.

What a transaction's own bytes say is known by the `FamilyRules` of its chain: `btc.py`, `evm.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic

from chains.errors import InvalidValue
from policies.bundle import Breaker, Bundle, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.errors import Withheld
from signers.guard.evidence import evidenced, signature_reasons
from signers.guard.examined import (
    Examined,
    FamilyRules,
    Grounds,
    JournalView,
    Target,
    U,
    Unreadable,
    Unsigned,
    fee_group,
    payments_of,
    refills_of,
)
from signers.guard.limits import cap_reasons, fee_reasons, value_of, window_reasons
from signers.guard.orders import handover_reasons, intent_reasons, moved_reasons
from signers.guard.policy import JUDGED, Count, judge
from signers.guard.refills import reach_reasons, refill_reasons
from signers.guard.states import Freezes, freeze_reasons, state_reasons, target_freezes, withheld
from signers.guard.versions import beside
from signers.ports import Reason, SignRequest


@dataclass(frozen=True, slots=True)
class Examination(Generic[U]):
    """Outcome of `examine`: what was understood, and all objections."""

    examined: Examined[U] | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class New:
    """To be journaled, then signed."""

    counts: tuple[Count, ...]
    """In the policy's windows."""


@dataclass(frozen=True, slots=True)
class Again:
    """Journaled before: the same signatures again; counts nothing, changes nothing."""


def examine(
    request: SignRequest, bundle: Bundle, rules: FamilyRules[U], *, held: Collection[str], now: int
) -> Examination[U]:
    """Decode the transaction and list every objection that needs no journal.

    Args:
        request: what the online side wants signed.
        bundle: the pinned bundle.
        rules: the wallet's family.
        held: ids of all key-sets and vaults whose signatures this signer's journal counts.
        now: the signer's own clock, UNIX seconds.
    """
    try:
        grounds = _grounds(request, bundle, rules, held)
        unsigned = rules.read(request)
    except Unreadable as refusal:
        return Examination(None, (refusal.reason,))
    digests = _digests(request)
    if len(digests) != len(request.intents):
        return Examination(None, (Reason("intent-repeated", "an intent is listed twice"),))
    payments, refills = payments_of(request), refills_of(request)
    by_digest = {digests[intent.id]: intent for intent in request.intents if intent.kind in JUDGED}
    group = fee_group(digests)
    reasons = state_reasons(grounds.wallet.state, grounds.kinds)
    if now >= bundle.expires_at:
        reasons.append(Reason("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}"))
    findings = rules.find(request, unsigned, grounds)
    reasons += findings.reasons
    reasons += intent_reasons(request, grounds, rules.kinds, now=now)
    reasons += fee_reasons(request, payments, unsigned, grounds.network)
    reasons += cap_reasons(payments, grounds)
    reasons += refill_reasons(refills, findings.target, grounds)
    counted = [*payments, *(refills if findings.target is not None and findings.target.upwards else ())]
    evidence, stray = evidenced(request, by_digest)
    reasons += stray
    value, objections = value_of(counted, (group, unsigned.fee_units), grounds)
    reasons += objections
    if not reasons:
        # Last, as each signature costs as much as all the rest for its order.
        reasons += signature_reasons(request, bundle)
    paid: dict[str, tuple[tuple[str, int], ...]] = {
        cap.asset: tuple((i.id, i.units) for i in counted if i.asset == cap.asset) for cap in grounds.caps
    }
    examined = Examined(
        request=request,
        unsigned=unsigned,
        grounds=grounds,
        reach=findings.reach,
        deposits=findings.deposits,
        digests=digests,
        fee_group=group,
        paid=paid,
        value=value,
        evidence=evidence,
        target=findings.target,
        depositor=findings.depositor,
    )
    return Examination(examined, tuple(reasons))


def recall(request: SignRequest, bundle: Bundle, rules: FamilyRules[U], view: JournalView) -> U | None:
    """What was journaled for exactly this request, for when the bundle no longer says anything about it.

    A bundle may drop a cap or a key-set at any time; a signature that is out in the world stays out, and a refusal
    would let somebody believe that it never was.

    Raises:
        Withheld: it was signed, but is not given out again now.
    """
    try:
        unsigned = rules.read(request)
    except Unreadable:
        return None
    if view.transaction(request.chain, unsigned.content) != _digests(request) or _of_another_keyset(request):
        return None
    check_released(request, unsigned, bundle, view)
    return unsigned


def admit(
    examined: Examined[U], objections: Iterable[Reason], view: JournalView, *, now: int
) -> New | Again | tuple[Reason, ...]:
    """Decide with the journal. Runs where nobody else can write to it.

    What was journaled gets its signatures again whatever has changed since (an expired order, a lower cap):
    the signature may be out in the world already, and a refusal would say that it is not.

    Args:
        examined: from `examine`.
        objections: its reasons.
        view: the journal.
        now: the signer's own clock, UNIX seconds.

    Raises:
        Withheld: it was signed before, but freezes or the state of its keys keep it back now.
    """
    request, content, bundle = examined.request, examined.unsigned.content, examined.grounds.bundle
    journaled = view.transaction(request.chain, content)
    if journaled is not None:
        if journaled != examined.digests:
            return (Reason("transaction-reused", f"{content} was signed for other intents"),)
        if _of_another_keyset(request):
            told = f"{content} was signed by another key-set than {request.keyset}"
            return (Reason("wrong-keyset", told),)
        check_released(request, examined.unsigned, bundle, view, target=examined.target)
        return Again()
    reasons = list(objections)
    reasons += freeze_reasons(request, examined.unsigned, bundle, view)
    reasons += target_freezes(examined.target, view)
    reasons += _journal_reasons(examined, view)
    reasons += reach_reasons(examined, view)
    reasons += handover_reasons(request, examined.grounds, view)
    reasons += moved_reasons(request, examined.grounds, view)
    judged = judge(examined, view, now=now)
    reasons += judged.reasons
    reasons += window_reasons(examined, view, now)
    return tuple(reasons) or New(judged.counts)


def check_released(
    request: SignRequest, unsigned: Unsigned, bundle: Bundle, view: Freezes, *, target: Target | None = None
) -> None:
    """Raises Withheld where what was journaled must not be given out now.

    Args:
        request: what is asked for.
        unsigned: its transaction.
        bundle: the pinned bundle.
        view: knows the freezes.
        target: of a refill, as far as it is known.
    """
    why = withheld(request, unsigned, bundle, view, target)
    if why:
        raise Withheld(f"it was signed, and is not given out now: {why}")


def _of_another_keyset(request: SignRequest) -> bool:
    """Whether a journaled request's intents name other keys than those that are asked now.

    An EVM transaction's bytes don't say who pays, so two keys could sign the same ones, and both would pay.
    """
    return any(intent.keyset != request.keyset for intent in request.intents)


def _digests(request: SignRequest) -> dict[str, str]:
    return {intent.id: intent.digest_hex() for intent in request.intents}


def _grounds(request: SignRequest, bundle: Bundle, rules: FamilyRules[U], held: Collection[str]) -> Grounds:
    """What the bundle says of the request's network, wallet and limits, and that all belong together."""
    try:
        network, wallet = bundle.network(request.chain), bundle.wallet(request.keyset)
    except InvalidValue as error:
        raise Unreadable("not-in-bundle", str(error)) from None
    check_keyset(wallet, network, rules)
    kinds = frozenset(intent.kind for intent in request.intents)
    if kinds in ({Kind.ROTATION}, {Kind.ADMINISTRATION}):
        # What rescues money, or pays nobody, must not wait until a window that a thief has filled is empty again.
        return Grounds(bundle, network, kinds, wallet, (), None, held)
    assets = [network.native_asset, *sorted({i.asset for i in request.intents} - {network.native_asset})]
    listed = {cap.asset for cap in bundle.caps if cap.tier == wallet.tier}
    if kinds == {Kind.REFILL}:
        # What flows to a colder tier needs no cap for its asset; whether this does, its bytes tell.
        assets = [asset for asset in assets if asset in listed or asset == network.native_asset]
    try:
        caps = tuple(bundle.cap(wallet.tier, asset) for asset in assets)
    except InvalidValue as error:
        raise Unreadable("no-cap", f"{error}: nothing may be paid") from None
    return Grounds(bundle, network, kinds, wallet, caps, _breaker(wallet, bundle, held), held)


def _breaker(wallet: WalletEntry, bundle: Bundle, held: Collection[str]) -> Breaker | None:
    """The limit over all assets. Vaults have none: each of their payments needs people and a verifier."""
    if wallet.tier != "hot":
        return None
    try:
        breaker = bundle.breaker_of(wallet.id)
    except InvalidValue as error:
        raise Unreadable("no-breaker", f"{error}: nothing may be signed") from None
    elsewhere = sorted(set(breaker.keysets) - set(held))
    if elsewhere:
        raise Unreadable(
            "breaker-elsewhere",
            f"breaker {breaker.id} counts {elsewhere[0]}, whose signatures this signer can't see",
        )
    return breaker


def check_keyset(keyset: WalletEntry, network: NetworkEntry, rules: FamilyRules[U]) -> None:
    """Check that the bundle's key-set or vault is the one whose keys this signer has, on the network it is for.

    Raises:
        Unreadable: with a `reason` that says what differs.
    """
    if keyset.chain != network.chain:
        raise Unreadable("wrong-chain", f"{keyset.id} is on {keyset.chain}, not on {network.chain}")
    rules.check_keyset(keyset, network)


def _journal_reasons(examined: Examined[U], view: JournalView) -> list[Reason]:
    """Sign once: one content per intent, and every further version conflicts with all earlier ones."""
    reasons, version = [], examined.grounds.bundle.version
    for intent in examined.request.intents:
        before = view.intent_digest(intent.id)
        if before is None:
            if intent.policy_version != version:
                reasons.append(
                    Reason(
                        "policy-version",
                        f"intent {intent.id} was decided under version {intent.policy_version}, "
                        f"this signer has {version}",
                    )
                )
            continue
        # A replacement carries the very intent that was signed before, so also its policy version.
        if before != examined.digests[intent.id]:
            reasons.append(Reason("intent-reused", f"intent {intent.id} was signed with another content"))
        reasons += [
            Reason("conflicting-version", f"{content} for intent {intent.id} could confirm beside this one")
            for content in beside(view.versions(intent.id), examined.unsigned.resources)
        ]
    keyset, reach = examined.request.keyset, examined.reach
    furthest = view.high_water(keyset) + reach.ahead
    # A rescue may be signed by a journal that has seen nothing: keys that were restored after all else was lost.
    if reach.number > furthest and Kind.ROTATION not in examined.grounds.kinds:
        reasons.append(Reason(reach.code, f"number {reach.number}: at most {furthest} now"))
    for index in sorted(examined.deposits):
        if view.attested(examined.depositor or keyset, 0, index) is None:
            reasons.append(
                Reason("foreign-forwarder", f"salt {index} is of no address that this signer attested")
            )
    return reasons
