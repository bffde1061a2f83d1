"""What a signer must see before it signs (DESIGN section 1). Pure: no I/O, no clock, no keys.

Two steps. `examine` needs no journal and can run for many requests at once: it decodes the transaction and
lists every objection that the documents alone give. `admit` compares with the journal, inside the journal's
single writer, so that nothing can change between the check and the record.

What a transaction's own bytes say is known by the `FamilyRules` of its chain: `btc.py`, `evm.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, KeysetEntry, NetworkEntry, TierCap
from policies.intent import Intent, Kind
from signers.orders import intent_reasons
from signers.ports import Reason, SignRequest
from signers.window import RollingWindow


class Unreadable(PermanentError):
    """The request can't be understood any further; `reason` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = Reason(code, detail)


class Exposure(StrEnum):
    """What a rolling window of the journal adds up."""

    PAYMENTS = "payments"
    """Per tier and asset, each intent once."""
    TIER_FEES = "tier_fees"
    """Per tier and chain, each set of intents once, at its highest version."""
    CHAIN_FEES = "chain_fees"
    """Per chain, likewise."""


class JournalView(Protocol):
    """What `admit` asks of the journal."""

    def transaction(self, chain: str, content: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Content and resources of every transaction journaled for an intent."""

    def window(self, kind: Exposure, scope: str, seconds: int) -> RollingWindow:
        """A rolling sum over the journal."""

    def high_water(self, keyset: str) -> int:
        """Highest number (change index, nonce) signed for a key-set, -1 if none."""

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A transaction as a family reads it; its own parts are in the family's subclass."""

    content: str
    """Hash of what is signed: the txid on BTC, the signing hash on EVM chains (64 hex digits)."""
    resources: frozenset[str]
    """What it uses and only one transaction can: outpoints; sender and nonce."""
    fee_units: int
    """The most that it can cost, in base units of the native asset."""


U = TypeVar("U", bound=Unsigned)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the bundle says about a request."""

    bundle: Bundle
    network: NetworkEntry
    keyset: KeysetEntry
    caps: tuple[TierCap, ...]
    """Caps of the tier for all assets involved; the native asset is first."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A number that may be only a little beyond the highest signed before."""

    number: int
    """Highest change index, or nonce; -1 if the transaction has none."""
    ahead: int
    """How far it may be beyond."""
    code: str
    """Of the refusal."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a family says about a transaction."""

    reach: Reach
    deposits: frozenset[int]
    """Indexes of deposit addresses that it collects from: each must have been attested by this signer."""
    reasons: list[Reason]


class FamilyRules(Protocol[U]):
    """One key-set as its family of chains reads and judges transactions for it. Pure."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """What may be signed."""

    def check_keyset(self, keyset: KeysetEntry, network: NetworkEntry) -> None:
        """Check that the bundle means this signer's keys, on the network they are for. Raises Unreadable."""

    def read(self, request: SignRequest) -> U:
        """The request's transaction. Raises Unreadable unless its form is the strict one."""

    def find(self, request: SignRequest, unsigned: U, grounds: Grounds) -> Findings:
        """Every objection to what the transaction's bytes do."""


@dataclass(frozen=True, slots=True)
class Examined(Generic[U]):
    """A request whose transaction was understood."""

    request: SignRequest
    unsigned: U
    grounds: Grounds
    reach: Reach
    deposits: frozenset[int]
    digests: dict[str, str]
    """Digest of each intent by id."""

    @property
    def fee_group(self) -> str:
        """Key under which the fee counts: all transactions of one set of intents exclude each other."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()

    def fee_scope(self, kind: Exposure) -> str:
        """Scope of the fee windows."""
        chain = self.request.chain
        return chain if kind is Exposure.CHAIN_FEES else f"{self.grounds.keyset.tier}|{chain}"

    def payments(self, asset: str) -> list[tuple[str, int]]:
        """Intent id and base units of all payments of an asset."""
        return [(i.id, i.units) for i in _payments(self.request) if i.asset == asset]


@dataclass(frozen=True, slots=True)
class Examination(Generic[U]):
    """Outcome of `examine`: what was understood, and all objections."""

    examined: Examined[U] | None
    reasons: tuple[Reason, ...]


class Admission(StrEnum):
    """Outcome of `admit` where nothing speaks against signing."""

    NEW = "new"
    """To be journaled, then signed."""
    AGAIN = "again"
    """Journaled before: the same signatures again; counts nothing, changes nothing."""


def examine(request: SignRequest, bundle: Bundle, rules: FamilyRules[U], *, now: int) -> Examination[U]:
    """Decode the transaction and list every objection that needs no journal.

    Args:
        request: what the online side wants signed.
        bundle: the pinned bundle.
        rules: the key-set's family.
        now: the signer's own clock, UNIX seconds.
    """
    try:
        grounds = _grounds(request, bundle, rules)
        unsigned = rules.read(request)
    except Unreadable as refusal:
        return Examination(None, (refusal.reason,))
    digests = _digests(request)
    if len(digests) != len(request.intents):
        return Examination(None, (Reason("intent-repeated", "an intent is listed twice"),))
    findings = rules.find(request, unsigned, grounds)
    reasons = list(findings.reasons)
    reasons += intent_reasons(request, bundle, grounds.keyset, grounds.network, rules.kinds, now=now)
    reasons += _fee_reasons(request, unsigned, grounds.network)
    for cap in grounds.caps:
        reasons += [
            Reason(
                "payment-cap", f"{intent.amount} {intent.asset}: a payment must be below {cap.payment_below}"
            )
            for intent in _payments(request)
            if intent.asset == cap.asset and intent.units >= int(cap.payment_below)
        ]
    if now >= bundle.expires_at:
        reasons.append(Reason("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}"))
    examined = Examined(request, unsigned, grounds, findings.reach, findings.deposits, digests)
    return Examination(examined, tuple(reasons))


def recall(request: SignRequest, rules: FamilyRules[U], view: JournalView) -> U | None:
    """What was journaled for exactly this request, for when the bundle no longer says anything about it.

    A bundle may drop a cap or a key-set at any time; a signature that is out in the world stays out, and a refusal
    would let somebody believe that it never was.
    """
    try:
        unsigned = rules.read(request)
    except Unreadable:
        return None
    return unsigned if view.transaction(request.chain, unsigned.content) == _digests(request) else None


def admit(
    examined: Examined[U], objections: Iterable[Reason], view: JournalView, *, now: int
) -> Admission | tuple[Reason, ...]:
    """Decide with the journal. Runs where nobody else can write to it.

    What was journaled gets its signatures again whatever has changed since (an expired order, a lower cap):
    the signature may be out in the world already, and a refusal would say that it is not.

    Args:
        examined: from `examine`.
        objections: its reasons.
        view: the journal.
        now: the signer's own clock, UNIX seconds.
    """
    content = examined.unsigned.content
    journaled = view.transaction(examined.request.chain, content)
    if journaled is not None:
        if journaled == examined.digests:
            return Admission.AGAIN
        return (Reason("transaction-reused", f"{content} was signed for other intents"),)
    reasons = list(objections)
    reasons += _journal_reasons(examined, view)
    reasons += _window_reasons(examined, view, now)
    return tuple(reasons) or Admission.NEW


def _payments(request: SignRequest) -> list[Intent]:
    return [intent for intent in request.intents if intent.kind is Kind.PAYMENT]


def _digests(request: SignRequest) -> dict[str, str]:
    return {intent.id: intent.digest_hex() for intent in request.intents}


def _grounds(request: SignRequest, bundle: Bundle, rules: FamilyRules[U]) -> Grounds:
    """What the bundle says of the request's network, key-set and caps, and that all belong together."""
    try:
        network = bundle.network(request.chain)
        keyset = bundle.keyset(request.keyset)
    except InvalidValue as error:
        raise Unreadable("not-in-bundle", str(error)) from None
    check_keyset(keyset, network, rules)
    if keyset.tier != "hot":
        raise Unreadable("tier-not-supported", f"this signer signs for the hot tier, not for {keyset.tier}")
    assets = [network.native_asset, *sorted({i.asset for i in request.intents} - {network.native_asset})]
    try:
        caps = tuple(bundle.cap(keyset.tier, asset) for asset in assets)
    except InvalidValue as error:
        raise Unreadable("no-cap", f"{error}: nothing may be paid") from None
    return Grounds(bundle, network, keyset, caps)


def check_keyset(keyset: KeysetEntry, network: NetworkEntry, rules: FamilyRules[U]) -> None:
    """Check that the bundle's key-set is the one whose keys this signer has, on the network it is for.

    Raises:
        Unreadable: with a `reason` that says what differs.
    """
    if keyset.chain != network.chain:
        raise Unreadable("wrong-chain", f"key-set {keyset.id} is on {keyset.chain}, not on {network.chain}")
    rules.check_keyset(keyset, network)


def _fee_reasons(request: SignRequest, unsigned: Unsigned, network: NetworkEntry) -> list[Reason]:
    """Objections to the fee at its largest: the network's cap, and what the orders allow together."""
    reasons, fee = [], unsigned.fee_units
    if fee > int(network.fee_cap):
        reasons.append(Reason("fee-cap", f"fee {fee}: at most {network.fee_cap}"))
    ceiling = sum(signed.order.fee_ceiling_units for signed in request.evidence.orders)
    if _payments(request) and fee > ceiling:
        reasons.append(Reason("fee-ceiling", f"fee {fee}: the orders allow {ceiling} together"))
    return reasons


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
        for content, resources in view.versions(intent.id):
            if not resources & examined.unsigned.resources:
                reasons.append(
                    Reason(
                        "conflicting-version",
                        f"{content} for intent {intent.id} could confirm beside this one",
                    )
                )
    keyset, reach = examined.request.keyset, examined.reach
    furthest = view.high_water(keyset) + reach.ahead
    if reach.number > furthest:
        reasons.append(Reason(reach.code, f"number {reach.number}: at most {furthest} now"))
    for index in sorted(examined.deposits):
        if view.attested(keyset, 0, index) is None:
            reasons.append(
                Reason("foreign-forwarder", f"salt {index} is of no address that this signer attested")
            )
    return reasons


def _window_reasons(examined: Examined[U], view: JournalView, now: int) -> list[Reason]:
    reasons = []
    network, fee = examined.grounds.network, [(examined.fee_group, examined.unsigned.fee_units)]
    for cap in examined.grounds.caps:
        paid = view.window(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", cap.window_seconds)
        total = paid.total_with(examined.payments(cap.asset), now)
        if cap.asset == network.native_asset:
            scope = examined.fee_scope(Exposure.TIER_FEES)
            total += view.window(Exposure.TIER_FEES, scope, cap.window_seconds).total_with(fee, now)
        if total > int(cap.window_cap):
            reasons.append(
                Reason(
                    "window-cap",
                    f"{total} {cap.asset} within {cap.window_seconds} s: at most {cap.window_cap}, fees included",
                )
            )
    fees = view.window(
        Exposure.CHAIN_FEES, examined.fee_scope(Exposure.CHAIN_FEES), network.fee_window_seconds
    ).total_with(fee, now)
    if fees > int(network.fee_window_cap):
        reasons.append(
            Reason(
                "fee-window",
                f"{fees} in fees within {network.fee_window_seconds} s: at most {network.fee_window_cap}",
            )
        )
    return reasons
