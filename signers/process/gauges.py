"""How a signer stands at this moment, for its metrics: bundle, clock, freezes, journal, exposures beside their caps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policies.bundle import Bundle
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.journal.windows import trusted, windows
from signers.process.metrics import Family, Labels, gauge
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle


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
            *journal.write(lambda book: _of(book, bundle, trusted(clock))),
        ]

    return read


def _of(book: Book, bundle: Bundle, now: int) -> list[Family]:
    every = {wallet.id for wallet in bundle.wallets}
    used = {
        (("kind", use.kind), ("scope", use.scope), ("unit", use.unit)): use
        for use in windows(book, bundle, every, now)
    }
    waiting = {(("chain", each.chain), ("keyset", each.keyset)): each for each in book.unresolved()}
    frozen: dict[Labels, int | str] = {(("scope", freeze.scope),): 1 for freeze in book.freezes()}
    return [
        gauge("journal_transactions", "Transactions signed since the journal began.", book.signed),
        gauge(
            "journal_open",
            "Transactions whose fate nobody has proven.",
            sum(each.count for each in waiting.values()),
        ),
        gauge(
            "journal_open_oldest_seconds",
            "When the oldest of them was signed, UNIX time; 0: there is none.",
            {labels: each.oldest_at or 0 for labels, each in waiting.items()},
        ),
        gauge(
            "journal_resolved_seconds",
            "When a verifier last told something new, UNIX time; 0: never.",
            {labels: each.resolved_at or 0 for labels, each in waiting.items()},
        ),
        gauge("journal_latest_seconds", "Latest time in the journal, UNIX time.", book.latest),
        gauge("log_entries", "Entries of the journal's log.", book.logged[0]),
        gauge("frozen", "1 for each scope under a freeze.", frozen),
        gauge(
            "exposure_units",
            "What was signed and still counts, in base units of its unit.",
            {labels: use.units for labels, use in used.items()},
        ),
        gauge(
            "exposure_cap_units",
            "The most that it may be.",
            {labels: use.cap for labels, use in used.items()},
        ),
    ]
