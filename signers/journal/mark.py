"""The journal's high-water mark, kept in another place than the journal and, in production, under another user.

A file of two slots of 512 bytes, written in turn, so that a power cut in the middle of one leaves the other.
Each slot is a JSON line with its own checksum, padded with blanks.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Final, Protocol, Self

import msgspec

from policies.canonical import Hex32
from signers.errors import JournalMismatch
from signers.process.files import write_new

SLOT_BYTES: Final = 512
_SLOTS: Final = 2


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far the journal had come."""

    journal: Hex32
    """Random id of the journal."""
    batch: Annotated[int, msgspec.Meta(ge=0)]
    """Number of its last committed batch."""
    head: Hex32
    """Hash chain over all batches up to that one."""


class Marks(Protocol):
    """Where a journal's high-water mark is kept."""

    @property
    def where(self) -> str:
        """For messages."""

    @property
    def last(self) -> Mark:
        """The mark as it is there."""

    def write(self, mark: Mark) -> None:
        """Put a mark in its place and wait until it is on the disk. Raises OSError, or a StrongroomError."""

    def close(self) -> None:
        """Let go of it."""


class MarkFile:
    """The open mark file. Implements `Marks` in this process."""

    def __init__(self, path: Path, descriptor: int, last: Mark) -> None:
        self.where = str(path)
        self.last = last
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, mark: Mark) -> None:
        """Make the file with its first mark. Raises FileExistsError."""
        write_new(path, _slot(mark) * _SLOTS)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file and read the latest valid mark.

        Raises:
            JournalMismatch: missing or unreadable; says what to do.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            raise JournalMismatch(
                f"the high-water mark {path} can't be opened ({error.strerror}): restore the directory it is in; "
                "never make a new mark for an old journal"
            ) from None
        raw = os.pread(descriptor, SLOT_BYTES * _SLOTS, 0)
        slots = [raw[at : at + SLOT_BYTES] for at in range(0, len(raw), SLOT_BYTES)]
        marks = [mark for mark in map(_read, slots) if mark is not None]
        if not marks:
            os.close(descriptor)
            raise JournalMismatch(f"the high-water mark {path} is damaged: no slot has a valid checksum")
        return cls(path, descriptor, max(marks, key=lambda mark: mark.batch))

    def write(self, mark: Mark) -> None:
        """Replace the older of both slots and wait until it is on the disk. Raises OSError."""
        os.pwrite(self._descriptor, _slot(mark), SLOT_BYTES * (mark.batch % _SLOTS))
        os.fdatasync(self._descriptor)
        self.last = mark

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _slot(mark: Mark) -> bytes:
    body = msgspec.json.encode(mark)
    line = hashlib.sha256(body).hexdigest().encode() + b" " + body
    return line.ljust(SLOT_BYTES - 1) + b"\n"


def _read(slot: bytes) -> Mark | None:
    checksum, _, body = slot.rstrip().partition(b" ")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    try:
        return msgspec.json.decode(body, type=Mark)
    except msgspec.MsgspecError:
        return None
