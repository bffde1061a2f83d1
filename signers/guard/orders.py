"""What is wanted, and by whom: the intents of a request and the orders that payments carry out. Pure.

Signatures are looked at last, by `evidence.signature_reasons`: they cost more than everything here together.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from msgspec import UnsetType

from policies.bundle import AssetEntry, Bundle, Caller, WalletEntry
from policies.intent import Intent, Kind, Order, SignedOrder
from signers.guard.examined import Grounds, JournalView
from signers.guard.history import active_since, orders_end, payable_elsewhere
from signers.ports import Reason, SignRequest

ORDER_SCOPE: Final = "withdrawals:sign"
"""Scope of callers whose orders signers believe."""


def intent_reasons(
    request: SignRequest, grounds: Grounds, kinds: Container[Kind], *, now: int
) -> list[Reason]:
    """Every intent is a payment that carries out exactly one order, or the one intent of the house's own. What a refill
    moves is looked at elsewhere.

    Args:
        request: what is asked for.
        grounds: what the bundle says about it.
        kinds: what the wallet's family signs.
        now: the signer's own clock, UNIX seconds.
    """
    reasons: list[Reason] = []
    orders = {signed.order.id: signed for signed in request.evidence.orders}
    payments = {intent.id for intent in request.intents if intent.kind is Kind.PAYMENT}
    if len(orders) != len(request.evidence.orders) or not orders.keys() <= payments:
        reasons.append(Reason("stray-order", "an order comes twice, or belongs to no payment"))
    if (not payments and len(request.intents) > 1) or 0 < len(payments) < len(request.intents):
        reasons.append(Reason("mixed-intents", "the house's own intents come alone, one a transaction"))
    wallet, native = grounds.wallet, grounds.network.native_asset
    book = _OrderBook(grounds, now)
    for intent in request.intents:
        if (intent.chain, intent.keyset, intent.tier) != (request.chain, wallet.id, wallet.tier):
            reasons.append(
                Reason("wrong-keyset", f"intent {intent.id} is for another chain, key-set or tier")
            )
        if (intent.kind is Kind.ADMINISTRATION) is isinstance(intent.change, UnsetType):
            told = "an administration, and nothing else, says what changes"
            reasons.append(Reason("house-intent", f"{intent.kind} {intent.id}: {told}"))
        if intent.kind not in kinds:
            reasons.append(Reason("kind-not-supported", f"{intent.kind}: not signed by {wallet.id}"))
        elif intent.kind is Kind.PAYMENT:
            reasons += book.payment_reasons(intent, orders.get(intent.id))
        elif intent.kind is Kind.REFILL:
            if intent.order is not None:
                reasons.append(Reason("house-intent", f"refill {intent.id} carries out no order"))
        elif (intent.order, intent.amount, intent.asset) != (None, "0", native):
            reasons.append(
                Reason("house-intent", f"{intent.kind} {intent.id} has no order, no amount, the native asset")
            )
    return reasons


def order_reasons(order: Order, caller: Caller, bundle: Bundle, *, now: int) -> list[Reason]:
    """Whether an order may be believed now, its signature aside: in time, of a caller who may give it."""
    reasons = []
    if now >= order.expires_at:
        reasons.append(
            Reason("order-expired", f"order {order.id} expired at {order.expires_at}; now is {now}")
        )
    if order.expires_at > now + bundle.longest_order_seconds:
        reasons.append(
            Reason(
                "order-too-long",
                f"order {order.id} expires in {order.expires_at - now} s: at most {bundle.longest_order_seconds}",
            )
        )
    return reasons + caller_reasons(caller, now=now)


def caller_reasons(caller: Caller, *, now: int) -> list[Reason]:
    """Whether what a caller signs may be believed now."""
    reasons = []
    if now >= caller.not_after:
        reasons.append(Reason("caller-expired", f"caller {caller.id} ended at {caller.not_after}"))
    if ORDER_SCOPE not in caller.scopes:
        reasons.append(Reason("caller-scope", f"caller {caller.id} lacks the scope {ORDER_SCOPE}"))
    return reasons


def written_otherwise(destination: str, canonical: str) -> list[Reason]:
    """Objection to a destination in another than its one form: rules and windows know addresses by their text."""
    if destination == canonical:
        return []
    return [Reason("bad-destination", f"{destination}: write {canonical}")]


def asset_reasons(asset: AssetEntry, chain: str) -> list[Reason]:
    """Whether an asset of the bundle can be paid on a chain."""
    reasons = []
    if asset.chain != chain:
        reasons.append(Reason("wrong-asset", f"{asset.id} is on {asset.chain}, not on {chain}"))
    if "fee-on-transfer" in asset.traits:
        # The token decides what arrives, so no order for an amount can be kept.
        reasons.append(Reason("asset-not-payable", f"{asset.id} takes a fee on transfer"))
    return reasons


class _OrderBook:
    """Judges payments and their orders; each asset and caller of the bundle is looked up once for all of them."""

    def __init__(self, grounds: Grounds, now: int) -> None:
        bundle = grounds.bundle
        self._bundle, self._now = bundle, now
        self._oldest = _oldest_expiry(grounds)
        self._assets = {asset.id: asset for asset in bundle.assets}
        self._callers = {caller.id: caller for caller in bundle.callers}

    def payment_reasons(self, intent: Intent, signed: SignedOrder | None) -> list[Reason]:
        """Objections to a payment: its asset can be paid, and it carries out its order."""
        asset = self._assets.get(intent.asset)
        if asset is None:
            return [Reason("wrong-asset", f"the bundle has no asset {intent.asset!r}")]
        reasons = asset_reasons(asset, intent.chain)
        if signed is None:
            return [*reasons, Reason("no-order", f"intent {intent.id} has no order")]
        return reasons + self._order_reasons(intent, signed.order)

    def _order_reasons(self, intent: Intent, order: Order) -> list[Reason]:
        """The order is the one that the intent names, says the same, is in time and given by who may."""
        reasons = []
        if intent.order != order.digest_hex():
            reasons.append(
                Reason("order-changed", f"the order of intent {intent.id} is not the one it names")
            )
        theirs = (order.chain, order.asset, order.destination, order.amount)
        if theirs != (intent.chain, intent.asset, intent.destination, intent.amount) or order.amount == "0":
            reasons.append(Reason("order-mismatch", f"intent {intent.id} is not what its order asks for"))
        if order.expires_at <= self._oldest:
            reasons.append(
                Reason("order-too-old", f"order {order.id} could have been paid by the keys before these")
            )
        caller = self._callers.get(order.caller)
        if caller is None:
            return [*reasons, Reason("caller-unknown", f"the bundle has no caller {order.caller!r}")]
        return reasons + order_reasons(order, caller, self._bundle, now=self._now)


def _oldest_expiry(grounds: Grounds) -> int:
    """Until when orders expire that keys before these may have signed elsewhere; -1 if there were none.

    Each journal knows its own signatures only. What another signer could have been asked for before these keys were
    active had to expire within the longest time that an order may have. Key-sets before these that this signer holds,
    too, have signed into its own journal: then what they could not pay, these can't. Of a vault it knows its own
    signatures only, and others may have been enough.
    """
    began = max((each.active_from for each in _following_others(grounds)), default=0)
    return began + grounds.bundle.longest_signed_order_seconds if began else -1


def _following_others(grounds: Grounds) -> list[WalletEntry]:
    """The wallet, or those before it in this journal, as far as they followed keys whose signatures are elsewhere."""
    wallet, bundle = grounds.wallet, grounds.bundle
    before: list[WalletEntry] = [
        each
        for each in (*bundle.keysets, *bundle.vaults)
        if (each.chain, each.tier) == (wallet.chain, wallet.tier)
        and each.id != wallet.id
        and each.state != "pre-active"
    ]
    vaults = {vault.id for vault in bundle.vaults}
    here = before and {each.id for each in before} <= set(grounds.held) - vaults
    return [each for each in (before if here else [wallet]) if wallet.active_from and each.active_from]


def handover_reasons(request: SignRequest, grounds: Grounds, view: JournalView) -> list[Reason]:
    """Objections to orders that another signer could have paid before this one heard that its keys follow.

    Whatever date the bundle gives: it takes its time from the draft to the signers, and until the old keys' signer has
    heard of it, that one takes new orders. So it has to be told first.
    """
    if not request.evidence.orders:
        return []
    followed, history = _following_others(grounds), view.history()
    since = (active_since(history, each.id) for each in followed)
    heard = max((at for at in since if at is not None), default=None)
    if heard is None:
        return []
    # What was taken until then ends as late as a bundle of that time let it, whatever later ones say.
    began = max(heard, *(each.active_from for each in followed))
    oldest = max(orders_end(history, began), began + grounds.bundle.longest_signed_order_seconds)
    return [
        Reason(
            "order-too-old",
            f"order {signed.order.id} expires by {oldest}: keys elsewhere could have paid it before {began}",
        )
        for signed in request.evidence.orders
        if signed.order.expires_at <= oldest
    ]


def moved_reasons(request: SignRequest, grounds: Grounds, view: JournalView) -> Iterator[Reason]:
    """Objections to orders that were another tier's under a bundle before: its signer may have paid them then."""
    for signed in request.evidence.orders:
        order = signed.order
        if view.intent_digest(order.id) is not None:
            continue  # paid here first, so nowhere else
        moved = payable_elsewhere(order, grounds.wallet.tier, grounds.held, view.history())
        if moved is not None:
            told = f"order {order.id} was another tier's until {moved}, which could have paid it"
            yield Reason("order-moved", f"{told}: let it expire, and have a new one signed")
