"""What officers hand to a signer directly (DESIGN section 1).

Bundles, vetoes of them, freezes, lower numbers, and their word on the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, get_args

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, SignedBundle, Tier
from policies.canonical import BadSignature, Document, verify_ed25519
from policies.statements import SignedClockConfirmation, SignedFreeze, SignedLowering, SignedVeto
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.ports import Reason, Refused, SignerStatus
from signers.trust.clock import ClockNote, SteadyClock
from signers.trust.trust import PinnedBundle, recording_time

MAX_CONFIRMATION_SECONDS: Final = 300
"""How far an officer's time may be from the signer's clock, in both directions."""
MAX_FREEZE_AHEAD: Final = 1_000
"""How many versions above the present bundle a freeze may name: one officer never stops a signer for ever."""


class JournalDesk:
    """Implements `ports.OfficersDesk`. Methods may be called from many threads at once.

    An officer counts whose key is in the bundle and in the pinned root, until the end date that the bundle gives. All
    of it works while the clock is suspended and after the bundle has expired.

    Args:
        trust: the bundle and the pinned root.
        journal: remembers what was handed over.
        clock: of the signer.
        status: what is answered.
    """

    def __init__(
        self,
        trust: PinnedBundle,
        journal: Journal,
        clock: SteadyClock,
        status: Callable[[], SignerStatus],
    ) -> None:
        self._trust, self._journal, self._clock, self._status = trust, journal, clock, status

    def deliver(self, bundle: SignedBundle) -> SignerStatus:
        """Take a bundle: it comes into force, or waits as the present one says. The same again changes nothing.

        Raises:
            Refused: no quorum, older than the present one or another of its version, vetoed, expired, inconsistent, or
                another one waits whose version is as high.
        """
        try:
            self._trust.adopt(bundle.encode())
        except PermanentError as error:
            raise _refused("bundle-refused", str(error)) from None
        return self._status()

    def freeze(self, freeze: SignedFreeze) -> SignerStatus:
        """Sign nothing in a scope until a bundle above the freeze's version is adopted; again changes nothing.

        Raises:
            Refused: not an officer's, of a scope that the bundle does not have, or of an older bundle.
        """
        told = freeze.freeze
        self._check_officer(told.officer, told, freeze.signature, now=self._trusted())
        if not told.scope.startswith("customer:") and told.scope not in _scopes(self._trust.present):
            raise _refused("freeze-scope", f"the bundle has no {told.scope}")

        def record(book: Book) -> None:
            present = book.bundle[0]
            if not present <= told.bundle_version <= present + MAX_FREEZE_AHEAD:
                raise _refused(
                    "freeze-version",
                    f"a freeze of version {told.bundle_version}: this signer has bundle {present}; name that one, "
                    f"or at most {MAX_FREEZE_AHEAD} above it",
                )
            same = (told.officer, told.scope, told.bundle_version)
            if same not in {(f.officer, f.scope, f.bundle_version) for f in book.freezes()}:
                book.officers.check_room(told.officer, "freezes")
                book.record_freeze(freeze, now=recording_time(self._clock, book))

        self._journal.write(record)
        return self._status()

    def veto(self, veto: SignedVeto) -> SignerStatus:
        """Never let a bundle come into force, whether it waits here already or not; again changes nothing.

        Raises:
            Refused: not an officer's, or the bundle was adopted already.
        """
        self._check_officer(veto.veto.officer, veto.veto, veto.signature, now=self._trusted())
        try:
            self._trust.veto(veto)
        except InvalidValue as error:
            raise _refused("veto-late", str(error)) from None
        return self._status()

    def lower(self, lowering: SignedLowering) -> SignerStatus:
        """Go by a lower number until a higher bundle is adopted; again changes nothing.

        Raises:
            Refused: not an officer's, for another bundle, of nothing that may be lowered, or not lower.
        """
        told = lowering.lowering
        self._check_officer(told.officer, told, lowering.signature, now=self._trusted())
        try:
            self._trust.lower(lowering)
        except InvalidValue as error:
            raise _refused("lowering-refused", str(error)) from None
        return self._status()

    def confirm_clock(self, confirmation: SignedClockConfirmation) -> SignerStatus:
        """Take an officer's word that the clock is right, once.

        Raises:
            Refused: not an officer's, for another signer, of another time than the clock's, used before, or the clock
                is behind the journal.
        """
        told = confirmation.confirmation
        self._check_officer(told.officer, told, confirmation.signature, now=self._clock.glance())
        if told.journal != self._journal.id:
            raise _refused(
                "clock-journal", f"for journal {told.journal}; this signer's is {self._journal.id}"
            )

        def record(book: Book) -> ClockNote:
            wall = self._clock.wall()
            if abs(wall - told.at) > MAX_CONFIRMATION_SECONDS:
                raise _refused("clock-time", f"the officer says {told.at}, this signer's clock {wall}")
            if book.was_confirmed(told):
                raise _refused("clock-used", "this confirmation was used before")
            if wall < book.latest:
                raise _refused("clock-behind", f"the clock says {wall}, but the journal is at {book.latest}")
            note = self._clock.vouched()
            book.record_confirmation(confirmation, now=wall)
            book.record_time(note, now=wall)
            return note

        self._trust.confirmed(record)
        return self._status()

    def _trusted(self) -> int:
        """By which time grants end for those who stop something: who sets the clock forward must not silence them."""
        return self._journal.write(lambda book: recording_time(self._clock, book))

    def _check_officer(self, name: str, document: Document, signature: str, *, now: int) -> None:
        bundle = self._trust.present
        try:
            officer = bundle.officer(name)
        except InvalidValue as error:
            raise _refused("officer-unknown", str(error)) from None
        if self._trust.root.keys.get(name) != officer.key:
            raise _refused("officer-unknown", f"the key of {name} is not in the pinned root")
        if now >= officer.not_after:
            raise _refused("officer-expired", f"officer {name} ended at {officer.not_after}; now is {now}")
        try:
            verify_ed25519(officer.key, document.digest(), signature)
        except BadSignature as error:
            raise _refused("officer-signature", f"{document.domain} of {name}: {error}") from None


def _scopes(bundle: Bundle) -> set[str]:
    """What can be frozen."""
    return {
        "all",
        *(f"tier:{tier}" for tier in get_args(Tier)),
        *(f"chain:{network.chain}" for network in bundle.networks),
        *(f"wallet:{wallet.id}" for wallet in bundle.wallets),
        *(f"asset:{asset.id}" for asset in bundle.assets),
    }


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))
