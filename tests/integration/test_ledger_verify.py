"""What was booked stays as it was: every edit behind the database's back is found, by the first line that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from chains.errors import TransientError
from custody.ledger import heads
from custody.ledger.model import Hold, VoidHold
from custody.ledger.verify import Flaw, Known, Verified, Wrong, verify
from custody.storage.alerts import open_alerts
from custody.storage.db import Database
from signers.ports import Refused, Sealed, SealRequest, SignerUnavailable
from tests.fakes.sealer import KEYSET, Sealer
from tests.support.ledger import booked, credit, customers, move

NOON = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())
DAY = 86_400


class _NotKept(Exception):
    pass


@dataclass
class Books:
    """A ledger with a past, the signer that seals it, and somebody who has the database."""

    db: Database
    dsn: str
    sealer: Sealer
    now: int = NOON

    def seal(self) -> heads.Seal | None:
        return heads.seal(self.db, self.sealer.bundle(), {KEYSET: self.sealer}, now=self.now)  # type: ignore[dict-item]

    def verify(self, **known: Any) -> Verified:
        keys = {KEYSET: self.sealer.key.public_hex}
        with self.db.snapshot() as tx:
            return verify(tx, Known(keys=keys, sealing=KEYSET, **known))

    def forge(self, *statements: str) -> None:
        """As whoever has the disk: no trigger, no constraint of the code's."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements:
                connection.execute(statement.encode())

    def what_if(self, *statements: str) -> Verified:
        """What would be found after this, which does not stay."""
        found: list[Verified] = []
        known = Known(keys={KEYSET: self.sealer.key.public_hex}, sealing=KEYSET)
        with suppress(_NotKept), self.db.transaction() as tx:
            tx.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                assert tx.execute(statement.encode()) > 0, statement
            found.append(verify(tx, known))
            raise _NotKept
        return found[0]

    def rechain(self) -> None:
        """Number, add up and chain everything anew, as a forger does who has read this code."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            for (account,) in connection.execute("SELECT id FROM ledger_accounts ORDER BY id").fetchall():
                start = connection.execute(
                    "SELECT ledger_genesis(a) FROM ledger_accounts a WHERE id = %s", [account]
                ).fetchone()
                assert start is not None
                last, line, seq, balance = start[0], 0, 0, 0
                for id, amount in connection.execute(
                    "SELECT id, amount FROM ledger_lines WHERE account_id = %s ORDER BY seq", [account]
                ).fetchall():
                    seq, before, balance, line = seq + 1, balance, balance + int(amount), id
                    connection.execute(
                        "UPDATE ledger_lines SET seq = %s, balance_before = %s, balance_after = %s WHERE id = %s",
                        [seq, before, balance, id],
                    )
                    row = connection.execute(
                        "UPDATE ledger_lines l SET hash = ledger_line_hash(%s, l, t) FROM ledger_transfers t"
                        " WHERE l.id = %s AND t.id = l.transfer_id RETURNING l.hash",
                        [last, id],
                    ).fetchone()
                    assert row is not None
                    last = row[0]
                connection.execute(
                    "UPDATE ledger_accounts SET balance = %s, last_seq = %s, last_line = %s, hash = %s WHERE id = %s",
                    [balance, seq, line, last, account],
                )


@pytest.fixture
def books(database: str, tmp_path: Path) -> Iterator[Books]:
    """Six transfers of two customers: four are sealed, two are not."""
    directory = tmp_path / "sealer"
    directory.mkdir()
    with Database(database, application="test") as db:
        made = Books(db, database, Sealer(directory))
        made.sealer.clock = lambda: made.now
        customers(db, "ada", "ben")
        booked(db, credit("ada", 100), credit("ben", 50))
        hold = uuid4()
        booked(db, Hold(hold, "ada", "BTC", 30, "a\ttab, a \\ and a\nnewline"), VoidHold(uuid4(), hold))
        assert made.seal() is not None
        booked(db, move("ada", "ben", 7))
        booked(db, move("ada", "ben", 5))
        yield made
        made.sealer.stop()


def first(found: Verified) -> Flaw:
    assert found.flaws, "nothing was found"
    return found.flaws[0]


def test_an_honest_ledger_verifies_and_says_how_far_it_is_sealed(books: Books) -> None:
    found = books.verify()
    assert (found.flaws, found.lines, found.heads, found.unsealed_lines) == ([], 12, 1, 4)
    sealed = books.seal()
    assert sealed is not None
    again = books.verify()
    assert (again.flaws, again.heads, again.unsealed_lines) == ([], 2, 0)
    assert again.head == f"{sealed.number}:{sealed.digest}"
    assert books.seal() == heads.Seal(2, sealed.digest, KEYSET, is_new=False)  # again changes nothing
    assert books.verify().heads == 2


ADA = "(SELECT id FROM ledger_accounts WHERE customer_id = 'ada' AND kind = 'available')"
EDITS = {
    "its amount": "UPDATE ledger_lines SET amount = amount + 1, balance_after = balance_after + 1",
    "its balances": "UPDATE ledger_lines SET balance_before = balance_before + 1, balance_after = balance_after + 1",
    "its type": "UPDATE ledger_lines SET type = 'fee'",
    "its time": "UPDATE ledger_lines SET at = at - interval '1 second'",
    "its transfer": "UPDATE ledger_lines SET transfer_id = gen_random_uuid()",
    "its leg": "UPDATE ledger_lines SET leg = leg + 5",
    "its id": "UPDATE ledger_lines SET id = id + 5",
    "its hash": "UPDATE ledger_lines SET hash = sha256(hash)",
}
PLACES = (1, 2, 5)
"""Of five lines: the first, one in the middle, and the last, which no head has sealed."""


def test_every_edit_of_any_line_is_found_and_the_line_is_named(books: Books) -> None:
    for edit, statement in EDITS.items():
        for place in PLACES:
            found = books.what_if(f"{statement} WHERE account_id = {ADA} AND seq = {place}")
            flaw = first(found)
            assert f"#{place}" in flaw.where or edit == "its transfer", (edit, place, flaw)
    assert books.verify().flaws == []


def test_an_edited_transfer_is_found_by_its_lines(books: Books) -> None:
    for edit in (
        "reference = 'another'",
        "content_hash = sha256(content_hash)",
        "parent_id = id",
        "kind = 'post'",
        "legs = 3",
    ):
        found = books.what_if(f"UPDATE ledger_transfers SET {edit} WHERE kind = 'void'")
        assert first(found).wrong is Wrong.CHANGED, edit


def test_an_account_given_to_somebody_else_is_found_by_its_first_line(books: Books) -> None:
    found = books.what_if(
        "UPDATE ledger_accounts SET customer_id = 'ben', kind = 'trading' WHERE id = " + ADA
    )
    flaw = first(found)
    assert (flaw.wrong, "ben:trading:BTC #1" in flaw.where) == (Wrong.CHANGED, True)


def test_a_deleted_line_is_missed(books: Books) -> None:
    for place in PLACES:
        found = books.what_if(f"DELETE FROM ledger_lines WHERE account_id = {ADA} AND seq = {place}")
        told = [(flaw.wrong, flaw.where) for flaw in found.flaws]
        assert (Wrong.MISSING, f"ada:available:BTC #{place}") in told, told


def test_an_inserted_line_is_named(books: Books) -> None:
    found = books.what_if(
        "INSERT INTO ledger_lines SELECT id + 1000, transfer_id, leg + 2, account_id, 6, type, amount, balance_after,"
        f" balance_after + amount, at, hash FROM ledger_lines WHERE account_id = {ADA} AND seq = 5"
    )
    assert (first(found).wrong, "#6" in first(found).where) == (Wrong.CHANGED, True)


def test_two_lines_in_another_order_are_found(books: Books) -> None:
    found = books.what_if(
        f"UPDATE ledger_lines SET seq = seq + 1000 WHERE account_id = {ADA} AND seq IN (4, 5)",
        "UPDATE ledger_lines SET seq = 1009 - seq WHERE seq > 1000",
    )
    assert "ada:available:BTC #4" in first(found).where


def test_ids_exchanged_between_two_accounts_are_found(books: Books) -> None:
    found = books.what_if(
        "UPDATE ledger_lines SET id = -id WHERE leg = 2 AND seq = 1 AND type = 'deposit'",
        "UPDATE ledger_lines l SET id = l.id - (SELECT min(id) + max(id) FROM ledger_lines WHERE id < 0) WHERE id < 0",
    )
    assert first(found).wrong is Wrong.CHANGED


LESS = (
    f"UPDATE ledger_lines SET amount = 90, balance_after = 90 WHERE account_id = {ADA} AND seq = 1",
    "UPDATE ledger_lines SET amount = -90, balance_after = -90 WHERE seq = 1 AND leg = 1 AND amount = -100",
)
"""Ten less in the first deposit."""

# --------------------------------------------------------------------- somebody who computes all hashes anew


def test_sealed_history_written_anew_with_all_its_hashes_is_found_by_the_head(books: Books) -> None:
    books.forge(*LESS)
    books.rechain()
    found = books.verify()
    assert {flaw.wrong for flaw in found.flaws} == {Wrong.REWRITTEN}
    assert "head 1 has sealed another line" in found.flaws[0].detail


def test_so_is_a_sealed_transfer_taken_out_with_all_its_lines(books: Books) -> None:
    books.forge(
        "DELETE FROM ledger_lines l USING ledger_transfers t WHERE t.id = l.transfer_id AND t.kind IN ('hold', 'void')",
        "DELETE FROM ledger_holds",
        "DELETE FROM ledger_transfers WHERE kind IN ('hold', 'void')",
    )
    books.rechain()
    assert books.verify().flaws


def test_and_the_forger_cannot_make_a_head_of_his_own(books: Books) -> None:
    books.forge(*LESS)
    books.rechain()
    books.forge("DELETE FROM ledger_head_accounts", "DELETE FROM ledger_heads")
    assert books.verify().unsealed_lines == 12
    with pytest.raises(Refused, match="another head 1 was signed before"):
        books.seal()
    # Nor is it believed while it waits, by whoever has kept what was sealed, or asks the signer.
    told = books.sealer.sealing.seal(SealRequest(keyset=KEYSET))
    assert first(books.verify(heads={told.number: told.digest})).wrong is Wrong.HEAD


def test_heads_that_were_cut_off_are_missed_by_whoever_remembers_one(books: Books) -> None:
    sealed = books.seal()
    assert sealed is not None
    books.forge(
        "DELETE FROM ledger_head_accounts WHERE head = 2", "DELETE FROM ledger_heads WHERE number = 2"
    )
    assert books.verify().flaws == []
    found = books.verify(heads={2: sealed.digest})
    assert (first(found).wrong, first(found).where) == (Wrong.HEAD, "head 2")


def test_an_edited_head_is_named(books: Books) -> None:
    books.seal()
    for edit in (
        "UPDATE ledger_heads SET signature = (SELECT signature FROM ledger_heads WHERE number = 2) WHERE number = 1",
        "UPDATE ledger_heads SET document = replace(document, '8', '7'), lines = 7 WHERE number = 1",
        "UPDATE ledger_heads SET signature = NULL, keyset = NULL WHERE number = 1",
        "UPDATE ledger_heads SET keyset = 'another' WHERE number = 2",
        "UPDATE ledger_head_accounts SET seq = seq - 1 WHERE head = 1 AND seq > 1",
        "DELETE FROM ledger_head_accounts WHERE head = 1",
        "DELETE FROM ledger_heads WHERE number = 1",
    ):
        assert Wrong.HEAD in {flaw.wrong for flaw in books.what_if(edit).flaws}, edit


def test_what_is_not_found_is_a_balanced_tail_since_the_last_head_with_all_its_hashes(books: Books) -> None:
    """The window: as wide as the time between two heads. With the next head it closes."""
    books.forge(
        "UPDATE ledger_lines SET amount = amount + sign(amount), balance_after = balance_after + sign(amount)"
        " WHERE transfer_id = (SELECT transfer_id FROM ledger_lines ORDER BY id DESC LIMIT 1)"
    )
    books.rechain()
    assert books.verify().flaws == []
    # One that does not balance is.
    books.forge(
        "UPDATE ledger_lines SET amount = amount - 1, balance_after = balance_after - 1"
        f" WHERE account_id = {ADA} AND seq = 5"
    )
    books.rechain()
    assert first(books.verify()).wrong is Wrong.OUT_OF_BALANCE


# ----------------------------------------------------------------------------------------------------- sealing


def test_each_day_is_closed_by_one_head(books: Books) -> None:
    books.now += 3600
    books.seal()
    books.now += DAY
    closing = books.seal()  # nothing was booked, but a day is over
    assert closing is not None
    books.now += 60
    assert books.seal() == heads.Seal(closing.number, closing.digest, KEYSET, is_new=False)
    books.now += 3 * DAY
    books.seal()
    with books.db.snapshot() as tx:
        rows = tx.all("SELECT number, day::text FROM ledger_heads ORDER BY number")
    assert [(row["number"], row["day"]) for row in rows] == [
        (1, None),
        (2, None),
        (3, "2026-11-21"),
        (4, "2026-11-24"),
    ]
    assert books.verify().flaws == []


def test_a_signer_that_does_not_answer_is_asked_for_the_same_head_again(books: Books) -> None:
    books.sealer.failing = SignerUnavailable("gone")
    with pytest.raises(TransientError):
        books.seal()
    booked(books.db, move("ada", "ben", 1))
    with pytest.raises(TransientError):
        books.seal()
    found = books.verify()
    assert (found.flaws, found.heads, found.unsealed_lines) == ([], 1, 6)
    books.sealer.failing = None
    books.sealer.stop()
    books.sealer.start()  # what it signed it knows after a restart
    assert books.seal() is not None
    assert books.seal() is not None
    assert (books.verify().flaws, books.verify().heads, books.verify().unsealed_lines) == ([], 3, 0)


def test_a_signed_head_whose_answer_was_lost_is_signed_again_just_the_same(books: Books) -> None:
    def lost(request: SealRequest) -> Sealed:
        answer = books.sealer.sealing.seal(request)
        if request.heads:
            raise SignerUnavailable("the answer was lost")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(books.sealer, "seal", lost)
        with pytest.raises(TransientError):
            books.seal()
    assert books.seal() is not None
    assert (books.verify().flaws, books.verify().unsealed_lines) == ([], 0)


def test_a_signer_with_an_empty_journal_goes_on_where_another_was(books: Books) -> None:
    books.seal()
    books.sealer.forget()
    booked(books.db, move("ada", "ben", 1))
    sealed = books.seal()
    assert sealed is not None
    assert sealed.number == 3
    assert books.verify().flaws == []


def test_who_keeps_it_sealed_is_told_when_the_signer_knows_another_history(books: Books) -> None:
    signers: Any = {KEYSET: books.sealer}
    assert heads.keep_sealed(books.db, books.sealer.bundle(), signers, now=books.now) == 1
    assert heads.keep_sealed(books.db, books.sealer.bundle(), signers, now=books.now) == 0
    books.forge(
        "DELETE FROM ledger_head_accounts WHERE head = 2", "DELETE FROM ledger_heads WHERE number = 2"
    )
    books.now += 60
    assert heads.keep_sealed(books.db, books.sealer.bundle(), signers, now=books.now) == 0
    with books.db.snapshot() as tx:
        [alert] = open_alerts(tx)
    assert (alert.type, alert.severity.value) == ("ledger.not_sealed", "critical")


def test_only_workers_write_heads_and_nobody_edits_one(books: Books) -> None:
    with psycopg.connect(books.dsn, autocommit=True) as connection:
        for statement in ("DELETE FROM ledger_heads", "UPDATE ledger_heads SET lines = 0"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        connection.execute("SET SESSION AUTHORIZATION strongroom_api")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO ledger_heads (number) VALUES (9)")
