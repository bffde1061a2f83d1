"""What signers and policy allow: caps, breakers, prices."""

from __future__ import annotations

from typing import Annotated

import msgspec

from policies.bundle.common import Tier
from policies.canonical import Name, Part, Seconds, Units


class TierCap(Part, frozen=True):
    """What one tier may pay of one asset. A signer of the tier enforces it by its own counters."""

    tier: Tier
    asset: Name
    payment_below: Units
    """A single payment must be smaller than this."""
    window_cap: Units
    """Sum of payments, fees included, signed within `window_seconds`."""
    window_seconds: Seconds
    payment_from: Units = "0"
    """A single payment must not be smaller than this. Where it is what the hotter tier's payments are below, no order
    can be paid by both tiers, whose signers don't know of each other."""


class Breaker(Part, frozen=True):
    """One limit over all assets together: what the named key-sets may sign, valued at the highest price of each asset.

    A signer that doesn't hold all of them refuses: it could not count what the others sign.
    """

    id: Name
    keysets: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    value_cap: Units
    """In the bundle's unit of account; payments and fees together."""
    window_seconds: Seconds


class PriceBound(Part, frozen=True):
    """Between what bounds one whole asset is worth something believable, in the bundle's unit of account."""

    asset: Name
    low: Units
    high: Units
    """Signers know no market: their breakers count every asset at this price."""
