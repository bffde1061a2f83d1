"""FAULTS row 36 from the third place that notices: a signer restored from an old copy has a log that went back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from signers.client import SignerClient, UnixAddress
from signers.journal.journal import Journal
from signers.journal.logchain import LogBroken
from signers.journal.mark import MarkFile
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle
from signers.trust.witness import JournalWitness
from tests.fakes.till import Till
from tests.fakes.verifying import Verifying, verifying

BTC = 10**8


@pytest.fixture
def verifier(till: Till) -> Iterator[Verifying]:
    with verifying(till) as opened:
        yield opened


class Copy:
    """The signer as it was: journal and mark were both copied, and both are restored."""

    def __init__(self, till: Till, directory: Path) -> None:
        self.till, self.directory = till, directory
        (directory / "mark").mkdir(parents=True)
        for file in till.directory.glob("journal.sqlite*"):
            shutil.copy(file, directory / file.name)
        shutil.copy(till.directory / "mark" / "journal.mark", directory / "mark" / "journal.mark")

    def start(self) -> JournalWitness:
        till = self.till
        self.journal = Journal.open(
            self.directory / "journal.sqlite", MarkFile.open(self.directory / "mark" / "journal.mark")
        )
        clock = SteadyClock(self.journal.write(lambda book: book.latest))
        trust = PinnedBundle(till.bundle_path, till.directory / "pinned.json", self.journal, clock)
        till.signer = SignerService(till._wallets(), trust, self.journal, clock)
        return JournalWitness(till._wallets(), trust, self.journal, clock)


def test_fault_36_a_signer_whose_log_went_back_is_reported_and_no_verdict_is_given(
    till: Till, verifier: Verifying, tmp_path: Path
) -> None:
    till.customer("alice", BTC // 10)
    copy = Copy(till, tmp_path / "copy")
    till.request("alice", BTC // 100)
    till.send()
    till.settle()
    verifier.look()
    assert verifier.verdict(till.order("alice", BTC // 100)).verdict.outcome == "covered"
    verifier.witness = copy.start()
    verifier.restart()
    with pytest.raises(LogBroken, match="forgotten"):
        verifier.look()
    assert verifier.refusal(till.order("alice", BTC // 100)) == {"rolled-back"}
    assert {each.kind for each in verifier.verifier.auditor.everything().findings} == {"rolled-back"}
    # It goes on from there, and soon has as many entries as before: another history, all the same.
    for _ in range(3):
        till.request("alice", BTC // 1000)
    till.send()
    till.settle()
    with pytest.raises(LogBroken):
        verifier.look()
    assert verifier.refusal(till.order("alice", BTC // 100)) == {"rolled-back"}
    assert [each.kind for each in verifier.verifier.logs.broken()] == ["rolled-back"]
    copy.journal.close()


def test_a_signer_that_does_not_answer_means_that_nobody_knows_what_it_signed(
    till: Till, verifier: Verifying
) -> None:
    till.customer("alice", BTC // 10)
    verifier.witness = SignerClient(UnixAddress(till.directory / "nobody.sock"))
    verifier.restart()
    verifier.follow()
    assert verifier.refusal(till.order("alice", BTC // 100)) == {"signer-silent"}
