"""The bundle in force here, with what officers have lowered, and what they have frozen.

The online side follows the same times as signers (`policies.bundle.waiting`): a new bundle in the file waits from when
the first of our processes saw it, and any officer can veto it meanwhile. What came into force is kept in the database,
so a process that starts while the file holds one that waits still knows the one before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue
from custody.errors import DatabaseUnavailable
from custody.officers import repository, service
from custody.ports import Clock
from custody.storage.db import Database, Tx
from policies.bundle import (
    Bundle,
    ReadBundle,
    TrustRoot,
    UntrustedBundle,
    read_bundle,
    read_signed,
)
from policies.bundle.waiting import acts_from
from policies.overlays import check_lowering, lowered
from policies.statements import Lowering, SignedFreeze, SignedLowering, SignedVeto

REFRESH_SECONDS: Final = 1.0
"""How old what a process knows of officers' words may be."""


@dataclass(frozen=True, slots=True)
class WaitingBundle:
    """A bundle of the quorum that is not in force yet."""

    bundle: Bundle
    acts_from: int
    """UNIX seconds."""


@dataclass(frozen=True, slots=True)
class _State:
    signed: Bundle
    """As the quorum signed it."""
    lowerings: tuple[Lowering, ...]
    bundle: Bundle
    """With them."""
    frozen: tuple[str, ...]
    waiting: WaitingBundle | None


