"""Old copies of the online database, of the journal, of its mark, or of several: the signer stops or refuses.

The online side asks, as it would from an old copy, to pay an order again that was paid since, with coins that would
make it a second payment. Whoever restores the signer's own directory does not reach the mark: it is its keeper's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from signers.errors import JournalMismatch
from signers.journal.logchain import BEGINNING, LogBroken, follow
from signers.ports import LogRequest, Refused
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    place = tmp_path / "signer"
    place.mkdir()
    made = SignerBench(place)
    made.signatures(made.request())
    yield made
    made.journal.close()


def copied(bench: SignerBench, copy: Path) -> None:
    """Yesterday's backup, taken while the signer stood still."""
    bench.timekeeper.tick()
    bench.journal.close()
    shutil.copytree(bench.directory, copy)
    bench.start()


def restored(bench: SignerBench, copy: Path, what: tuple[str, ...]) -> None:
    bench.timekeeper.tick()
    bench.journal.close()
    for path in bench.directory.glob("journal.sqlite-*"):
        path.unlink()
    for name in what:
        shutil.copy(copy / name, bench.directory / name)


JOURNAL, MARK = "journal.sqlite", "mark/journal.mark"


def test_fault_35_commits_that_the_database_has_lost_pay_nothing_twice(bench: SignerBench) -> None:
    """A failover has lost the last commits: the withdrawal is queued again, its coins and its version forgotten."""
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    for coins in ([bench.world.coin()], [bench.world.coin(), bench.world.coin()]):
        again = replace(draft, coins=coins)
        assert bench.codes(bench.world.request(again)) == {"conflicting-version"}
    also = replace(draft, coins=[*draft.coins, bench.world.coin()])
    bench.signatures(bench.world.request(also))


@pytest.mark.parametrize("days", [0, 1, 20])
def test_fault_36_an_online_database_from_an_old_copy_pays_nothing_twice_however_late(
    bench: SignerBench, days: int
) -> None:
    draft = bench.draft()
    draft.orders = [bench.world.order(expires_at=bench.time + 25 * DAY)]
    bench.adopt(2, longest_order_seconds=30 * DAY)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    bench.signatures(bench.world.request(draft))
    bench.resolve("confirmed")
    for _ in range(days):
        bench.time += DAY
        bench.timekeeper.tick()
    bench.restart()
    again = bench.world.request(replace(draft, coins=[bench.world.coin()]))
    assert bench.codes(again) == {"conflicting-version"}


@pytest.mark.parametrize("what", [(JOURNAL,), (MARK,)])
def test_fault_36_an_old_copy_of_the_journal_or_of_its_mark_stops_the_signer_with_old_databases_too(
    bench: SignerBench, tmp_path: Path, what: tuple[str, ...]
) -> None:
    copied(bench, tmp_path / "copy")
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    bench.signatures(bench.request())
    restored(bench, tmp_path / "copy", what)
    # Again does not help: nothing is repaired by trying.
    for _ in range(2):
        with pytest.raises(JournalMismatch, match="This signer stops"):
            bench.start()


def test_fault_36_an_old_journal_that_went_on_under_an_old_mark_does_not_fit_the_keepers_mark(
    bench: SignerBench, tmp_path: Path
) -> None:
    """Elsewhere, the thief lets the copies of both sign as often as the original has; then brings the journal back."""
    copied(bench, tmp_path / "copy")
    bench.signatures(bench.request())
    bench.timekeeper.tick()
    bench.journal.close()
    mark = (bench.directory / MARK).read_bytes()
    shutil.copytree(bench.directory, tmp_path / "newest")
    restored_both = (JOURNAL, MARK)
    for path in bench.directory.glob("journal.sqlite-*"):
        path.unlink()
    for name in restored_both:
        shutil.copy(tmp_path / "copy" / name, bench.directory / name)
    bench.start()
    bench.signatures(bench.request())
    bench.journal.close()
    (bench.directory / MARK).write_bytes(mark)
    with pytest.raises(JournalMismatch, match="different histories"):
        bench.start()


def test_fault_36_all_stores_turned_back_together_are_found_by_the_verifiers_memory_of_the_log(
    bench: SignerBench, tmp_path: Path
) -> None:
    key = bench.keys.record.attestation_key
    copied(bench, tmp_path / "copy")
    bench.signatures(bench.request())
    page = bench.witness.log(LogRequest(after=0))
    seen = follow(page, BEGINNING, key)
    restored(bench, tmp_path / "copy", (JOURNAL, MARK))
    bench.start()
    with pytest.raises(LogBroken, match="the signer has forgotten some"):
        follow(bench.witness.log(LogRequest(after=seen.number)), seen, key)
    bench.signatures(bench.request())
    bench.signatures(bench.request())
    with pytest.raises(LogBroken):
        follow(bench.witness.log(LogRequest(after=seen.number)), seen, key)


def test_a_bundle_from_an_old_copy_of_the_file_does_not_lift_what_the_quorum_has_ended(
    bench: SignerBench, tmp_path: Path
) -> None:
    copied(bench, tmp_path / "copy")
    bench.adopt(2, caps=())
    restored(bench, tmp_path / "copy", ("bundle.json",))
    bench.start()
    assert bench.service.status().bundle_version == 2
    with pytest.raises(Refused, match="no-cap"):
        bench.service.sign(bench.request())
