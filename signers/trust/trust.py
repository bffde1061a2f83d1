"""The bundle a signer believes: signed by the pinned quorum, and never an older one than before.

The quorum's keys are in `pinned.json`, written by set-up. Every bundle adopted is in the journal, so that the
high-water mark protects it too, and a start needs nothing else. A file is only a mailbox in which a new one may lie.

A new bundle waits, also in the journal, for as long as the present one says (`policies.bundle.waiting`), and any
officer can veto it meanwhile. It waits by the journal's time, which stands still while the clock is in doubt; and
whenever the clock was set right, it waits anew from there: no clock, whoever sets it, shortens what officers have.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import (
    Bundle,
    ReadBundle,
    SignedBundle,
    TrustRoot,
    UntrustedBundle,
    read_bundle,
    read_signed,
)
from policies.bundle.waiting import acts_from
from policies.canonical import decoder_for
from policies.overlays import check_lowering, lowered
from policies.statements import SignedLowering, SignedVeto
from signers.errors import BadConfiguration, ClockUnsteady
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.ports import WaitingBundle
from signers.process.files import write_new
from signers.trust.clock import ClockNote, SteadyClock
from signers.trust.officers import Waiting

FRESH_SECONDS: Final = 3600
"""A bundle confirms the time if the quorum has issued it so recently by this clock: an old one says nothing of now."""


class PinnedBundle:
    """The bundle in force: the journal's, until a higher one is delivered or lies in the file.

    Args:
        path: where JSON of a signed bundle may lie; needed for the first start only.
        root_path: JSON of the `TrustRoot`.
        journal: remembers what was adopted.
        clock: judges the expiry.

    Raises:
        BadConfiguration: `pinned.json` is missing or malformed, or there is no bundle at all.
        UntrustedBundle: the only bundle lacks its quorum or has expired.
        InvalidValue: it is malformed.
    """

    def __init__(self, path: Path, root_path: Path, journal: Journal, clock: SteadyClock) -> None:
        self._path, self._journal, self._clock = path, journal, clock
        self._lock = threading.Lock()
        try:
            self.root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
        except (OSError, msgspec.MsgspecError) as error:
            raise BadConfiguration(f"{root_path}: {error}; set-up writes the quorum's keys there") from None
        self._seen: tuple[int, int, int] | None = None
        self._next: Waiting | None = None
        self._waiting: WaitingBundle | None = None
        self._hopeless: Waiting | None = None
        kept = journal.write(lambda book: book.signed_bundle())
        if kept is not None:
            # Even if it has expired by now: a signer that doesn't start can't be handed a new one.
            self._signed = read_bundle(kept, self.root, now=_in_time(kept))
            self._look()
            return
        try:
            raw = self._read()
        except OSError as error:
            raise BadConfiguration(f"bundle {path}: {error.strerror}; set-up publishes it there") from None
        self._take(raw)

    @property
    def present(self) -> Bundle:
        """The bundle in force, with all that officers have lowered. Its expiry is checked by whoever uses it."""
        return self._present

    @property
    def waiting(self) -> WaitingBundle | None:
        """The bundle that is to follow, and when; None if there is none."""
        return self._waiting

    def refresh(self, report: Callable[[str], None]) -> None:
        """Adopt the bundle that has waited long enough, and take the file's if the file changed and its version rose.

        Args:
            report: told in a sentence why one of them was not adopted. A missing file is no news.
        """
        self._promote(report)
        try:
            if self._stamp() != self._seen:
                self.adopt(self._read())
        except FileNotFoundError:
            self._seen = None
        except (PermanentError, OSError) as error:
            report(f"the bundle in {self._path} is not adopted: {error}")

    def adopt(self, raw: bytes) -> None:
        """Take a bundle, whoever brings it: it comes into force, or waits. The same again changes nothing.

        Args:
            raw: JSON of the `SignedBundle`.

        Raises:
            UntrustedBundle: no quorum, older than the present one or another of its version, vetoed, not yet issued,
                expired, or of no higher version than another one that waits.
            InvalidValue: malformed.
            JournalUnavailable: it could not be kept.
        """
        with self._lock:
            self._take(raw)

    def veto(self, signed: SignedVeto) -> None:
        """Keep an officer's veto, whose signature was checked: its bundle never comes into force here. Again changes
        nothing.

        Raises:
            InvalidValue: the bundle was adopted already.
            Refused: the officer has left too many.
        """
        veto = signed.veto

        def record(book: Book) -> None:
            if book.officers.adopted(veto.bundle):
                raise InvalidValue(
                    f"bundle {veto.bundle} is in force, or was: freeze what it endangers, then have the quorum sign "
                    "another one"
                )
            if not book.officers.has_vetoed(veto):
                book.officers.check_room(veto.officer, "vetoes")
                book.record_veto(signed, now=recording_time(self._clock, book))

        self._keep(record)

    def lower(self, signed: SignedLowering) -> None:
        """Lower a number of the bundle in force, at once; the signature was checked. Again changes nothing.

        Raises:
            InvalidValue: of another bundle, of nothing that may be lowered, or not lower.
            Refused: the officer has left too many.
        """
        lowering = signed.lowering

        def record(book: Book) -> None:
            if lowering.digest_hex() in book.officers.lowered:
                return
            check_lowering(lowered(self._signed, book.officers.lowerings), lowering)
            book.officers.check_room(lowering.officer, "lowerings")
            book.record_lowering(signed, now=recording_time(self._clock, book))

        self._keep(record)

    def confirmed(self, record: Callable[[Book], ClockNote]) -> None:
        """Have the clock believed again; a bundle that waits begins to wait anew.

        Args:
            record: work for the journal's writer, which records the confirmation.
        """

        def confirm(book: Book) -> ClockNote:
            note = record(book)
            _wait_anew(book)
            return note

        with self._lock:
            self._clock.confirm(self._journal.write(confirm))
            self._look()

    def _keep(self, record: Callable[[Book], None]) -> None:
        with self._lock:
            self._journal.write(record)
            self._look()

    def _look(self) -> None:
        """Go by what the journal says now."""
        lowerings, waiting = self._journal.write(
            lambda book: (book.officers.lowerings, book.officers.waiting)
        )
        self._present = lowered(self._signed, lowerings)
        self._next = waiting
        self._waiting = None if waiting is None else self._told(waiting)

    def _told(self, waiting: Waiting) -> WaitingBundle:
        bundle = decoder_for(SignedBundle).decode(waiting.signed).bundle
        due = acts_from(ReadBundle(bundle, by_all=False), self._signed, first_seen=waiting.since)
        return WaitingBundle(
            version=waiting.version, digest=waiting.digest, since=waiting.since, acts_from=due
        )

    def _promote(self, report: Callable[[str], None]) -> None:
        """Adopt what has waited long enough."""
        with self._lock:
            told, kept = self._waiting, self._next
            if told is None or kept is None or kept == self._hopeless:
                return
            if self._clock.glance() < told.acts_from or self._clock.trouble:
                return
            try:
                self._take(kept.signed)
            except PermanentError as error:
                # Said once: it won't become better, and the next bundle takes its place.
                self._hopeless = kept
                report(f"bundle {kept.version}, which has waited, is not adopted: {error}")

    def _stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> bytes:
        self._seen = self._stamp()
        return self._path.read_bytes()

    def _take(self, raw: bytes) -> None:
        read = read_signed(raw, self.root, now=self._clock.glance())
        confirmed, adopted = self._journal.write(lambda book: self._record(book, read, raw))
        if adopted:
            self._signed = read.bundle
        if confirmed is not None:
            self._clock.confirm(confirmed)
        self._look()

    def _record(self, book: Book, read: ReadBundle, raw: bytes) -> tuple[ClockNote | None, bool]:
        """Work for the journal's writer: record a higher bundle, or that it waits.

        Returns:
            The note of the time if the bundle confirms it, and whether it is in force.
        """
        bundle, digest = read.bundle, read.bundle.digest_hex()
        version, present = book.bundle
        if bundle.version < version:
            raise UntrustedBundle(
                f"version {bundle.version} is older than {version}, which was adopted before"
            )
        if bundle.version == version:
            if digest != present:
                raise UntrustedBundle(f"another bundle of version {version} was adopted before")
            return None, False
        veto = book.officers.vetoed(digest)
        if veto is not None:
            raise UntrustedBundle(f"{veto.officer} has vetoed it: {veto.reason}")
        before = book.officers.waiting
        again = before is not None and before.digest == digest
        note = None if again else self._vouched(bundle, book)
        now = recording_time(self._clock, book)
        if note is not None:
            now = max(now, self._clock.wall())
        due = (
            acts_from(read, self._signed, first_seen=before.since if before and again else now)
            if version
            else 0
        )
        if due > now:
            _check_may_wait(bundle, due, None if again else before)
            if not again:
                self._note_time(book, note)
                book.record_waiting(Waiting(bundle.version, digest, raw, now), now=now)
            return note, False
        if not version and bundle.in_force_from > now:
            raise UntrustedBundle(
                f"it is not in force before {bundle.in_force_from}: a new signer begins with one that is"
            )
        self._note_time(book, note)
        book.record_bundle(bundle.version, digest, raw, now=now)
        if note is not None:
            _wait_anew(book)
        return note, True

    def _vouched(self, bundle: Bundle, book: Book) -> ClockNote | None:
        """What the clock is told if the quorum has just issued this by it; None if that says nothing of now."""
        wall = self._clock.wall()
        fresh = bundle.issued_at > wall - FRESH_SECONDS and wall >= book.latest
        return self._clock.vouched() if fresh else None

    def _note_time(self, book: Book, note: ClockNote | None) -> None:
        if note is not None:
            book.record_time(note, now=self._clock.wall())


def _check_may_wait(bundle: Bundle, due: int, before: Waiting | None) -> None:
    """Raises UntrustedBundle if it would expire before it acts, or another one waits that it can't replace."""
    if before is not None and bundle.version <= before.version:
        raise UntrustedBundle(f"version {before.version} waits already: another one needs a higher version")
    if bundle.expires_at <= due:
        raise UntrustedBundle(f"it would expire at {bundle.expires_at}, before it is in force at {due}")


def _wait_anew(book: Book) -> None:
    """The clock was set: time that nobody had must not count as time to veto."""
    waiting = book.officers.waiting
    if waiting is not None and book.latest > waiting.since:
        book.record_waiting(replace(waiting, since=book.latest), now=book.latest)


def _in_time(raw: bytes) -> int:
    """A time at which a bundle was valid."""
    try:
        bundle = decoder_for(SignedBundle).decode(raw).bundle
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"the bundle in the journal: {error}") from None
    return min(bundle.issued_at, bundle.expires_at - 1)


def recording_time(clock: SteadyClock, book: Book) -> int:
    """When what officers hand over is recorded: the journal's time stands still while the clock is in doubt."""
    try:
        return max(clock.now(), book.latest)
    except ClockUnsteady:
        return book.latest


def pin(root: TrustRoot, path: Path) -> None:
    """Write the trust root for a new signer. Raises FileExistsError, InvalidValue (no such quorum is possible)."""
    if root.threshold > len({root.organisations.get(name, name) for name in root.keys}):
        raise InvalidValue(f"{root.threshold} organisations must sign, but the root lists fewer")
    write_new(path, msgspec.json.encode(root))