class Standing:
    """What one process goes by. Methods may be called from many threads at once.

    Args:
        path: JSON of a `SignedBundle`; a mailbox, of which only what is newer is taken.
        root: the pinned quorum.
        clock: the present, UNIX seconds.
        database: as a role that may note bundles; it is asked at most once a second.
    """

    def __init__(self, path: Path, root: TrustRoot, clock: Clock, database: Callable[[], Database]) -> None:
        self._path, self._root, self._clock, self._database = path, root, clock, database
        self._lock = threading.Lock()
        self._looking: int | None = None
        self._state: _State | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -REFRESH_SECONDS

    def __call__(self) -> Bundle:
        """The bundle in force now, as officers have lowered it.

        Raises:
            UntrustedBundle: there is none, or it has expired and no newer one is there.
            InvalidValue: the only one there is malformed.
        """
        self._refresh()
        bundle = self._known().bundle
        if self._clock() >= bundle.expires_at:
            raise UntrustedBundle(
                f"bundle {bundle.version} expired at {bundle.expires_at}; have the quorum sign a new one"
            )
        return bundle

    def frozen(self) -> tuple[str, ...]:
        """Scopes that officers have frozen; what this process knows of them while it is looking."""
        if self._looking != threading.get_ident():
            with suppress(UntrustedBundle, InvalidValue):
                self._refresh()
        return () if self._state is None else self._state.frozen

    @property
    def waiting(self) -> WaitingBundle | None:
        """The bundle that is to follow, None if there is none."""
        return None if self._state is None else self._state.waiting

    def _known(self) -> _State:
        if self._state is None:
            raise UntrustedBundle(f"there is no bundle in {self._path}")
        return self._state

    def _refresh(self) -> None:
        """Look again if it is time. While another thread looks, what was known before is good enough."""
        if not self._lock.acquire(blocking=self._state is None):
            return
        try:
            self._looking = threading.get_ident()
            stamp = self._stat()
            recent = time.monotonic() - self._looked < REFRESH_SECONDS
            if self._state is None or not recent or stamp != self._stamp:
                self._look(stamp)
        finally:
            self._looking = None
            self._lock.release()

    def _look(self, stamp: tuple[int, int, int] | None) -> None:
        offered = None
        if stamp is not None and stamp != self._stamp:
            with suppress(OSError):  # it has gone since: looked for again
                offered = self._path.read_bytes()
        self._looked = time.monotonic()
        try:
            with self._database().transaction() as tx:
                self._state = self._read(tx, offered)
        except DatabaseUnavailable:
            # Without it nothing can be paid: what was in force is only shown.
            if self._state is None and offered is not None:
                signed = self._first(offered)
                self._state = _State(signed, (), signed, (), None)
            self._looked = time.monotonic()  # waiting for it took its time
            return
        self._stamp = stamp

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, tx: Tx, offered: bytes | None) -> _State:
        now = self._clock()
        present = self._present(tx)
        if present is None:
            if offered is None:
                raise UntrustedBundle(f"there is no bundle in {self._path}")
            present = self._first(offered)
            repository.note_bundle(tx, present, offered, seen_at=now)
            repository.note_adoption(tx, offered, adopted_at=now)
        elif offered is not None:
            read = self._believed(offered, now)
            if read is not None and read.bundle.version > present.version:
                repository.note_bundle(tx, read.bundle, offered, seen_at=now)
        present, waiting = self._next(tx, present, now)
        return self._stated(tx, present, waiting)

    def _present(self, tx: Tx) -> Bundle | None:
        """The highest that any process of ours has adopted."""
        known = None if self._state is None else self._state.signed
        for row in repository.adopted(tx, above=0 if known is None else known.version):
            found = service.in_its_time(row.document, self._root)
            if found is not None:
                return found
        return known

    def _first(self, offered: bytes) -> Bundle:
        """The bundle that is in force because there was none before. Raises UntrustedBundle, InvalidValue."""
        bundle = read_bundle(offered, self._root, now=self._clock())
        if bundle.in_force_from > self._clock():
            raise UntrustedBundle(f"bundle {bundle.version} is not in force before {bundle.in_force_from}")
        return bundle

    def _next(self, tx: Tx, present: Bundle, now: int) -> tuple[Bundle, WaitingBundle | None]:
        """The bundle in force now, and the one that waits: of those that were seen the last one, unless vetoed."""
        found = [
            (row, read)
            for row in repository.seen(tx, above=present.version)
            if (read := self._believed(row.document, now)) is not None
            and read.bundle.version > present.version
        ]
        if not found:
            return present, None
        last = found[0][1].bundle
        # The same bundle may have come again with more signatures.
        same = [(row, read) for row, read in found if read.bundle == last]
        row, read = next((each for each in same if each[1].by_all), same[0])
        if last.digest_hex() in self._vetoed(tx, present):
            return present, None
        due = acts_from(read, present, first_seen=row.seen_at)
        if due > now:
            return present, WaitingBundle(last, due)
        repository.note_adoption(tx, row.document, adopted_at=now)
        return last, None

    def _believed(self, document: bytes, now: int) -> ReadBundle | None:
        try:
            return read_signed(document, self._root, now=now)
        except (InvalidValue, UntrustedBundle):
            return None

    def _vetoed(self, tx: Tx, present: Bundle) -> set[str]:
        vetoes = service.genuine(tx, "veto", present, self._root)
        return {signed.veto.bundle for signed in vetoes if isinstance(signed, SignedVeto)}

    def _stated(self, tx: Tx, present: Bundle, waiting: WaitingBundle | None) -> _State:
        lowerings, bundle = list[Lowering](), present
        for signed in service.genuine(tx, "lowering", present, self._root):
            if not isinstance(signed, SignedLowering):
                continue
            try:
                check_lowering(bundle, signed.lowering)
            except InvalidValue:
                continue  # no signer has taken it either
            lowerings.append(signed.lowering)
            bundle = lowered(present, lowerings)
        freezes = service.genuine(tx, "freeze", present, self._root)
        frozen = tuple(sorted({each.freeze.scope for each in freezes if isinstance(each, SignedFreeze)}))
        known = self._state
        if known is not None and known.signed == present and known.lowerings == tuple(lowerings):
            # The same object: what others derive from it need not be derived again.
            return _State(known.signed, known.lowerings, known.bundle, frozen, waiting)
        return _State(present, tuple(lowerings), bundle, frozen, waiting)
