"""Heads of the ledger: where all chains of lines end, sealed by a signer: nobody writes the past anew unseen.

A head is recorded first and signed then: a retry hands the signer the same one, and the signer signs no other of its
number. Until the next head, lines are held together by their hashes alone, which whoever can write to the database
without its triggers can compute as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from chains.errors import InvalidValue
from custody.storage import events
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database, Tx
from policies.bundle import Bundle, KeysetEntry
from policies.canonical import verify_ed25519
from signers.ports import LedgerHead, Refused, Sealed, Sealing, SealRequest, Signer, SignerUnavailable

NO_HEAD: Final = "00" * 32
"""What the first head has for the digest of the one before it."""
NOT_SEALED: Final = "ledger.not_sealed"
"""Type of the alert while the ledger cannot be sealed."""
PATIENCE_SECONDS: Final = 900
"""How long a head may wait for its signature before somebody is told."""
_AT_ONCE: Final = 500
_LOCK: Final = 0x1ED6E2


@dataclass(frozen=True, slots=True)
class Seal:
    """What `seal` did: the last head that is signed, and whether it is new."""

    number: int
    digest: str
    keyset: str
    is_new: bool


class Root:
    """The hash over the accounts of one head: each account's id, number and hash of its last line, by id."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, account_id: int, seq: int, line_hash: bytes) -> None:
        """Take the next account; ids rise."""
        self._hash.update(f"{account_id} {seq} {line_hash.hex()}\n".encode())

    def hex(self) -> str:
        """64 hex digits."""
        return self._hash.hexdigest()


def sealing_keyset(bundle: Bundle) -> KeysetEntry:
    """Whose attestation key seals the ledger: the bundle's first active key-set, by id.

    Raises:
        InvalidValue: there is none.
    """
    active = sorted((each for each in bundle.keysets if each.state == "active"), key=lambda each: each.id)
    if not active:
        raise InvalidValue("the bundle has no active key-set, so nobody can seal the ledger")
    return active[0]


def seal(database: Database, bundle: Bundle, signers: Mapping[str, Signer], *, now: int) -> Seal | None:
    """Seal what was booked since the last head; again, with nothing new, changes nothing.

    Args:
        database: as the workers' role.
        bundle: says whose key seals.
        signers: by key-set.
        now: UNIX seconds.

    Returns:
        The last head; None where there is nothing to seal yet.

    Raises:
        InvalidValue: the bundle has no key-set for it, or this process no signer of that key-set.
        Refused: the signer knows another history: somebody has changed or restored the ledger or the signer.
        SignerUnavailable: no answer. The head is recorded, and signed by the next call.
    """
    keyset = sealing_keyset(bundle)
    signer = signers.get(keyset.id)
    if not isinstance(signer, Sealing):
        raise InvalidValue(f"no signer is configured that could seal the ledger with {keyset.id}")
    with database.transaction() as tx:
        tx.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        head, signed_by = _last(tx)
        made = (
            None
            if head is not None and signed_by is None
            else _next(tx, head, signed_by == keyset.id, now=now)
        )
    if made is not None:
        head, signed_by = made, None
    if head is None:
        return None
    if signed_by is None:
        _signed(database, signer, keyset, head)
    return Seal(head.number, head.digest_hex(), signed_by or keyset.id, made is not None)


def keep_sealed(database: Database, bundle: Bundle, signers: Mapping[str, Signer], *, now: int) -> int:
    """`seal`, as workers do it every minute; what stands in its way for long becomes an alert.

    Returns:
        1 if there is a new head, else 0.

    Raises:
        TransientError: no answer; it is tried again.
    """
    try:
        done = seal(database, bundle, signers, now=now)
    except (Refused, InvalidValue) as error:
        _alarm(database, Severity.CRITICAL, str(error))
        return 0
    except SignerUnavailable as error:
        with database.transaction() as tx:
            waits = tx.optional(
                "SELECT number FROM ledger_heads WHERE signature IS NULL AND at < to_timestamp(%s) LIMIT 1",
                [now - PATIENCE_SECONDS],
            )
        if waits is not None:
            _alarm(database, Severity.WARNING, f"head {waits['number']} waits for its signature: {error}")
        raise
    with database.transaction() as tx:
        resolve_alert(tx, NOT_SEALED, "ledger")
    return int(done is not None and done.is_new)


