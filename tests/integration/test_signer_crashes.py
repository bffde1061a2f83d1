"""A signer's stores under kill -9 at any moment, and after years: what was released is there, a start stays short."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from policies.bundle import TrustRoot
from policies.keys import SigningKey
from signers.guard.examined import Exposure
from signers.journal import journal as journal_module
from signers.journal.journal import Journal
from signers.journal.keeper import start_keeper
from signers.journal.mark import MarkFile
from signers.setup import initialise

ROUNDS = 8
NOW = 10**6
ROOT = TrustRoot(
    threshold=1, keys={"olga": SigningKey.generate().public_hex}, organisations={}, minimum_version=1
)
SIGNER = """
import sys, threading
from pathlib import Path
from signers.journal.journal import Journal
from signers.journal.keeper import start_keeper

stores, marks, first = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
keeper = start_keeper(marks / "journal.mark", None)
journal = Journal.open(stores / "journal.sqlite", keeper)
print(keeper.process_id, flush=True)
lock = threading.Lock()

def release(thread):
    index = first + thread
    while True:
        work = journal.begin(
            lambda book: book.record_attestation("btc-hot", 0, index, "alice", "BTC", now=book.latest)
        )
        work.decided()  # as a signer does, which signs here
        work.settled()
        with lock:
            print(index, flush=True)
        index += 4

threads = [threading.Thread(target=release, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
"""


@pytest.mark.parametrize("victim", ["signer", "keeper", "both"])
def test_whatever_is_killed_whenever_all_that_was_released_is_in_the_journal(
    tmp_path: Path, victim: str
) -> None:
    """Four threads write as fast as they can. After each kill both stores agree, and nothing released is missing."""
    stores, marks = tmp_path / "signer", tmp_path / "mark"
    initialise(stores, marks, ROOT)
    dice, first, released = random.Random(7), 0, set[int]()
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", SIGNER, str(stores), str(marks), str(first)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            keeper = int(process.stdout.readline())
            seen = {int(process.stdout.readline()) for _ in range(dice.randrange(1, 40))}
            if victim != "signer":
                os.kill(keeper, signal.SIGKILL)
            if victim == "keeper":
                # The journal fails, every thread ends with an error, and so does the process.
                seen |= {int(line) for line in process.stdout.read().split()}
                process.wait(30)
            process.kill()
            seen |= {
                int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
            }
        released |= seen
        journal = Journal.open(stores / "journal.sqlite", start_keeper(marks / "journal.mark", None))
        assert _missing(journal, released) == set()
        journal.close()
        first = _next_free(stores / "journal.sqlite")
    assert len(released) > ROUNDS


def _missing(journal: Journal, numbers: set[int]) -> set[int]:
    return journal.write(lambda book: {n for n in numbers if book.attested("btc-hot", 0, n) is None})


def _next_free(path: Path) -> int:
    with sqlite3.connect(path) as sql:
        (highest,) = sql.execute("SELECT max(number) FROM attestations").fetchone()
    sql.close()
    return int(highest) + 1


class Steps:
    """How many steps SQLite's machine has made, in hundreds, for whoever opens a journal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        connect = journal_module._connect

        def counted(path: Path) -> sqlite3.Connection:
            connection = connect(path)
            connection.set_progress_handler(self._step, 100)
            return connection

        monkeypatch.setattr(journal_module, "_connect", counted)

    def _step(self) -> int:
        self.made += 1
        return 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def aged(path: Path, attestations: int, transactions: int) -> None:
    """Fill a journal with addresses attested, and with transactions signed and confirmed, long ago."""
    with sqlite3.connect(path) as sql:
        many = sql.executemany
        many(
            "INSERT INTO attestations VALUES ('btc-hot', 0, ?, 'alice', 'BTC', 1)",
            ((n,) for n in range(attestations)),
        )
        range_ = range(transactions)
        many(
            "INSERT INTO transactions VALUES ('bitcoin', ?, 'btc-hot', '7', ?, 1, 'confirmed', 2)",
            ((f"{n:064x}", f"{n:064d}") for n in range_),
        )
        many("INSERT INTO intents VALUES (?, 'ab')", ((f"intent {n}",) for n in range_))
        many(
            "INSERT INTO transaction_intents VALUES (?, 'bitcoin', ?)",
            ((f"intent {n}", f"{n:064x}") for n in range_),
        )
        many(
            "INSERT INTO exposures VALUES (?, 'payments', 'hot|BTC', '1000', 1, 2)",
            ((f"intent {n}",) for n in range_),
        )
        many("INSERT INTO log VALUES (?, 1, 'transaction', '{}', 'ab')", ((n + 1,) for n in range_))
        many("INSERT INTO orders_seen VALUES (?, 'exchange', 2, 1)", ((f"{n:064x}",) for n in range_))
        sql.execute("UPDATE batches SET at = ?", (NOW,))
    sql.close()


def worked(path: Path, mark: Path, steps: Steps) -> int:
    """Open it, look at a counter, an address and the log, record, page; hundreds of steps that took."""
    before = steps.made
    journal = Journal.open(path, MarkFile.open(mark))
    journal.write(lambda book: book.window(Exposure.PAYMENTS, "hot|BTC", 1000).total(NOW))
    journal.write(lambda book: book.attested("btc-hot", 0, 5))
    journal.write(lambda book: book.record_attestation("btc-hot", 1, 5, None, "BTC", now=NOW))
    journal.write(lambda book: (book.open_sights(NOW), book.open_transactions(None, 1000), book.freezes()))
    journal.write(lambda book: book.log_entries(book.logged[0] - 3, 500))
    journal.close()
    return steps.made - before


def test_a_start_with_years_behind_it_reads_no_more_than_one_with_days(tmp_path: Path, steps: Steps) -> None:
    """By SQLite's own count of steps: what ended long ago is neither read nor counted, at the start or later."""
    made = {}
    for name, attestations, transactions in (("young", 100, 100), ("old", 30_000, 30_000)):
        path, mark = tmp_path / f"{name}.sqlite", tmp_path / f"{name}.mark"
        Journal.create(path, mark)
        aged(path, attestations, transactions)
        made[name] = worked(path, mark, steps)
    assert made["old"] <= made["young"] + 10
