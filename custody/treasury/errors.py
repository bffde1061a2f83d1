"""Why money is not moved between tiers."""

from __future__ import annotations

from chains.errors import PermanentError


class RefillRefused(PermanentError):
    """The policy does not let it happen now, or what it names does not go together."""
