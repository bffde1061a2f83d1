"""How full the bundle's windows are, for people: nothing is decided by it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from policies.bundle import Bundle
from signers.errors import ClockUnsteady
from signers.guard.examined import Exposure
from signers.journal.book import Book
from signers.ports import WindowUse
from signers.trust.clock import SteadyClock


def windows(book: Book, bundle: Bundle, held: Collection[str], now: int) -> tuple[WindowUse, ...]:
    """Every window in which signatures of these wallets count.

    Args:
        book: the journal.
        bundle: the one in force.
        held: ids of key-sets and vaults.
        now: UNIX seconds that may be trusted: what a wrong time lets out of a counter would never come back.
    """
    return tuple(_windows(book, bundle, held, max(now, book.latest)))


def trusted(clock: SteadyClock) -> int:
    """UNIX seconds; 0 while the clock suspends signing."""
    try:
        return clock.now()
    except ClockUnsteady:
        return 0


def _windows(book: Book, bundle: Bundle, held: Collection[str], now: int) -> Iterator[WindowUse]:
    wallets = [wallet for wallet in bundle.wallets if wallet.id in held]
    tiers, chains = {wallet.tier for wallet in wallets}, {wallet.chain for wallet in wallets}

    def total(kind: Exposure, scope: str, seconds: int) -> int:
        return book.window(kind, scope, seconds).total(now)

    for cap in bundle.caps:
        chain = bundle.asset(cap.asset).chain
        if cap.tier not in tiers or chain not in chains:
            continue
        seconds, scope = cap.window_seconds, f"{cap.tier}|{cap.asset}"
        units = total(Exposure.PAYMENTS, scope, seconds)
        if cap.asset == bundle.network(chain).native_asset:
            units += total(Exposure.TIER_FEES, f"{cap.tier}|{chain}", seconds)
        yield _use(Exposure.PAYMENTS, scope, cap.asset, units, cap.window_cap, seconds)
    for network in bundle.networks:
        if network.chain not in chains:
            continue
        seconds, unit = network.fee_window_seconds, network.native_asset
        for kind in (Exposure.CHAIN_FEES, Exposure.ROTATION_FEES):
            units = total(kind, network.chain, seconds)
            yield _use(kind, network.chain, unit, units, network.fee_window_cap, seconds)
    for breaker in bundle.breakers:
        if set(breaker.keysets) <= set(held):
            units = total(Exposure.VALUE, breaker.id, breaker.window_seconds)
            seconds = breaker.window_seconds
            yield _use(Exposure.VALUE, breaker.id, bundle.unit, units, breaker.value_cap, seconds)


def _use(kind: Exposure, scope: str, unit: str, units: int, cap: str, seconds: int) -> WindowUse:
    return WindowUse(kind=kind.value, scope=scope, unit=unit, units=str(units), cap=cap, seconds=seconds)
