"""A refill as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from custody.treasury.lifecycle import RefillState
from policies.bundle import Tier
from policies.intent import Intent, Kind

ASKED: Final = "asked"
"""Why: an operator wants it. All other reasons are the planner's (`planner.Why`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """Money that moves between two wallets of ours on one chain, and how far it is."""

    id: UUID
    """Of its intent, too."""
    chain: str
    asset: str
    source: str
    """Wallet of the bundle that signs."""
    tier: Tier
    """Of the source."""
    target: str
    """Wallet of the bundle that gets it."""
    destination: str
    """The target's address."""
    place: int | None
    """BTC: index of that address on branch 1."""
    units: int
    """What arrives, base units."""
    why: str
    about: str
    """Why, in a sentence with numbers."""
    proposed_by: str
    """`house`, or an operator."""
    state: RefillState
    reason: str
    """Why it waits, or why it ended; `code: sentence`."""
    decision: dict[str, Any]
    """Facts and outcome of the policy."""
    policy_version: int
    """Version of the bundle under which it was decided."""
    not_before: datetime
    """Nothing is built until then."""
    transaction_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def intent(self) -> Intent:
        """What people approve and signers sign. Raises InvalidValue: the row names what no intent can."""
        return Intent.from_object(
            {
                "v": 1,
                "kind": Kind.REFILL,
                "id": str(self.id),
                "chain": self.chain,
                "keyset": self.source,
                "tier": self.tier,
                "asset": self.asset,
                "destination": self.destination,
                "amount": str(self.units),
                "order": None,
                "policy_version": self.policy_version,
            }
        )
