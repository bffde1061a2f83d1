"""Recomputes the whole ledger from its lines: chains, balances, sums, and the sealed heads.

All of it is read as one moment, streamed, and computed here, not in the database. Of each account only the last line is
kept in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chains.errors import InvalidValue
from custody.ledger.chain import genesis
from custody.ledger.heads import NO_HEAD, Root
from custody.storage.db import Row, Tx, units
from policies.canonical import BadSignature, verify_ed25519
from signers.ports import LedgerHead

MOST_FLAWS: Final = 100
"""So many are told; all are counted."""
_STEP: Final = 20_000
_LINES: Final = b"""COPY (
    SELECT l.id, l.account_id, l.seq, l.transfer_id, l.leg, l.type, l.amount, l.balance_before, l.balance_after,
           (extract(epoch FROM l.at) * 1000000)::bigint, t.kind, coalesce(t.parent_id::text, ''),
           encode(t.content_hash, 'hex'), t.legs, t.reference, encode(l.hash, 'hex'), encode(h.hash, 'hex'), h.head
    FROM ledger_lines l
    LEFT JOIN ledger_transfers t ON t.id = l.transfer_id
    LEFT JOIN ledger_head_accounts h ON h.account_id = l.account_id AND h.seq = l.seq
    ORDER BY l.id
) TO STDOUT"""
_HEADS: Final = "SELECT number, document, digest, lines, keyset, signature FROM ledger_heads ORDER BY number"
_ENDS: Final = (
    b"COPY (SELECT head, account_id, seq, encode(hash, 'hex') FROM ledger_head_accounts ORDER BY head, account_id)"
    b" TO STDOUT"
)
_NULL: Final = b"\\N"
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_UNESCAPED: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


class Wrong(StrEnum):
    """What can be wrong."""

    CHANGED = "changed"
    """A line, or its transfer, is not what its hash was computed over, or the line before it is another one."""
    REWRITTEN = "rewritten"
    """A line has a hash that fits, but it is not the one that was sealed."""
    MISSING = "missing"
    """A line is not there, or has another place in its account."""
    INSERTED = "inserted"
    """A line of no account or no transfer, or one leg too many."""
    BALANCE = "balance"
    """A line does not go on from the balance before it, or an account's row is not where its lines end."""
    OUT_OF_BALANCE = "out_of_balance"
    """The lines of a transfer do not sum to zero, or some are missing."""
    HEAD = "head"
    """A head is not what was signed, is missing, or does not continue the one before it."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong, and where."""

    wrong: Wrong
    where: str
    """The line as `line ID (ACCOUNT #SEQ)`, or the head, account or transfer."""
    detail: str


@dataclass(slots=True)
class Verified:
    """What was found; good if there are no flaws."""

    lines: int = 0
    heads: int = 0
    accounts: int = 0
    unsealed_lines: int = 0
    """Lines since the last signed head."""
    head: str = f"0:{NO_HEAD}"
    """The last signed head, NUMBER:DIGEST. Whoever keeps it sees later whether it was cut off."""
    flaws: list[Flaw] = field(default_factory=list)
    """The first ones, in the order of lines."""
    flaw_count: int = 0

    def find(self, wrong: Wrong, where: str, detail: str) -> None:
        """Note a flaw."""
        self.flaw_count += 1
        if len(self.flaws) < MOST_FLAWS:
            self.flaws.append(Flaw(wrong, where, detail))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known from elsewhere than the database."""

    keys: Mapping[str, str]
    """Attestation keys (64 hex digits) by key-set, of the pinned bundle."""
    sealing: str
    """The key-set that must have signed the last head."""
    heads: Mapping[int, str] = field(default_factory=dict)
    """Digests of heads by number: of the signer's memory, or of what somebody has kept."""


class _Account:
    """Where an account's lines are, as far as they were read."""

    __slots__ = ("asset", "balance", "hash", "line", "name", "seq")

    def __init__(self, name: str, asset: str, start: bytes) -> None:
        self.name, self.asset = name, asset
        self.seq = self.balance = self.line = 0
        self.hash = start


