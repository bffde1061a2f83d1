"""A withdrawal as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from custody.withdrawals.lifecycle import WithdrawalState
from policies.intent import Order, SignedOrder


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One order of a caller, and how far it is."""

    id: UUID
    """The order's id."""
    caller: str
    customer: str
    chain: str
    asset: str
    destination: str
    units: int
    """What arrives at the destination, base units."""
    fee_units: int
    """What the customer pays besides, base units of the same asset."""
    order_json: str
    """The order in canonical form, verbatim."""
    order_signature: str
    order_hash: str
    """64 hex digits."""
    state: WithdrawalState
    reason: str
    """Why it waits, or why it ended; `code: sentence`."""
    tier: str | None
    policy_version: int | None
    """Version of the bundle under which it was last decided; None until it is."""
    settlement: str | None
    """`chain` or `internal`; None until it is routed."""
    transaction_id: UUID | None
    """The one transaction that serves it."""
    settlements: int
    """Times settled; names the ledger transfer of the last settlement."""
    not_before: datetime
    """Workers leave it alone until then."""
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def signed_order(self) -> SignedOrder:
        """The order and its signature, read from what was stored verbatim.

        Raises:
            InvalidValue: the stored text is not an order in canonical form.
        """
        return SignedOrder(Order.from_canonical(self.order_json.encode()), self.order_signature)

    @property
    def reference(self) -> str:
        """How ledger lines refer to it."""
        return f"withdrawal:{self.id}"
