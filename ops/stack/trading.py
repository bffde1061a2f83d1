"""The trading core of a trial: its markets, its fees, and who may trade for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ops.stack.keys import private_directory

if TYPE_CHECKING:
    from ops.stack.stack import Stack
    from ops.stack.trust import Trust

TRADING_AUDIENCE: Final = "strongroom-trading-trial"
TRADING_CORE: Final = "trading-core"
"""As whom the core settles: a caller of custody's API with the scope `trading`, and no other."""
RECONCILER: Final = "reconciler"
"""As whom it is asked what customers have there."""
MARKETS: Final = (
    ("BTC-USDX", "BTC", "USDX", "0.01", "0.0001", "5", "60000"),
    ("ETH-USDX", "ETH", "USDX", "0.01", "0.001", "5", "3000"),
    ("ETH-BTC", "ETH", "BTC", "0.00001", "0.001", "0.0001", "0.05"),
)
"""Id, base, quote, tick, lot, smallest notional, and the price that the first one is measured against."""
TIERS: Final = (("0", 0), ("100000", 10), ("1000000", 20), ("10000000", 35), ("50000000", 50))


def trading_core(stack: Stack, trust: Trust, *, audience: str) -> dict[str, Any]:
    """Its configuration file. Makers are paid a little in the highest of six tiers.

    Args:
        stack: the trial.
        trust: its callers.
        audience: of custody's API.
    """
    core = trust.callers[TRADING_CORE]
    tiers = [{"volume": volume, "discount_percent": percent} for volume, percent in TIERS]
    tiers.append({"volume": "250000000", "discount_percent": 60, "rebate_ppm": 50})
    return {
        "directory": str(private_directory(stack.directory / "trading")),
        "audience": TRADING_AUDIENCE,
        "bundle_path": str(trust.bundle_path),
        "trust_root_path": str(trust.trust_root_path),
        "demo_clock_path": str(stack.clock_file),
        "host": "127.0.0.1",
        "port": stack.trading_port,
        "custody": {
            "url": stack.api_url,
            "audience": audience,
            "caller": core.id,
            "key_path": str(core.key_file),
        },
        "fees": {"reference": "USDX", "tiers": tiers, "values": {"BTC": "60000"}},
        "markets": [
            {
                "id": name,
                "base": base,
                "quote": quote,
                "tick": tick,
                "lot": lot,
                "minimum_notional": least,
                "maker_ppm": 800,
                "taker_ppm": 1000,
                "reference_price": price,
            }
            for name, base, quote, tick, lot, least, price in MARKETS
        ],
        "callers": [
            {"id": "exchange", "customers": ["*"], "channel": "web"},
            {"id": RECONCILER, "customers": ["*"], "channel": "web"},
        ],
    }