def verify(tx: Tx, known: Known, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Verified:
    """Read and recompute everything.

    Args:
        tx: a `Database.snapshot()`, of any role that may read.
        known: keys, and heads that must be there.
        progress: told the number of lines read, and of all, now and then.
    """
    found = Verified()
    sealed = _heads(tx, known, found)
    accounts = _accounts(tx)
    found.accounts = len(accounts)
    total = sum(row["last_seq"] for row in accounts.values())
    places = {id: _Account(_name(row), row["asset"], _start(row)) for id, row in accounts.items()}
    matched = _Lines(tx, places, found).read(lambda done: progress(done, total))
    if matched != sealed.ends:
        _missing_ends(tx, found)
    for id, row in accounts.items():
        _row_of(row, places[id], found)
    found.unsealed_lines = max(0, found.lines - sealed.lines)
    progress(found.lines, found.lines)
    return found


@dataclass(slots=True)
class _Sealed:
    lines: int = 0
    ends: int = 0
    """How many lines the heads name."""


def _heads(tx: Tx, known: Known, found: Verified) -> _Sealed:
    """The heads themselves: each continues the one before it, has its accounts, and is signed."""
    roots = _roots(tx)
    sealed = _Sealed(ends=sum(count for _, count in roots.values()))
    previous, signed_by, number, waiting = NO_HEAD, None, 0, 0
    for row in tx.all(_HEADS):
        number += 1
        where = f"head {row['number']}"
        root, count = roots.pop(row["number"], (Root().hex(), 0))
        try:
            head = LedgerHead.from_canonical(row["document"].encode())
        except InvalidValue as error:
            found.find(Wrong.HEAD, where, f"its document is none: {error}")
            continue
        digest = head.digest_hex()
        if (head.number, row["number"], head.previous) != (number, number, previous):
            found.find(Wrong.HEAD, where, f"it does not continue head {number - 1}")
        if (head.root, head.accounts, head.lines, digest) != (root, count, row["lines"], row["digest"]):
            found.find(Wrong.HEAD, where, "the lines that it names are not those that it was made of")
        if known.heads.get(number, digest) != digest:
            found.find(Wrong.HEAD, where, f"it is {digest}, and {known.heads[number]} was sealed")
        previous, number = digest, row["number"]
        if row["signature"] is None:
            waiting = number
            continue
        signed_by = row["keyset"]
        trouble = _unsigned(head, signed_by, row["signature"], known)
        if trouble:
            found.find(Wrong.HEAD, where, trouble)
        else:
            found.heads, sealed.lines, found.head = found.heads + 1, head.lines, f"{number}:{digest}"
    if waiting not in (0, number):
        found.find(Wrong.HEAD, f"head {waiting}", "nobody has signed it, and others continue it")
    for missing in sorted(each for each in known.heads if each > number):
        found.find(Wrong.HEAD, f"head {missing}", "it was sealed, and is not there")
    for missing in sorted(roots):
        found.find(Wrong.HEAD, f"head {missing}", "lines are said to be sealed by it, and it is not there")
    if signed_by not in (None, known.sealing):
        found.find(Wrong.HEAD, f"head {number}", f"{signed_by} has signed it, and not {known.sealing}")
    return sealed


def _unsigned(head: LedgerHead, keyset: str, signature: str, known: Known) -> str:
    """Why a head is not signed; empty if it is."""
    key = known.keys.get(keyset)
    if key is None:
        return f"the bundle names no key-set {keyset}"
    try:
        verify_ed25519(key, head.digest(), signature)
    except (BadSignature, InvalidValue) as error:
        return f"it is not signed by {keyset}: {error}"
    return ""


def _roots(tx: Tx) -> dict[int, tuple[str, int]]:
    """Root and number of the lines that each head names."""
    roots: dict[int, tuple[Root, int]] = {}
    for data in tx.copy_out(_ENDS):
        head, account, seq, digest = data.split()
        root, count = roots.get(int(head)) or (Root(), 0)
        root.add(int(account), int(seq), bytes.fromhex(digest.decode()))
        roots[int(head)] = root, count + 1
    return {head: (root.hex(), count) for head, (root, count) in roots.items()}


def _accounts(tx: Tx) -> dict[int, Row]:
    rows = tx.all(
        "SELECT id, customer_id, kind, asset, wallet, balance, last_seq, last_line, hash"
        " FROM ledger_accounts ORDER BY id"
    )
    return {row["id"]: row for row in rows}


def _name(row: Row) -> str:
    return ":".join(filter(None, (row["customer_id"] or "house", row["kind"], row["wallet"], row["asset"])))


def _start(row: Row) -> bytes:
    return genesis(row["id"], row["customer_id"], row["kind"], row["asset"], row["wallet"])


def _row_of(row: Row, place: _Account, found: Verified) -> None:
    """An account's row is where its lines end."""
    said = (row["last_seq"], units(row["balance"]), row["last_line"], bytes(row["hash"]))
    if said != (place.seq, place.balance, place.line, place.hash):
        if row["last_seq"] > place.seq:
            found.find(
                Wrong.MISSING,
                f"{place.name} #{place.seq + 1}",
                f"its row says that there are {row['last_seq']} lines",
            )
        else:
            told = f"its row says {said[1]} after line {said[0]}, its lines {place.balance} after {place.seq}"
            found.find(Wrong.BALANCE, place.name, told)


def _missing_ends(tx: Tx, found: Verified) -> None:
    """Which sealed lines are not there."""
    rows = tx.all(
        """SELECT h.head, h.account_id, h.seq FROM ledger_head_accounts h
           WHERE NOT EXISTS (SELECT 1 FROM ledger_lines l WHERE l.account_id = h.account_id AND l.seq = h.seq)
           ORDER BY h.head, h.account_id LIMIT 100"""
    )
    for row in rows:
        found.find(
            Wrong.MISSING,
            f"account {row['account_id']} #{row['seq']}",
            f"head {row['head']} has sealed this line",
        )


class _Lines:
    """Reads all lines in the order in which they were written."""

    def __init__(self, tx: Tx, places: Mapping[int, _Account], found: Verified) -> None:
        self._tx, self._places, self._found = tx, places, found
        self._transfer = b""
        self._legs = self._expected = 0
        self._sums: dict[str, int] = {}
        self._of_transfers: list[tuple[Wrong, str, str]] = []

    def read(self, progress: Callable[[int], None]) -> int:
        """Read and check; returns how many of the lines are named by heads."""
        sha256 = hashlib.sha256
        places, find = self._places, self._found.find
        matched = done = 0
        for data in self._tx.copy_out(_LINES):
            done += 1
            if done % _STEP == 0:
                progress(done)
            covered, stored, sealed, head = data.rstrip(b"\n").rsplit(b"\t", 3)
            id, account, seq, transfer, leg, _, amount, before, after, _, kind, _, _, legs, _ = covered.split(
                b"\t", 14
            )
            place = places.get(int(account))
            if place is None or kind == _NULL:
                find(
                    Wrong.INSERTED,
                    f"line {int(id)}",
                    f"of account {int(account)} or a transfer that does not exist",
                )
                continue
            if b"\\" in covered:
                covered = _plain(covered)
            digest = sha256(place.hash + covered).digest()
            number = int(seq)
            if number != place.seq + 1:
                self._misplaced(place, number, int(id))
            elif digest != bytes.fromhex(stored.decode()):
                find(
                    Wrong.CHANGED,
                    _where(place, number, int(id)),
                    "it, its transfer or the line before was another",
                )
            elif int(before) != place.balance or int(after) != place.balance + int(amount):
                told = f"from {int(before)} by {int(amount)} to {int(after)}, after {place.balance}"
                find(Wrong.BALANCE, _where(place, number, int(id)), told)
            if head != _NULL:
                matched += 1
                if sealed != stored:
                    told = f"head {int(head)} has sealed another line in its place"
                    find(Wrong.REWRITTEN, _where(place, number, int(id)), told)
            place.seq, place.balance, place.line = number, int(after), int(id)
            place.hash = bytes.fromhex(stored.decode())
            if transfer != self._transfer:
                self._end_transfer()
                self._transfer, self._expected = transfer, int(legs)
            self._legs += 1
            if int(leg) != self._legs:
                told = f"it is leg {int(leg)}, expected {self._legs}"
                self._of_transfers.append((Wrong.MISSING, _where(place, number, int(id)), told))
            self._sums[place.asset] = self._sums.get(place.asset, 0) + int(amount)
        self._end_transfer()
        # Lines first: where one of them is wrong, its transfer mostly is as well.
        for wrong, where, told in self._of_transfers:
            find(wrong, where, told)
        self._found.lines = done
        return matched

    def _end_transfer(self) -> None:
        if self._legs != self._expected or any(self._sums.values()):
            told = f"it has {self._legs} lines of {self._expected}, and sums to {self._sums}"
            self._of_transfers.append((Wrong.OUT_OF_BALANCE, f"transfer {self._transfer.decode()}", told))
        self._legs = self._expected = 0
        self._sums.clear()

    def _misplaced(self, place: _Account, number: int, id: int) -> None:
        if number > place.seq + 1:
            where = f"{place.name} #{place.seq + 1}"
            self._found.find(Wrong.MISSING, where, f"the next line there is is #{number}, line {id}")
        else:
            self._found.find(Wrong.INSERTED, _where(place, number, id), f"after line #{place.seq}")


def _where(place: _Account, seq: int, id: int) -> str:
    return f"line {id} ({place.name} #{seq})"


def _plain(covered: bytes) -> bytes:
    """A row without COPY's escapes, which a reference may have."""
    return _ESCAPE.sub(lambda found: _UNESCAPED.get(found[1], found[1]), covered)
