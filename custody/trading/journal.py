"""The journal: every command, in order, on the disk before anybody is told that it was taken.

A directory of segments, each named by the sequence number of its first record. A segment is a header and frames;
a frame is one group commit: all commands that were waiting, written together and synced once. Numbers are
little-endian.

```
segment   magic 8 | core id 16 | first sequence u64 | crc32 u32 of what stands before it
frame     magic 4 | payload length u32 | crc32 u32 | first sequence u64 | records u32 | payload
payload   records, a line feed between two of them (a record is JSON on one line)
crc32     of length, first sequence, records and payload
```

A frame is begun only when the one before is on the disk. So after a crash at most one frame is not whole, the
last one, and nobody was told of it: it is cut off. Anything else that is not as it was written is damage, and
refused: a whole frame behind a broken one shows that the broken one had been whole. No payload contains a
frame's magic: 0xFF is not UTF-8.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from custody.trading.failures import JournalBroken, JournalCorrupt, JournalInUse

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment that is larger is followed by a new one."""
_SEGMENT_MAGIC: Final = b"SRTJRNL1"
_FRAME_MAGIC: Final = b"\xffSRF"
_SEGMENT: Final = struct.Struct("<8s16sQI")
_FRAME: Final = struct.Struct("<4sIIQI")
_COVERED: Final = struct.Struct("<IQI")
_SUFFIX: Final = ".journal"


@dataclass(frozen=True, slots=True)
class Frame:
    """One group commit as it was read."""

    end: int
    """Offset of what follows in the segment."""
    first: int
    """Sequence number of the first record."""
    records: list[bytes]


