"""What the journal says: its tables, and the questions and records of its single writer."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, Final

import msgspec

from signers.errors import SignerStopped
from signers.guard import Examined, Exposure
from signers.window import RollingWindow

SCHEMA: Final = """
CREATE TABLE journal (id TEXT NOT NULL, format INTEGER NOT NULL);
CREATE TABLE batches (number INTEGER PRIMARY KEY, head BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE bundles (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE transactions (
    chain TEXT NOT NULL, content TEXT NOT NULL, keyset TEXT NOT NULL, fee TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (chain, content)
) WITHOUT ROWID;
CREATE TABLE intents (id TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transaction_intents (
    intent TEXT NOT NULL REFERENCES intents, chain TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (intent, chain, content), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
CREATE INDEX transaction_intents_by_content ON transaction_intents (chain, content);
CREATE TABLE transaction_resources (
    chain TEXT NOT NULL, content TEXT NOT NULL, resource TEXT NOT NULL,
    PRIMARY KEY (chain, content, resource), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
CREATE TABLE signatures (                 -- of keys that would not make the same one again
    chain TEXT NOT NULL, content TEXT NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (chain, content), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
CREATE TABLE exposures (                  -- largest units and latest time of each key
    kind TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, units TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (kind, scope, key)
) WITHOUT ROWID;
CREATE INDEX exposures_by_time ON exposures (kind, scope, at);
CREATE TABLE high_marks (                 -- highest change index or nonce signed; text, for nonces are 64 bits wide
    keyset TEXT PRIMARY KEY, highest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE attestations (
    keyset TEXT NOT NULL, branch INTEGER NOT NULL, number INTEGER NOT NULL,
    customer TEXT, asset TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (keyset, branch, number)
) WITHOUT ROWID;
"""


class Book:
    """The journal as its single writer sees it: everything recorded so far, this batch included.

    Implements `guard.JournalView`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._windows: dict[tuple[Exposure, str, int], RollingWindow] = {}
        self.entries: list[bytes] = []
        """Digests of what the running batch has recorded."""
        self.latest = self._number("SELECT max(at) FROM batches")
        """Latest time recorded; time never goes back."""
        self.signed = self._number("SELECT count(*) FROM transactions")
        """Transactions signed since the journal began."""
        self.bundle = self._bundle()
        """Highest bundle version adopted, and its digest; (0, "") before the first."""

    def _bundle(self) -> tuple[int, str]:
        row = self._sql.execute(
            "SELECT version, digest FROM bundles ORDER BY version DESC LIMIT 1"
        ).fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def _number(self, sql: str, *values: object) -> int:
        row = self._sql.execute(sql, values).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else 0

    def transaction(self, chain: str, content: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""
        rows = self._sql.execute(
            "SELECT i.id, i.digest FROM transaction_intents t JOIN intents i ON i.id = t.intent"
            " WHERE t.chain = ? AND t.content = ?",
            (chain, content),
        ).fetchall()
        return dict(rows) or None

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""
        row = self._sql.execute("SELECT digest FROM intents WHERE id = ?", (intent_id,)).fetchone()
        return None if row is None else str(row[0])

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Content and resources of every transaction journaled for an intent."""
        resources: dict[str, set[str]] = {}
        for content, resource in self._sql.execute(
            "SELECT r.content, r.resource FROM transaction_intents t"
            " JOIN transaction_resources r ON r.chain = t.chain AND r.content = t.content WHERE t.intent = ?",
            (intent_id,),
        ):
            resources.setdefault(content, set()).add(resource)
        return [(content, frozenset(found)) for content, found in resources.items()]

    def window(self, kind: Exposure, scope: str, seconds: int) -> RollingWindow:
        """A rolling sum, read from the tables when it is first asked for."""
        key = (kind, scope, seconds)
        if key not in self._windows:
            window = RollingWindow(seconds)
            for name, units, at in self._sql.execute(
                "SELECT key, units, at FROM exposures WHERE kind = ? AND scope = ? AND at > ? ORDER BY at",
                (kind.value, scope, self.latest - seconds),
            ):
                window.put(name, int(units), at)
            self._windows[key] = window
        return self._windows[key]

    def high_water(self, keyset: str) -> int:
        """Highest number (change index, nonce) signed for a key-set, -1 if none."""
        row = self._sql.execute("SELECT highest FROM high_marks WHERE keyset = ?", (keyset,)).fetchone()
        return -1 if row is None else int(row[0])

    def signature(self, chain: str, content: str) -> str | None:
        """The signature released for a transaction, None if none was, or if its keys make the same one again."""
        row = self._sql.execute(
            "SELECT signature FROM signatures WHERE chain = ? AND content = ?", (chain, content)
        ).fetchone()
        return None if row is None else str(row[0])

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""
        row = self._sql.execute(
            "SELECT customer, asset FROM attestations WHERE keyset = ? AND branch = ? AND number = ?",
            (keyset, branch, index),
        ).fetchone()
        return None if row is None else (row[0], str(row[1]))

    def record_transaction(self, examined: Examined[Any], *, now: int) -> None:
        """Record what is about to be signed: intents, unsigned hash, resources, amounts, fee, highest number."""
        request, unsigned, run = examined.request, examined.unsigned, self._sql.execute
        chain, content = request.chain, unsigned.content
        self._enter("transaction", chain, content, sorted(examined.digests.items()), now=now)
        run(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?)",
            (chain, content, request.keyset, str(unsigned.fee_units), now),
        )
        many = self._sql.executemany
        many("INSERT INTO intents VALUES (?, ?) ON CONFLICT DO NOTHING", examined.digests.items())
        many(
            "INSERT INTO transaction_intents VALUES (?, ?, ?)",
            [(i, chain, content) for i in examined.digests],
        )
        many(
            "INSERT INTO transaction_resources VALUES (?, ?, ?)",
            [(chain, content, r) for r in unsigned.resources],
        )
        for cap in examined.grounds.caps:
            for intent_id, units in examined.payments(cap.asset):
                self._expose(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", intent_id, units, now)
        for kind in (Exposure.TIER_FEES, Exposure.CHAIN_FEES):
            self._expose(kind, examined.fee_scope(kind), examined.fee_group, unsigned.fee_units, now)
        if examined.breaker is not None:
            for key, worth in examined.value:
                self._expose(Exposure.VALUE, examined.breaker.id, key, worth, now)
        if examined.reach.number > self.high_water(request.keyset):
            run(
                "INSERT OR REPLACE INTO high_marks VALUES (?, ?)",
                (request.keyset, str(examined.reach.number)),
            )
        self.signed += 1

    def record_signature(self, chain: str, content: str, signature: str) -> None:
        """Record the signature that a journaled transaction gets, for ever."""
        self._enter("signature", chain, content, signature, now=self.latest)
        self._sql.execute("INSERT INTO signatures VALUES (?, ?, ?)", (chain, content, signature))

    def record_attestation(
        self, keyset: str, branch: int, index: int, customer: str | None, asset: str, *, now: int
    ) -> None:
        """Record that a path belongs to a customer and asset, for ever."""
        self._enter("attestation", keyset, branch, index, customer, asset, now=now)
        self._sql.execute(
            "INSERT INTO attestations VALUES (?, ?, ?, ?, ?, ?)",
            (keyset, branch, index, customer, asset, now),
        )

    def record_bundle(self, version: int, digest: str, *, now: int) -> None:
        """Record that a bundle was adopted; older ones never are again."""
        self._enter("bundle", version, digest, now=now)
        self._sql.execute("INSERT INTO bundles VALUES (?, ?, ?)", (version, digest, now))
        self.bundle = (version, digest)

    def _enter(self, what: str, *content: Any, now: int) -> None:
        if now < self.latest:
            raise SignerStopped(f"the journal is at {self.latest}; an entry of {now} would go back in time")
        self.latest = now
        self.entries.append(hashlib.sha256(msgspec.json.encode([what, now, *content])).digest())

    def _expose(self, kind: Exposure, scope: str, key: str, units: int, now: int) -> None:
        # Text, for SQLite's integers end at 2**63; so the larger one is found here, not in SQL.
        row = self._sql.execute(
            "SELECT units FROM exposures WHERE kind = ? AND scope = ? AND key = ?", (kind.value, scope, key)
        ).fetchone()
        largest = max(units, int(row[0]) if row else 0)
        self._sql.execute(
            "INSERT OR REPLACE INTO exposures VALUES (?, ?, ?, ?, ?)",
            (kind.value, scope, key, str(largest), now),
        )
        for (of, where, _), window in self._windows.items():
            if (of, where) == (kind, scope):
                window.put(key, largest, now)
