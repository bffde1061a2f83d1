"""What other signers could have been asked to pay under bundles that are no longer in force here. Pure.

Each journal knows its own signatures only. Two signers that may pay one order at the same time are kept apart by the
bundle (`policies.bundle.checks`); two that may pay it one after the other, because a bundle moved what belongs to
whom, are kept apart by time: whoever follows pays no order that the one before could have been asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from policies.bundle import Bundle, WalletEntry
from policies.intent import Order


@dataclass(frozen=True, slots=True)
class Band:
    """Payments that one tier could make of an asset."""

    tier: str
    asset: str
    lowest: int
    below: int
    keysets: frozenset[str]
    """Ids of its key-sets on the asset's chain."""
    vaults: frozenset[str]
    """Ids of its vaults there. What others have signed for a vault is in no member's journal."""

    def covers(self, order: Order) -> bool:
        """Whether it could have paid this."""
        return self.asset == order.asset and self.lowest <= order.units < self.below

    def known_to(self, held: Collection[str]) -> bool:
        """Whether the journal of who holds these wallets knows all that it has signed."""
        return not self.vaults and self.keysets <= set(held)


@dataclass(frozen=True, slots=True)
class Past:
    """A bundle that this signer has adopted, as far as it matters later."""

    since: int
    """When it was adopted, UNIX seconds."""
    until: int | None
    """When the next one was; None: it is in force."""
    longest: int
    """Its `longest_order_seconds`, as the quorum signed it."""
    active: frozenset[str]
    """Key-sets and vaults that were active."""
    bands: tuple[Band, ...]

    def orders_end(self, at: int) -> int:
        """By when every order ends that it let signers take until `at`."""
        return self.longest + (at if self.until is None else min(at, self.until))


def past_of(bundle: Bundle, *, since: int, until: int | None) -> Past:
    """What of a bundle matters later."""
    wallets: tuple[WalletEntry, ...] = (*bundle.keysets, *bundle.vaults)
    chains = {asset.id: asset.chain for asset in bundle.assets}
    bands = (
        Band(
            cap.tier,
            cap.asset,
            int(cap.payment_from),
            int(cap.payment_below),
            _ids(bundle.keysets, chains[cap.asset], cap.tier),
            _ids(bundle.vaults, chains[cap.asset], cap.tier),
        )
        for cap in bundle.caps
    )
    return Past(
        since,
        until,
        bundle.longest_signed_order_seconds,
        frozenset(w.id for w in wallets if w.state == "active"),
        tuple(band for band in bands if band.keysets or band.vaults),
    )


def _ids(wallets: Iterable[WalletEntry], chain: str, tier: str) -> frozenset[str]:
    return frozenset(wallet.id for wallet in wallets if (wallet.chain, wallet.tier) == (chain, tier))


def active_since(history: Iterable[Past], wallet: str) -> int | None:
    """When the bundle was adopted in which a wallet last became active; None if it never was.

    Args:
        history: oldest first.
        wallet: id of a key-set or vault.
    """
    found, before = None, False
    for past in history:
        active = wallet in past.active
        if active and not before:
            found = past.since
        before = active
    return found


def orders_end(history: Iterable[Past], at: int) -> int:
    """By when every order ends that any signer could have been asked for until `at`, as far as bundles here tell."""
    return max((past.orders_end(at) for past in history if past.since <= at), default=at)


def payable_elsewhere(order: Order, tier: str, held: Collection[str], history: Iterable[Past]) -> int | None:
    """Until when (the order's end) a signer of another tier could have been asked for an order that is this tier's now.

    Args:
        order: to be paid.
        tier: that is to pay it.
        held: wallets whose signatures this signer's own journal knows.
        history: of this signer.

    Returns:
        When the last bundle ended that let another tier pay it; None if none did for an order that is still good.
    """
    ends = [
        past.until
        for past in history
        if past.until is not None
        and order.expires_at <= past.until + past.longest
        and any(band.tier != tier and band.covers(order) and not band.known_to(held) for band in past.bands)
    ]
    return max(ends, default=None)
