"""What each tier holds of each asset, beside what the policy lets it hold. Nothing is moved: an excess is shown.

What a tier holds is what the ledger says of its wallet (`chain_assets`), which reconciliation compares with the chain:
forwarders that are not swept yet, and coins that a transaction in flight spends, belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """What the policy says it should hold at most, by itself; None: no limit."""

    @property
    def excess_units(self) -> int:
        """What it holds beyond its cap."""
        return 0 if self.cap_units is None else max(0, self.units - self.cap_units)


def holdings(tx: Tx, bundle: Bundle) -> tuple[Holding, ...]:
    """What every tier holds of every asset for which the bundle has a cap, in the bundle's order."""
    ledger = _held(tx)
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
                cap_units=_most(bundle, (cap.tier,), cap.asset, ledger),
            )
        )
    return tuple(found)


def watch_excess(tx: Tx, bundle: Bundle) -> int:
    """Raise an alert for each tier, or group of tiers, that holds more than the policy's maximum, and close those that
    are over; returns how many do."""
    ledger, over = _held(tx), 0
    tier_of = {wallet.id: wallet.tier for wallet in (*bundle.keysets, *bundle.vaults)}
    for tiers, asset in dict.fromkeys((each.tiers, each.asset) for each in bundle.policy.holdings):
        subject, most = f"{'+'.join(tiers)}:{asset}", _most(bundle, tiers, asset, ledger) or 0
        held = sum(n for (wallet, of), n in ledger.items() if of == asset and tier_of.get(wallet) in tiers)
        if held <= most:
            alerts.resolve_alert(tx, ALERT, subject)
            continue
        over += 1
        told = bundle.asset(asset).told
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            ALERT,
            subject,
            f"{' and '.join(tiers)} hold {told(held)} and should hold at most {told(most)}:"
            f" {told(held - most)} are kept above the maximum",
            {"tiers": list(tiers), "asset": asset, "units": str(held), "most_units": str(most)},
        )
    return over


def _held(tx: Tx) -> dict[tuple[str, str], int]:
    """Base units by wallet and asset."""
    rows = tx.all("SELECT wallet, asset, -balance AS held FROM ledger_accounts WHERE kind = 'chain_assets'")
    return {(row["wallet"], row["asset"]): units(row["held"]) for row in rows}


def _most(
    bundle: Bundle, tiers: tuple[Tier, ...], asset: str, ledger: Mapping[tuple[str, str], int]
) -> int | None:
    """The least of the policy's maxima for exactly these tiers together; None if it has none."""
    everything = sum(held for (_, of), held in ledger.items() if of == asset)
    found = [
        int(each.at_most) if each.share is None else min(int(each.at_most), everything * each.share // 10_000)
        for each in bundle.policy.holdings
        if (each.tiers, each.asset) == (tiers, asset)
    ]
    return min(found, default=None)
