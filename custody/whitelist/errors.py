"""Errors of whitelists."""

from __future__ import annotations

from chains.errors import PermanentError


class DuplicateEntry(PermanentError):
    """The entry's `id` was used before for other content."""

    def __init__(self, id: str) -> None:
        super().__init__(f"entry {id} exists with other content: use a new id")
        self.id = id


class AlreadyListed(PermanentError):
    """The owner has an entry for this address already: `entry`."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"the address is in the owner's whitelist already, as entry {entry}")
        self.entry = entry


class EntryMismatch(PermanentError):
    """The `field` of a signed entry is not what it must be here."""

    def __init__(self, field: str, expected: str, found: str) -> None:
        super().__init__(f"entry: {field} is {found!r}, expected {expected!r}")
        self.field, self.expected, self.found = field, expected, found


class ProofRefused(PermanentError):
    """A signature that does not prove whose an address is."""


class ChallengeUsed(PermanentError):
    """A challenge that was answered already, with another signature."""


class ChallengeExpired(PermanentError):
    """The challenge ended at `expires_at`; it is `now` (UNIX seconds)."""

    def __init__(self, expires_at: int, now: int) -> None:
        super().__init__(f"the challenge expired at {expires_at}, it is {now}: ask for a new one")
        self.expires_at, self.now = expires_at, now
