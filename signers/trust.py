"""The bundle a signer believes: signed by the pinned quorum, and never an older one than before.

The quorum's keys are in `pinned.json`, written by set-up. Every bundle adopted is in the journal, so that the
high-water mark protects it too, and a start needs nothing else. A file is only a mailbox in which a new one may lie.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, SignedBundle, TrustRoot, UntrustedBundle, read_bundle
from policies.canonical import decoder_for
from signers.book import Book
from signers.clock import ClockNote, SteadyClock
from signers.errors import BadConfiguration, ClockUnsteady
from signers.files import write_new
from signers.journal import Journal

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
        kept = journal.write(lambda book: book.signed_bundle())
        if kept is not None:
            # Even if it has expired by now: a signer that doesn't start can't be handed a new one.
            self._present = read_bundle(kept, self.root, now=_in_time(kept))
            return
        try:
            raw = self._read()
        except OSError as error:
            raise BadConfiguration(f"bundle {path}: {error.strerror}; set-up publishes it there") from None
        self._present = self._adopted(raw)

    @property
    def present(self) -> Bundle:
        """The bundle in force. Its expiry is checked by whoever uses it."""
        return self._present

    def refresh(self, report: Callable[[str], None]) -> None:
        """Adopt the file's bundle if the file changed and the version rose; else keep the present one.

        Args:
            report: told in a sentence why a changed file was not adopted. A missing file is no news.
        """
        try:
            if self._stamp() != self._seen:
                self.adopt(self._read())
        except FileNotFoundError:
            self._seen = None
        except (PermanentError, OSError) as error:
            report(f"the bundle in {self._path} is not adopted: {error}")

    def adopt(self, raw: bytes) -> None:
        """Take a bundle, whoever brings it. The present one again changes nothing.

        Args:
            raw: JSON of the `SignedBundle`.

        Raises:
            UntrustedBundle: no quorum, older than the present one or another of its version, not yet issued, expired.
            InvalidValue: malformed.
            JournalUnavailable: it could not be kept.
        """
        with self._lock:
            self._present = self._adopted(raw)

    def _stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> bytes:
        self._seen = self._stamp()
        return self._path.read_bytes()

    def _adopted(self, raw: bytes) -> Bundle:
        bundle = read_bundle(raw, self.root, now=self._clock.glance())
        confirmed = self._journal.write(lambda book: self._record(book, bundle, raw))
        if confirmed is not None:
            self._clock.confirm(confirmed)
        return bundle

    def _record(self, book: Book, bundle: Bundle, raw: bytes) -> ClockNote | None:
        """Work for the journal's writer: record a higher bundle; the note of the time if that confirms it."""
        version, digest = book.bundle
        if bundle.version < version:
            raise UntrustedBundle(
                f"version {bundle.version} is older than {version}, which was adopted before"
            )
        if bundle.version == version:
            if bundle.digest_hex() != digest:
                raise UntrustedBundle(f"another bundle of version {version} was adopted before")
            return None
        note, wall = None, self._clock.wall()
        if bundle.issued_at > wall - FRESH_SECONDS and wall >= book.latest:
            note = self._clock.vouched()
            book.record_time(note, now=wall)
        book.record_bundle(bundle.version, bundle.digest_hex(), raw, now=recording_time(self._clock, book))
        return note


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
