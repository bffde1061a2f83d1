"""What each tier holds of each asset, beside what the policy lets it hold, for those who look; and its alert.

What a tier holds is what the ledger says of its active wallet (`chain_assets`), which reconciliation compares with the
chain: forwarders that are not swept yet, and coins that a transaction in flight spends, belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from custody.signing.cold import proofs
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx, units
from custody.treasury import observing
from custody.treasury.planner import AssetState, Bound, Forecast, bound, forecast, most_units
from policies.bundle import Bundle, Tier

ALERT: Final = "tier.excess"
HISTORY_DAYS: Final = 14
_TIERS: Final[tuple[Tier, ...]] = ("hot", "warm", "cold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one tier holds of one asset, in base units."""

    tier: Tier
    asset: str
    wallet: str | None
    """Active wallet of the tier on the asset's chain; None where the bundle lists none."""
    units: int
    total_units: int
    """All that is held of the asset, in whatever wallet."""
    bound: Bound | None
    """What the policy lets it hold at most, by itself; None: no limit."""
    queued_units: int
    """What payments that wait in it ask for, fees included."""
    coming_units: int
    """On its way by open refills."""
    free_units: int
    """What could be moved now: not what is on its way out, waited for, or kept for gas."""
    forecast: Forecast | None
    """Of hot, if customers go on as they did lately."""
    proven: bool | None
    """Whether a cold vault was tried out, in and out, before real money; None: it need not be."""
    history: tuple[tuple[date, int], ...]
    """What it held at the end of each of the last days, and holds today, oldest first (UTC)."""

    @property
    def cap_units(self) -> int | None:
        """What the policy says it should hold at most, by itself; None: no limit."""
        return None if self.bound is None else self.bound.most_units

    @property
    def excess_units(self) -> int:
        """What it holds beyond its cap."""
        return 0 if self.bound is None else max(0, self.units - self.bound.most_units)

    @property
    def share_basis_points(self) -> int | None:
        """Of everything that is held of the asset, in ten-thousandths, rounded down; None if there is nothing."""
        return self.units * 10_000 // self.total_units if self.total_units > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What several tiers may hold of an asset together."""

    tiers: tuple[Tier, ...]
    asset: str
    units: int
    most_units: int


def holdings(tx: Tx, bundle: Bundle) -> tuple[Holding, ...]:
    """What every tier holds of every asset of which it has a wallet or a cap: by asset, from hot to cold."""
    ledger, past = _held(tx), _past(tx)
    caps = {(cap.tier, cap.asset) for cap in bundle.caps}
    proven = {
        vault.id: proofs.find(tx, vault) is not None
        for vault in map(proofs.cold_vault, bundle.vaults)
        if vault is not None
    }
    found = []
    for state in observing.states(tx, bundle):
        for tier in _TIERS:
            if tier in state.tiers or (tier, state.asset) in caps:
                found.append(_holding(state, tier, ledger, past, proven))
    return tuple(found)


def _holding(
    state: AssetState,
    tier: Tier,
    ledger: Mapping[tuple[str, str], int],
    past: Mapping[tuple[str, str], list[tuple[date, int]]],
    proven: Mapping[str, bool],
) -> Holding:
    here = state.tiers.get(tier)
    key = ("" if here is None else here.wallet, state.asset)
    level = 0 if here is None else max(0, here.level_units)
    return Holding(
        tier=tier,
        asset=state.asset,
        wallet=None if here is None else here.wallet,
        units=ledger.get(key, 0),
        total_units=state.total_units,
        bound=bound(state, tier),
        queued_units=0 if here is None else here.queued_units,
        coming_units=0 if here is None else here.incoming_units,
        free_units=0 if here is None else here.free_units,
        forecast=forecast(level, state.outflow) if tier == "hot" and here is not None else None,
        proven=proven.get(key[0]),
        history=tuple(past.get(key, ())),
    )


def together(tx: Tx, bundle: Bundle) -> tuple[Together, ...]:
    """The policy's maxima for several tiers together, and what those hold."""
    ledger, found = _held(tx), []
    for tiers, asset in dict.fromkeys((each.tiers, each.asset) for each in bundle.policy.holdings):
        if len(tiers) > 1:
            held, most = _of_tiers(bundle, tiers, asset, ledger), _most(bundle, tiers, asset, ledger)
            found.append(Together(tiers=tiers, asset=asset, units=held, most_units=most))
    return tuple(found)


def watch_excess(tx: Tx, bundle: Bundle) -> int:
    """Raise an alert for each tier, or group of tiers, that holds more than the policy's maximum, and close those that
    are over; returns how many do."""
    ledger, over = _held(tx), 0
    for tiers, asset in dict.fromkeys((each.tiers, each.asset) for each in bundle.policy.holdings):
        subject, most = f"{'+'.join(tiers)}:{asset}", _most(bundle, tiers, asset, ledger)
        held = _of_tiers(bundle, tiers, asset, ledger)
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
            f" {told(held - most)} more. Where there is a colder tier, the treasury proposes to move it",
            {"tiers": list(tiers), "asset": asset, "units": str(held), "most_units": str(most)},
        )
    return over


def _of_tiers(
    bundle: Bundle, tiers: tuple[Tier, ...], asset: str, ledger: Mapping[tuple[str, str], int]
) -> int:
    tier_of = {wallet.id: wallet.tier for wallet in (*bundle.keysets, *bundle.vaults)}
    return sum(held for (wallet, of), held in ledger.items() if of == asset and tier_of.get(wallet) in tiers)


def _held(tx: Tx) -> dict[tuple[str, str], int]:
    """Base units by wallet and asset."""
    rows = tx.all("SELECT wallet, asset, -balance AS held FROM ledger_accounts WHERE kind = 'chain_assets'")
    return {(row["wallet"], row["asset"]): units(row["held"]) for row in rows}


def note_levels(tx: Tx) -> None:
    """Write down what each wallet holds today. Again changes nothing, as long as that is the same."""
    tx.execute(
        "INSERT INTO tier_levels AS t (wallet, asset, day, units)"
        " SELECT wallet, asset, current_date, -balance FROM ledger_accounts WHERE kind = 'chain_assets'"
        " ON CONFLICT (wallet, asset, day) DO UPDATE SET units = excluded.units WHERE t.units <> excluded.units"
    )


def _past(tx: Tx) -> dict[tuple[str, str], list[tuple[date, int]]]:
    """By wallet and asset: what it held at the end of each of the last days."""
    rows = tx.all(
        "SELECT wallet, asset, day, units FROM tier_levels WHERE day > current_date - %s::int"
        " ORDER BY wallet, asset, day",
        [HISTORY_DAYS],
    )
    found: dict[tuple[str, str], list[tuple[date, int]]] = {}
    for row in rows:
        found.setdefault((row["wallet"], row["asset"]), []).append((row["day"], units(row["units"])))
    return found


def _most(bundle: Bundle, tiers: tuple[Tier, ...], asset: str, ledger: Mapping[tuple[str, str], int]) -> int:
    """The least of the policy's maxima for exactly these tiers together, of which there is one at least."""
    everything = sum(held for (_, of), held in ledger.items() if of == asset)
    return min(
        most_units(each, everything)
        for each in bundle.policy.holdings
        if (each.tiers, each.asset) == (tiers, asset)
    )
