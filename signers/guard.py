"""What a signer must see before it signs (DESIGN section 1). Pure: no I/O, no clock, no keys.

Two steps. `examine` needs no journal and can run for many requests at once: it decodes the transaction and
lists every objection that the documents alone give. `admit` compares with the journal, inside the journal's
single writer, so that nothing can change between the check and the record.

What a transaction's own bytes say is known by the `FamilyRules` of its chain: `btc.py`, `evm.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Breaker, Bundle, NetworkEntry, TierCap, WalletEntry
from policies.intent import Intent, Kind
from policies.statements import Freeze
from signers.orders import intent_reasons
from signers.ports import Reason, SignRequest


class Unreadable(PermanentError):
    """The request can't be understood any further; `reason` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = Reason(code, detail)


class Exposure(StrEnum):
    """What a counter of the journal adds up."""

    PAYMENTS = "payments"
    """Per tier and asset, each intent once."""
    TIER_FEES = "tier_fees"
    """Per tier and chain, each set of intents once, at its highest version."""
    CHAIN_FEES = "chain_fees"
    """Per chain, likewise."""
    VALUE = "value"
    """Per breaker, payments and fees of all assets together, in the bundle's unit of account."""


class Counter(Protocol):
    """What was signed and may still be paid, or was within the last so many seconds, by key."""

    def total(self, now: int) -> int:
        """Sum of what counts at `now`."""

    def total_with(self, additions: Iterable[tuple[str, int]], now: int) -> int:
        """What `total` would be with all `additions` (distinct keys) signed at `now`; changes nothing."""


class JournalView(Protocol):
    """What `admit` asks of the journal."""

    def transaction(self, chain: str, content: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Content and resources of every transaction journaled for an intent."""

    def window(self, kind: Exposure, scope: str, seconds: int) -> Counter:
        """A sum over the journal: what was signed within `seconds`, and what nobody has proven dead or confirmed."""

    def high_water(self, keyset: str) -> int:
        """Highest number (change index, nonce) signed for a key-set, -1 if none."""

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""

    def order_since(self, order_digest: str) -> int | None:
        """When this signer first saw an order, by its own clock; None if it never did."""

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When this signer first saw an order to a destination, by its own clock; None if it never did."""

    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that no higher bundle has lifted."""


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
    wallet: WalletEntry
    """The key-set or vault that is to sign."""
    caps: tuple[TierCap, ...]
    """Caps of the tier for all assets involved; the native asset is first. None for a rotation, which pays nobody."""
    breaker: Breaker | None
    """The limit over all assets that a hot key-set is under; None for vaults and rotations."""


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

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
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
    value: tuple[tuple[str, int], ...] = ()
    """What counts under the breaker: intent ids and the fee group, each with its value in the bundle's unit."""

    @property
    def breaker(self) -> Breaker | None:
        """The limit under which `value` counts."""
        return self.grounds.breaker

    @property
    def fee_group(self) -> str:
        """Key under which the fee counts: all transactions of one set of intents exclude each other."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()

    def fee_scope(self, kind: Exposure) -> str:
        """Scope of the fee windows. Rotations have one of their own: no thief's fees must delay a rescue."""
        chain = self.request.chain
        if any(intent.kind is Kind.ROTATION for intent in self.request.intents):
            chain = f"{chain}|rotation"
        return chain if kind is Exposure.CHAIN_FEES else f"{self.grounds.wallet.tier}|{chain}"

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
    findings = rules.find(request, unsigned, grounds)
    reasons = list(findings.reasons)
    reasons += intent_reasons(request, bundle, grounds.wallet, grounds.network, rules.kinds, now=now)
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
    try:
        value = _value(examined)
    except InvalidValue as error:
        return Examination(examined, (*reasons, Reason("no-price", f"{error}: nothing may be paid")))
    return Examination(replace(examined, value=value), tuple(reasons))


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


def _grounds(request: SignRequest, bundle: Bundle, rules: FamilyRules[U], held: Collection[str]) -> Grounds:
    """What the bundle says of the request's network, wallet and limits, and that all belong together."""
    try:
        network, wallet = bundle.network(request.chain), bundle.wallet(request.keyset)
    except InvalidValue as error:
        raise Unreadable("not-in-bundle", str(error)) from None
    check_keyset(wallet, network, rules)
    if all(intent.kind is Kind.ROTATION for intent in request.intents):
        # What rescues money must not wait until a window that a thief has filled is empty again.
        return Grounds(bundle, network, wallet, (), None)
    assets = [network.native_asset, *sorted({i.asset for i in request.intents} - {network.native_asset})]
    try:
        caps = tuple(bundle.cap(wallet.tier, asset) for asset in assets)
    except InvalidValue as error:
        raise Unreadable("no-cap", f"{error}: nothing may be paid") from None
    return Grounds(bundle, network, wallet, caps, _breaker(wallet, bundle, held))


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


def _value(examined: Examined[U]) -> tuple[tuple[str, int], ...]:
    """What each payment and the fee are worth at most, for the breaker. Raises InvalidValue: an asset has no price."""
    if examined.breaker is None:
        return ()
    bundle, network = examined.grounds.bundle, examined.grounds.network
    fee = (examined.fee_group, worth(bundle, network.native_asset, examined.unsigned.fee_units))
    return (*((i.id, worth(bundle, i.asset, i.units)) for i in _payments(examined.request)), fee)


def worth(bundle: Bundle, asset: str, units: int) -> int:
    """Base units of an asset at the highest price that the bundle believes, rounded up, in its unit of account.

    Raises:
        InvalidValue: the bundle has no price for the asset.
    """
    one: int = 10 ** bundle.asset(asset).decimals
    return -(-units * int(bundle.price(asset).high) // one)


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
    breaker = examined.breaker
    if breaker is not None:
        value = view.window(Exposure.VALUE, breaker.id, breaker.window_seconds).total_with(
            examined.value, now
        )
        if value > int(breaker.value_cap):
            reasons.append(
                Reason(
                    "value-cap",
                    f"{value} {examined.grounds.bundle.unit} of all assets within {breaker.window_seconds} s: "
                    f"at most {breaker.value_cap}",
                )
            )
    if fees > int(network.fee_window_cap):
        reasons.append(
            Reason(
                "fee-window",
                f"{fees} in fees within {network.fee_window_seconds} s: at most {network.fee_window_cap}",
            )
        )
    return reasons
