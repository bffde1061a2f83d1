"""Orders, and entries of whitelists, shown to a signer before it is to pay: what it has seen itself starts ages and
delays. Pure.

Only genuine ones are remembered, and a bounded number of them, so that nobody fills the disk or ages destinations for
what a caller never signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, Protocol

from policies.bundle import Bundle, Caller
from policies.canonical import BadSignature
from policies.intent import Order, SignedOrder
from policies.statements import SignedWhitelistEntry, WhitelistEntry
from signers.errors import SignerStopped
from signers.guard.orders import ORDER_SCOPE, asset_reasons, caller_reasons, order_reasons
from signers.ports import Announced, AnnounceRequest, EntrySighting, Reason, Refused, Sighting

MAX_SIGHTINGS: Final = 100_000
"""Most orders that are remembered before they have expired. An entry counts as one for as long as an order may run."""


class SightBook(Protocol):
    """What the journal remembers of orders and entries that it was shown."""

    def order_since(self, order_digest: str) -> int | None:
        """When an order or entry was first seen, None if never."""

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When the first order to a destination, or entry of it, was seen, None if none was."""

    def open_sights(self, now: int, caller: str | None = None) -> int:
        """How many of those seen have not expired: of one caller, or of all (None)."""

    def record_sight(
        self, order_digest: str, chain: str, destination: str, *, caller: str, expires_at: int, now: int
    ) -> None:
        """Remember an order that was never seen before, and its destination unless that is known longer."""


def examine_announced(request: AnnounceRequest, bundle: Bundle, *, now: int) -> list[Reason]:
    """Every objection to orders and entries being remembered: only what could be paid some day, signatures last.

    Args:
        request: what was announced.
        bundle: the pinned bundle.
        now: the signer's own clock, UNIX seconds.
    """
    reasons: list[Reason] = []
    if now >= bundle.expires_at:
        reasons.append(Reason("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}"))
    callers = {caller.id: caller for caller in bundle.callers}
    reasons += _order_objections(request.orders, bundle, callers, now)
    reasons += _entry_objections(request.entries, bundle, callers, now)
    if reasons:
        return reasons
    for signed in request.orders:
        try:
            signed.verify(callers[signed.order.caller].key)
        except BadSignature as error:
            return [Reason("order-signature", f"order {signed.order.id}: {error}")]
    for listed in request.entries:
        try:
            listed.verify(callers[listed.entry.caller].key)
        except BadSignature as error:
            return [Reason("entry-signature", f"entry {listed.entry.id}: {error}")]
    return []


def _order_objections(
    orders: Sequence[SignedOrder], bundle: Bundle, callers: Mapping[str, Caller], now: int
) -> Iterator[Reason]:
    assets = {asset.id: asset for asset in bundle.assets}
    for signed in orders:
        order, caller = signed.order, callers.get(signed.order.caller)
        asset = assets.get(order.asset)
        if asset is None:
            yield Reason("wrong-asset", f"the bundle has no asset {order.asset!r}")
        else:
            yield from asset_reasons(asset, order.chain)
        if caller is None:
            yield _unknown(order)
        else:
            yield from order_reasons(order, caller, bundle, now=now)


def _entry_objections(
    entries: Sequence[SignedWhitelistEntry], bundle: Bundle, callers: Mapping[str, Caller], now: int
) -> Iterator[Reason]:
    chains = {network.chain for network in bundle.networks}
    for signed in entries:
        entry, caller = signed.entry, callers.get(signed.entry.caller)
        if entry.chain not in chains:
            yield Reason("wrong-chain", f"the bundle has no chain {entry.chain!r}")
        if caller is None:
            yield _unknown(entry)
        else:
            yield from caller_reasons(caller, now=now)


def _unknown(told: Order | WhitelistEntry) -> Reason:
    return Reason("caller-unknown", f"the bundle has no caller {told.caller!r}")


def remember(request: AnnounceRequest, bundle: Bundle, book: SightBook, *, now: int) -> Announced:
    """Record what of these is new, and say since when each is known. Runs in the journal's writer.

    Raises:
        Refused: too many are remembered already; nothing was recorded.
    """
    told: list[Order | WhitelistEntry] = [signed.order for signed in request.orders]
    told += [signed.entry for signed in request.entries]
    new = {
        digest: each
        for digest, each in ((each.digest_hex(), each) for each in told)
        if book.order_since(digest) is None
    }
    if new:
        _check_room(new.values(), bundle, book, now)
    for digest, each in new.items():
        if isinstance(each, Order):
            destination, until = each.destination, each.expires_at
        else:
            destination, until = each.address, now + bundle.longest_order_seconds
        book.record_sight(digest, each.chain, destination, caller=each.caller, expires_at=until, now=now)
    return Announced(
        sightings=tuple(_sighting(signed.order, book) for signed in request.orders),
        entries=tuple(
            EntrySighting(
                entry=signed.entry.id,
                destination_since=_known(book.destination_since(signed.entry.chain, signed.entry.address)),
            )
            for signed in request.entries
        ),
    )


def _check_room(new: Collection[Order | WhitelistEntry], bundle: Bundle, book: SightBook, now: int) -> None:
    """Raises Refused unless there is room for new ones: of all callers together, and of each for its share."""
    share = MAX_SIGHTINGS // max(1, sum(ORDER_SCOPE in caller.scopes for caller in bundle.callers))
    reasons = []
    if book.open_sights(now) + len(new) > MAX_SIGHTINGS:
        reasons.append(Reason("too-many-sightings", f"at most {MAX_SIGHTINGS} orders are remembered"))
    for caller, count in Counter(each.caller for each in new).items():
        if book.open_sights(now, caller) + count > share:
            reasons.append(Reason("too-many-sightings", f"at most {share} orders of {caller} are remembered"))
    if reasons:
        raise Refused(tuple(reasons))


def _sighting(order: Order, book: SightBook) -> Sighting:
    return Sighting(
        order=order.id,
        order_since=_known(book.order_since(order.digest_hex())),
        destination_since=_known(book.destination_since(order.chain, order.destination)),
    )


def _known(since: int | None) -> int:
    if since is None:
        raise SignerStopped("the journal has forgotten what it has just recorded")
    return since
