"""The signer's own log as a file, `log.jsonl`: only ever appended to, chained, and signed at short intervals.

A line is a `LogEntry`, or a `SignedHead` over all entries before it. The journal holds the same entries, committed with
what they tell; so after a crash, or a full disk, the file goes on where it ends, without gaps and without repeats.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from policies.canonical import BadSignature, decoder_for, verify_ed25519
from policies.intent import Signature
from signers.errors import SignerStopped
from signers.journal.journal import Journal
from signers.journal.logchain import BEGINNING, LogBroken, Place, after_entry
from signers.ports import LogEntry, LogHead, LogRequest, Witness

HEAD_SECONDS: Final = 10
"""How long an entry waits for a signed head at most."""
HEAD_ENTRIES: Final = 1_000
"""After so many entries comes a head at the latest, unless the token can't sign."""
# A head comes with a page of up to 500 more; and up to two pages of these are before it.
_PAGE: Final = HEAD_ENTRIES // 4
_TAIL_BYTES: Final = 1 << 16
_NANO: Final = 1_000_000_000


class SignedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A signer's word on the entries up to here."""

    head: LogHead
    signature: Signature


decoder_for(LogEntry)
decoder_for(SignedHead)


class LogWriter:
    """Appends to the file what the journal has logged. One thread at a time calls it.

    Args:
        path: the file; made if it is missing, with everything from the journal's first entry on.
        journal: holds the entries.
        witness: signs heads.
        nanoseconds: a clock that only rises.

    Raises:
        SignerStopped: the file ends with something that this journal never logged.
        OSError: the file can't be opened.
    """

    def __init__(
        self,
        path: Path,
        journal: Journal,
        witness: Witness,
        *,
        nanoseconds: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path, self._journal, self._witness = path, journal, witness
        self._nanoseconds = nanoseconds
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            last, covered = _end(self._file)
            self.written = 0 if last is None else last.number
            """Number of the last entry in the file."""
            self._uncovered = 0 if covered else 1
            self._agree(last)
        except BaseException:
            os.close(self._file)
            raise
        self._size = os.fstat(self._file).st_size
        self._waiting_since = self._nanoseconds()

    def tick(self) -> None:
        """Append what is new, and a head when it is time for one.

        Raises:
            OSError: the file can't be written; what is in it by now ends with a whole line.
            TransientError: the journal or the token can't now.
        """
        while entries := self._journal.write(lambda book: book.log_entries(self.written, _PAGE)):
            self._append(entries)
            if self._uncovered >= _PAGE:
                self._head()
        waited = self._nanoseconds() - self._waiting_since
        if self._uncovered and waited >= HEAD_SECONDS * _NANO:
            self._head()

    def close(self) -> None:
        """Append all that is left with its head, and close the file. Raises as `tick`."""
        try:
            self.tick()
            if self._uncovered:
                self._head()
        finally:
            os.close(self._file)

    def _head(self) -> None:
        page = self._witness.log(LogRequest(after=self.written))
        self._append(page.entries)
        self._write([SignedHead(head=page.head, signature=page.signature)])
        self._uncovered = 0

    def _append(self, entries: Iterable[LogEntry]) -> None:
        batch = list(entries)
        if not batch:
            return
        self._write(batch)
        if not self._uncovered:
            self._waiting_since = self._nanoseconds()
        self._uncovered += len(batch)
        self.written = batch[-1].number

    def _write(self, lines: Iterable[LogEntry | SignedHead]) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(f"{self._path}: only {written} of {len(data)} bytes could be written")
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _agree(self, last: LogEntry | None) -> None:
        if last is None:
            return
        known = self._journal.write(lambda book: book.log_entries(last.number - 1, 1))
        if not known or known[0].head != last.head:
            raise SignerStopped(
                f"{self._path} ends with entry {last.number}, which this journal did not log: the file was edited, or "
                "one of both was restored. Move it aside for whoever looks into it; the journal fills a new one"
            )


def _end(file: int) -> tuple[LogEntry | None, bool]:
    """The last entry of a log file (None: it has none), and whether a head covers it. A line cut short is removed."""
    size = os.fstat(file).st_size
    length = min(_TAIL_BYTES, size)
    while True:
        tail = os.pread(file, length, size - length)
        lines = tail.split(b"\n")
        # What is before the first line break began earlier; what is after the last one was cut short by a crash.
        whole = lines[:-1] if length == size else lines[1:-1]
        if length == size or any(_is_entry(line) for line in whole):
            break
        length = min(2 * length, size)
    if lines[-1]:
        os.ftruncate(file, size - len(lines[-1]))
    for lines_after, line in enumerate(reversed(whole)):
        found = _read(line)
        if isinstance(found, LogEntry):
            return found, lines_after > 0
    return None, True


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(_read(line), LogEntry)
    except LogBroken:
        return False


def _read(line: bytes) -> LogEntry | SignedHead:
    """Raises LogBroken."""
    try:
        return decoder_for(LogEntry).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return decoder_for(SignedHead).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LogBroken(f"neither an entry nor a head: {error}") from None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a log."""

    place: Place
    """Its end."""
    heads: int
    """Signed heads."""
    uncovered: int
    """Entries after the last of them: nobody has signed that they are the last."""


def check_log(
    lines: Iterable[bytes], key_of: Callable[[LogHead], str], seen: tuple[int, str] | None = None
) -> Checked:
    """Check a log from its first line on: chain, numbers, and every head's signature.

    Args:
        lines: the file's lines.
        key_of: the attestation key (64 hex digits) of the key-set that a head names. Raises PermanentError.
        seen: number and head of an entry that somebody noted earlier: it must be in this log.

    Raises:
        LogBroken: says in which line and what.
    """
    place, heads, uncovered = BEGINNING, 0, 0
    for number, found in _numbered(lines):
        try:
            if isinstance(found, LogEntry):
                head = after_entry(found, place.number + 1, place.head)
                place = Place(journal=place.journal, number=found.number, head=head)
                uncovered += 1
                if seen is not None and seen[0] == place.number and seen[1] != head:
                    raise LogBroken(
                        f"entry {place.number} had head {seen[1]} when it was noted; here it has {head}"
                    )
            else:
                place = _after_head(found, place, key_of(found.head))
                heads, uncovered = heads + 1, 0
        except (LogBroken, BadSignature) as error:
            raise LogBroken(f"line {number}: {error}") from None
    if seen is not None and seen[0] > place.number:
        raise LogBroken(f"the log ends at entry {place.number}; it had {seen[0]} when that was noted")
    return Checked(place=place, heads=heads, uncovered=uncovered)


def parted(lines: Iterable[bytes], others: Iterable[bytes]) -> int | None:
    """The number of the first entry that two copies of a log have differently; None where one continues the other."""
    for mine, other in zip(_entries(lines), _entries(others), strict=False):
        if mine.head != other.head:
            return min(mine.number, other.number)
    return None


def _entries(lines: Iterable[bytes]) -> Iterator[LogEntry]:
    return (found for _, found in _numbered(lines) if isinstance(found, LogEntry))


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, LogEntry | SignedHead]]:
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            raise LogBroken(f"line {number} is cut short")
        try:
            yield number, _read(line[:-1])
        except LogBroken as error:
            raise LogBroken(f"line {number}: {error}") from None


def _after_head(signed: SignedHead, place: Place, key: str) -> Place:
    head = signed.head
    verify_ed25519(key, head.digest(), signed.signature)
    if place.journal not in ("", head.journal):
        raise LogBroken(f"a head of journal {head.journal}; the heads before are of {place.journal}")
    if head.number != place.number:
        raise LogBroken(f"a head over {head.number} entries stands after entry {place.number}")
    if head.head != place.head:
        raise LogBroken(
            f"the signed head over {head.number} entries is another than the one of these entries"
        )
    return Place(journal=head.journal, number=place.number, head=place.head)