def _alarm(database: Database, severity: Severity, why: str) -> None:
    with database.transaction() as tx:
        raise_alert(tx, severity, NOT_SEALED, "ledger", f"the ledger is not sealed: {why}"[:1000], {})


def _last(tx: Tx) -> tuple[LedgerHead | None, str | None]:
    """The last head, and who has signed it."""
    row = tx.optional("SELECT document, keyset FROM ledger_heads ORDER BY number DESC LIMIT 1")
    return (
        (None, None) if row is None else (LedgerHead.from_canonical(row["document"].encode()), row["keyset"])
    )


def _next(tx: Tx, last: LedgerHead | None, is_same_key: object, *, now: int) -> LedgerHead | None:
    """Record the next head, if there is a reason for one: new lines, a day that is over, or another key that seals."""
    changed = tx.all(
        """SELECT a.id, a.last_seq, a.hash, a.last_seq - s.seq AS added
           FROM ledger_accounts a
           CROSS JOIN LATERAL (SELECT coalesce(max(h.seq), 0) AS seq FROM ledger_head_accounts h
                               WHERE h.account_id = a.id) s
           WHERE a.last_seq > s.seq ORDER BY a.id"""
    )
    at = now if last is None else max(now, last.at)
    day = None if last is None else _closed(last.at, at)
    if not changed and (last is None or (day is None and is_same_key)):
        return None
    root = Root()
    for row in changed:
        root.add(row["id"], row["last_seq"], bytes(row["hash"]))
    head = LedgerHead(
        v=1,
        number=1 if last is None else last.number + 1,
        previous=NO_HEAD if last is None else last.digest_hex(),
        at=at,
        day=None if day is None else day.isoformat(),
        accounts=len(changed),
        lines=(0 if last is None else last.lines) + sum(row["added"] for row in changed),
        root=root.hex(),
    )
    tx.execute(
        "INSERT INTO ledger_heads (number, at, day, lines, document, digest)"
        " VALUES (%s, to_timestamp(%s), %s, %s, %s, %s)",
        [head.number, at, day, head.lines, head.canonical().decode(), head.digest_hex()],
    )
    tx.copy(
        b"COPY ledger_head_accounts (head, account_id, seq, hash) FROM STDIN",
        ((head.number, row["id"], row["last_seq"], row["hash"]) for row in changed),
    )
    return head


def _closed(before: int, now: int) -> date | None:
    """The last day that is over, if it was not when the head before was made."""
    today = datetime.fromtimestamp(now, UTC).date()
    return today - timedelta(days=1) if datetime.fromtimestamp(before, UTC).date() < today else None


def _signed(database: Database, signer: Sealing, keyset: KeysetEntry, head: LedgerHead) -> None:
    """Have a recorded head signed, and record the signature."""
    told = signer.seal(SealRequest(keyset=keyset.id))
    first = told.number + 1 if 0 < told.number < head.number else head.number
    sealed: Sealed | None = None
    for start in range(first, head.number + 1, _AT_ONCE):
        with database.snapshot() as tx:
            heads = _between(tx, start, min(start + _AT_ONCE - 1, head.number))
        sealed = signer.seal(SealRequest(keyset=keyset.id, heads=heads))
    if sealed is None or sealed.signature is None or sealed.digest != head.digest_hex():
        raise SignerUnavailable(f"the signer of {keyset.id} answered with another head than {head.number}")
    verify_ed25519(keyset.attestation_key, head.digest(), sealed.signature)
    with database.transaction() as tx:
        signed = tx.execute(
            "UPDATE ledger_heads SET keyset = %s, signature = %s WHERE number = %s AND signature IS NULL",
            [keyset.id, sealed.signature, head.number],
        )
        if signed and head.day is not None:
            told_of = {"number": head.number, "digest": sealed.digest, "day": head.day, "lines": head.lines}
            events.emit(tx, "ledger.sealed", str(head.number), told_of)


def _between(tx: Tx, first: int, last: int) -> tuple[LedgerHead, ...]:
    rows = tx.all(
        "SELECT document FROM ledger_heads WHERE number BETWEEN %s AND %s ORDER BY number", [first, last]
    )
    return tuple(LedgerHead.from_canonical(row["document"].encode()) for row in rows)
