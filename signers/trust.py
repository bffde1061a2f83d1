"""The bundle a signer believes: signed by the pinned quorum, and never an older one than before.

The quorum's keys are in `pinned.json`, written by set-up. The highest version ever adopted and its digest are
in the journal, so that the high-water mark protects them too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, TrustRoot, UntrustedBundle, read_bundle
from signers.book import Book
from signers.clock import SteadyClock
from signers.errors import BadConfiguration
from signers.files import write_new
from signers.journal import Journal


class PinnedBundle:
    """The present bundle, re-read when its file changes.

    Args:
        path: JSON of the signed bundle.
        root_path: JSON of the `TrustRoot`.
        journal: remembers what was adopted.
        clock: judges the expiry.

    Raises:
        BadConfiguration: `pinned.json` is missing or malformed.
        UntrustedBundle: the bundle lacks its quorum, has expired, or is older than the one adopted before.
        InvalidValue: the bundle is malformed.
    """

    def __init__(self, path: Path, root_path: Path, journal: Journal, clock: SteadyClock) -> None:
        self._path, self._journal, self._clock = path, journal, clock
        self._lock = threading.Lock()
        try:
            self._root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
        except (OSError, msgspec.MsgspecError) as error:
            raise BadConfiguration(f"{root_path}: {error}; set-up writes the quorum's keys there") from None
        self._seen: tuple[int, int, int] | None = None
        self._present = self._read()

    @property
    def present(self) -> Bundle:
        """The bundle in force. Its expiry is checked by whoever uses it."""
        return self._present

    def refresh(self, report: Callable[[str], None]) -> None:
        """Adopt the file's bundle if the file changed and the version rose; else keep the present one.

        Args:
            report: told in a sentence why a changed file was not adopted.
        """
        with self._lock:
            try:
                if self._stamp() != self._seen:
                    self._present = self._read()
            except (PermanentError, OSError) as error:
                report(f"the bundle in {self._path} is not adopted: {error}")

    def _stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> Bundle:
        try:
            self._seen = self._stamp()
            raw = self._path.read_bytes()
        except OSError as error:
            raise BadConfiguration(
                f"bundle {self._path}: {error.strerror}; set-up publishes it there"
            ) from None
        now = self._clock.glance()
        bundle = read_bundle(raw, self._root, now=now)
        digest = bundle.digest_hex()

        def adopt(book: Book) -> bool:
            version, adopted = book.bundle
            if bundle.version < version:
                raise UntrustedBundle(
                    f"version {bundle.version} is older than {version}, which was adopted before"
                )
            if bundle.version == version:
                if digest != adopted:
                    raise UntrustedBundle(f"another bundle of version {version} was adopted before")
                return False
            book.record_bundle(bundle.version, digest, raw, now=max(now, book.latest))
            return True

        if self._journal.write(adopt):
            self._clock.confirm()
        return bundle


def pin(root: TrustRoot, path: Path) -> None:
    """Write the trust root for a new signer. Raises FileExistsError, InvalidValue (no such quorum is possible)."""
    if root.threshold > len({root.organisations.get(name, name) for name in root.keys}):
        raise InvalidValue(f"{root.threshold} organisations must sign, but the root lists fewer")
    write_new(path, msgspec.json.encode(root))
