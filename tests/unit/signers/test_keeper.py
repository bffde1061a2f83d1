"""The keeper of the mark: a process of another user that lets the mark only rise, whatever ends on either side."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.errors import StrongroomError
from ops.devnet.files import part_directory
from ops.devnet.process import wait_until
from policies.bundle import TrustRoot
from policies.keys import SigningKey
from signers.errors import BadConfiguration, JournalMismatch, JournalUnavailable, SignerStopped
from signers.journal.journal import Journal
from signers.journal.keeper import MarkClient, follows, start_keeper
from signers.journal.mark import Mark, MarkFile
from signers.setup import initialise

HEAD = "ab" * 32
ROOT = TrustRoot(
    threshold=1, keys={"olga": SigningKey.generate().public_hex}, organisations={}, minimum_version=1
)
SIGNER, KEEPER = "games", "nobody"
"""Two users without privileges that every Debian has."""


class Stores:
    """A signer's two directories, the mark's of another user where the tests run as root."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.marks = directory / "signer", directory / "mark"
        self.journal, self.mark = self.directory / "journal.sqlite", self.marks / "journal.mark"
        self.user = KEEPER if os.geteuid() == 0 else None
        initialise(self.directory, self.marks, ROOT, user=SIGNER if self.user else None, mark_user=self.user)

    def keeper(self) -> MarkClient:
        return start_keeper(self.mark, self.user)

    def open(self) -> Journal:
        return Journal.open(self.journal, self.keeper())


@pytest.fixture
def stores() -> Iterator[Stores]:
    directory = part_directory("strongroom-keeper-")
    try:
        yield Stores(directory)
    finally:
        shutil.rmtree(directory)


def record(journal: Journal, index: int) -> None:
    journal.write(lambda book: book.record_attestation("btc-hot", 0, index, "alice", "BTC", now=100))


def attested(journal: Journal, index: int) -> bool:
    return journal.write(lambda book: book.attested("btc-hot", 0, index)) is not None


def test_the_mark_follows_the_journal_and_belongs_to_the_keeper(stores: Stores) -> None:
    keeper = stores.keeper()
    journal = Journal.open(stores.journal, keeper)
    for index in range(3):
        record(journal, index)
    assert keeper.last.batch == 3
    owner = pwd.getpwnam(stores.user).pw_uid if stores.user else os.geteuid()
    assert keeper.user == owner
    assert (stores.mark.stat().st_uid, stores.mark.stat().st_mode & 0o777) == (owner, 0o600)
    assert stores.marks.stat().st_mode & 0o777 == 0o700
    with open(f"/proc/{keeper.process_id}/status") as status:
        (users,) = [line.split()[1:] for line in status if line.startswith("Uid:")]
    assert set(users) == {str(owner)}
    journal.close()
    journal = stores.open()
    assert attested(journal, 2)
    journal.close()


def mark(batch: int, journal: str = "cd" * 32, head: str = HEAD) -> Mark:
    return Mark(journal=journal, batch=batch, head=head)


def test_only_the_next_mark_of_the_same_journal_follows() -> None:
    last = mark(7)
    assert follows(last, mark(8))
    assert follows(last, mark(7))
    for other in (mark(6), mark(9), mark(0), mark(7, head="00" * 32), mark(8, journal="00" * 32)):
        assert not follows(last, other)


def test_the_keeper_refuses_an_older_mark_and_keeps_the_present_one(stores: Stores) -> None:
    journal = stores.open()
    record(journal, 1)
    record(journal, 2)
    journal.close()
    before = stores.mark.read_bytes()
    keeper = stores.keeper()
    last = keeper.last
    for batch in (0, 1, 4):
        with pytest.raises(JournalMismatch, match="does not follow"):
            keeper.write(Mark(journal=last.journal, batch=batch, head=HEAD))
    with pytest.raises(JournalMismatch, match="does not follow"):
        keeper.write(Mark(journal="00" * 32, batch=3, head=HEAD))
    keeper._connection.send(b"not a mark")
    assert keeper._answer().error
    keeper.write(last)
    keeper.close()
    assert MarkFile.open(stores.mark).last == last
    assert {before[:512], before[512:]} == {
        stores.mark.read_bytes()[:512],
        stores.mark.read_bytes()[512:],
    }


def test_fault_36_a_signer_that_was_restored_whole_is_stopped_by_the_keepers_mark(stores: Stores) -> None:
    """All that the signer's user can reach goes back to yesterday's copy. The mark is not among it."""
    journal = stores.open()
    record(journal, 1)
    journal.close()
    copy = stores.directory.with_name("copy")
    shutil.copytree(stores.directory, copy)
    journal = stores.open()
    record(journal, 2)
    journal.close()
    shutil.rmtree(stores.directory)
    shutil.copytree(copy, stores.directory)
    for _ in range(2):
        with pytest.raises(JournalMismatch, match="the journal is older than its high-water mark"):
            stores.open()


