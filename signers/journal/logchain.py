"""The chain of a signer's own log, for whoever writes it and whoever checks it (a verifier, an auditor). Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from chains.errors import PermanentError
from policies.canonical import verify_ed25519
from signers.ports import LogEntry, LogPage

FIRST_HEAD: Final = "00" * 32
"""Head before the first entry."""


class LogBroken(PermanentError):
    """A log that is not what its head says, or that has become another one since somebody last saw it."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far somebody has read a signer's log."""

    journal: str
    """The journal's id: 64 hex digits, or empty before anything was read."""
    number: int
    """Of the last entry read, 0 before the first."""
    head: str
    """Head after that entry."""


BEGINNING: Final = Place(journal="", number=0, head=FIRST_HEAD)
"""Before anything was read."""


def next_head(before: str, number: int, at: int, what: str, body: bytes) -> str:
    """SHA-256 (64 hex digits) over head before (32 bytes), JSON array [number, at, what], newline, body."""
    start = bytes.fromhex(before) + msgspec.json.encode([number, at, what])
    return hashlib.sha256(start + b"\n" + body).hexdigest()


def follow(page: LogPage, seen: Place, attestation_key: str) -> Place:
    """Check a page of a log that was asked for after `seen`, and return the place after it.

    Args:
        page: the signer's answer to `LogRequest(after=seen.number)`.
        seen: how far this reader has come before.
        attestation_key: Ed25519 public key (64 hex digits) of the key-set that the head names.

    Raises:
        LogBroken: the log ends before what was seen, has another history, or belongs to another journal: the signer was
            restored from an old copy, or its log was edited.
        BadSignature: the head is not signed by that key.
    """
    head = page.head
    verify_ed25519(attestation_key, head.digest(), page.signature)
    if seen.journal not in ("", head.journal):
        raise LogBroken(f"the log is of journal {head.journal}, before it was of {seen.journal}")
    if head.number < seen.number:
        raise LogBroken(
            f"the log ends at {head.number}, but {seen.number} entries were seen before: the signer has forgotten some"
        )
    found = seen.head
    for number, entry in enumerate(page.entries, seen.number + 1):
        found = after_entry(entry, number, found)
    last = seen.number + len(page.entries)
    if (head.number, head.head) != (last, found):
        raise LogBroken(
            f"the head at {head.number} is not the one that follows from the entries up to {last}"
        )
    return Place(journal=head.journal, number=last, head=found)


def after_entry(entry: LogEntry, number: int, before: str) -> str:
    """The head after an entry that should have this number and stand after that head (64 hex digits).

    Raises:
        LogBroken: it has another number, or its head is not the one of its content.
    """
    if entry.number != number:
        raise LogBroken(f"entry {entry.number} stands where {number} belongs")
    head = next_head(before, number, entry.at, entry.what, bytes(entry.body))
    if head != entry.head:
        raise LogBroken(f"the head of entry {number} is not the one of its content")
    return head
