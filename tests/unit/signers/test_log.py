"""The signer's log as a file: written as things happen, gone on with after crashes; checked by `strongroom key log`."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from signers.cli.root import main
from signers.errors import SignerStopped
from signers.ports import AttestRequest, LogEntry, LogPage, LogRequest
from signers.process.log import HEAD_ENTRIES, LogWriter, SignedHead
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, KEYSET

NANO = 1_000_000_000


class Logged:
    """A signer, its log, and a clock to turn."""

    def __init__(self, directory: Path) -> None:
        self.bench = SignerBench(directory)
        self.path = directory / "log.jsonl"
        self.now = 0
        self.attested = 0
        self.open()

    def open(self) -> None:
        self.writer = LogWriter(
            self.path, self.bench.journal, self.bench.witness, nanoseconds=lambda: self.now
        )

    def happen(self, times: int = 1) -> None:
        for _ in range(times):
            self.bench.service.attest(
                AttestRequest(
                    chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=self.attested
                )
            )
            self.attested += 1

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def numbers(self) -> list[int | str]:
        """The file's entries by number; a head as `=` and its number."""
        found: list[int | str] = []
        for line in self.lines():
            read = json.loads(line)
            found.append(f"={read['head']['number']}" if "signature" in read else read["number"])
        return found

    def last(self) -> int:
        return self.bench.journal.write(lambda book: book.logged[0])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logged]:
    made = Logged(tmp_path)
    yield made
    made.bench.journal.close()


def check(log: Logged, *more: str) -> int:
    return main(["log", str(log.path), "--key", log.bench.keys.record.attestation_key, *more])


def test_entries_are_written_as_they_come_and_a_head_after_ten_seconds(log: Logged) -> None:
    log.happen(2)
    first = log.last()
    log.writer.tick()
    assert log.numbers() == list(range(1, first + 1))
    log.now += 10 * NANO - 1
    log.writer.tick()
    assert log.numbers()[-1] == first
    log.now += 1
    log.writer.tick()
    assert log.numbers()[-1] == f"={first}"
    log.now += 100 * NANO
    log.writer.tick()
    assert log.numbers().count(f"={first}") == 1


def test_ten_seconds_begin_with_the_first_entry_that_has_no_head(log: Logged) -> None:
    log.writer.close()
    log.open()
    log.now += 1000 * NANO
    log.happen()
    log.writer.tick()
    assert log.numbers()[-1] == log.last()
    log.now += 10 * NANO
    log.writer.tick()
    assert log.numbers()[-1] == f"={log.last()}"


def test_many_entries_get_heads_at_once(log: Logged) -> None:
    log.happen(2 * HEAD_ENTRIES)
    log.writer.tick()
    heads = [int(n[1:]) for n in log.numbers() if isinstance(n, str)]
    assert all(later - earlier <= HEAD_ENTRIES for earlier, later in zip([0, *heads], heads, strict=False))
    assert log.last() - heads[-1] < HEAD_ENTRIES
    assert check(log) == 0


