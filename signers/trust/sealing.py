"""Heads of the ledger: what a signer has signed it remembers, and signs nothing that does not continue it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.ports import LedgerHead, Reason, Refused, Sealed, SealRequest
from signers.trust.clock import SteadyClock
from signers.wallets import Wallet, attested

NO_HEAD: Final = "00" * 32
MAX_AHEAD_SECONDS: Final = 600
"""How far a head's time may be ahead of the signer's clock."""


class JournalSealing:
    """Implements `ports.Sealing`. Methods may be called from many threads at once.

    The signer knows nothing of the ledger's lines. It sees to it that history that was sealed once cannot be written
    anew and sealed again by whoever has the database and the online side.

    Args:
        wallets: by id; their attestation keys sign.
        journal: remembers what was signed.
        clock: of the signer.
    """

    def __init__(self, wallets: Mapping[str, Wallet[Any]], journal: Journal, clock: SteadyClock) -> None:
        self._wallets, self._journal, self._clock = dict(wallets), journal, clock

    def seal(self, request: SealRequest) -> Sealed:
        """Sign the last of the heads if they continue what was signed before; the same one again just the same.

        Raises:
            Refused: another head has its number or closes its day, it does not continue the last one, or it is of the
                future. Nothing was recorded.
            ClockUnsteady: the time is not known.
            TransientError: nothing was released; ask again.
        """
        wallet = self._wallets.get(request.keyset)
        if wallet is None:
            raise _refused("unknown-keyset", f"this signer has no key-set {request.keyset!r}")
        if not request.heads:
            number, digest, _ = self._journal.write(lambda book: book.sealed())
            return Sealed(number=number, digest=digest or NO_HEAD)
        _check_chain(request.heads)
        now = self._clock.now()

        def record(book: Book) -> None:
            number, digest, day = book.sealed()
            for head in _since(request.heads, number, digest):
                if head.day is not None and head.day <= day:
                    raise _refused(
                        "day-closed", f"head {head.number} closes {head.day}, as one before it did"
                    )
                if head.at > max(now, book.latest) + MAX_AHEAD_SECONDS:
                    raise _refused(
                        "head-of-the-future", f"head {head.number} is of {head.at}, and it is {now}"
                    )
                book.record_seal(head, now=max(now, book.latest))
                day = head.day or day

        self._journal.write(record)
        last = request.heads[-1]
        return Sealed(number=last.number, digest=last.digest_hex(), signature=attested(wallet.keys, last))


def _check_chain(heads: Sequence[LedgerHead]) -> None:
    """Raises Refused unless each head continues the one before it."""
    for before, head in pairwise(heads):
        if (head.number, head.previous) != (before.number + 1, before.digest_hex()):
            raise _refused("head-does-not-continue", f"head {head.number} does not continue {before.number}")
        if head.at < before.at or head.lines < before.lines:
            raise _refused("head-does-not-continue", f"head {head.number} goes back behind {before.number}")


def _since(heads: Sequence[LedgerHead], number: int, digest: str) -> Sequence[LedgerHead]:
    """Those of the heads that are new to a signer whose last one was `number`. Raises Refused."""
    first = heads[0].number
    if heads[-1].number < number:
        raise _refused("head-behind", f"head {heads[-1].number} is asked for, and {number} was signed before")
    if number == 0:
        return heads
    if first > number + 1:
        raise _refused("head-does-not-continue", f"head {first} is asked for, and {number} was signed last")
    leads = heads[0].previous if first == number + 1 else heads[number - first].digest_hex()
    if leads != digest:
        raise _refused(
            "head-does-not-continue", f"another head {number} was signed before: {digest}, and not {leads}"
        )
    return heads[number - first + 1 :]


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))
