"""What the planner is told: what the books, queues, open refills and the policy say of each asset at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from custody.signing.site import Pace
from custody.storage.db import Tx, units
from custody.sweeps.model import SweepPace
from custody.treasury import fees
from custody.treasury.fees import FRESH_SECONDS, TOKEN_GAS, Observation
from custody.treasury.lifecycle import OPEN
from custody.treasury.planner import AssetState, Fees, PayerState, TierState, forecast
from policies.bundle import AssetEntry, BitcoinNetwork, Bundle, EvmNetwork, Tier, WalletEntry

RESERVE_PAYMENTS: Final = 100
"""EVM: gas for so many token payments stays with the hot key."""
REFILL_KVB: Final = 10
"""BTC: fees of a refill of so many thousand virtual bytes, some ninety coins of a 2-of-3 vault, stay with it."""
OUTFLOW_HOURS: Final = 7 * 24
"""So far back forecasts look."""
BUSY_HOURS: Final = 6
"""How long a transaction made while fees are low may wait for its block."""
LONG_TERM: Final[Mapping[str, int]] = {
    "btc": Pace().long_term_sat_per_kvb,
    "evm": SweepPace().long_term_wei_per_gas,
}
"""By family: at or below this price, what can wait moves."""

Key = tuple[str, str]
"""A wallet and an asset."""


def states(tx: Tx, bundle: Bundle) -> tuple[AssetState, ...]:
    """Each asset of the bundle with its tiers.

    Args:
        tx: a snapshot.
        bundle: the one in force.
    """
    held, leaving, (out, incoming) = _held(tx), _leaving(tx), _open_refills(tx)
    waiting, prices, flows = _queued(tx, bundle), fees.observed(tx), outflow(tx)
    found = []
    for asset in bundle.assets:
        tiers: dict[Tier, TierState] = {}
        for tier, wallet in active(bundle, asset.chain).items():
            key = (wallet.id, asset.id)
            tiers[tier] = TierState(
                tier=tier,
                wallet=wallet.id,
                present_units=held[key] - leaving[key] - out[key],
                incoming_units=incoming[key],
                queued_units=waiting[tier, asset.id],
                reserve_units=_reserve(bundle, asset, prices)
                if tier == "hot"
                else fee_room(bundle, asset, prices),
            )
        found.append(
            AssetState(
                asset=asset.id,
                tiers=tiers,
                total_units=sum(amount for (_, of), amount in held.items() if of == asset.id),
                holdings=tuple(each for each in bundle.policy.holdings if each.asset == asset.id),
                fees=_fees(bundle, asset.chain, prices),
                outflow=flows.get((tiers["hot"].wallet, asset.id), ()) if "hot" in tiers else (),
            )
        )
    return tuple(found)


def payers(tx: Tx, bundle: Bundle) -> tuple[PayerState, ...]:
    """The active gas payers of the bundle."""
    held, (out, incoming) = _held(tx), _open_refills(tx)
    found = []
    for payer in bundle.gas_payers:
        if payer.state == "active":
            asset = bundle.network(payer.chain).native_asset
            key = (payer.id, asset)
            has = max(0, held[key] + incoming[key] - out[key])
            found.append(
                PayerState(wallet=payer.id, asset=asset, held_units=has, cap_units=int(payer.holding_cap))
            )
    return tuple(found)


def active(bundle: Bundle, chain: str) -> dict[Tier, WalletEntry]:
    """The active wallet of each tier on a chain that has one; from hot to cold."""
    found: dict[Tier, WalletEntry] = {}
    tiers: tuple[Tier, ...] = ("hot", "warm", "cold")
    for tier in tiers:
        for wallet in (*bundle.keysets, *bundle.vaults):
            if (wallet.chain, wallet.tier, wallet.state) == (chain, tier, "active"):
                found.setdefault(tier, wallet)
    return found


def queued(tx: Tx, bundle: Bundle, tier: str, asset: str) -> int:
    """What payments that wait in a tier ask for of an asset, fees included, base units."""
    return _queued(tx, bundle)[tier, asset]


def outlook(tx: Tx, wallet: str, asset: str) -> int:
    """What will leave a wallet while coins are busy: open refills that are in no transaction, and what customers take
    in `BUSY_HOURS` if they go on as they did lately. Withdrawals that are asked for already come on top."""
    row = tx.one(
        "SELECT coalesce(sum(units), 0) AS units FROM refills WHERE source = %s AND asset = %s"
        " AND state IN ('proposed', 'approved')",
        [wallet, asset],
    )
    flow = forecast(0, outflow(tx).get((wallet, asset), ())).per_hour_units
    return units(row["units"]) + BUSY_HOURS * flow


def outflow(tx: Tx) -> dict[Key, list[int]]:
    """What was paid to customers, by wallet and asset, hour by hour of the last week, the last hour last."""
    rows = tx.all(
        "SELECT a.wallet, a.asset, floor(extract(epoch FROM now() - l.at) / 3600)::int AS ago, sum(l.amount) AS units"
        " FROM ledger_lines l JOIN ledger_accounts a ON a.id = l.account_id"
        " WHERE l.at > now() - make_interval(hours => %s) AND a.kind = 'chain_assets' AND l.type = 'withdrawal'"
        " AND l.amount > 0 GROUP BY 1, 2, 3",
        [OUTFLOW_HOURS],
    )
    found: dict[Key, list[int]] = {}
    for row in rows:
        hours = found.setdefault((row["wallet"], row["asset"]), [0] * OUTFLOW_HOURS)
        hours[OUTFLOW_HOURS - 1 - min(max(row["ago"], 0), OUTFLOW_HOURS - 1)] += units(row["units"])
    return found


def _held(tx: Tx) -> Counter[Key]:
    rows = tx.all("SELECT wallet, asset, -balance AS held FROM ledger_accounts WHERE kind = 'chain_assets'")
    return Counter({(row["wallet"], row["asset"]): units(row["held"]) for row in rows})


def _leaving(tx: Tx) -> Counter[Key]:
    """Payments in transactions that are not settled: the books have that money still."""
    rows = tx.all(
        "SELECT t.keyset, w.asset, sum(w.units) AS units FROM withdrawals w"
        " JOIN transactions t ON t.id = w.transaction_id"
        " WHERE w.state IN ('signing', 'broadcast', 'confirming') GROUP BY 1, 2"
    )
    return Counter({(row["keyset"], row["asset"]): units(row["units"]) for row in rows})


def _open_refills(tx: Tx) -> tuple[Counter[Key], Counter[Key]]:
    """What open refills take, and what they bring."""
    rows = tx.all(
        "SELECT source, target, asset, sum(units) AS units FROM refills WHERE state = ANY (%s) GROUP BY 1, 2, 3",
        [list(OPEN)],
    )
    out: Counter[Key] = Counter()
    incoming: Counter[Key] = Counter()
    for row in rows:
        out[row["source"], row["asset"]] += units(row["units"])
        incoming[row["target"], row["asset"]] += units(row["units"])
    return out, incoming


def _queued(tx: Tx, bundle: Bundle) -> Counter[tuple[str, str]]:
    """What payments that wait in a tier ask for, by tier and asset, with the fees that their orders allow."""
    rows = tx.all(
        "SELECT tier, chain, asset, sum(units) AS units,"
        " sum((order_json::jsonb ->> 'fee_ceiling')::numeric) AS fees FROM withdrawals"
        " WHERE settlement = 'chain' AND state IN ('cooling', 'queued') AND tier IS NOT NULL GROUP BY 1, 2, 3"
    )
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[row["tier"], row["asset"]] += units(row["units"])
        network = next((each for each in bundle.networks if each.chain == row["chain"]), None)
        if network is not None:
            # No transaction costs more, and payments share them.
            found[row["tier"], network.native_asset] += min(units(row["fees"]), int(network.fee_cap))
    return found


def _reserve(bundle: Bundle, asset: AssetEntry, prices: Mapping[str, Observation]) -> int:
    network = bundle.network(asset.chain)
    if not isinstance(network, EvmNetwork) or asset.id != network.native_asset or asset.chain not in prices:
        return 0
    price = min(max(prices[asset.chain].feerate, network.feerate_floor), network.feerate_cap)
    return RESERVE_PAYMENTS * min(TOKEN_GAS * price, int(network.fee_cap))


def fee_room(bundle: Bundle, asset: AssetEntry, prices: Mapping[str, Observation]) -> int:
    """What a Bitcoin vault keeps for the fee of a refill: one that asked for its last satoshi could never be built."""
    network = bundle.network(asset.chain)
    if not isinstance(network, BitcoinNetwork):
        return 0
    seen = prices[asset.chain].feerate if asset.chain in prices else network.feerate_floor
    price = min(max(seen, network.feerate_floor), network.feerate_cap)
    return min(REFILL_KVB * price, int(network.fee_cap))


def _fees(bundle: Bundle, chain: str, prices: Mapping[str, Observation]) -> Fees | None:
    seen = prices.get(chain)
    if seen is None or seen.age_seconds > FRESH_SECONDS:
        return None
    return Fees(seen.feerate, LONG_TERM[bundle.network(chain).family])
