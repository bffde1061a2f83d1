"""Orders shown to a signer before it is to pay them: what it has seen itself starts ages and delays. Pure.

Only genuine orders are remembered, and a bounded number of them, so that nobody fills the disk or ages destinations
for orders that a caller never signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from policies.bundle import Bundle
from policies.canonical import BadSignature
from policies.intent import Order, SignedOrder
from signers.errors import SignerStopped
from signers.orders import ORDER_SCOPE, asset_reasons, order_reasons
from signers.ports import Reason, Refused, Sighting

MAX_SIGHTINGS: Final = 100_000
"""Most orders that are remembered before they have expired."""


class SightBook(Protocol):
    """What the journal remembers of orders that it was shown."""

    def order_since(self, order_digest: str) -> int | None:
        """When an order was first seen, None if never."""

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When an order to a destination was first seen, None if never."""

    def open_sights(self, now: int, caller: str | None = None) -> int:
        """How many orders seen have not expired: of one caller, or of all (None)."""

    def record_sight(
        self, order_digest: str, chain: str, destination: str, *, caller: str, expires_at: int, now: int
    ) -> None:
        """Remember an order that was never seen before, and its destination unless that is known longer."""


def examine_orders(orders: Sequence[SignedOrder], bundle: Bundle, *, now: int) -> list[Reason]:
    """Every objection to orders being remembered: only what could be paid some day, signatures last.

    Args:
        orders: as they were announced.
        bundle: the pinned bundle.
        now: the signer's own clock, UNIX seconds.
    """
    reasons: list[Reason] = []
    if now >= bundle.expires_at:
        reasons.append(Reason("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}"))
    assets = {asset.id: asset for asset in bundle.assets}
    callers = {caller.id: caller for caller in bundle.callers}
    for signed in orders:
        order, caller = signed.order, callers.get(signed.order.caller)
        asset = assets.get(order.asset)
        if asset is None:
            reasons.append(Reason("wrong-asset", f"the bundle has no asset {order.asset!r}"))
        else:
            reasons += asset_reasons(asset, order.chain)
        if caller is None:
            reasons.append(Reason("caller-unknown", f"the bundle has no caller {order.caller!r}"))
        else:
            reasons += order_reasons(order, caller, bundle, now=now)
    if reasons:
        return reasons
    for signed in orders:
        try:
            signed.verify(callers[signed.order.caller].key)
        except BadSignature as error:
            return [Reason("order-signature", f"order {signed.order.id}: {error}")]
    return []


def remember(
    orders: Sequence[SignedOrder], bundle: Bundle, book: SightBook, *, now: int
) -> tuple[Sighting, ...]:
    """Record what of these orders is new, and say since when each is known. Runs in the journal's writer.

    Raises:
        Refused: too many are remembered already; nothing was recorded.
    """
    digests = [signed.order.digest_hex() for signed in orders]
    new: dict[str, Order] = {
        digest: signed.order
        for digest, signed in zip(digests, orders, strict=True)
        if book.order_since(digest) is None
    }
    if new:
        _check_room(new.values(), bundle, book, now)
    for digest, order in new.items():
        book.record_sight(
            digest, order.chain, order.destination, caller=order.caller, expires_at=order.expires_at, now=now
        )
    return tuple(
        _sighting(digest, signed.order, book) for digest, signed in zip(digests, orders, strict=True)
    )


def _check_room(new: Collection[Order], bundle: Bundle, book: SightBook, now: int) -> None:
    """Raises Refused unless there is room for new orders: of all callers together, and of each for its share."""
    share = MAX_SIGHTINGS // max(1, sum(ORDER_SCOPE in caller.scopes for caller in bundle.callers))
    reasons = []
    if book.open_sights(now) + len(new) > MAX_SIGHTINGS:
        reasons.append(Reason("too-many-sightings", f"at most {MAX_SIGHTINGS} orders are remembered"))
    for caller, count in Counter(order.caller for order in new).items():
        if book.open_sights(now, caller) + count > share:
            reasons.append(Reason("too-many-sightings", f"at most {share} orders of {caller} are remembered"))
    if reasons:
        raise Refused(tuple(reasons))


def _sighting(digest: str, order: Order, book: SightBook) -> Sighting:
    order_since = book.order_since(digest)
    destination_since = book.destination_since(order.chain, order.destination)
    if order_since is None or destination_since is None:
        raise SignerStopped("the journal has forgotten an order that it has just recorded")
    return Sighting(order=order.id, order_since=order_since, destination_since=destination_since)
