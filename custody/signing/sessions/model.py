"""A signing session as the database has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from custody.signing.sessions.lifecycle import SessionState
from signers.ports import SignResponse

EXPIRED: Final = "session.expired"
"""Alert: a request is over, and may be signed all the same. Its subject is the transaction."""


class Source(StrEnum):
    """How a member is asked."""

    DAEMON = "daemon"
    """It is a signer of ours, which judges by itself."""
    FILE = "file"
    """A holder takes the request away and brings the signatures back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one member was asked, and has said."""

    member: str
    """Cosigner's or owner's id in the vault."""
    source: Source
    asked_at: datetime
    """From then on it may have signed, whatever became of the answer."""
    response: SignResponse | None
    """Its signatures, verified."""
    refused: str
    """Why it has not signed, by its own word; empty if it has said nothing of the kind."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who has signed one version of a vault's transaction."""

    id: UUID
    transaction_id: UUID
    version: int
    wallet: str
    threshold: int
    members: int
    """How many the vault had."""
    state: SessionState
    expires_at: datetime
    """No daemon signs afterwards, and no file is handed out; a holder's signature may still come."""
    asked: Mapping[str, Asked]
    created_at: datetime

    @property
    def signed(self) -> Mapping[str, SignResponse]:
        """Verified signatures, by member."""
        return {member: each.response for member, each in self.asked.items() if each.response is not None}

    @property
    def handed_out(self) -> bool:
        """Whether a request left as a file."""
        return any(each.source is Source.FILE for each in self.asked.values())

    @property
    def may_have_signed(self) -> int:
        """How many members may have signed: all that were asked, but those that say that they have not.

        A file can be copied and passed on, so once one is out all others count, too; and one of those who say that they
        have not signed may lie. Daemons keep journals, and sign for what they have signed nothing beside it.
        """
        refused = sum(1 for each in self.asked.values() if each.refused)
        return self.members - max(0, refused - 1) if self.handed_out else len(self.asked) - refused

    @property
    def may_confirm(self) -> bool:
        """Whether enough members may have signed for a block to hold it, even if we have not got their signatures; one
        of those that say that they have not may lie. A verifier has nothing else paid beside it until then."""
        lies = 0 if self.handed_out or not any(each.refused for each in self.asked.values()) else 1
        return self.may_have_signed + lies >= self.threshold

    @property
    def hopeless(self) -> bool:
        """Whether so many have refused that those who have not are too few. Only asked where nobody has signed."""
        refused = sum(1 for each in self.asked.values() if each.refused)
        return self.members - refused < self.threshold
