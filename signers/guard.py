"""What a signer must see before it signs (DESIGN section 1). Pure: no I/O, no clock, no keys.

Two steps. `examine` needs no journal and can run for many requests at once: it decodes the transaction and
lists every objection that the documents alone give. `admit` compares with the journal, inside the journal's
single writer, so that nothing can change between the check and the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import ParsedPsbt
from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, KeysetEntry, NetworkEntry, TierCap
from policies.intent import Intent, Kind, SignedOrder
from signers.keyset import KeysetRecord
from signers.ports import Reason, SignRequest
from signers.transaction import (
    Unreadable,
    decoded,
    fee_reasons,
    output_reasons,
    own_inputs,
    shape_reasons,
)
from signers.window import RollingWindow

MAX_CHANGE_AHEAD: Final = 1_000
"""How far a change index may be beyond the highest this signer has signed: what recovery will scan."""
ORDER_SCOPE: Final = "withdrawals:sign"
"""Scope of callers whose orders signers believe."""


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

    def transaction(self, chain: str, txid: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Txid and resources of every transaction journaled for an intent."""

    def window(self, kind: Exposure, scope: str, seconds: int) -> RollingWindow:
        """A rolling sum over the journal."""

    def change_high_water(self, keyset: str) -> int:
        """Highest change index signed for a key-set, -1 if none."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A request whose transaction was understood."""

    chain: str
    keyset: str
    tier: str
    native_asset: str
    bundle_version: int
    txid: str
    """Of the unsigned transaction; witnesses don't change it."""
    resources: frozenset[str]
    """Outpoints it spends."""
    psbt: ParsedPsbt
    inputs: tuple[tuple[int, int], ...]
    """Branch and index of each input's key, as the PSBT claims and the spent script confirms."""
    pubkeys: tuple[bytes, ...]
    """Each input's public key (33 bytes), derived by this signer."""
    intents: tuple[Intent, ...]
    digests: dict[str, str]
    """Digest of each intent by id."""
    fee_sats: int
    highest_change: int
    """Highest change index among the outputs, -1 without change."""
    network: NetworkEntry
    caps: tuple[TierCap, ...]
    """Caps of the tier for all assets involved; the native asset is first."""

    @property
    def fee_group(self) -> str:
        """Key under which the fee counts: all transactions of one set of intents exclude each other."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()

    def fee_scope(self, kind: Exposure) -> str:
        """Scope of the fee windows."""
        return self.chain if kind is Exposure.CHAIN_FEES else f"{self.tier}|{self.chain}"

    def payments(self, asset: str) -> list[tuple[str, int]]:
        """Intent id and base units of all payments of an asset."""
        return [(intent.id, intent.units) for intent in self.intents if intent.asset == asset]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A transaction that was journaled before: enough to sign it again, without asking any bundle."""

    txid: str
    psbt: ParsedPsbt
    inputs: tuple[tuple[int, int], ...]
    pubkeys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Examination:
    """Outcome of `examine`: what was understood, and all objections."""

    examined: Examined | None
    reasons: tuple[Reason, ...]


class Admission(StrEnum):
    """Outcome of `admit` where nothing speaks against signing."""

    NEW = "new"
    """To be journaled, then signed."""
    AGAIN = "again"
    """Journaled before: the same signatures again; counts nothing, changes nothing."""


def examine(
    request: SignRequest, bundle: Bundle, record: KeysetRecord, account: AccountKey, *, now: int
) -> Examination:
    """Decode the transaction and list every objection that needs no journal.

    Args:
        request: what the online side wants signed.
        bundle: the pinned bundle.
        record: the signer's own record of the key-set.
        account: its account public key.
        now: the signer's own clock, UNIX seconds.
    """
    reasons: list[Reason] = []
    try:
        network, keyset, caps = _context(request, bundle, record)
        psbt = decoded(request)
        inputs, pubkeys = own_inputs(psbt, record, account)
    except Unreadable as refusal:
        return Examination(None, (refusal.reason,))
    digests = {intent.id: intent.digest_hex() for intent in request.intents}
    if len(digests) != len(request.intents):
        return Examination(None, (Reason("intent-repeated", "an intent is listed twice"),))
    reasons += shape_reasons(psbt)
    highest_change, objections = output_reasons(request, psbt, record, account)
    reasons += objections
    reasons += _order_reasons(request, bundle, keyset, network.native_asset, now=now)
    reasons += fee_reasons(request, psbt, network)
    for cap in caps:
        reasons += [
            Reason(
                "payment-cap", f"{intent.amount} {intent.asset}: a payment must be below {cap.payment_below}"
            )
            for intent in request.intents
            if intent.asset == cap.asset and intent.units >= int(cap.payment_below)
        ]
    if now >= bundle.expires_at:
        reasons.append(Reason("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}"))
    examined = Examined(
        chain=request.chain,
        keyset=request.keyset,
        tier=keyset.tier,
        native_asset=network.native_asset,
        bundle_version=bundle.version,
        txid=psbt.tx.txid.hex,
        resources=frozenset(psbt.tx.resources),
        psbt=psbt,
        inputs=inputs,
        pubkeys=pubkeys,
        intents=request.intents,
        digests=digests,
        fee_sats=psbt.fee_sats,
        highest_change=highest_change,
        network=network,
        caps=caps,
    )
    return Examination(examined, tuple(reasons))


