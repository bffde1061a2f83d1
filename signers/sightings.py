"""Orders shown to a signer before it is to pay them: what it has seen itself starts ages and delays. Pure.

Only genuine orders are remembered, and a bounded number of them, so that nobody fills the disk or ages destinations
for orders that a caller never signed.
"""

from __future__ import annotations

from typing import Final, Protocol

MAX_SIGHTINGS: Final = 100_000
"""Most orders that are remembered before they have expired."""


class SightBook(Protocol):
    """What the journal remembers of orders that it was shown."""

    def order_since(self, order_digest: str) -> int | None:
        """When an order was first seen, None if never."""

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When an order to a destination was first seen, None if never."""

    def open_sights(self, now: int, caller: str | None = None) -> int:
        """How many orders seen have not expired: of one caller, or of all (None)."""

    def record_sight(
        self, order_digest: str, chain: str, destination: str, *, caller: str, expires_at: int, now: int
    ) -> None:
        """Remember an order that was never seen before, and its destination unless that is known longer."""
