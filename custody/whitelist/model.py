"""What the slice speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from custody.whitelist.lifecycle import EntryState
from policies.facts import Whitelist


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is stored."""

    id: UUID
    """Chosen by the caller."""
    owner: str
    """The customer, or `house`."""
    chain: str
    address: str
    """Canonical."""
    label: bytes | None
    """Sealed."""
    provenance: str
    """How the caller came by the address."""
    requested_by: str
    """Caller."""
    state: EntryState
    document: str | None
    """The signed entry, verbatim."""
    signature: str | None
    listed_at: datetime | None
    removed_by: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def listed_seconds(self) -> int | None:
        """`listed_at` in UNIX seconds."""
        return None if self.listed_at is None else int(self.listed_at.timestamp())


@dataclass(frozen=True, slots=True)
class Destination:
    """What is known of a destination when somebody is to pay there."""

    whitelist: Whitelist
    age_seconds: int
    """0 if it is new."""
    ownership_proof: bool
    lookalikes: tuple[str, ...]
    """Addresses that its owner has known for longer, and that it could be taken for; only if it is not whitelisted
    itself."""
