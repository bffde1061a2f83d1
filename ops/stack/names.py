"""What the wallets of a trial on Bitcoin are called, and how many sign for each tier. `networks` has the others."""

from __future__ import annotations

from typing import Final

BTC_KEYSET: Final = "btc-hot"
BTC_WARM: Final = "btc-warm"
BTC_COLD: Final = "btc-cold"
WARM_THRESHOLD: Final = 2
"""Of three members."""
COLD_THRESHOLD: Final = 3
"""Of five holders."""