def recall(
    request: SignRequest, record: KeysetRecord, account: AccountKey, view: JournalView
) -> Recalled | None:
    """What was journaled for exactly this request, for when the bundle no longer says anything about it.

    A bundle may drop a cap or a key-set at any time; a signature that is out in the world stays out, and a refusal
    would let somebody believe that it never was.
    """
    try:
        psbt = decoded(request)
        inputs, pubkeys = own_inputs(psbt, record, account)
    except Unreadable:
        return None
    txid = psbt.tx.txid.hex
    digests = {intent.id: intent.digest_hex() for intent in request.intents}
    if view.transaction(request.chain, txid) != digests:
        return None
    return Recalled(txid, psbt, inputs, pubkeys)


def admit(
    examined: Examined, objections: Iterable[Reason], view: JournalView, *, now: int
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
    journaled = view.transaction(examined.chain, examined.txid)
    if journaled is not None:
        if journaled == examined.digests:
            return Admission.AGAIN
        return (Reason("transaction-reused", f"{examined.txid} was signed for other intents"),)
    reasons = list(objections)
    reasons += _journal_reasons(examined, view)
    reasons += _window_reasons(examined, view, now)
    return tuple(reasons) or Admission.NEW


def _context(
    request: SignRequest, bundle: Bundle, record: KeysetRecord
) -> tuple[NetworkEntry, KeysetEntry, tuple[TierCap, ...]]:
    """What the bundle says of the request's network, key-set and caps, and that all belong together."""
    try:
        network = bundle.network(request.chain)
        keyset = bundle.keyset(request.keyset)
    except InvalidValue as error:
        raise Unreadable("not-in-bundle", str(error)) from None
    check_keyset(keyset, network, record)
    if keyset.tier != "hot":
        raise Unreadable("tier-not-supported", f"this signer signs for the hot tier, not for {keyset.tier}")
    assets = [network.native_asset, *sorted({i.asset for i in request.intents} - {network.native_asset})]
    try:
        caps = tuple(bundle.cap(keyset.tier, asset) for asset in assets)
    except InvalidValue as error:
        raise Unreadable("no-cap", f"{error}: nothing may be paid") from None
    return network, keyset, caps


def check_keyset(keyset: KeysetEntry, network: NetworkEntry, record: KeysetRecord) -> None:
    """Check that the bundle's key-set is the one whose keys this signer has, on the network it is for.

    Raises:
        PermanentError: with a `reason` that says what differs.
    """
    ours = (record.id, record.account, record.origin, record.attestation_key)
    if ours != (keyset.id, keyset.account, keyset.origin, keyset.attestation_key):
        raise Unreadable("wrong-keyset", f"the bundle's key-set {keyset.id} is not the one this signer holds")
    if keyset.chain != network.chain:
        raise Unreadable("wrong-chain", f"key-set {keyset.id} is on {keyset.chain}, not on {network.chain}")
    constants = NETWORKS[record.network]
    if (network.family, network.network, network.genesis) != ("btc", record.network, constants.genesis_hash):
        raise Unreadable(
            "wrong-network", f"{network.chain} is not the {record.network} network of these keys"
        )


def _order_reasons(
    request: SignRequest, bundle: Bundle, keyset: KeysetEntry, native_asset: str, *, now: int
) -> list[Reason]:
    """Every intent is a payment that carries out exactly one order, and the order is genuine and in time."""
    reasons: list[Reason] = []
    orders = {signed.order.id: signed for signed in request.evidence.orders}
    intents = {intent.id for intent in request.intents}
    if len(orders) != len(request.evidence.orders) or not orders.keys() <= intents:
        reasons.append(Reason("stray-order", "an order comes twice, or belongs to no intent"))
    for intent in request.intents:
        if intent.kind is not Kind.PAYMENT:
            reasons.append(Reason("kind-not-supported", f"{intent.kind}: only payments are signed by now"))
            continue
        if (intent.chain, intent.keyset, intent.tier) != (request.chain, keyset.id, keyset.tier):
            reasons.append(
                Reason("wrong-keyset", f"intent {intent.id} is for another chain, key-set or tier")
            )
        if intent.asset != native_asset:
            reasons.append(
                Reason("wrong-asset", f"{intent.asset} is not the native asset of {request.chain}")
            )
        signed = orders.get(intent.id)
        if signed is None:
            reasons.append(Reason("no-order", f"intent {intent.id} has no order"))
            continue
        reasons += _one_order_reasons(intent, signed, bundle, now=now)
    return reasons


def _one_order_reasons(intent: Intent, signed: SignedOrder, bundle: Bundle, *, now: int) -> list[Reason]:
    order, reasons = signed.order, []
    if intent.order != order.digest_hex():
        reasons.append(Reason("order-changed", f"the order of intent {intent.id} is not the one it names"))
    theirs = (order.chain, order.asset, order.destination, order.units)
    if theirs != (intent.chain, intent.asset, intent.destination, intent.units) or order.units == 0:
        reasons.append(Reason("order-mismatch", f"intent {intent.id} is not what its order asks for"))
    if now >= order.expires_at:
        reasons.append(
            Reason("order-expired", f"order {order.id} expired at {order.expires_at}; now is {now}")
        )
    try:
        caller = bundle.caller(order.caller)
        if now >= caller.not_after:
            reasons.append(Reason("caller-expired", f"caller {caller.id} ended at {caller.not_after}"))
        if ORDER_SCOPE not in caller.scopes:
            reasons.append(Reason("caller-scope", f"caller {caller.id} lacks the scope {ORDER_SCOPE}"))
        signed.verify(caller.key)
    except InvalidValue as error:
        reasons.append(Reason("caller-unknown", str(error)))
    except PermanentError as error:
        reasons.append(Reason("order-signature", f"order {order.id}: {error}"))
    return reasons


def _journal_reasons(examined: Examined, view: JournalView) -> list[Reason]:
    """Sign once: one content per intent, and every further version conflicts with all earlier ones."""
    reasons = []
    for intent in examined.intents:
        before = view.intent_digest(intent.id)
        if before is None:
            if intent.policy_version != examined.bundle_version:
                reasons.append(
                    Reason(
                        "policy-version",
                        f"intent {intent.id} was decided under version {intent.policy_version}, "
                        f"this signer has {examined.bundle_version}",
                    )
                )
            continue
        # A replacement carries the very intent that was signed before, so also its policy version.
        if before != examined.digests[intent.id]:
            reasons.append(Reason("intent-reused", f"intent {intent.id} was signed with another content"))
        for txid, resources in view.versions(intent.id):
            if not resources & examined.resources:
                reasons.append(
                    Reason(
                        "conflicting-version", f"{txid} for intent {intent.id} could confirm beside this one"
                    )
                )
    furthest = view.change_high_water(examined.keyset) + MAX_CHANGE_AHEAD
    if examined.highest_change > furthest:
        reasons.append(
            Reason("change-index", f"change index {examined.highest_change}: at most {furthest} now")
        )
    return reasons


def _window_reasons(examined: Examined, view: JournalView, now: int) -> list[Reason]:
    reasons = []
    fee = [(examined.fee_group, examined.fee_sats)]
    for cap in examined.caps:
        paid = view.window(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", cap.window_seconds)
        total = paid.total_with(examined.payments(cap.asset), now)
        if cap.asset == examined.native_asset:
            scope = examined.fee_scope(Exposure.TIER_FEES)
            total += view.window(Exposure.TIER_FEES, scope, cap.window_seconds).total_with(fee, now)
        if total > int(cap.window_cap):
            reasons.append(
                Reason(
                    "window-cap",
                    f"{total} {cap.asset} within {cap.window_seconds} s: at most {cap.window_cap}, fees included",
                )
            )
    network = examined.network
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