def test_what_the_signers_user_can_do_does_not_turn_the_mark_back(stores: Stores) -> None:
    """Code that runs as the signer's user reads and writes, moves and removes: the mark stays."""
    if stores.user is None:
        assert stores.mark.stat().st_uid == os.geteuid(), "one user has both: nothing to be told apart"
        return
    user = pwd.getpwnam(SIGNER)
    before = stores.mark.read_bytes()
    for attempt in (
        f"cat '{stores.mark}'",
        f"echo > '{stores.mark}'",
        f"rm '{stores.mark}'",
        f"ls '{stores.marks}'",
        f"mv '{stores.marks}' '{stores.marks}-old'",
        f"mv '{stores.journal}' '{stores.mark}'",
    ):
        done = subprocess.run(
            ["sh", "-c", attempt],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0, attempt
        assert "ermission denied" in done.stderr, attempt
    assert stores.mark.read_bytes() == before


def test_a_keeper_that_is_killed_releases_nothing_more_and_a_restart_agrees(stores: Stores) -> None:
    keeper = stores.keeper()
    journal = Journal.open(stores.journal, keeper)
    record(journal, 1)
    os.kill(keeper.process_id, signal.SIGKILL)
    with pytest.raises(JournalUnavailable, match="keeper"):
        record(journal, 2)
    with pytest.raises(JournalUnavailable):
        record(journal, 3)
    journal.close()
    # The journal had committed: the mark is one batch behind, and of that batch nothing had been released.
    assert MarkFile.open(stores.mark).last.batch == 1
    journal = stores.open()
    assert attested(journal, 2)
    assert not attested(journal, 3)
    assert MarkFile.open(stores.mark).last.batch == 2
    journal.close()


def test_a_keeper_ends_with_its_signer_and_not_before(stores: Stores) -> None:
    keeper = stores.keeper()
    for ending in (signal.SIGTERM, signal.SIGINT):
        os.kill(keeper.process_id, ending)
    keeper.write(keeper.last)
    keeper.close()
    wait_until(
        lambda: not Path(f"/proc/{keeper.process_id}").exists(), timeout=10, what="the keeper to have ended"
    )


def test_two_keepers_never_have_one_mark(stores: Stores) -> None:
    first = stores.keeper()
    with pytest.raises(SignerStopped, match="another keeper has the mark"):
        stores.keeper()
    first.close()
    stores.keeper().close()


def test_a_missing_or_damaged_mark_stops_the_start(stores: Stores) -> None:
    stores.mark.write_bytes(b"x" * 1024)
    with pytest.raises(SignerStopped, match="damaged"):
        stores.keeper()
    stores.mark.unlink()
    with pytest.raises(SignerStopped, match="never make a new mark"):
        stores.keeper()


@pytest.mark.parametrize("what", ["marks", "mark"])
def test_a_mark_that_others_can_change_is_not_kept(stores: Stores, what: str) -> None:
    place: Path = getattr(stores, what)
    place.chmod(0o777)
    with pytest.raises(SignerStopped, match="can be changed by others"):
        stores.keeper()


def test_an_unknown_user_or_one_with_privileges_is_no_keeper(stores: Stores) -> None:
    for user in ("there-is-no-such-user", "root"):
        with pytest.raises(SignerStopped, match="user"):
            start_keeper(stores.mark, user)


def test_a_keeper_that_does_not_start_stops_the_signer(stores: Stores) -> None:
    with pytest.raises(StrongroomError) as stopped:
        MarkClient(*_silent(), stores.mark)
    assert isinstance(stopped.value, SignerStopped)


def _silent() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    return ours, subprocess.Popen(["true"])


def test_set_up_again_changes_nothing(stores: Stores) -> None:
    before = (stores.journal.read_bytes(), stores.mark.read_bytes(), stores.mark.stat().st_uid)
    initialise(stores.directory, stores.marks, ROOT, mark_user=stores.user)
    assert (stores.journal.read_bytes(), stores.mark.read_bytes(), stores.mark.stat().st_uid) == before


def test_set_up_gives_nothing_to_a_user_that_is_not_there(stores: Stores) -> None:
    with pytest.raises(BadConfiguration, match="no user"):
        initialise(stores.directory, stores.marks, ROOT, mark_user="there-is-no-such-user")
