"""What a verifier asks a signer and tells it: what is open, what became of it, and the signer's own log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chains.errors import InvalidValue
from policies.bundle import Bundle
from policies.canonical import BadSignature, verify_ed25519
from policies.statements import SignedResolution
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.keys.keyset import BitcoinCosignerRecord, SafeOwnerRecord
from signers.ports import (
    LogEntry,
    LogHead,
    LogPage,
    LogRequest,
    OpenPage,
    OpenRequest,
    Reason,
    Refused,
    Resolved,
    ResolveRequest,
)
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle
from signers.wallets import Wallet, attested

MOST_OPEN: Final = 1_000
"""Transactions on a page."""
MOST_ENTRIES: Final = 500
"""Entries of the log on a page."""


class JournalWitness:
    """Implements `ports.Witness`. Methods may be called from many threads at once.

    Args:
        wallets: by id; the attestation key of the first key-set or gas payer signs the log's head, as the bundle knows
            it. Of a signer that has only parts of vaults it is the first part's, which the bundle does not know.
        trust: names the verifiers.
        journal: what was signed.
        clock: of the signer.
    """

    def __init__(
        self, wallets: Mapping[str, Wallet[Any]], trust: PinnedBundle, journal: Journal, clock: SteadyClock
    ) -> None:
        self._trust, self._journal, self._clock = trust, journal, clock
        self._first = min(wallets, key=lambda name: (_is_part(wallets[name]), name))
        self._keys = wallets[self._first].keys

    def open(self, request: OpenRequest) -> OpenPage:
        """Transactions that were signed and of which nobody has said what became."""
        found = self._journal.write(lambda book: book.open_transactions(request.after, MOST_OPEN))
        return OpenPage(transactions=tuple(found))

    def resolve(self, request: ResolveRequest) -> Resolved:
        """Take a verifier's words. A confirmed transaction stays so; of one that was never signed here nothing is kept.

        Raises:
            Refused: one of them is not a verifier's of the bundle, in time; none was taken.
            ClockUnsteady: when they arrived can't be told, and what was confirmed counts from then on.
        """
        bundle, now = self._trust.present, self._clock.now()
        for signed in request.resolutions:
            _check_verifier(signed, bundle, now=now)

        def record(book: Book) -> int:
            accepted = 0
            for signed in request.resolutions:
                told = signed.resolution
                if told.resource not in book.resources(told.chain, told.content):
                    continue  # of the same bytes, signed by another signer's key
                known = book.outcome(told.chain, told.content)
                if known == "open" or (known == "dead" and told.outcome == "confirmed"):
                    book.record_resolution(signed, now=max(now, book.latest))
                    accepted += 1
            return accepted

        return Resolved(accepted=self._journal.write(record))

    def log(self, request: LogRequest) -> LogPage:
        """Entries of the log after a number, and the signed head after the last of them.

        Where there are none after it, the head is the log's last; a reader that has come further before knows then that
        this signer has forgotten something.

        Raises:
            WrongSignature: the token returned one; nothing was released.
            TokenLost: the token does not answer.
            TokenRefused: the token has no such key any more.
        """
        entries, (number, head) = self._journal.write(lambda book: _page(book, request.after))
        told = LogHead(v=1, journal=self._journal.id, keyset=self._first, number=number, head=head)
        return LogPage(entries=entries, head=told, signature=attested(self._keys, told))


def _is_part(wallet: Wallet[Any]) -> bool:
    """Whether it is one member's part of a vault."""
    return isinstance(wallet.keys.record, BitcoinCosignerRecord | SafeOwnerRecord)


def _page(book: Book, after: int) -> tuple[tuple[LogEntry, ...], tuple[int, str]]:
    entries = tuple(book.log_entries(after, MOST_ENTRIES))
    return entries, (entries[-1].number, entries[-1].head) if entries else book.logged


def _check_verifier(signed: SignedResolution, bundle: Bundle, *, now: int) -> None:
    told = signed.resolution
    try:
        verifier = bundle.verifier(told.verifier)
        if now >= verifier.not_after:
            raise _refused("verifier-expired", f"verifier {verifier.id} ended at {verifier.not_after}")
        verify_ed25519(verifier.key, told.digest(), signed.signature)
    except InvalidValue as error:
        raise _refused("verifier-unknown", str(error)) from None
    except BadSignature as error:
        raise _refused("resolution-signature", f"{told.content}: {error}") from None


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))
