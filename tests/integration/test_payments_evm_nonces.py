"""Nonces on a real database: the lowest that nothing uses, once each, whatever was refused, mined or undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from chains.eth.tx import nonce_resource
from custody.ids import new_id
from custody.signing import repository, reservations
from custody.signing.errors import Raced
from custody.signing.evm import nonces
from custody.storage.db import Database, Tx
from tests.fakes.api import as_role

CHAIN = "ethereum-devnet"
KEYSET = "eth-hot"
SENDER = bytes(range(20))
ACCOUNT = f"0x{SENDER.hex()}"


class Book:
    """What workers and the monitor write, as far as nonces are concerned."""

    def __init__(self, dsn: str) -> None:
        self.admin = Database(dsn, application="test", pool_size=2)
        self.db = Database(as_role(dsn, "strongroom_worker"), application="worker", pool_size=8)
        self.execute("INSERT INTO blocks VALUES (%s, 100, %s, %s, now())", CHAIN, "0" * 64, "0" * 64)
        self.execute(
            "INSERT INTO cursors (chain, height, hash, anchor) VALUES (%s, 100, %s, 90)", CHAIN, "0" * 64
        )

    def close(self) -> None:
        self.db.close()
        self.admin.close()

    def execute(self, sql: str, *params: Any) -> None:
        with self.admin.transaction() as tx:
            tx.execute(sql.encode(), params)

    def first(self) -> int:
        with self.admin.transaction() as tx:
            return int(tx.one("SELECT first FROM nonces")["first"])

    def take(self, used: int = 0) -> int:
        """Take a nonce and record a transaction with it."""
        with self.db.transaction() as tx:
            return self.take_in(tx, used)

    def take_in(self, tx: Tx, used: int = 0) -> int:
        nonce = nonces.take(tx, CHAIN, ACCOUNT, used=used)
        transaction = new_id()
        resource = nonce_resource(SENDER, nonce)
        repository.insert(tx, transaction, CHAIN, KEYSET, "payment", None)
        tx.execute(
            "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
            " fee_units, feerate, size) VALUES (%s, 1, '', '', %s, %s, 1, 1, 1)",
            [transaction, transaction.hex, [resource]],
        )
        assert reservations.reserve(tx, CHAIN, [resource], transaction)
        return nonce

    def transaction_of(self, nonce: int) -> UUID:
        with self.admin.transaction() as tx:
            row = tx.one(
                "SELECT transaction_id AS id FROM reservations WHERE resource = %s",
                [nonce_resource(SENDER, nonce)],
            )
        found: UUID = row["id"]
        return found

    def refuse(self, nonce: int) -> None:
        transaction = self.transaction_of(nonce)
        self.execute("UPDATE transactions SET state = 'refused' WHERE id = %s", transaction)
        self.execute("DELETE FROM reservations WHERE transaction_id = %s", transaction)

    def broadcast(self, nonce: int) -> None:
        self.execute("UPDATE transactions SET state = 'broadcast' WHERE id = %s", self.transaction_of(nonce))

    def mine(self, nonce: int, height: int = 100) -> None:
        self.execute(
            "INSERT INTO blocks VALUES (%s, %s, %s, %s, now()) ON CONFLICT DO NOTHING",
            CHAIN,
            height,
            f"{height:064x}",
            "0" * 64,
        )
        self.execute(
            "INSERT INTO consumptions (chain, resource, txid, content, succeeded, height, block_hash)"
            " VALUES (%s, %s, 'tx', 'content', true, %s, 'block')",
            CHAIN,
            nonce_resource(SENDER, nonce),
            height,
        )

    def undo(self, nonce: int) -> None:
        self.execute("DELETE FROM consumptions WHERE resource = %s", nonce_resource(SENDER, nonce))

    def hole(self) -> int | None:
        with self.db.snapshot() as tx:
            return nonces.hole(tx, CHAIN, KEYSET, ACCOUNT, older_than_seconds=0)


@pytest.fixture
def book(database: str) -> Iterator[Book]:
    opened = Book(database)
    yield opened
    opened.close()


def test_nonces_begin_where_the_chain_is_and_go_up_by_one_whatever_the_node_says_later(book: Book) -> None:
    assert [book.take(used=7), book.take(used=7), book.take(used=3), book.take(used=0)] == [7, 8, 9, 10]


def test_a_refused_one_is_taken_again_and_one_that_is_used_or_reserved_never(book: Book) -> None:
    for _ in range(4):
        book.take()
    book.refuse(1)
    book.mine(4)  # somebody else's
    assert [book.take(), book.take(), book.take()] == [1, 5, 6]


def test_a_foreign_use_that_a_reorg_undoes_leaves_a_hole_that_is_taken(book: Book) -> None:
    assert book.take() == 0
    book.mine(1)
    assert book.take() == 2
    book.undo(1)
    assert book.take() == 1


def test_what_is_final_is_not_looked_at_again_and_what_is_not_is(book: Book) -> None:
    for nonce in range(3):
        book.take()
        book.mine(nonce, height=80 if nonce < 2 else 95)
    assert book.take() == 3
    assert book.first() == 2
    book.execute("UPDATE cursors SET anchor = 100")
    assert book.take() == 4
    assert book.first() == 3


def test_a_long_history_is_passed_over(book: Book) -> None:
    assert book.take() == 0
    book.mine(0, height=1)
    book.execute(
        "INSERT INTO consumptions (chain, resource, txid, content, succeeded, height, block_hash)"
        " SELECT %s, %s || ':' || n, 'tx', 'content', true, 1, 'block' FROM generate_series(1, 1000) AS n",
        CHAIN,
        ACCOUNT,
    )
    assert book.take() == 1001
    assert book.first() == 1001


def test_a_nonce_that_the_chain_has_used_and_nobody_has_seen_is_not_given_out(book: Book) -> None:
    assert book.take() == 0
    with pytest.raises(Raced, match=r"nonce 1 .* is used"):
        book.take(used=2)
    book.mine(1)
    assert book.take(used=2) == 2


def test_of_many_who_take_at_once_each_gets_its_own_and_none_is_left_out(book: Book) -> None:
    taken: list[int] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        barrier.wait()
        for _ in range(5):
            taken.append(book.take())

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(30))


def test_one_who_gives_up_leaves_the_nonce_to_the_next(book: Book) -> None:
    def take_and_die() -> None:
        with book.db.transaction() as tx:
            assert book.take_in(tx) == 0
            raise RuntimeError("died before the commit")

    with pytest.raises(RuntimeError):
        take_and_die()
    assert book.take() == 0


def test_a_hole_is_one_only_below_what_is_broadcast_and_not_when_filling_it_was_just_refused(
    book: Book,
) -> None:
    assert book.hole() is None
    for _ in range(3):
        book.take()
    book.refuse(0)
    assert book.hole() is None, "what is above it has not been sent: nothing waits"
    book.broadcast(2)
    assert book.hole() == 0
    assert book.take() == 0
    book.execute("UPDATE transactions SET kind = 'nonce_fill' WHERE id = %s", book.transaction_of(0))
    assert book.hole() is None
    book.refuse(0)
    book.execute(
        "UPDATE transactions SET created_at = now() - interval '61 seconds' WHERE state = 'broadcast'"
    )
    with book.db.snapshot() as tx:
        assert nonces.hole(tx, CHAIN, KEYSET, ACCOUNT, older_than_seconds=60) is None, "refused just now"
    book.execute("UPDATE transactions SET updated_at = now() - interval '61 seconds' WHERE state = 'refused'")
    with book.db.snapshot() as tx:
        assert nonces.hole(tx, CHAIN, KEYSET, ACCOUNT, older_than_seconds=60) == 0


def test_the_head_is_the_lowest_nonce_that_is_in_no_block(book: Book) -> None:
    with book.db.snapshot() as tx:
        assert nonces.head(tx, CHAIN, KEYSET) is None
    for _ in range(12):
        book.take()
    for nonce in range(9):
        book.execute("UPDATE transactions SET state = 'broadcast' WHERE id = %s", book.transaction_of(nonce))
        book.execute("UPDATE transactions SET state = 'confirming' WHERE id = %s", book.transaction_of(nonce))
    with book.db.snapshot() as tx:
        assert nonces.head(tx, CHAIN, KEYSET) == book.transaction_of(9), (
            "in the order of numbers, not of texts"
        )
        assert nonces.unconfirmed(tx, CHAIN, KEYSET) == 3
