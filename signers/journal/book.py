"""What the journal says: the questions and records of its single writer."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from policies.bundle import Bundle, SignedBundle
from policies.canonical import decoder_for
from policies.statements import (
    ClockConfirmation,
    Freeze,
    SignedClockConfirmation,
    SignedFreeze,
    SignedLowering,
    SignedResolution,
    SignedVeto,
)
from signers.errors import SignerStopped
from signers.guard.examined import Examined, Exposure
from signers.guard.history import Past, past_of
from signers.guard.policy import Count
from signers.guard.refills import mark_of
from signers.journal.amounts import exposed, told_of
from signers.journal.counter import Counter
from signers.journal.exposures import Exposures
from signers.journal.logchain import FIRST_HEAD, next_head
from signers.journal.unresolved import note_resolved, unresolved
from signers.ports import LedgerHead, LogEntry, OpenTransaction, Unresolved
from signers.trust.clock import ClockNote
from signers.trust.officers import Officers, Waiting

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page of the log ends after so many bytes of bodies, for an answer has an end too."""

What = Literal[
    "transaction", "attestation", "bundle", "waiting", "veto", "freeze", "lowering", "clock", "resolution"
]


class Book:
    """The journal as its single writer sees it: everything recorded so far, this batch included.

    Implements `guard.JournalView` and `sightings.SightBook`.
    """

    def __init__(self, connection: sqlite3.Connection, journal: str) -> None:
        self._sql = connection
        self.journal = journal
        """Id of the journal, 64 hex digits."""
        self.entries: list[bytes] = []
        """Digests of what the running batch has recorded."""
        last = self._row("SELECT at, signed FROM batches ORDER BY number DESC LIMIT 1")
        self.latest: int = last[0]
        """Latest time recorded; time never goes back."""
        self.signed: int = last[1]
        """Transactions signed since the journal began."""
        self.logged: tuple[int, str] = self._row(
            "SELECT number, head FROM log ORDER BY number DESC LIMIT 1", (0, FIRST_HEAD)
        )
        """Number and head of the log's last entry; 0 before the first."""
        self.bundle: tuple[int, str] = self._row(
            "SELECT version, digest FROM bundles ORDER BY version DESC LIMIT 1", (0, "")
        )
        """Highest bundle version adopted, and its digest; (0, "") before the first."""
        self._exposures = Exposures(connection)
        self.officers = Officers(connection, self.bundle[0])
        """What officers have handed over."""
        self._history: tuple[Past, ...] | None = None
        self._high_marks: dict[str, int] = {}

    def _row(self, sql: str, otherwise: tuple[Any, Any] = (0, 0)) -> tuple[Any, Any]:
        row = self._sql.execute(sql).fetchone()
        return otherwise if row is None else (row[0], row[1])

    # What the guard asks.

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

    def window(self, kind: Exposure, scope: str, seconds: int) -> Counter:
        """The sum of what is open, and of what ended within `seconds` (see `signers.journal.exposures`)."""
        return self._exposures.window(kind, scope, seconds, latest=self.latest)

    def high_water(self, keyset: str) -> int:
        """Highest number (change index, nonce) signed for a key-set, or paid to of a target; -1 if none."""
        found = self._high_marks.get(keyset)
        if found is None:
            row = self._sql.execute("SELECT highest FROM high_marks WHERE keyset = ?", (keyset,)).fetchone()
            found = self._high_marks[keyset] = -1 if row is None else int(row[0])
        return found

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""
        row = self._sql.execute(
            "SELECT customer, asset FROM attestations WHERE keyset = ? AND branch = ? AND number = ?",
            (keyset, branch, index),
        ).fetchone()
        return None if row is None else (row[0], str(row[1]))

    def history(self) -> tuple[Past, ...]:
        """The bundles that this signer has adopted, oldest first."""
        if self._history is None:
            rows = self._sql.execute("SELECT signed, at FROM bundles ORDER BY version").fetchall()
            ends = [*(int(at) for _, at in rows[1:]), None]
            self._history = tuple(
                past_of(decoder_for(SignedBundle).decode(signed).bundle, since=int(at), until=end)
                for (signed, at), end in zip(rows, ends, strict=True)
            )
        return self._history

    def order_since(self, order_digest: str) -> int | None:
        """When this signer first saw an order, by its own clock; None if it never did."""
        row = self._sql.execute("SELECT at FROM orders_seen WHERE digest = ?", (order_digest,)).fetchone()
        return None if row is None else int(row[0])

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When this signer first saw an order to a destination, by its own clock; None if it never did."""
        row = self._sql.execute(
            "SELECT at FROM destinations_seen WHERE chain = ? AND destination = ?", (chain, destination)
        ).fetchone()
        return None if row is None else int(row[0])

    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that no higher bundle has lifted."""
        return self.officers.freezes

    def goes_by(self, bundle: Bundle) -> bool:
        """Whether this is the bundle in force, with all that officers have lowered."""
        lowered = () if bundle.overlay is None else bundle.overlay.lowerings
        return (bundle.version, lowered) == (self.bundle[0], self.officers.lowered)

    # What else is asked.

    def signature(self, chain: str, content: str) -> str | None:
        """The signature released for a transaction, None if none was, or if its keys make the same one again."""
        row = self._sql.execute(
            "SELECT signature FROM signatures WHERE chain = ? AND content = ?", (chain, content)
        ).fetchone()
        return None if row is None else str(row[0])

    def open_sights(self, now: int, caller: str | None = None) -> int:
        """How many orders seen have not expired: of one caller, or of all (None)."""
        row = self._sql.execute(
            "SELECT count(*) FROM orders_seen WHERE expires_at > ? AND (? IS NULL OR caller = ?)",
            (now, caller, caller),
        ).fetchone()
        return int(row[0])

    def signed_bundle(self) -> bytes | None:
        """JSON of the `SignedBundle` that was adopted last, None before the first."""
        row = self._sql.execute("SELECT signed FROM bundles ORDER BY version DESC LIMIT 1").fetchone()
        return None if row is None else bytes(row[0])

    def clock_note(self) -> ClockNote | None:
        """The last note of the clock, None before the first."""
        row = self._sql.execute("SELECT note FROM clock").fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=ClockNote)

    def was_confirmed(self, confirmation: ClockConfirmation) -> bool:
        """Whether this very confirmation of the time was used before."""
        digest = confirmation.digest_hex()
        found = self._sql.execute("SELECT 1 FROM clock_confirmations WHERE digest = ?", (digest,)).fetchone()
        return found is not None

    def open_transactions(self, after: tuple[str, str] | None, most: int) -> list[OpenTransaction]:
        """Up to `most` transactions without a resolution, by chain and content, after the given one."""
        rows = self._sql.execute(
            "SELECT chain, content FROM transactions WHERE outcome IS NULL AND (chain, content) > (?, ?)"
            " ORDER BY chain, content LIMIT ?",
            (*(after or ("", "")), most),
        ).fetchall()
        return [
            OpenTransaction(chain=chain, content=content, resources=self.resources(chain, content))
            for chain, content in rows
        ]

    def unresolved(self) -> tuple[Unresolved, ...]:
        """How many have no resolution, and since when, by wallet and chain."""
        return unresolved(self._sql)

    def resources(self, chain: str, content: str) -> tuple[str, ...]:
        """What a journaled transaction uses, sorted; empty for one that was never journaled."""
        rows = self._sql.execute(
            "SELECT resource FROM transaction_resources WHERE chain = ? AND content = ? ORDER BY resource",
            (chain, content),
        )
        return tuple(str(resource) for (resource,) in rows)

    def outcome(self, chain: str, content: str) -> Literal["open", "confirmed", "dead"] | None:
        """What became of a journaled transaction as far as was told, None if it was never journaled."""
        row = self._sql.execute(
            "SELECT coalesce(outcome, 'open') FROM transactions WHERE chain = ? AND content = ?",
            (chain, content),
        ).fetchone()
        return None if row is None else row[0]

    def log_entries(self, after: int, most: int) -> list[LogEntry]:
        """Up to `most` entries of the log after a number; fewer where they are long, at least one if there is one."""
        found: list[LogEntry] = []
        length = 0
        for number, at, what, body, head in self._sql.execute(
            "SELECT number, at, what, body, head FROM log WHERE number > ? ORDER BY number LIMIT ?",
            (after, most),
        ):
            length += len(body)
            if found and length > PAGE_BYTES:
                break
            found.append(LogEntry(number=number, at=at, what=what, body=msgspec.Raw(body), head=head))
        return found

    # What is recorded.

    def record_transaction(self, examined: Examined[Any], counts: Iterable[Count], *, now: int) -> None:
        """Record what is about to be signed: intents, unsigned hash, resources, amounts, fee, value, highest number."""
        request, unsigned, run = examined.request, examined.unsigned, self._sql.execute
        chain, content = request.chain, unsigned.content
        self._log("transaction", told_of(examined), now=now)
        self._enter("transaction", chain, content, sorted(examined.digests.items()), now=now)
        run(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (chain, content, request.keyset, str(unsigned.fee_units), examined.fee_group, now),
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
        policy = ((Exposure.POLICY, count.scope, count.intent, count.amount) for count in counts)
        self._exposures.put((*exposed(examined), *policy), now=now)
        self._raise(request.keyset, examined.reach.number)
        if examined.target is not None and examined.target.index is not None:
            self._raise(mark_of(examined.target), examined.target.index)
        self.signed += 1

    def _raise(self, name: str, number: int) -> None:
        """Remember a number that is higher than any before."""
        if number > self.high_water(name):
            self._high_marks[name] = number
            self._sql.execute("INSERT OR REPLACE INTO high_marks VALUES (?, ?)", (name, str(number)))

    def record_signature(self, chain: str, content: str, signature: str) -> None:
        """Record the signature that a journaled transaction gets, for ever."""
        self._enter("signature", chain, content, signature, now=self.latest)
        self._sql.execute("INSERT INTO signatures VALUES (?, ?, ?)", (chain, content, signature))

    def record_resolution(self, signed: SignedResolution, *, now: int) -> None:
        """Record what became of a journaled transaction, and end what it leaves open no more.

        Args:
            signed: a verifier's word, whose signature was checked; of a transaction that is not confirmed yet.
            now: when it arrived here.
        """
        resolution = signed.resolution
        place = (resolution.chain, resolution.content)
        self._log("resolution", signed, now=now)
        self._sql.execute(
            "UPDATE transactions SET outcome = ?, resolved_at = ? WHERE chain = ? AND content = ?",
            (resolution.outcome, now, *place),
        )
        rows = self._sql.execute(
            "SELECT intent FROM transaction_intents WHERE chain = ? AND content = ?"
            " UNION ALL SELECT fee_group FROM transactions WHERE chain = ? AND content = ?",
            (*place, *place),
        ).fetchall()
        for (key,) in rows:
            self._exposures.settle(key)
        note_resolved(self._sql, resolution.chain, resolution.content, now=now)

    def record_attestation(
        self, keyset: str, branch: int, index: int, customer: str | None, asset: str, *, now: int
    ) -> None:
        """Record that a path belongs to a customer and asset, for ever."""
        told = {"keyset": keyset, "branch": branch, "index": index, "customer": customer, "asset": asset}
        self._log("attestation", told, now=now)
        self._sql.execute(
            "INSERT INTO attestations VALUES (?, ?, ?, ?, ?, ?)",
            (keyset, branch, index, customer, asset, now),
        )

    def sealed(self) -> tuple[int, str, str]:
        """Number and digest of the last head of the ledger that was signed, and the last day that one has closed;
        (0, "", "") before the first."""
        row = self._sql.execute(
            "SELECT number, digest, (SELECT coalesce(max(day), '') FROM ledger_heads) FROM ledger_heads"
            " ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return (0, "", "") if row is None else (int(row[0]), str(row[1]), str(row[2]))

    def record_seal(self, head: LedgerHead, *, now: int) -> None:
        """Record that a head of the ledger is signed, for ever; its number and day are higher than any before."""
        digest = head.digest_hex()
        self._enter("ledger-head", head.number, digest, head.day, now=now)
        self._sql.execute(
            "INSERT INTO ledger_heads VALUES (?, ?, ?, ?)", (head.number, digest, head.day, now)
        )

    def record_sight(
        self, order_digest: str, chain: str, destination: str, *, caller: str, expires_at: int, now: int
    ) -> None:
        """Remember an order that was never seen before, and its destination unless that is known longer."""
        self._enter("sight", order_digest, chain, destination, caller, expires_at, now=now)
        run = self._sql.execute
        run("INSERT INTO orders_seen VALUES (?, ?, ?, ?)", (order_digest, caller, expires_at, now))
        run(
            "INSERT INTO destinations_seen VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (chain, destination, now)
        )

    def record_bundle(self, version: int, digest: str, signed: bytes, *, now: int) -> None:
        """Record that a bundle was adopted; older ones never are again, and freezes below it are lifted.

        Args:
            version: higher than every one before.
            digest: of the bundle.
            signed: JSON of the `SignedBundle`, with which the signer starts from now on.
            now: when.
        """
        self._log("bundle", {"version": version, "digest": digest}, now=now)
        self._sql.execute("INSERT INTO bundles VALUES (?, ?, ?, ?)", (version, digest, signed, now))
        self.bundle = (version, digest)
        self.officers.turn_to(version)
        self._history = None

    def record_freeze(self, signed: SignedFreeze, *, now: int) -> None:
        """Record an officer's freeze, whose signature was checked, unless that officer has said the same before."""
        self._log("freeze", signed, now=now)
        self.officers.add_freeze(signed, now=now)

    def record_waiting(self, waiting: Waiting, *, now: int) -> None:
        """Record that a bundle of the quorum waits, since when, instead of one that waited before."""
        told = {"version": waiting.version, "digest": waiting.digest, "since": waiting.since}
        self._log("waiting", told, now=now)
        self.officers.add_waiting(waiting)

    def record_veto(self, signed: SignedVeto, *, now: int) -> None:
        """Record an officer's veto of a bundle, whose signature was checked."""
        self._log("veto", signed, now=now)
        self.officers.add_veto(signed, now=now)

    def record_lowering(self, signed: SignedLowering, *, now: int) -> None:
        """Record that an officer lowers a number of the bundle in force; the signature was checked."""
        self._log("lowering", signed, now=now)
        self.officers.add_lowering(signed, now=now)

    def record_time(self, note: ClockNote, *, now: int) -> None:
        """Note the time, and what the clock has to know after a restart; a suspension comes into the log too."""
        before = self.clock_note()
        if note.suspended and (before is None or before.suspended != note.suspended):
            self._log("clock", {"suspended": note.suspended}, now=now)
        self._enter("time", msgspec.json.encode(note).decode(), now=now)
        self._sql.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (msgspec.json.encode(note), now))

    def record_confirmation(self, signed: SignedClockConfirmation, *, now: int) -> None:
        """Record an officer's word on the time, whose signature was checked; it can't be used again."""
        self._log("clock", signed, now=now)
        self._sql.execute(
            "INSERT INTO clock_confirmations VALUES (?, ?)", (signed.confirmation.digest_hex(), now)
        )

    def _log(self, what: What, body: Mapping[str, Any] | msgspec.Struct, *, now: int) -> None:
        """Write one entry of the log, which the batch's head covers."""
        number, raw = self.logged[0] + 1, msgspec.json.encode(body)
        head = next_head(self.logged[1], number, now, what, raw)
        self._enter("log", number, head, now=now)
        self._sql.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", (number, now, what, raw, head))
        self.logged = (number, head)

    def _enter(self, what: str, *content: Any, now: int) -> None:
        if now < self.latest:
            raise SignerStopped(f"the journal is at {self.latest}; an entry of {now} would go back in time")
        self.latest = now
        self.entries.append(hashlib.sha256(msgspec.json.encode([what, now, *content])).digest())
