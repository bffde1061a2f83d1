"""The journal on a disk that tears, rots and fills: what was acknowledged is there again, or nothing is begun."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custody.trading import journal as journals
from custody.trading.failures import JournalBroken, JournalCorrupt, JournalInUse
from custody.trading.journal import Journal, segments

CORE = UUID(int=7)
HEADER = 36
"""Bytes of a segment's header."""

batches = st.lists(
    st.lists(st.binary(max_size=40).filter(lambda record: b"\n" not in record and b"\xff" not in record), min_size=1),
    min_size=1,
    max_size=8,
)  # fmt: skip


def write(directory: Path, frames: list[list[bytes]], *, segment_bytes: int = 1 << 20) -> list[bytes]:
    with Journal(directory, CORE, segment_bytes=segment_bytes) as journal:
        for records in frames:
            journal.append(records)
    return [record for records in frames for record in records]


def read(directory: Path, first: int = 1) -> list[bytes]:
    with Journal(directory, CORE) as journal:
        return [record for _, record in journal.read(first)]


@given(frames=batches, segment_bytes=st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_was_written_is_read_again_over_segments_of_any_size(
    tmp_path: Path, frames: list[list[bytes]], segment_bytes: int
) -> None:
    shutil.rmtree(tmp_path / "j", ignore_errors=True)
    records = write(tmp_path / "j", frames, segment_bytes=segment_bytes)
    with Journal(tmp_path / "j", CORE, segment_bytes=segment_bytes) as journal:
        assert journal.cut_bytes == 0
        assert list(journal.read(1)) == list(enumerate(records, 1))
        assert [number for number, _ in journal.read(len(records))] == [len(records)]
        assert journal.append([b"more"]) == len(records) + 1


@given(frames=batches, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_torn_tail_of_any_length_costs_the_last_frame_and_no_other(
    tmp_path: Path, frames: list[list[bytes]], data: st.DataObject
) -> None:
    shutil.rmtree(tmp_path / "j", ignore_errors=True)
    write(tmp_path / "j", frames[:-1] or frames)
    (path,) = segments(tmp_path / "j")
    whole = path.read_bytes()
    kept = [record for records in (frames[:-1] or frames) for record in records]
    torn = bytearray(journals.encode_frame(len(kept) + 1, frames[-1]))
    cut = data.draw(st.integers(0, len(torn) - 1), "cut")
    if data.draw(st.booleans(), "holes"):  # the file has its new length, some of its blocks were not written
        torn[cut:] = bytes(len(torn) - cut)
        if torn == journals.encode_frame(len(kept) + 1, frames[-1]):
            return
    else:
        del torn[cut:]
    path.write_bytes(whole + torn)
    assert read(tmp_path / "j") == kept
    assert path.read_bytes() == whole
    assert write(tmp_path / "j", [[b"again"]]) == [b"again"]
    assert read(tmp_path / "j") == [*kept, b"again"]


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_flipped_bit_before_the_last_frame_is_refused_and_nothing_is_changed(
    tmp_path: Path, position: int, bit: int
) -> None:
    directory = tmp_path / "j"
    if not directory.exists():
        write(directory, [[b"one", b"two"], [b"three"], [b"four", b"five", b"six"]])
    (path,) = segments(directory)
    whole = path.read_bytes()
    last = len(journals.encode_frame(4, [b"four", b"five", b"six"]))
    position %= len(whole) - last
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        with pytest.raises(JournalCorrupt) as found:
            read(directory)
        assert path.name in str(found.value)
        assert path.read_bytes() == damaged
    finally:
        path.write_bytes(whole)


def test_a_damaged_or_missing_segment_in_the_middle_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "j", [[b"one"], [b"two"], [b"three"]], segment_bytes=1)
    first, second, third = segments(tmp_path / "j")
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(JournalCorrupt, match="segments behind it"):
        read(tmp_path / "j")
    second.unlink()
    with pytest.raises(JournalCorrupt, match="record 2 should be its first"):
        read(tmp_path / "j")
    assert read(tmp_path / "j", 3) == [b"three"]
    first.rename(second)
    with pytest.raises(JournalCorrupt, match="name"):
        read(tmp_path / "j", 2)
    assert third.exists()


def test_a_whole_segment_taken_from_another_core_or_another_time_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "j", [[b"one"]])
    with pytest.raises(JournalCorrupt, match="of core"):
        Journal(tmp_path / "j", UUID(int=8))
    (path,) = segments(tmp_path / "j")
    path.write_bytes(path.read_bytes() + journals.encode_frame(5, [b"five"]))
    with pytest.raises(JournalCorrupt, match="record 5 stands where 2 should"):
        Journal(tmp_path / "j", CORE)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CORE), pytest.raises(JournalInUse):
        Journal(tmp_path / "j", CORE)
    Journal(tmp_path / "j", CORE).close()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_after_a_failed_write_nothing_more_is_acknowledged(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", CORE)
    journal.append([b"one"])
    with monkeypatch.context() as patched:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(os, call, full)
        with pytest.raises(JournalBroken, match="No space left"):
            journal.append([b"two"])
    with pytest.raises(JournalBroken, match="earlier"):
        journal.append([b"three"])
    journal.close()
    assert read(tmp_path / "j")[:1] == [b"one"]
    assert b"three" not in read(tmp_path / "j")