def test_at_the_end_everything_is_under_a_head(log: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    log.happen(3)
    log.writer.close()
    assert log.numbers()[-1] == f"={log.last()}"
    assert check(log) == 0
    assert f"whole; {log.last()} entries, 1 signed heads" in capsys.readouterr().out


def test_opened_again_it_goes_on_without_gap_or_repeat(log: Logged) -> None:
    for _ in range(3):
        log.happen(2)
        log.writer.close()
        log.open()
    log.writer.close()
    assert [n for n in log.numbers() if isinstance(n, int)] == list(range(1, log.last() + 1))
    before = log.path.read_bytes()
    log.open()
    log.writer.close()
    assert log.path.read_bytes() == before
    assert check(log) == 0


@pytest.mark.parametrize("cut", [1, 2, 40, 200, 900])
def test_a_crash_in_the_middle_of_a_line_leaves_no_trace(log: Logged, cut: int) -> None:
    log.happen(5)
    log.writer.tick()
    os.truncate(log.path, log.path.stat().st_size - cut)
    log.happen()
    log.open()
    log.writer.close()
    assert [n for n in log.numbers() if isinstance(n, int)] == list(range(1, log.last() + 1))
    assert check(log) == 0


def test_a_log_that_is_missing_is_written_anew_from_the_journal(log: Logged) -> None:
    log.happen(4)
    log.writer.close()
    before = log.path.read_bytes()
    log.path.unlink()
    log.open()
    log.writer.close()
    assert log.path.read_bytes() == before


def test_a_last_entry_longer_than_what_is_looked_at_first_is_found(log: Logged) -> None:
    """It is made longer than the piece of the file that is read first; the journal did not log that, and says so."""
    log.happen(2)
    log.writer.tick()
    entry = msgspec.json.decode(log.lines()[-1], type=LogEntry)
    long = msgspec.structs.replace(entry, body=msgspec.Raw(b'"' + b"x" * 300_000 + b'"'), head="ab" * 32)
    log.path.write_bytes(b"".join([*log.lines()[:-1], msgspec.json.encode(long) + b"\n"]))
    with pytest.raises(SignerStopped, match=f"ends with entry {entry.number}"):
        log.open()


def test_a_log_of_another_history_stops_the_signer(log: Logged, tmp_path: Path) -> None:
    log.happen(2)
    log.writer.close()
    lines = log.lines()
    log.path.write_bytes(b"".join(lines[:-2]) + lines[-2].replace(b'"alice"', b'"mallory"') + lines[-1])
    log.open()  # bodies are the checker's business; the chain's end is this journal's
    entry = msgspec.json.decode(lines[-2], type=LogEntry)
    other = msgspec.structs.replace(entry, head="00" * 32)
    log.path.write_bytes(b"".join(lines[:-2]) + msgspec.json.encode(other) + b"\n")
    with pytest.raises(SignerStopped, match="this journal did not log"):
        log.open()
    ahead = msgspec.structs.replace(entry, number=entry.number + 5)
    log.path.write_bytes(b"".join(lines[:-2]) + msgspec.json.encode(ahead) + b"\n")
    with pytest.raises(SignerStopped, match="this journal did not log"):
        log.open()


def test_fault_40_a_log_that_can_not_grow_loses_nothing(log: Logged) -> None:
    """The file may not grow beyond a few bytes more (RLIMIT_FSIZE stands in for a full disk), then it may again."""
    log.happen(2)
    log.writer.tick()
    log.happen(20)
    before = log.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    entries = log.bench.journal.write(lambda book: book.log_entries(log.writer.written, 100))
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could be written|File too large"):
            log.writer._append(entries)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert log.path.read_bytes() == before
    log.writer.close()
    assert [n for n in log.numbers() if isinstance(n, int)] == list(range(1, log.last() + 1))
    assert check(log) == 0


Lines = list[bytes]


def _edited(lines: Lines) -> Lines:
    return [line.replace(b'"alice"', b'"mallory"', 1) if n == 3 else line for n, line in enumerate(lines)]


def _rechained(lines: Lines) -> Lines:
    """Edited by somebody who makes the chain right again; what he can't make is the head's signature."""
    from signers.journal.logchain import FIRST_HEAD, next_head

    found, head = [], FIRST_HEAD
    for line in _edited(lines):
        if b'"signature"' not in line:
            entry = msgspec.json.decode(line, type=LogEntry)
            head = next_head(head, entry.number, entry.at, entry.what, bytes(entry.body))
            found.append(msgspec.json.encode(msgspec.structs.replace(entry, head=head)) + b"\n")
        else:
            found.append(line)
    return found


def _forged_head(lines: Lines) -> Lines:
    rechained = _rechained(lines)
    last = msgspec.json.decode(rechained[-2], type=LogEntry)
    signed = msgspec.json.decode(lines[-1], type=SignedHead)
    head = msgspec.structs.replace(signed.head, head=last.head)
    return [*rechained[:-1], msgspec.json.encode(msgspec.structs.replace(signed, head=head)) + b"\n"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_edited, "line 4: the head of entry 4 is not the one of its content"),
        (_rechained, "the signed head over 6 entries is another than the one of these entries"),
        (_forged_head, "line 7: the signature does not verify"),
        (lambda lines: lines[1:], "line 1: entry 2 stands where 1 belongs"),
        (lambda lines: lines[:2] + lines[3:], "line 3: entry 4 stands where 3 belongs"),
        (
            lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
            "line 3: entry 4 stands where 3 belongs",
        ),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "line 4: entry 3 stands where 4 belongs"),
        (lambda lines: [*lines[:4], lines[-1]], "line 5: a head over 6 entries stands after entry 4"),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], "line 7 is cut short"),
        (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], "line 3: neither an entry nor a head"),
        (lambda lines: [*lines[:2], b"\xff\n", *lines[2:]], "line 3: neither an entry nor a head"),
    ],
)
def test_what_is_wrong_is_said(
    log: Logged, change: Callable[[Lines], Lines], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.happen(6 - log.last())
    log.writer.close()
    assert check(log) == 0
    log.path.write_bytes(b"".join(change(log.lines())))
    assert check(log) == 1
    assert said in capsys.readouterr().err


def test_an_end_that_was_cut_off_shows_against_what_was_noted(
    log: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    log.happen(3)
    log.writer.close()
    assert check(log) == 0
    noted = capsys.readouterr().out.rpartition("--seen ")[2].strip()
    short = log.lines()[:-2]
    whole = log.path.read_bytes()
    assert check(log, "--seen", noted) == 0
    log.path.write_bytes(b"".join(short))
    capsys.readouterr()
    assert check(log) == 0
    assert "no head covers the last" in capsys.readouterr().out
    assert check(log, "--seen", noted) == 1
    assert f"it had {log.last()} when that was noted" in capsys.readouterr().err
    log.path.write_bytes(whole)
    assert check(log, "--seen", noted.split(":")[0] + ":" + "0" * 64) == 1


def test_two_logs_that_part_are_told_from_one_that_goes_on(
    log: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.happen(2)
    log.writer.close()
    older = tmp_path / "older.jsonl"
    older.write_bytes(log.path.read_bytes())
    log.happen(2)
    log.open()
    log.writer.close()
    assert check(log, "--against", str(older)) == 0
    lines = older.read_bytes().splitlines(keepends=True)
    entry = msgspec.json.decode(lines[-2], type=LogEntry)
    older.write_bytes(
        b"".join(lines[:-2]) + msgspec.json.encode(msgspec.structs.replace(entry, head="77" * 32)) + b"\n"
    )
    assert check(log, "--against", str(older)) == 1
    assert f"forked: from entry {entry.number} on" in capsys.readouterr().err


def test_the_bundle_says_whose_key_it_is_even_after_it_expired(
    log: Logged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.happen()
    log.writer.close()
    files = ["--bundle", str(tmp_path / "bundle.json"), "--root", str(tmp_path / "pinned.json")]
    assert main(["log", str(log.path), *files]) == 0
    assert main(["log", str(log.path), "--json", *files]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["place"]["number"] == log.last()
    other = SignerBench(_made(tmp_path / "other"))
    other.journal.close()
    files[3] = str(tmp_path / "other" / "pinned.json")
    (tmp_path / "other" / "pinned.json").write_bytes(
        (tmp_path / "pinned.json").read_bytes().replace(b'"threshold":2', b'"threshold":3')
    )
    assert main(["log", str(log.path), *files]) == 2
    assert "organisations have signed" in capsys.readouterr().err


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_wrong_input_is_no_broken_log(log: Logged, tmp_path: Path) -> None:
    log.writer.close()
    assert main(["log", str(tmp_path / "missing"), "--key", "ab" * 32]) == 2
    assert main(["log", str(log.path)]) == 2
    for wrong in (["--key", "xyz"], ["--seen", "1"], []):
        with pytest.raises(SystemExit) as ended:
            main(["log", *([] if not wrong else [str(log.path)]), *wrong])
        assert ended.value.code == 2


def test_a_head_of_another_key_is_refused(log: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    log.happen()
    log.writer.close()
    assert main(["log", str(log.path), "--key", "ab" * 32]) == 1
    assert "does not verify" in capsys.readouterr().err


def test_a_token_that_is_away_delays_heads_only(log: Logged) -> None:
    class Away:
        def log(self, request: LogRequest) -> LogPage:
            raise TimeoutError("the token is away")

    log.happen(2)
    witness = log.writer._witness
    log.writer._witness = Away()  # type: ignore[assignment]
    log.now += 60 * NANO
    log.writer.tick()
    log.now += 60 * NANO
    with pytest.raises(TimeoutError):
        log.writer.tick()
    assert log.numbers()[-1] == log.last()
    log.writer._witness = witness
    log.happen()
    log.writer.tick()
    assert log.numbers()[-1] == f"={log.last()}"
    assert check(log) == 0
