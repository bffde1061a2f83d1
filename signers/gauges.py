"""How a signer stands at this moment, for its metrics: bundle, clock, freezes, journal, exposures beside their caps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policies.bundle import Bundle
from signers.book import Book
from signers.clock import SteadyClock
from signers.errors import ClockUnsteady
from signers.examined import Exposure
from signers.journal import Journal
from signers.metrics import Family, Labels, gauge
from signers.trust import PinnedBundle


def standing(trust: PinnedBundle, journal: Journal, clock: SteadyClock) -> Callable[[], Iterable[Family]]:
    """What reads them, each time it is called."""

    def read() -> Iterable[Family]:
        bundle, waiting = trust.present, journal.waiting
        return [
            gauge("bundle_version", "Version of the bundle in force.", bundle.version),
            gauge("bundle_expires_seconds", "When it expires, UNIX time.", bundle.expires_at),
            gauge("clock_suspended", "1 while the clock suspends signing.", int(clock.trouble != "")),
            gauge("clock_seconds", "The signer's own time, UNIX time.", clock.glance()),
            gauge("journal_waiting", "Pieces of work that the journal has not begun.", waiting),
            *journal.write(lambda book: _of(book, bundle, max(_trusted(clock), book.latest))),
        ]

    return read


def _trusted(clock: SteadyClock) -> int:
    """UNIX seconds; 0 while signing is suspended: what a wrong time lets out of a counter would never come back."""
    try:
        return clock.now()
    except ClockUnsteady:
        return 0


def _of(book: Book, bundle: Bundle, now: int) -> list[Family]:
    exposures, caps = _exposures(book, bundle, now)
    frozen: dict[Labels, int | str] = {(("scope", freeze.scope),): 1 for freeze in book.freezes()}
    return [
        gauge("journal_transactions", "Transactions signed since the journal began.", book.signed),
        gauge("journal_open", "Transactions whose fate nobody has proven.", book.open_count()),
        gauge("journal_latest_seconds", "Latest time in the journal, UNIX time.", book.latest),
        gauge("log_entries", "Entries of the journal's log.", book.logged[0]),
        gauge("frozen", "1 for each scope under a freeze.", frozen),
        gauge("exposure_units", "What was signed and still counts, in base units of its unit.", exposures),
        gauge("exposure_cap_units", "The most that it may be.", caps),
    ]


def _exposures(
    book: Book, bundle: Bundle, now: int
) -> tuple[dict[Labels, int | str], dict[Labels, int | str]]:
    """What counts in each window of the bundle, and the window's cap, by the same labels."""
    found: dict[Labels, int | str] = {}
    caps: dict[Labels, int | str] = {}

    def put(kind: Exposure, scope: str, seconds: int, cap: str, unit: str) -> None:
        labels = (("kind", kind.value), ("scope", scope), ("unit", unit))
        found[labels] = book.window(kind, scope, seconds).total(now)
        caps[labels] = cap

    for cap in bundle.caps:
        put(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", cap.window_seconds, cap.window_cap, cap.asset)
    for network in bundle.networks:
        for kind in (Exposure.CHAIN_FEES, Exposure.ROTATION_FEES):
            put(
                kind,
                network.chain,
                network.fee_window_seconds,
                network.fee_window_cap,
                network.native_asset,
            )
    for breaker in bundle.breakers:
        put(Exposure.VALUE, breaker.id, breaker.window_seconds, breaker.value_cap, bundle.unit)
    return found, caps
