"""Journal and high-water mark: what was committed stays, and a copy from yesterday stops the signer."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops.devnet.process import wait_until
from signers.errors import JournalMismatch, JournalUnavailable, SignerStopped
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.journal.mark import SLOT_BYTES, Mark, MarkFile
from signers.journal.written import Written
from signers.ports import Reason, Refused


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    made = (tmp_path / "journal.sqlite", tmp_path / "journal.mark")
    Journal.create(*made)
    return made


def opened(paths: tuple[Path, Path]) -> Journal:
    return Journal.open(paths[0], MarkFile.open(paths[1]))


def record(journal: Journal, index: int) -> None:
    journal.write(lambda book: book.record_attestation("btc-hot", 0, index, "alice", "BTC", now=100))


def attested(journal: Journal, index: int) -> bool:
    return journal.write(lambda book: book.attested("btc-hot", 0, index)) is not None


def test_what_was_written_is_there_after_a_restart(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    record(journal, 1)
    journal.close()
    journal = opened(paths)
    assert attested(journal, 1)
    assert not attested(journal, 2)
    journal.close()


def test_a_journal_is_never_made_anew(paths: tuple[Path, Path]) -> None:
    with pytest.raises(FileExistsError):
        Journal.create(*paths)
    paths[0].unlink()
    with pytest.raises(FileExistsError):
        Journal.create(*paths)


def test_a_journal_restored_from_an_old_copy_stops_the_signer(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    record(journal, 1)
    journal.close()
    copy = shutil.copy(paths[0], paths[0].with_name("copy"))
    journal = opened(paths)
    record(journal, 2)
    journal.close()
    shutil.copy(copy, paths[0])
    with pytest.raises(JournalMismatch, match="the journal is older than its high-water mark"):
        opened(paths)


def test_a_mark_restored_from_an_old_copy_stops_the_signer(paths: tuple[Path, Path]) -> None:
    copy = shutil.copy(paths[1], paths[1].with_name("copy"))
    journal = opened(paths)
    record(journal, 1)
    record(journal, 2)
    journal.close()
    shutil.copy(copy, paths[1])
    with pytest.raises(JournalMismatch, match="the high-water mark is older than the journal"):
        opened(paths)


def test_an_old_journal_that_went_another_way_stops_the_signer(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    journal.close()
    copy = [shutil.copy(path, path.with_name(path.name + ".copy")) for path in paths]
    journal = opened(paths)
    record(journal, 1)
    journal.close()
    newest = shutil.copy(paths[1], paths[1].with_name("newest"))
    for path, old in zip(paths, copy, strict=True):
        shutil.copy(old, path)
    journal = opened(paths)
    record(journal, 7)
    journal.close()
    shutil.copy(newest, paths[1])
    with pytest.raises(JournalMismatch, match="different histories"):
        opened(paths)


def test_another_signers_mark_stops_the_signer(paths: tuple[Path, Path], tmp_path: Path) -> None:
    Journal.create(tmp_path / "other.sqlite", tmp_path / "other.mark")
    with pytest.raises(JournalMismatch, match="another journal"):
        opened((paths[0], tmp_path / "other.mark"))


def test_a_missing_store_stops_the_signer(paths: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(JournalMismatch, match="can't be opened"):
        opened((paths[0], tmp_path / "nothing.mark"))
    paths[0].unlink()
    with pytest.raises(JournalMismatch, match="is missing"):
        opened(paths)
    assert not paths[0].exists()


def test_a_damaged_journal_stops_the_signer(paths: tuple[Path, Path]) -> None:
    paths[0].write_bytes(b"SQLite format 3\0" + b"\x55" * 5000)
    with pytest.raises(SignerStopped):
        opened(paths)


def test_a_crash_between_journal_and_mark_is_no_mismatch(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    record(journal, 1)
    journal.close()
    before = shutil.copy(paths[1], paths[1].with_name("before"))
    journal = opened(paths)
    record(journal, 2)
    journal.close()
    shutil.copy(before, paths[1])
    journal = opened(paths)
    assert attested(journal, 2)
    journal.close()
    # Opening has moved the mark on, so now it protects that batch as well.
    assert MarkFile.open(paths[1]).last.batch == 2


def test_a_torn_write_of_the_mark_leaves_the_other_slot(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    record(journal, 1)
    record(journal, 2)
    journal.close()
    raw = bytearray(paths[1].read_bytes())
    raw[70 : SLOT_BYTES // 2] = bytes(SLOT_BYTES // 2 - 70)
    paths[1].write_bytes(raw)
    journal = opened(paths)
    assert attested(journal, 2)
    journal.close()


def test_a_damaged_mark_stops_the_signer(paths: tuple[Path, Path]) -> None:
    paths[1].write_bytes(b"x" * 2 * SLOT_BYTES)
    with pytest.raises(JournalMismatch, match="damaged"):
        opened(paths)


def test_two_signers_can_not_share_a_journal(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    with pytest.raises(SignerStopped, match="is another signer running"):
        opened(paths)
    journal.close()


def test_requests_in_flight_share_a_commit(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    entered, go_on = threading.Event(), threading.Event()

    def hold(book: Book) -> None:
        entered.set()
        go_on.wait(10)

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(journal.write, hold)
        assert entered.wait(10)
        rest = [pool.submit(record, journal, index) for index in range(8)]
        wait_until(lambda: journal.waiting == 8, timeout=10, what="eight pieces of work to queue")
        go_on.set()
        first.result()
        for future in rest:
            future.result()
    journal.close()
    # One batch made by `create`, none by reading, one by all eight.
    with sqlite3.connect(paths[0]) as sql:
        assert sql.execute("SELECT count(*) FROM batches").fetchone() == (2,)
    sql.close()


def test_a_refusal_changes_nothing_and_does_not_disturb_others(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)

    def refuse(book: Book) -> None:
        raise Refused((Reason("no", "not this one"),))

    with pytest.raises(Refused):
        journal.write(refuse)
    record(journal, 1)
    assert attested(journal, 1)
    journal.close()


def test_work_that_fails_after_recording_closes_the_journal_and_keeps_nothing(
    paths: tuple[Path, Path],
) -> None:
    journal = opened(paths)

    def half(book: Book) -> None:
        book.record_attestation("btc-hot", 0, 3, "alice", "BTC", now=100)
        raise Refused((Reason("too-late", "recorded already"),))

    with pytest.raises(JournalUnavailable):
        journal.write(half)
    with pytest.raises(JournalUnavailable, match="restart the signer"):
        record(journal, 4)
    assert journal.failure is not None
    journal.close()
    journal = opened(paths)
    assert not attested(journal, 3)
    journal.close()


def test_a_mark_that_can_not_be_written_releases_nothing(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    broken = MarkFile.open(paths[1])
    broken.close()
    journal._marks = broken  # its descriptor is closed, as if the second store had gone away
    with pytest.raises(JournalUnavailable):
        record(journal, 1)
    with pytest.raises(JournalUnavailable):
        attested(journal, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.close()


class SlowMarks:
    """Marks whose disk takes as long as the test wants."""

    def __init__(self, good: MarkFile) -> None:
        self.good, self.where, self.last = good, good.where, good.last
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.failure: OSError | None = None

    def write(self, mark: Mark) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        if self.failure is not None:
            raise self.failure
        self.good.write(mark)

    def close(self) -> None:
        self.good.close()


def attestation(index: int) -> Callable[[Book], str]:
    def attest(book: Book) -> str:
        book.record_attestation("btc-hot", 0, index, "alice", "BTC", now=100)
        return f"recorded {index}"

    return attest


def waits(written: Written[Any]) -> bool:
    """Whether work has not settled: nobody would get its outcome now."""
    return written._settled.locked()


def test_work_is_decided_at_once_and_settled_when_its_mark_is_on_the_disk(paths: tuple[Path, Path]) -> None:
    slow = SlowMarks(MarkFile.open(paths[1]))
    journal = Journal.open(paths[0], slow)
    work = journal.begin(attestation(1))
    assert work.decided() == "recorded 1"
    assert slow.begun.acquire(timeout=10)
    assert waits(work)
    slow.go_on.release()
    assert [work.settled(), work.settled(), work.decided()] == ["recorded 1"] * 3
    journal.close()


def test_a_batch_is_not_committed_before_the_mark_of_the_one_before(paths: tuple[Path, Path]) -> None:
    slow = SlowMarks(MarkFile.open(paths[1]))
    journal = Journal.open(paths[0], slow)
    first = journal.begin(attestation(1))
    assert slow.begun.acquire(timeout=10)
    second = journal.begin(attestation(2))
    assert second.decided() == "recorded 2"
    # Killed now: the copy is what a crash would leave, and has the first batch only.
    for path in (paths[0], paths[0].with_name(paths[0].name + "-wal")):
        shutil.copy(path, path.with_name(path.name.replace("journal", "crashed")))
    shutil.copy(paths[1], paths[1].with_name("crashed.mark"))
    slow.go_on.release(2)
    assert (first.settled(), second.settled()) == ("recorded 1", "recorded 2")
    journal.close()
    crashed = opened((paths[0].with_name("crashed.sqlite"), paths[1].with_name("crashed.mark")))
    assert [attested(crashed, 1), attested(crashed, 2)] == [True, False]
    crashed.close()


def test_who_was_answered_from_what_is_not_settled_waits_for_it(paths: tuple[Path, Path]) -> None:
    slow = SlowMarks(MarkFile.open(paths[1]))
    journal = Journal.open(paths[0], slow)
    journal.begin(attestation(1))
    assert slow.begun.acquire(timeout=10)

    def refuse(book: Book) -> None:
        if book.attested("btc-hot", 0, 1) is not None:
            raise Refused((Reason("address-taken", "it was recorded in the batch before"),))

    refused = journal.begin(refuse)
    read = journal.begin(lambda book: book.attested("btc-hot", 0, 1))
    assert read.decided() == ("alice", "BTC")
    assert waits(refused)
    assert waits(read)
    slow.go_on.release()
    with pytest.raises(Refused, match="address-taken"):
        refused.decided()
    assert read.settled() == ("alice", "BTC")
    journal.close()


def test_work_decided_after_a_mark_that_fails_never_settles(paths: tuple[Path, Path]) -> None:
    slow = SlowMarks(MarkFile.open(paths[1]))
    journal = Journal.open(paths[0], slow)
    first = journal.begin(attestation(1))
    assert slow.begun.acquire(timeout=10)
    second = journal.begin(attestation(2))
    assert second.decided() == "recorded 2"
    slow.failure = OSError("the second store has gone away")
    slow.go_on.release()
    for work in (first, second):
        with pytest.raises(JournalUnavailable):
            work.settled()
    with pytest.raises(JournalUnavailable):
        journal.begin(attestation(3))
    journal.close()
    journal = opened(paths)
    # The first was on one disk, and nobody was told; the second was on none.
    assert [attested(journal, index) for index in (1, 2)] == [True, False]
    journal.close()


def test_a_closed_journal_answers_that_it_is_and_closing_again_changes_nothing(
    paths: tuple[Path, Path],
) -> None:
    journal = opened(paths)
    for _ in range(2):
        journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        record(journal, 1)


def test_time_in_the_journal_never_goes_back(paths: tuple[Path, Path]) -> None:
    journal = opened(paths)
    record(journal, 1)
    with pytest.raises(SignerStopped, match="back in time"):
        journal.write(lambda book: book.record_attestation("btc-hot", 0, 2, "bob", "BTC", now=99))
    journal.close()


def test_marks_take_turns_between_two_slots(tmp_path: Path) -> None:
    path, head = tmp_path / "mark", "00" * 32
    MarkFile.create(path, Mark(journal=head, batch=0, head=head))
    file = MarkFile.open(path)
    for batch in (1, 2, 3):
        file.write(Mark(journal=head, batch=batch, head=head))
    file.close()
    assert MarkFile.open(path).last.batch == 3
    assert path.stat().st_size == 2 * SLOT_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_of_another_format_is_not_read(paths: tuple[Path, Path]) -> None:
    with sqlite3.connect(paths[0]) as sql:
        sql.execute("UPDATE journal SET format = 1")
    sql.close()
    with pytest.raises(JournalMismatch, match="format 1"):
        opened(paths)