class Journal:
    """The one writer of a directory. Not for several threads at once."""

    def __init__(self, directory: Path, core: UUID, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open, and cut off what a crash has left of an unfinished frame.

        Args:
            directory: made if missing.
            core: whose journal it is; another core's is refused.
            segment_bytes: from which size on a new segment is begun.

        Raises:
            JournalInUse: another process has it open.
            JournalCorrupt: a segment is damaged, missing, or another core's.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._core = core
        self._segment_bytes = segment_bytes
        self._lock = _lock(directory)
        self._broken = self._closed = False
        self.cut_bytes = 0
        """What was cut off at opening; 0 after a clean end."""
        for left in directory.glob("*.new"):
            left.unlink()
        found = segments(directory) or [_begin(directory, core, 1)]
        self._file = os.open(found[-1], os.O_RDWR | os.O_CLOEXEC)
        try:
            self._next, self._end = self._settle_end(found[-1])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next record gets; the first one ever is 1."""
        return self._next

    def append(self, records: Sequence[bytes]) -> int:
        """Write records as one frame. When this returns they are on the disk.

        Returns:
            The sequence number of the first of them.

        Raises:
            JournalBroken: a write failed now or earlier. Whether the records are on the disk, a restart tells.
        """
        if self._broken or self._closed:
            raise JournalBroken("an earlier write failed, or the journal is closed")
        first = self._next
        frame = encode_frame(first, records)
        try:
            if self._end >= self._segment_bytes:
                self._follow(first)
            written = 0
            while written < len(frame):
                written += os.pwrite(self._file, frame[written:], self._end + written)
            os.fdatasync(self._file)
        except OSError as error:
            # After a failed sync the kernel may have forgotten what it could not write: never try again on this file.
            self._broken = True
            raise JournalBroken(f"{self._directory}: {error.strerror}") from error
        self._end += len(frame)
        self._next = first + len(records)
        return first

    def read(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Records from sequence number `first` on, with their numbers.

        Raises:
            JournalCorrupt: a segment is damaged or missing.
        """
        return read(self._directory, self._core, first, until=self._next)

    def close(self) -> None:
        """Give the directory free. Everything that was acknowledged is on the disk already."""
        if self._closed:
            return
        self._closed = True
        os.close(self._file)
        os.close(self._lock)

    def _settle_end(self, path: Path) -> tuple[int, int]:
        """The next sequence number, and where it goes in the last segment."""
        data = path.read_bytes()
        following = _check_header(path, data, self._core)
        end = _SEGMENT.size
        for frame in frames(path, data, following):
            following, end = frame.first + len(frame.records), frame.end
        self.cut_bytes = len(data) - end
        if self.cut_bytes:
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        return following, end

    def _follow(self, first: int) -> None:
        path = _begin(self._directory, self._core, first)
        os.close(self._file)
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._end = _SEGMENT.size


def segments(directory: Path) -> list[Path]:
    """The segments of a journal, oldest first."""
    return sorted(directory.glob(f"*{_SUFFIX}"))


def first_sequence(segment: Path) -> int:
    """The number of a segment's first record, by its name.

    Raises:
        JournalCorrupt: it has no such name.
    """
    if not segment.stem.isascii() or not segment.stem.isdigit():
        raise JournalCorrupt(segment.name, 0, "its name is no sequence number")
    return int(segment.stem)


def read(directory: Path, core: UUID, first: int, *, until: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Records of a journal from number `first` on, with their numbers, up to `until` (not included).

    Reads closed segments safely while another process writes to the last one.

    Raises:
        JournalCorrupt: a segment is damaged or missing.
    """
    found = segments(directory)
    starts = [first_sequence(path) for path in found]
    begin = max((index for index, start in enumerate(starts) if start <= first), default=None)
    if begin is None:
        raise JournalCorrupt(str(directory), 0, f"record {first} is in no segment")
    following = starts[begin]
    for index in range(begin, len(found)):
        if until is not None and following >= until:
            return
        path, data = found[index], found[index].read_bytes()
        if _check_header(path, data, core) != following:
            raise JournalCorrupt(path.name, 0, f"record {following} should be its first")
        end = _SEGMENT.size
        for frame in frames(path, data, following):
            for number, record in enumerate(frame.records, frame.first):
                if until is not None and number >= until:
                    return
                if number >= first:
                    yield number, record
            following, end = frame.first + len(frame.records), frame.end
        if end != len(data) and index + 1 < len(found):
            raise JournalCorrupt(path.name, end, "a frame is not whole, and there are segments behind it")
    if until is not None and following < until:
        raise JournalCorrupt(str(directory), 0, f"it ends at record {following - 1}, not at {until - 1}")


def encode_frame(first: int, records: Sequence[bytes]) -> bytes:
    """One frame with these records."""
    payload = b"\n".join(records)
    covered = zlib.crc32(payload, zlib.crc32(_COVERED.pack(len(payload), first, len(records))))
    return _FRAME.pack(_FRAME_MAGIC, len(payload), covered, first, len(records)) + payload


def frames(path: Path, data: bytes, first: int) -> Iterator[Frame]:
    """Whole frames of one segment, of which the first must begin with record `first`.

    Ends before a last frame that is not whole.

    Raises:
        JournalCorrupt: a frame is not whole, and a whole one comes behind it; or record numbers have a gap.
    """
    offset = _SEGMENT.size
    while offset < len(data):
        frame = _frame_at(data, offset)
        if frame is None:
            later = data.find(_FRAME_MAGIC, offset + 1)
            while later >= 0:
                behind = _frame_at(data, later)
                if behind is not None:
                    raise JournalCorrupt(
                        path.name, offset, f"what follows is whole again from record {behind.first} on"
                    )
                later = data.find(_FRAME_MAGIC, later + 1)
            return
        if frame.first != first:
            raise JournalCorrupt(path.name, offset, f"record {frame.first} stands where {first} should")
        yield frame
        offset, first = frame.end, frame.first + len(frame.records)


def _frame_at(data: bytes, offset: int) -> Frame | None:
    if offset + _FRAME.size > len(data):
        return None
    magic, length, covered, first, count = _FRAME.unpack_from(data, offset)
    begin = offset + _FRAME.size
    if magic != _FRAME_MAGIC or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    if zlib.crc32(payload, zlib.crc32(_COVERED.pack(length, first, count))) != covered:
        return None
    records = payload.split(b"\n")
    return Frame(begin + length, first, records) if len(records) == count else None


def _check_header(path: Path, data: bytes, core: UUID) -> int:
    """The segment's first sequence number. Raises JournalCorrupt."""
    if len(data) < _SEGMENT.size:
        raise JournalCorrupt(path.name, 0, "its header is not whole")
    magic, owner, first, covered = _SEGMENT.unpack_from(data)
    if magic != _SEGMENT_MAGIC or zlib.crc32(data[: _SEGMENT.size - 4]) != covered:
        raise JournalCorrupt(path.name, 0, "its header is not what was written")
    if owner != core.bytes:
        raise JournalCorrupt(path.name, 8, f"it is the journal of core {UUID(bytes=owner)}, not of {core}")
    if first != first_sequence(path):
        raise JournalCorrupt(path.name, 24, f"its name does not say that it begins with record {first}")
    return int(first)


def _begin(directory: Path, core: UUID, first: int) -> Path:
    """A new segment: whole from the moment it has its name."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, core.bytes, first, 0)[:-4]
    path = directory / f"{first:020d}{_SUFFIX}"
    write_whole(path, head + zlib.crc32(head).to_bytes(4, "little"))
    return path


def write_whole(path: Path, *parts: bytes) -> None:
    """Make a file that is either there with all of its bytes, on the disk, or not there."""
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock(directory: Path) -> int:
    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise JournalInUse(f"another process writes to the journal in {directory}") from None
    return file
