"""What each tier holds of each asset, beside its cap. Nothing is moved: an excess is shown, and stays where it is.

What a tier holds is what the ledger says of its wallet (`chain_assets`), which reconciliation compares with the chain:
forwarders that are not swept yet, and coins that a transaction in flight spends, belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx, units
from policies.bundle import Bundle, Tier

ALERT: Final = "tier.excess"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one tier holds of one asset, in base units."""

    tier: Tier
    asset: str
    wallet: str | None
    """Key-set of the tier on the asset's chain; None where the bundle lists none."""
    units: int
    cap_units: int | None
    """What it should hold at most; None: no limit."""

    @property
    def excess_units(self) -> int:
        """What it holds beyond its cap."""
        return 0 if self.cap_units is None else max(0, self.units - self.cap_units)


def holdings(tx: Tx, bundle: Bundle) -> tuple[Holding, ...]:
    """What every tier holds of every asset for which the bundle has a cap, in the bundle's order."""
    rows = tx.all("SELECT wallet, asset, -balance AS held FROM ledger_accounts WHERE kind = 'chain_assets'")
    ledger = {(row["wallet"], row["asset"]): units(row["held"]) for row in rows}
    wallets = {(entry.chain, entry.tier): entry.id for entry in bundle.keysets}
    found = []
    for cap in bundle.caps:
        wallet = wallets.get((bundle.asset(cap.asset).chain, cap.tier))
        found.append(
            Holding(
                tier=cap.tier,
                asset=cap.asset,
                wallet=wallet,
                units=0 if wallet is None else ledger.get((wallet, cap.asset), 0),
                cap_units=None if cap.holding_cap is None else int(cap.holding_cap),
            )
        )
    return tuple(found)


def watch_excess(tx: Tx, bundle: Bundle) -> int:
    """Raise an alert for each tier that holds more than its cap, and close those that are over; returns how many do."""
    over = 0
    for holding in holdings(tx, bundle):
        subject = f"{holding.tier}:{holding.asset}"
        if not holding.excess_units:
            alerts.resolve_alert(tx, ALERT, subject)
            continue
        over += 1
        told = bundle.asset(holding.asset).told
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            ALERT,
            subject,
            f"the {holding.tier} tier holds {told(holding.units)} and should hold at most"
            f" {told(holding.cap_units or 0)}: {told(holding.excess_units)} are kept above the cap",
            {
                "tier": holding.tier,
                "asset": holding.asset,
                "units": str(holding.units),
                "cap_units": str(holding.cap_units),
                "excess_units": str(holding.excess_units),
            },
        )
    return over
